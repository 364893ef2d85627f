"""What the server itself takes of a processor: requests and tokens of a model that computes nothing.

    python tests/benchmarks/serve_cost.py --output docs/results/serve-cost.json

The model yields a token of each sequence at every step, at once or after a pause, in which the server has time to tell
of each token alone, as it has with a model that computes. Counted is the time that the server's process had of
processors, above that of `Model.run` of the same sequences in this one.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
import time
from pathlib import Path

import clients
import common

import codellm

sys.path.append(str(Path(__file__).parents[1]))  # for `support`, which pytest finds by its configuration
from support.plugin_folder import install_plugin

PLUGIN = """
import time
from codellm import Backend, Model, ModelInfo, Token, Tokenizer, hookimpl
from codellm.options import count, read
from codellm.slots import Slots

class Bytes(Tokenizer):
    vocab_size, bos, eos, add_bos = 257, None, 256, False
    def encode(self, text, special=False): return list(text.encode())
    def token_bytes(self, id): return bytes([id]) if id < 256 else b""
    def special_id(self, token): return None

class Idle(Model):
    def __init__(self, spec, pause):
        self.tokenizer, self.pause = Bytes(), pause
        self.info = ModelInfo(backend="idle", architecture="none", parameters=0, weight_bytes=0,
                              context_length=1 << 20, batch_size=spec.batch_size)

    def run(self, sequences):
        with self.claim():
            slots = Slots(sequences, self.info.batch_size)
            while running := slots.refill():
                if self.pause:
                    time.sleep(self.pause / 1e6)
                yield [Token(97, sequence, -1.0) for sequence in running]

    def score(self, batch): raise NotImplementedError
    def logits(self, ids): raise NotImplementedError

class IdleBackend(Backend):
    name, formats = "idle", frozenset({"folder"})
    options = {"pause": count(0, "microseconds", 0, 1000000)}
    def load(self, spec, source): return Idle(spec, read(spec.options, self.options)["pause"])

@hookimpl
def codellm_backends(): return [IdleBackend()]
"""
PROMPT = "def add(a, b):\n    return"


def body(tokens: int) -> dict[str, object]:
    return {"prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}


def requests(server: clients.Server, count: int) -> None:
    """Requests for one token, one after the other on one connection."""
    data = clients.request(server.port, "/v1/completions", body(1))
    with socket.create_connection(("127.0.0.1", server.port)) as connection, connection.makefile("rb") as answers:
        for _ in range(count):
            connection.sendall(data)
            head = list(iter(answers.readline, b"\r\n"))
            assert b" 200 " in head[0]
            answers.read(next(int(line[15:]) for line in head if line.lower().startswith(b"content-length:")))


def tokens(server: clients.Server, streams: int, count: int) -> None:
    """Streams of so many tokens each, all at once."""

    async def all_at_once() -> None:
        await asyncio.gather(*(server.stream("/v1/completions", body(count)) for _ in range(streams)))

    asyncio.run(all_at_once())


def ran(folder: Path, pause: int, sequences: int, tokens: int) -> float:
    """Microseconds of a processor of `Model.run` alone, for each token."""
    params = codellm.SamplingParams(max_tokens=tokens, ignore_eos=True)
    made = [codellm.Sequence(prompt_ids=list(PROMPT.encode()), params=params) for _ in range(sequences)]
    with codellm.load(str(folder), backend="idle", batch_size=sequences, options={"pause": str(pause)}) as model:
        start = time.thread_time()
        for step in model.run(made):
            for token in step:
                token.sequence.token_ids.append(token.id)
                token.sequence.finished = len(token.sequence.token_ids) >= tokens
        return (time.thread_time() - start) / (sequences * tokens) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--pause", type=int, default=2000, help="microseconds of a step that is not at once")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("serve-cost.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        install_plugin(Path(folder), "codellm-idle", PLUGIN, requires=("codellm-core>=0.1",))
        (Path(folder) / "model").mkdir()
        sys.path.append(folder)  # where the plugin is found in this process too
        values = measured(options, Path(folder))
    for name, each in values.items():
        print(f"{name}: {common.statistics.median(each):.1f} µs")
    common.write(
        options.output,
        protocol="microseconds of processors that the server's process took, above Model.run's in process; "
        f"{options.requests} requests of one token on one connection, one after the other; {options.tokens} tokens of "
        f"one stream and of each of {options.streams}, all steps at once or {options.pause} µs apart",
        microseconds={name: common.summary(each) for name, each in values.items()},
    )


def measured(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    ours = (sys.executable, "-m", "codellm", "serve", "-b", "idle", "-m", str(folder / "model"))
    ours = (*ours, "--batch-size", str(options.streams))
    with (
        clients.serving(*ours, path=folder) as fast,
        clients.serving(*ours, "-o", f"pause={options.pause}", path=folder) as paced,
    ):
        requests(fast, 100)

        def of(server: clients.Server, streams: int, count: int) -> float:
            before = server.seconds()
            tokens(server, streams, count)
            taken = (server.seconds() - before) / (streams * count) * 1e6
            return taken - ran(folder / "model", options.pause if server is paced else 0, streams, count)

        def of_requests() -> float:
            before = fast.seconds()
            requests(fast, options.requests)
            return (fast.seconds() - before) / options.requests * 1e6

        few = options.tokens // 4
        return common.rounds(
            options.repeats,
            {
                "request": of_requests,
                "token of one stream, at once": lambda: of(fast, 1, options.tokens),
                "token of many streams, at once": lambda: of(fast, options.streams, few),
                "token of one stream, paced": lambda: of(paced, 1, few),
                "token of many streams, paced": lambda: of(paced, options.streams, few),
            },
        )


if __name__ == "__main__":
    main()
