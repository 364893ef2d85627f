"""`codellm bench` in a directory with a model and an installed plugin whose small real backend breaks on demand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support import toy_clock
from support.workdir import make_workdir

PLUGIN = '''
"""A backend whose model is a bigram: after token i comes 7 i + 3. Its option `fault` breaks it in one way."""

import ctypes
import os
import signal
import time

import numpy as np

from codellm import Availability, Backend, ByteTokenizer, Memory, Model, ModelInfo, Scheme, Token, hookimpl
from codellm.errors import InvalidValueError


def fault_of(spec):
    """That of the row, or of the environment for a time, there of the scheme TOY_FAULTY alone where that is named."""
    if spec.scheme == os.environ.get("TOY_FAULTY", spec.scheme):
        return spec.options.get("fault", os.environ.get("TOY_FAULT", ""))
    return spec.options.get("fault", "")


class Bigram(Model):
    def __init__(self, spec, dummy, clock):
        self.compute = clock.compute
        self.fault = fault_of(spec)
        self.seen, self.last, self.calls = set(), None, 0
        self.tokenizer = ByteTokenizer()
        self.info = ModelInfo(
            backend="toy", architecture="Bigram", parameters=257, weight_bytes=1_000_000,
            context_length=spec.context_length or 1024, scheme=spec.scheme or "none",
            batch_size=1 if self.fault == "narrow" else spec.batch_size,
            threads=spec.threads, dummy=dummy,
        )

    def run(self, sequences):
        with self.claim():
            for sequence in sequences:
                yield from self.one(sequence)

    def one(self, sequence):
        first, again = sequence.prompt_ids[0], sequence.prompt_ids == self.last
        if self.fault == "cached" and first in self.seen and not again:
            raise RuntimeError("a prompt began like an earlier one")
        self.seen.add(first)
        self.last, self.calls = list(sequence.prompt_ids), self.calls + 1
        if self.fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "exit":
            ctypes.CDLL(None)._exit(3)  # Python's is refused
        last, count = sequence.prompt_ids[-1], 0
        self.compute(1e-6 * len(sequence.prompt_ids))
        if self.fault in ("slow", "remembers") and not (again and self.fault == "remembers"):
            self.compute(0.02)
        if self.fault == "tires":
            self.compute(0.002 * self.calls)
        if self.fault == "late":
            self.compute(0.02)
        while not sequence.finished:
            if self.fault == "short" and count == 3:
                sequence.error = RuntimeError("nothing more comes")
                return
            self.compute(1e-4 if self.fault != "late" else 0)
            last, count = (7 * last + 3) % 257, count + 1
            yield [Token(last, sequence)]

    def score(self, batch):
        if self.fault == "crash-late":
            os.kill(os.getpid(), signal.SIGABRT)
        if self.fault == "no-score":
            raise RuntimeError("scoring is broken")
        with self.claim():
            return [np.full(len(ids) - 1, -np.log(257), np.float32) for ids in batch]

    def logits(self, ids):
        logits = np.zeros(257, np.float32)
        logits[(7 * ids[-1] + 3) % 257] = 1
        return logits

    def memory(self):
        return Memory(host=10_000_000, host_peak=20_000_000)

class Toy(Backend):
    name, formats, preference = "toy", frozenset({"safetensors"}), 1

    def schemes(self):
        return (Scheme(name="int8", bits=8, applies="load"), Scheme(name="int4", bits=4, applies="load"))

    def load(self, spec, source):
        fault = fault_of(spec)
        if fault == "chatter":
            print("{\\"error\\": \\"not an event\\"}", flush=True)
            os.write(2, b"noise on stderr\\n")
        if fault == "load":
            raise InvalidValueError("the weights | are\\nupside down")
        if fault == "hungry":
            held = bytearray(100_000_000)
            time.sleep(0.3)
            del held
        if fault == "hang":
            print("about to hang", flush=True)
            time.sleep(1000)
        return Bigram(spec, source.dummy, Clock(step=0.002 if fault == "coarse" else 0.0))

    def bandwidth(self, device):
        return 1e9


class Absent(Toy):
    name = "absent"

    def availability(self):
        return Availability(False, "no such hardware", "buy some")


@hookimpl
def codellm_backends():
    return [Toy(), Absent()]
'''

SMALL = ["--repeats", "2", "--prompt-tokens", "32", "--new-tokens", "8", "--limit", "3"]
COMMAND = [sys.executable, "-c", "import sys; from codellm.cli import main; sys.exit(main())", "bench"]


def toy_workdir(folder: Path) -> Path:
    """Put a model and the plugin into `folder`."""
    return make_workdir(folder, "codellm-toy", toy_clock.SOURCE + PLUGIN, entry="toy = codellm_toy")


def environment(workdir):
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(workdir / "site"), os.environ.get("PYTHONPATH", "")]),
        "CODELLM_CACHE": str(workdir / "cache"),
    }


def bench(workdir, *arguments, model="model", code=0, sizes=SMALL):
    done = subprocess.run(
        [*COMMAND, "-m", model, "--output", "out", *sizes, *arguments],
        cwd=workdir,
        env=environment(workdir),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def rows(workdir, *arguments, **how):
    done = bench(workdir, "--format", "jsonl", *arguments, **how)
    return [json.loads(line) for line in done.stdout.splitlines()]


def children_of(workdir):
    """Processes that run in `workdir`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == workdir.resolve():
                found.append(entry.name)
        except OSError:
            continue
    return found
