"""The importance matrix: right, worth its while, kept once, and harmless where it fails."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

import attrs
import gguf
import numpy as np
import pytest

from codellm.artifacts import quality, store
from codellm.artifacts.calibration import Calibration
from codellm.artifacts.ensure import ensure
from codellm.artifacts.request import QuantizeRequest
from codellm.errors import BackendError, InvalidValueError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm_cpu import imatrix_child
from codellm_cpu.imatrix import matrix
from codellm_cpu.imatrix_child import Sums
from codellm_cpu.llama.header import read_header
from codellm_cpu.llama.library import library, open_native
from codellm_cpu.llama.products import Products, Tensor
from codellm_cpu.llama.tiles_child import F32, Ggml, InitParams
from codellm_cpu.llama.tokenizer import LlamaTokenizer
from codellm_cpu.mixture import mix
from codellm_cpu.quantizer import run_quantizer
from codellm_cpu.schemes import FILE_TYPES
from support.tiny_gguf import source_of

TEXT = "def double(x):\n    return x + x\n\n" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def request(path, text=TEXT, **fields):
    return QuantizeRequest(
        source=attrs.evolve(source_of(path), name="tiny"),
        scheme=registry().scheme("iq3_s"),
        destination=Path("nowhere"),
        threads=1,
        calibration=Calibration("test", text),
        **fields,
    )


def made(asked, path, progress=lambda done, total: None):
    return matrix(asked, asked.calibration, path, progress)


def ids_of(path):
    import contextlib

    with contextlib.ExitStack() as stack:
        return LlamaTokenizer(open_native(stack, path, repack=False, mmap=True)).encode(TEXT)


def test_the_first_layers_inputs_are_the_norm_of_the_embeddings(tiny_gguf, cache):
    """What numpy computes from the file: layer norm of the embeddings, their squares' mean over all tokens."""
    tensors = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(tiny_gguf).tensors}
    rows = tensors["token_embd.weight"].astype(np.float64)[ids_of(tiny_gguf)]
    centred = rows - rows.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    normed = normed * tensors["blk.0.attn_norm.weight"] + tensors["blk.0.attn_norm.bias"]
    expected = (normed**2).mean(axis=0)

    found = imatrix_child.collect(tiny_gguf, TEXT, 1)
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found[f"blk.0.{name}.weight"], expected, rtol=1e-5)


def test_every_matrix_is_covered_and_every_token_counts(tiny_gguf, cache):
    """Asking for all logits keeps the last layer whole; text beyond whole chunks counts too."""
    found = imatrix_child.collect(tiny_gguf, TEXT, 1)
    matrices = {
        name: tensor.shape[0]
        for name, tensor in read_header(tiny_gguf).tensors.items()
        if len(tensor.shape) > 1 and name.startswith("blk.")
    }
    assert {name: len(mean) for name, mean in found.items() if name in matrices} == matrices
    assert all(mean.dtype == np.float32 and (mean > 0).all() for mean in found.values())
    first = imatrix_child.collect(tiny_gguf, TEXT[: len(TEXT) // 2], 1)
    assert any(not np.allclose(first[name], found[name], rtol=1e-3) for name in matrices)


def test_it_is_computed_once_for_all_schemes_and_kept_like_an_artifact(tiny_gguf, cache):
    told = []
    first = made(request(tiny_gguf), tiny_gguf, lambda *at: told.append(at))
    assert told
    assert told[-1][0] == told[-1][1]
    assert made(request(tiny_gguf), tiny_gguf, lambda *at: pytest.fail("made twice")) == first
    other = made(request(tiny_gguf, TEXT + "x"), tiny_gguf)
    assert other != first
    kept = store.kept_artifacts()
    assert [one.manifest["scheme"] for one in kept] == ["imatrix", "imatrix"]
    assert {one.manifest["calibration"]["text"] for one in kept} == {"test"}
    with np.load(first) as stored:
        assert "blk.0.attn_q.weight" in stored.files


def test_another_layout_of_tensors_is_an_error():
    class Shifted(ctypes.Structure):
        _fields_ = [("flavour", ctypes.c_int64), *Tensor._fields_]

    ggml = Ggml()
    context = ggml.init(InitParams(1 << 20, None, True))
    weights, inputs = (ggml.tensor(context, F32, 64, rows) for rows in (8, 4))
    product = ggml.product(context, weights, inputs)
    sound, shifted = Sums(Products(library())), Sums(Products(library(), Shifted))
    sound.watch(product, True, None)
    assert not shifted.watch(product, True, None)
    with pytest.raises(BackendError, match="it has no matrix products"):
        sound.means()
    with pytest.raises(BackendError, match="lays its tensors out differently"):
        shifted.means()


@pytest.mark.parametrize("fault", ["crash", "error"])
def test_a_failure_leaves_nothing(tiny_gguf, cache, fault):
    def crash(done, total):
        for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
            if b"imatrix_child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGSEGV)

    what = {"crash": r"tiny\.gguf: computing its importance matrix crashed \(SIGSEGV\)", "error": "text is empty"}
    long = TEXT * 20 if fault == "crash" else ""
    with pytest.raises(BackendError, match=what[fault]):
        made(request(tiny_gguf, long), tiny_gguf, crash)
    assert store.kept_artifacts() == []
    assert store.abandoned() == []
    assert [path for path in (cache / "artifacts").iterdir() if path.suffix != ".lock"] == []


def test_it_helps(tmp_path):
    """The bundled model in iq3_s: bits per byte on the gate's text, which is not the calibration text."""
    source = find("codellm-demo").fetch()
    base = ensure(source, registry().scheme("bf16"), threads=1)
    plain = tmp_path / "plain.gguf"
    mixture = mix(base.path, read_header(base.path), FILE_TYPES["iq3_s"], matrix=False)
    run_quantizer(base.path, mixture, plain, matrix=None, threads=1, progress=lambda done, total: None)
    without = quality.measure(attrs.evolve(base, path=plain, files=(plain,), scheme=None))
    made = ensure(source, registry().scheme("iq3_s"), threads=1)
    figures = store.read(made.path.parent).manifest["quality"]
    assert figures["bits_per_byte"] + 0.2 < without


def test_a_text_of_ones_own_makes_another_artifact(cache):
    source, scheme = find("dummy:tiny").fetch(), registry().scheme("q4_0")
    text = Calibration("mine.py", TEXT)
    ours = ensure(source, scheme, threads=1, calibration=text)
    theirs = ensure(source, scheme, threads=1)
    assert ours.path != theirs.path
    assert ours.path.read_bytes() != theirs.path.read_bytes()
    manifest = store.read(ours.path.parent).manifest
    assert manifest["calibration"] == {"text": "mine.py", "sha256": text.digest}
    assert "calibration" not in store.read(theirs.path.parent).manifest
    with pytest.raises(InvalidValueError, match="scheme q8_0 takes no calibration text"):
        ensure(source, registry().scheme("q8_0"), calibration=text)
