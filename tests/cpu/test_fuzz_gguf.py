"""A real header with random damage: refused by name, or loaded; nothing ends or holds up this process.

500 rounds, of which 15 of the files that pass the checks are probed. All of 10 000, which takes a quarter of an hour:
`FUZZ_ROUNDS=10000 FUZZ_PROBES=10000 pytest -s tests/cpu/test_fuzz_gguf.py`; FUZZ_SEED sets the first seed. Each round
draws from its own seed, which a failure prints: `FUZZ_SEED=<seed> FUZZ_ROUNDS=1` repeats it alone.
"""

from __future__ import annotations

import collections
import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm import SamplingParams
from codellm.errors import BackendError, ModelFileError
from codellm.spec import LoadSpec
from codellm_cpu.llama.backend import LlamaCppBackend
from codellm_cpu.llama.check import check
from codellm_cpu.llama.header import read_header
from support.gguf_bytes import STRING, U32, Gguf, starcoder2
from support.tiny_gguf import source_of

SEED = int(os.environ.get("FUZZ_SEED", "20250101"))
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "500"))
PROBES = int(os.environ.get("FUZZ_PROBES", "15"))
SECONDS = 5.0
"""Processor time that one header check may take, generously; it takes a millisecond."""

BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF, ord("\n"))
WORDS = (0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 20)
LONGS = (0, 1, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 40)


def damaged(whole: bytes, header: int, rng: random.Random) -> bytes:
    """`whole` with one to four changes in its first `header` bytes."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(header)
        match rng.randrange(8):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.choice(BYTES)
            case 2:
                data[at : at + 4] = struct.pack("<I", rng.choice(WORDS))
            case 3:
                data[at : at + 8] = struct.pack("<Q", rng.choice(LONGS))
            case 4:
                data[at : at + 4] = struct.pack("<I", rng.randrange(16))
            case 5:
                del data[at : at + rng.choice((1, 4, 8, 32))]
            case 6:
                data[at:at] = data[at : at + rng.choice((1, 4, 8, 32))]
            case 7:
                del data[rng.randrange(len(data)) :]
        header = max(1, min(header, len(data)))
        data = data or bytearray(1)
    return bytes(data)


def test_random_damage_is_refused_or_loads(tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))
    file = starcoder2()
    whole, header = file.encode(), len(file.header())
    path = tmp_path / "damaged.gguf"
    ends: collections.Counter[str] = collections.Counter()
    for seed in range(SEED, SEED + ROUNDS):
        path.unlink(missing_ok=True)
        path.write_bytes(damaged(whole, header, random.Random(seed)))
        try:
            ends[one_round(path, probed=ends["probe"] + ends["loaded"] < PROBES)] += 1
        except BaseException:
            print(f"seed {seed}")  # noqa: T201  (what pytest shows of a test that fails)
            raise
    print(f"seeds {SEED} to {SEED + ROUNDS - 1}: {dict(ends)}")  # noqa: T201
    assert ends["header"] > ROUNDS // 3


def one_round(path: Path, *, probed: bool) -> str:
    """Who had the last word on a file."""
    start = time.process_time()
    refused = refuses(path, lambda: check(path, read_header(path)))
    assert time.process_time() - start < SECONDS
    if refused:
        return "header"
    if not probed:
        return "passed"
    return "probe" if refuses(path, lambda: use(path)) else "loaded"


def refuses(path: Path, step: Callable[[], None]) -> bool:
    """Whether a step raises one of the errors that it may, in one line that names the file."""
    try:
        step()
    except (ModelFileError, BackendError) as error:
        said = str(error)
    else:
        return False
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    return True


def use(path: Path) -> None:
    """Load a file into this process, which must survive it, and run it."""
    with LlamaCppBackend().load(LoadSpec(model=str(path), threads=1), source_of(path)) as model:
        model.generate("def f(x):\n    return", SamplingParams(max_tokens=2))
        model.score([[0, 1, 2, 3]])


CHARACTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
KEYS = st.text(CHARACTERS, min_size=1, max_size=20)


@given(st.dictionaries(KEYS, st.integers(0, (1 << 32) - 1) | st.text(CHARACTERS, max_size=20), max_size=8))
def test_what_is_written_is_read(tmp_path_factory, values):
    file = Gguf()
    for key, item in values.items():
        file.put(f"x.{key}", STRING if isinstance(item, str) else U32, item)
    path = tmp_path_factory.mktemp("gguf") / "file.gguf"
    path.write_bytes(file.encode())
    assert read_header(path).scalars == {f"x.{key}": item for key, item in values.items()}


@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("gguf") / "file.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + data)
    with pytest.raises(ModelFileError):
        check(path, read_header(path))
