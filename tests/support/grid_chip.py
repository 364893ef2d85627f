"""`codellm bench grid` in a directory with a model and a plugin whose backend runs out of memory or dies on demand."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from support import toy_clock
from support.bench_toy import COMMAND, environment
from support.workdir import make_workdir

PLUGIN = '''
"""A backend that runs its sequences together. Each option names the tokens of a prompt at which it breaks so."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from codellm import Backend, ByteTokenizer, Memory, Model, ModelInfo, Token, hookimpl
from codellm.errors import NotEnoughMemoryError
from codellm.slots import Slots


class Chip(Model):
    def __init__(self, spec, dummy):
        self.compute, self.options = Clock().compute, spec.options
        self.tokenizer = ByteTokenizer()
        self.seen = set()
        self.device = spec.device == "chip"
        self.cells = spec.batch_size * spec.context_length
        self.info = ModelInfo(
            backend="chip", architecture="Chip", parameters=257, weight_bytes=1_000_000,
            context_length=spec.context_length, batch_size=spec.batch_size, device=spec.device, dummy=dummy,
        )

    def run(self, sequences):
        with self.claim():
            slots = Slots(sequences, self.info.batch_size)
            while running := slots.refill():
                for sequence in running:
                    if not sequence.token_ids:
                        self.begin(sequence)
                self.compute(5e-4)
                yield [Token(65 + len(sequence.token_ids) % 20, sequence) for sequence in running]

    def begin(self, sequence):
        length = len(sequence.prompt_ids)
        if "log" in self.options:
            with Path(self.options["log"]).open("a") as file:
                print(length, sequence.params.max_tokens, file=file)
        if self.breaks("hungry", length):
            raise NotEnoughMemoryError(f"the chip needs {length} GB and has 40")
        if self.breaks("killed", length):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.breaks("broken", length):
            raise RuntimeError("the chip | is\\nbroken")
        if self.breaks("hanging", length):
            time.sleep(1000)
        kept = tuple(sequence.prompt_ids[:8]) in self.seen
        self.seen.add(tuple(sequence.prompt_ids[:8]))
        self.compute(0 if kept and "keeps" in self.options else 1e-4 * length)

    def breaks(self, how, length):
        return self.options.get(how) == str(length)

    def score(self, batch):
        return [np.zeros(len(ids) - 1, np.float32) for ids in batch]

    def logits(self, ids):
        return np.zeros(257, np.float32)

    def memory(self):
        return Memory(host=2**29, host_peak=2**30, device_peak=2**30 + 2**20 * self.cells if self.device else 0)


class ChipBackend(Backend):
    name, formats, preference = "chip", frozenset({"safetensors"}), 1

    def load(self, spec, source):
        most = int(spec.options.get("holds", 1 << 30))
        if spec.batch_size * spec.context_length > most:
            raise NotEnoughMemoryError(f"{spec.batch_size} x {spec.context_length} tokens need 41 GB and 40 are free")
        return Chip(spec, source.dummy)


@hookimpl
def codellm_backends():
    return [ChipBackend()]
'''


def small(batch_sizes="1,2", contexts="20,40"):
    """The sizes of a small grid."""
    sizes = ["--batch-size", batch_sizes, "--context", contexts]
    return [*sizes, "--new-tokens", "4", "--repeats", "2", "--device", "chip"]


SMALL = small()


def chip_workdir(folder: Path) -> Path:
    """Put a model and the plugin into `folder`."""
    return make_workdir(folder, "codellm-chip", toy_clock.SOURCE + PLUGIN, entry="chip = codellm_chip")


def command(*arguments, model="model"):
    return [*COMMAND, "grid", "-m", model, "--output", "out", *arguments]


def grid(workdir, *arguments, sizes=SMALL, code=0, **how):
    done = subprocess.run(
        command(*sizes, *arguments, **how),
        cwd=workdir, env=environment(workdir), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def cells(workdir, *arguments, **how):
    """Each cell as programs get it, by its row and size."""
    done = grid(workdir, "--format", "jsonl", *arguments, **how)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {(cell["row"], cell["batch_size"], cell["context"]): cell for cell in found}
