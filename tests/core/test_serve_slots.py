"""Clients that hang up at any time, whatever they asked: no slot of any model is lost by it."""

import concurrent.futures
import contextlib
import json
import random
import shutil
import socket
import struct
import time
from pathlib import Path

import codellm
from support.metrics import Read, until
from support.serving import serving

DEMO = Path(codellm.__file__).parent / "data" / "codellm-demo"
MODELS = ("codellm-demo", "other-demo")
SLOTS = 2
LONG = {"prompt": "x", "max_tokens": 1500, "ignore_eos": True}


def hang_up(server, seed):
    """Ask for more than a moment's work, and be gone after a moment: closed, or reset with the answer unread."""
    dice = random.Random(seed)
    fields = {
        **LONG, "prompt": "def f(x):\n" * dice.randrange(1, 60), "model": dice.choice(MODELS),
        "n": dice.randrange(1, 4), "stream": dice.random() < 0.7,
    }  # fmt: skip
    body = json.dumps(fields).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        if dice.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(head.encode() + body)
        time.sleep(dice.expovariate(10))


def all_are(read, running):
    """Whether each model runs so many sequences, and none waits."""
    return all(
        (read.of("sequences_running", model=model), read.of("sequences_waiting", model=model)) == (running, 0)
        for model in MODELS
    )


def test_after_many_that_hung_up_each_model_runs_as_many_as_it_has_slots(tmp_path):
    other = shutil.copytree(DEMO, tmp_path / MODELS[1])
    models = ("-m", MODELS[0], "-m", str(other), "--context-length", "2048")
    with serving(*models, "--batch-size", str(SLOTS), "--queue-size", "16") as server:
        for model in MODELS:
            assert server.ask("/v1/completions", {**LONG, "model": model, "max_tokens": 1}).status == 200
        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            list(threads.map(lambda seed: hang_up(server, seed), range(60)))
        before = until(server, lambda read: all_are(read, 0))
        with contextlib.ExitStack() as held:
            for model in MODELS * SLOTS:
                next(held.enter_context(server.streaming("/v1/completions", {**LONG, "model": model})))
            after = Read(server)
        assert all_are(after, SLOTS)
        for model in MODELS:
            assert before.of("sequences_total", "cancelled", model=model) > 0
            assert after.of("sequences_total", "length", model=model) == 1  # no stream had to wait for another's end
        until(server, lambda read: all_are(read, 0))
