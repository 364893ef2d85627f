"""Warm start of a cached artifact: from a new process, and from a load in it, to the first token after a prompt of one.

    python tests/benchmarks/warm_start.py --output docs/results/warm-start.json

The file lies in codellm's cache and in the system's page cache. `on` repacks the weights for this processor while it
loads, `off` maps the file. The peer is llama-cpp-python's `Llama` on the same file, which repacks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import common

OURS = """
import sys, time
import codellm

def load():
    model, scheme, threads, repack = sys.argv[1:]
    with codellm.load(model, scheme=scheme, threads=int(threads), options={"repack": repack}) as loaded:
        result = loaded.generate([100], codellm.SamplingParams(max_tokens=1, ignore_eos=True))
        assert len(result.token_ids) == 1
        return time.time(), loaded.info.path

first, path = load()
start = time.time()
print(first, load()[0] - start, path)
"""

LLAMA = """
import sys, time
from llama_cpp import Llama
path, context, threads = sys.argv[1:]
llama = Llama(path, n_ctx=int(context), n_threads=int(threads), n_threads_batch=int(threads), verbose=False)
llama.eval([100])
llama.sample(temp=0.0)
print(time.time())
"""


def child(code: str, *arguments: str) -> tuple[float, list[str]]:
    """Seconds from the process's start to the time that it prints first, and the rest of what it prints."""
    begin = time.time()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    end, *rest = done.stdout.split(maxsplit=2)
    return float(end) - begin, rest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="dummy:starcoder2-3b")
    parser.add_argument("--scheme", default="q4_k_m")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("warm-start.json"))
    options = parser.parse_args()
    ours = (options.model, options.scheme, options.threads)
    subprocess.run([sys.executable, "-m", "codellm", "quantize", options.model, "-q", options.scheme], check=True)
    path = child(OURS, *ours, "off")[1][1].strip()  # into the page cache, and not counted
    loads: dict[str, list[float]] = {"on": [], "off": []}

    def codellm(repack: str) -> float:
        seconds, (load, _) = child(OURS, *ours, repack)
        loads[repack].append(float(load))
        return seconds

    processes = common.rounds(
        options.repeats,
        {
            "on": lambda: codellm("on"),
            "off": lambda: codellm("off"),
            "Llama": lambda: child(LLAMA, path, "4096", options.threads)[0],
        },
    )
    common.write(
        options.output,
        protocol="seconds to the first token after a prompt of one, the file in the page cache; process: from the start"
        " of a new one; load: from a second codellm.load in it, when everything is imported",
        model=options.model,
        scheme=options.scheme,
        threads=int(options.threads),
        file_bytes=Path(path).stat().st_size,
        process={name: common.summary(each) for name, each in processes.items()},
        load={name: common.summary(each) for name, each in loads.items()},
        process_ratio_to_llama=common.ratios(processes, "Llama"),
    )


if __name__ == "__main__":
    main()
