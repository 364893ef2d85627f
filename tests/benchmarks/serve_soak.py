"""What stays of a server: memory and slots after many clients that hang up, and beside many that say nothing.

    python tests/benchmarks/serve_soak.py --seconds 1800 --output docs/results/serve-soak.json

Clients ask for completions and infills, and half of them hang up at a random time. At the end as many requests as there
are slots must run at once: then no slot was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from pathlib import Path
from typing import Any

import clients
import common

TEXT = Path(__file__).read_text(encoding="utf-8")


def body(tokens: int, start: int = 0, length: int = 200) -> dict[str, Any]:
    return {"prompt": TEXT[start : start + length], "max_tokens": tokens, "temperature": 0, "ignore_eos": True}


def asked(dice: random.Random) -> tuple[str, dict[str, Any]]:
    """A request of a random kind and length."""
    start, tokens = dice.randrange(len(TEXT) // 2), dice.randrange(1, 64)
    fields = body(tokens, start, dice.randrange(1, 1500))
    if dice.random() < 0.5:
        return "/v1/completions", fields
    prefix = fields.pop("prompt")
    return "/infill", {**fields, "input_prefix": prefix, "input_suffix": TEXT[-200:], "n_predict": tokens}


async def hang_up(server: clients.Server, path: str, fields: dict[str, Any], seconds: float) -> None:
    """Send a request, and go away whatever was answered."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(clients.request(server.port, path, {**fields, "stream": True}))
    await asyncio.sleep(seconds)
    writer.transport.abort()


class Soak:
    """Clients of one server, and what they have seen."""

    def __init__(self, server: clients.Server) -> None:
        self.server = server
        self.answered = self.gone = 0
        self.resident: list[int] = []

    async def run(self, count: int, seconds: float) -> None:
        """So many clients for a time; `resident` are the bytes of memory at its tenths."""
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for seed in range(count):
                group.create_task(self._client(random.Random(seed), end))
            for _ in range(10):
                await asyncio.sleep(seconds / 10)
                self.resident.append(self.server.process.memory_info().rss)
                print(f"{self.answered} answered, {self.gone} hung up, {self.resident[-1] / 1e6:.1f} MB", flush=True)

    async def _client(self, dice: random.Random, end: float) -> None:
        while time.monotonic() < end:
            path, fields = asked(dice)
            if dice.random() < 0.5:
                await hang_up(self.server, path, fields, dice.expovariate(5))
                self.gone += 1
            else:
                await self.server.stream(path, fields)
                self.answered += 1


async def at_once(server: clients.Server, slots: int) -> bool:
    """Whether as many requests as there are slots run together: the last begins before the first ends."""
    streams = await asyncio.gather(*(server.stream("/v1/completions", body(100, 100 * n)) for n in range(slots)))
    return max(each.times[0] for each in streams) < min(each.times[-1] for each in streams)


async def beside_idle(server: clients.Server, count: int, tokens: int) -> dict[str, Any]:
    """Tokens per second of one stream, and bytes of memory, before and while so many connections say nothing."""

    async def rate() -> float:
        start = time.perf_counter()
        await server.stream("/v1/completions", body(tokens))
        return tokens / (time.perf_counter() - start)

    async def quiet() -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        assert b" 200 " in await reader.readline()
        return writer

    await rate()
    before, memory = [await rate() for _ in range(3)], server.process.memory_info().rss
    open_ones = [await quiet() for _ in range(count)]
    beside = [await rate() for _ in range(3)]
    during = server.process.memory_info().rss
    for each in open_ones:
        with contextlib.suppress(ConnectionError):
            each.close()
    return {
        "connections": count, "bytes_each": (during - memory) / count,
        "tokens_per_second_before": common.summary(before), "tokens_per_second_beside": common.summary(beside),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="codellm-demo")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--idle", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--output", type=Path, default=Path("serve-soak.json"))
    options = parser.parse_args()
    ours = (sys.executable, "-m", "codellm", "serve", "-m", options.model, "--threads", "1")
    with clients.serving(*ours, "--batch-size", str(options.slots)) as server:
        idle = asyncio.run(beside_idle(server, options.idle, 256))
        soak = Soak(server)
        asyncio.run(soak.run(options.clients, options.seconds))
        whole = asyncio.run(at_once(server, options.slots))
        end = server.process.memory_info().rss
    print(f"all {options.slots} slots run at once: {whole}")
    common.write(
        options.output,
        protocol=f"{options.clients} clients for {options.seconds:.0f} s, half of whose requests hang up after about "
        f"0.2 s; then a request for each of {options.slots} slots; bytes are those resident of the server's process",
        model=options.model,
        idle=idle,
        answered=soak.answered,
        hung_up=soak.gone,
        resident_bytes_at_tenths=soak.resident,
        resident_bytes_at_the_end=end,
        all_slots_at_once=whole,
    )


if __name__ == "__main__":
    main()
