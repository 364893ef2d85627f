"""codellm serve beside llama-server on one file: first tokens of infills, many clients, and a prompt that arrives.

    python tests/benchmarks/serve.py --llama-server build/bin/llama-server --output docs/results/serve.json

Both servers run at once, have the same file, threads, slots and context, and are asked the same in turns; whoever is
not asked sleeps. Fresh texts are cut from Python's own library, each of its own place, so that neither finds in its
cache what it was not meant to. Sampling is greedy and goes on after the end of the text.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import clients
import common
import numpy as np

OURS, PEER = "codellm", "llama-server"
GREEDY = {"temperature": 0, "top_k": 1, "ignore_eos": True}
LIBRARY = ("argparse", "ast", "configparser", "datetime", "decimal", "difflib", "doctest", "inspect", "ipaddress")


class Texts:
    """Pieces of Python's library of so many tokens, none of them twice."""

    def __init__(self, server: clients.Server) -> None:
        folder = Path(sysconfig.get_path("stdlib"))
        text = "".join((folder / f"{name}.py").read_text(encoding="utf-8") for name in LIBRARY)
        self._server, self._lines = server, iter(text.splitlines(keepends=True))

    def __call__(self, tokens: int) -> str:
        """The next text of exactly so many tokens, or of one or two fewer where a cut falls inside a longer one."""
        text = "".join(itertools.islice(self._lines, tokens // 3))
        ids = self._server.ask("/tokenize", {"content": text})["tokens"]
        assert len(ids) >= tokens, "the library has no more text"
        return str(self._server.ask("/detokenize", {"tokens": ids[:tokens]})["content"])


def infill(before: str, after: str, tokens: int) -> dict[str, Any]:
    return {"input_prefix": before, "input_suffix": after, "n_predict": tokens, **GREEDY}


def completion(prompt: str, tokens: int) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": tokens, **GREEDY}


def first(server: clients.Server, body: Mapping[str, Any]) -> float:
    """Seconds to the first token."""
    return asyncio.run(server.stream("/infill", body)).first


def edited(text: str, turn: int) -> str:
    """`text` with another character a little before its end, where the cursor is."""
    place = len(text) - 20 - turn
    return text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]


class Beside:
    """Two servers, each of which is asked the same in every round."""

    def __init__(self, servers: Mapping[str, clients.Server], repeats: int) -> None:
        self._servers, self._repeats = servers, repeats
        self.texts = Texts(servers[OURS])

    def rounds(self, task: Callable[[clients.Server, int], Any]) -> dict[str, list[Any]]:
        """What `task` gives for each server in each round, whose number it is told."""
        values: dict[str, list[Any]] = {name: [] for name in self._servers}
        for turn in range(self._repeats):
            for name in list(self._servers)[:: -1 if turn % 2 else 1]:
                values[name].append(task(self._servers[name], turn))
                print(f"round {turn + 1}/{self._repeats}  {name}: {values[name][-1]}", flush=True)
        return values

    def infills(self, before: int, after: int, edits: int) -> dict[str, Any]:
        """Seconds to the first token of a fresh infill, and after one-character edits of the same text."""
        texts = [(self.texts(before), self.texts(after)) for _ in range(self._repeats)]

        def task(server: clients.Server, turn: int) -> tuple[float, float]:
            text, rest = texts[turn]
            fresh = first(server, infill(text, rest, 1))
            later = []
            for edit in range(edits):
                text = edited(text, edit)
                later.append(first(server, infill(text, rest, 1)))
            return fresh, float(np.median(later))

        values = self.rounds(task)
        fresh = {name: [pair[0] for pair in pairs] for name, pairs in values.items()}
        edit = {name: [pair[1] for pair in pairs] for name, pairs in values.items()}
        shares = {name: common.summary([pair[1] / pair[0] for pair in pairs]) for name, pairs in values.items()}
        return {
            "tokens_before": before, "tokens_after": after,
            "fresh": compared(fresh), "edited": compared(edit), "edited_over_fresh": shares,
        }  # fmt: skip

    def together(self, count: int, prompt: int, tokens: int) -> dict[str, Any]:
        """Tokens per second of so many clients, each with a prompt of its own, from the first request to the last
        token."""
        prompts = [[self.texts(prompt) for _ in range(count)] for _ in range(self._repeats)]

        async def task(server: clients.Server, turn: int) -> float:
            start = time.perf_counter()
            bodies = [completion(each, tokens) for each in prompts[turn]]
            await asyncio.gather(*(server.stream("/v1/completions", body) for body in bodies))
            return count * tokens / (time.perf_counter() - start)

        return compared(self.rounds(lambda server, turn: asyncio.run(task(server, turn))))

    def arrival(self, count: int, tokens: int, prompt: int) -> dict[str, Any]:
        """How long clients wait between tokens beside which a long prompt arrives, in seconds.

        A server that computes the prompt at once makes each of them wait once, which a percentile of many tokens may
        leave out: so the longest wait is told beside it.
        """
        prompts = [[self.texts(32) for _ in range(count)] for _ in range(self._repeats)]
        longs = [self.texts(prompt) for _ in range(self._repeats)]

        async def task(server: clients.Server, turn: int) -> tuple[float, float, float]:
            running = [
                asyncio.create_task(server.stream("/v1/completions", completion(each, tokens)))
                for each in prompts[turn]
            ]
            await asyncio.sleep(1)
            # no infill: llama-server computes requests of different kinds one after the other
            long = await server.stream("/v1/completions", completion(longs[turn], 1))
            gaps = [gap for each in running for gap in (await each).gaps]
            return float(np.quantile(gaps, 0.99)), max(gaps), long.first

        values = self.rounds(lambda server, turn: asyncio.run(task(server, turn)))
        return {
            "clients": count, "tokens": tokens, "prompt": prompt,
            **{
                what: compared({name: [each[at] for each in found] for name, found in values.items()})
                for at, what in enumerate(("p99", "longest", "first_token_of_the_long"))
            },
        }  # fmt: skip


def compared(values: dict[str, list[float]]) -> dict[str, Any]:
    """Each server's figures, and the ratio within each round."""
    summaries = {name: common.summary(each) for name, each in values.items()}
    ratios = common.ratios(values, PEER) if PEER in values else {}
    return {**summaries, "ratio": ratios.get(OURS)}


def worded(path: str, folder: str) -> str:
    """A copy of a GGUF file in which every token has a text, so that each is an event of a stream.

    A dummy borrows a vocabulary smaller than its own, and the ids past it are marked as unused, which have no text.
    """
    import gguf

    copy = str(shutil.copy(path, folder))
    kinds = gguf.GGUFReader(copy, "r+").fields["tokenizer.ggml.token_type"]
    for index in kinds.data:
        if kinds.parts[index][0] == gguf.TokenType.UNUSED:
            kinds.parts[index][0] = gguf.TokenType.NORMAL
    return copy


@contextlib.contextmanager
def both(options: argparse.Namespace, path: str, slots: int, context: int) -> Iterator[Beside]:
    """Both servers with so many slots of `context` tokens each."""
    threads = str(options.threads)
    ours = (
        sys.executable, "-m", "codellm", "serve", "-m", path, "--threads", threads, "--batch-size", str(slots),
        "--context-length", str(context), "-o", f"prefix_cache={options.prefix_cache}", *options.ours,
    )  # fmt: skip
    peer = (
        options.llama_server, "-m", path, "-t", threads, "-tb", threads, "-np", str(slots), "-c", str(slots * context),
        *options.peer,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        servers = {OURS: stack.enter_context(clients.serving(*ours))}
        if options.llama_server:
            servers[PEER] = stack.enter_context(clients.serving(*peer))
        beside = Beside(servers, options.repeats)
        for server in servers.values():  # the first request pays for what is made once
            asyncio.run(server.stream("/infill", infill("def add(a, b):\n", "", 8)))
        yield beside


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="dummy:qwen2.5-coder-1.5b")
    parser.add_argument("--scheme", default="q4_k_m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-server", default="llama-server", help="its program; '' leaves it out")
    parser.add_argument("--prefix-cache", type=int, default=256, help="MiB")
    parser.add_argument("--ours", nargs="*", default=[], help="more arguments of codellm serve")
    parser.add_argument("--peer", nargs="*", default=[], help="more arguments of llama-server")
    parser.add_argument("--parts", nargs="*", default=["infill", "clients", "arrival", "many"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--output", type=Path, default=Path("serve.json"))
    options = parser.parse_args()
    quantize = [sys.executable, "-m", "codellm", "quantize", options.model, "-q", options.scheme]
    path = subprocess.run(quantize, check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        path = worded(path, folder)
        file_bytes, results = Path(path).stat().st_size, measured(options, path)
    show(results)
    common.write(
        options.output,
        protocol="both servers on one file, asked the same in alternating rounds: seconds to the first token of an "
        f"infill of 1500 tokens, fresh and after edits of one character; tokens per second of 1, 4 and 16 clients with "
        f"prompts of 32 tokens and {options.new_tokens} new ones; the 99th percentile of seconds between tokens of 3 "
        "clients beside which a prompt of 1500 tokens arrives; ratios within a round",
        model=options.model,
        scheme=options.scheme,
        threads=options.threads,
        arguments={"codellm": options.ours, "llama-server": options.peer},
        file_bytes=file_bytes,
        **results,
    )


def measured(options: argparse.Namespace, path: str) -> dict[str, Any]:
    """The figures of each part that is asked for."""
    results: dict[str, Any] = {}
    with both(options, path, 4, 2048) as beside:
        if "infill" in options.parts:
            results["infill_at_the_end"] = beside.infills(1460, 40, 3)
            results["infill_in_the_middle"] = beside.infills(1125, 375, 1)
        if "clients" in options.parts:
            results["tokens_per_second_1"] = beside.together(1, 32, options.new_tokens)
            results["tokens_per_second_4"] = beside.together(4, 32, options.new_tokens)
        if "arrival" in options.parts:
            results["arrival"] = beside.arrival(3, 4 * options.new_tokens, 1500)
    if "many" in options.parts:
        with both(options, path, 16, 512) as beside:
            results["tokens_per_second_16"] = beside.together(16, 32, options.new_tokens)
    return results


def show(results: object, name: str = "") -> None:
    """Print each ratio."""
    if isinstance(results, dict):
        if isinstance(ratio := results.get("ratio"), dict):
            values = " ".join(f"{each}: {results[each]['median']:.4g}" for each in (OURS, PEER))
            print(f"{name}: {ratio['median']:.3f} ({ratio['least']:.3f} to {ratio['greatest']:.3f}); {values}")
        for key, value in results.items():
            show(value, f"{name} {key}".strip())


if __name__ == "__main__":
    main()
