"""Every type that llama.cpp quantizes to, on a tiny model: made, loaded, computed with."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest

from codellm.artifacts.calibration import Calibration
from codellm.errors import ModelFileError
from codellm_cpu import imatrix_child
from codellm_cpu.blocks import BLOCKS
from codellm_cpu.llama.header import read_header
from codellm_cpu.llama.library import ContextShape, open_context, open_native
from codellm_cpu.llama.score import score
from codellm_cpu.mixture import mix
from codellm_cpu.quantize import room, weights
from codellm_cpu.quantizer import run_quantizer
from codellm_cpu.schemes import CONVERSIONS, FILE_TYPES, SCHEMES

TEXT = Calibration("test", "def double(x):\n    return x + x\n\n" * 40)
LEFT_OUT = {
    "q4_1_some_f16": "gone from llama.cpp",
    "mxfp4_moe": "of a dense model it makes a q8_0",
    "nvfp4": "llama.cpp's quantizer does not make it",
}


def write(base, scheme, path, matrix=None, progress=lambda done, total: None):
    mixture = mix(base, read_header(base), FILE_TYPES[scheme], matrix=matrix is not None)
    run_quantizer(base, mixture, path, matrix=matrix, threads=1, progress=progress)
    return path


@pytest.fixture(scope="module")
def matrix(tiny_gguf, tmp_path_factory):
    path = tmp_path_factory.mktemp("matrix") / "matrix.npz"
    np.savez(path, **imatrix_child.collect(tiny_gguf, TEXT.text, 1))
    return path


def scores(path):
    with contextlib.ExitStack() as stack:
        model = open_native(stack, path, repack=True, mmap=True)
        shape = ContextShape(context_length=64, slots=1, chunk=64, outputs=64, threads=1)
        return score(open_context(stack, model, shape), np.arange(5, 50, dtype=np.int32))


@pytest.mark.parametrize("scheme", FILE_TYPES)
def test_llama_cpp_makes_a_file_of_it_and_computes_with_it(tiny_gguf, matrix, tmp_path, scheme):
    kind, told = FILE_TYPES[scheme], []
    path = tmp_path / "quantized.gguf"
    weighed = matrix if kind.calibration in {"wants", "needs"} else None
    write(tiny_gguf, scheme, path, weighed, lambda *at: told.append(at))

    header = read_header(path)
    assert header.scalars["general.file_type"] == kind.number
    block, size = BLOCKS[kind.main]
    assert any(tensor.row * block == tensor.shape[0] * size for tensor in header.tensors.values())
    assert np.isfinite(scores(path)).all()
    held = weights(header)
    assert held["weight_bytes"] * 8 / held["parameters"] > kind.bits
    assert told[0] == (0, told[-1][1])
    assert told[-1][0] == told[-1][1]
    assert told == sorted(told)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("scheme", ["q8_0", "q4_0", "q3_k_l"])
def test_the_room_asked_for_is_what_it_takes(tiny_gguf, matrix, tmp_path, scheme, weighed):
    """In q4_0 a matrix changes the types."""
    path = write(tiny_gguf, scheme, tmp_path / "q.gguf", matrix if weighed else None)
    asked = room(tiny_gguf, mix(tiny_gguf, read_header(tiny_gguf), FILE_TYPES[scheme], matrix=weighed))
    assert asked - (1 << 15) < path.stat().st_size <= asked


@pytest.mark.parametrize(
    "scheme", [kind.name for kind in FILE_TYPES.values() if kind.calibration in {"wants", "needs"}]
)
def test_what_needs_a_matrix_is_refused_without_and_what_wants_one_is_not(tiny_gguf, tmp_path, scheme):
    if FILE_TYPES[scheme].calibration == "needs":
        with pytest.raises(
            ModelFileError, match=r"llama\.cpp cannot quantize it: this quantization requires an imatrix"
        ):
            write(tiny_gguf, scheme, tmp_path / "q.gguf")
    else:
        write(tiny_gguf, scheme, tmp_path / "q.gguf")


@pytest.mark.parametrize("scheme", [kind.name for kind in FILE_TYPES.values() if kind.calibration == "none"])
def test_what_takes_no_matrix_makes_no_use_of_one(tiny_gguf, matrix, tmp_path, scheme):
    """But for the embedding, which is in another type."""
    with np.load(matrix) as stored:
        means = {name: stored[name] for name in stored.files if name.startswith("blk.")}
    np.savez(tmp_path / "blocks.npz", **means)
    ours = write(tiny_gguf, scheme, tmp_path / "without.gguf")
    theirs = write(tiny_gguf, scheme, tmp_path / "with.gguf", tmp_path / "blocks.npz")
    assert means
    assert ours.read_bytes() == theirs.read_bytes()


def test_no_type_of_the_installed_llama_cpp_is_forgotten():
    import llama_cpp

    known = {kind.number for kind in FILE_TYPES.values()} | {0, 1, 32}
    for name, number in vars(llama_cpp).items():
        match = re.fullmatch(r"LLAMA_FTYPE_(?:MOSTLY|ALL)_(\w+)", name)
        if match:
            assert number in known or match[1].lower() in LEFT_OUT, name


@pytest.mark.parametrize("number", [38, 39])
def test_what_is_left_out_is_of_no_use(tiny_gguf, tmp_path, number):
    import attrs

    odd = attrs.evolve(FILE_TYPES["q8_0"], number=number)
    if number == 39:
        with pytest.raises(ModelFileError, match="invalid output file type 39"):
            mix(tiny_gguf, read_header(tiny_gguf), odd, matrix=False)
        return
    mixture = mix(tiny_gguf, read_header(tiny_gguf), odd, matrix=False)
    run_quantizer(tiny_gguf, mixture, tmp_path / "q", matrix=None, threads=1, progress=print)
    write(tiny_gguf, "q8_0", tmp_path / "q8_0")
    assert read_header(tmp_path / "q").tensors == read_header(tmp_path / "q8_0").tensors


def test_the_schemes_say_what_they_take():
    assert {scheme.name for scheme in SCHEMES} == {*CONVERSIONS, *FILE_TYPES}
    for scheme in SCHEMES:
        assert scheme.applies == "file"
        assert scheme.format == "gguf"
        assert scheme.takes == ({"safetensors"} if scheme.name in CONVERSIONS else {"gguf"})
        assert (scheme.bound is None) == (scheme.name in CONVERSIONS)


def test_the_bounds_follow_the_rule_of_the_documentation():
    """Twice the rise measured on the bundled model, rounded up to hundredths; from 0.01 to 1."""
    import json
    import math

    record = json.loads((Path(__file__).parents[2] / "docs/results/quantization-imatrix.json").read_text())
    for row in record["rows"]:
        kind = FILE_TYPES[row["scheme"]]
        if row["matrix"] == (kind.calibration in {"wants", "needs"}):
            assert kind.bound == min(1.0, max(0.01, math.ceil(200 * row["gate_rise"]) / 100)), kind.name
