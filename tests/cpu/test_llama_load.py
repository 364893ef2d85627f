"""What is checked before llama.cpp sees a file, and what a load spec may ask."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import struct
from pathlib import Path

import pytest

from codellm.errors import InvalidValueError, ModelFileError, ModelNotFoundError, UnknownNameError
from codellm.spec import LoadSpec
from codellm_cpu.llama.backend import LlamaCppBackend
from codellm_cpu.llama.header import read_header
from codellm_cpu.llama.library import LOG, library
from codellm_cpu.llama.load import repacked
from codellm_cpu.llama.options import Options
from support.packages import pretend_absent
from support.tiny_gguf import CONTEXT, HIDDEN, source_of, vocabulary, write_gguf


def load(path: Path, **spec: object):
    return LlamaCppBackend().load(LoadSpec(model=str(path), **{"threads": 1, **spec}), source_of(path))


def test_info_of_a_tied_model(load_tiny, tiny_gguf):
    info = load_tiny().info
    assert (info.backend, info.architecture, info.scheme, info.device) == ("llama-cpp", "starcoder2", "f32", "cpu")
    assert info.context_length == 256
    assert info.weight_bytes == 4 * info.parameters
    assert info.path == str(tiny_gguf)


def test_one_row_of_an_untied_embedding_is_read(tmp_path):
    path = write_gguf(tmp_path / "untied.gguf", tied=False)
    with load(path) as model:
        assert model.info.weight_bytes == 4 * (model.info.parameters - (len(vocabulary()) - 1) * HIDDEN)


def test_the_context_is_what_the_model_was_trained_for(tiny_gguf):
    with load(tiny_gguf) as model:
        assert model.info.context_length == CONTEXT
    with pytest.raises(InvalidValueError, match=str(CONTEXT)):
        load(tiny_gguf, context_length=CONTEXT + 1)


def test_the_context_ends_at_a_sliding_window_that_llama_cpp_ignores(tmp_path):
    path = write_gguf(tmp_path / "window.gguf", attention__sliding_window=128)
    with load(path) as model:
        assert model.info.context_length == 128
    with pytest.raises(InvalidValueError, match="sliding window"):
        load(path, context_length=129)


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ({"options": {"repak": "on"}}, UnknownNameError, "repack"),
        ({"options": {"repack": "yes"}}, InvalidValueError, "repack"),
        ({"options": {"flash-attn": "2"}}, InvalidValueError, "flash-attn"),
        ({"options": {"chunk": "0"}}, InvalidValueError, "chunk"),
        ({"options": {"chunk": "x"}}, InvalidValueError, "chunk"),
        ({"device": "cuda"}, InvalidValueError, "cuda"),
        ({"dtype": "float16"}, InvalidValueError, "scheme"),
        ({"attn_implementation": "sdpa"}, InvalidValueError, "flash-attn"),
        ({"batch_size": 257}, InvalidValueError, "256"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tiny_gguf, spec, error, says):
    with pytest.raises(error, match=says):
        load(tiny_gguf, **spec)


@pytest.mark.parametrize("options", [{"repack": "off", "mmap": "off"}, {"flash-attn": "off"}, {"flash-attn": "on"}])
def test_options_change_how_and_not_what(tiny_gguf, load_tiny, options):
    ids = list(range(40, 60))
    with load(tiny_gguf, options=options, context_length=256) as model:
        assert model.logits(ids) == pytest.approx(load_tiny().logits(ids), abs=2e-2)


@pytest.mark.parametrize(
    ("scheme", "features", "batch_size", "options", "expected"),
    [
        ("q4_k_m", ("avx2", "avx512_vnni"), 8, {}, False),
        ("q4_k_m", ("avx2", "avx512_vnni"), 7, {}, True),
        ("q4_k_m", ("avx2",), 8, {}, True),
        ("q4_k_m", ("avx2", "avx512_vnni", "amx_int8"), 8, {}, True),
        ("q4_0", ("avx2", "avx512_vnni"), 8, {}, True),
        ("q4_k_m", ("avx2", "avx512_vnni"), 8, {"repack": "on"}, True),
        ("q4_k_m", ("avx2", "avx512_vnni"), 1, {"repack": "off"}, False),
        ("q4_k_m", ("avx2", "avx512_vnni"), 8, {"repack": "auto"}, False),
    ],
)
def test_weights_are_repacked_where_their_own_layout_is_not_faster(scheme, features, batch_size, options, expected):
    assert repacked(Options.parse(options).repack, scheme, batch_size, features) is expected


def test_broken_files_are_named_with_their_fault(tmp_path, tiny_gguf, capfd):
    whole = tiny_gguf.read_bytes()

    def broken(name: str, data: bytes) -> Path:
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(data)
        return path

    blocks = whole.index(b"starcoder2.block_count") + len(b"starcoder2.block_count") + 4
    faults = {
        tmp_path / "none.gguf": "no such file",
        tmp_path: "cannot be read",
        broken("empty", b""): "empty",
        broken("three", b"GGU"): "cut short",
        broken("html", b"<html>" * 100): "not a GGUF",
        broken("version", b"GGUF" + struct.pack("<I", 1) + whole[8:]): "version 1",
        broken("endian", b"GGUF" + struct.pack(">I", 3) + whole[8:]): "big-endian",
        broken("tensors", whole[:8] + struct.pack("<Q", 1 << 60) + whole[16:]): "absurd",
        broken("pairs", whole[:16] + struct.pack("<Q", 60_000) + whole[24:]): "cut short|unknown|absurd",
        broken("header", whole[: len(whole) // 1000]): "cut short",
        broken("data", whole[: len(whole) * 9 // 10]): "cut short",
        broken("byte", whole[:-1]): "cut short",
        broken("blocks", whole[:blocks] + struct.pack("<I", 100_000) + whole[blocks + 4 :]): "block_count. is 100000",
        broken("arch", whole.replace(b"starcoder2", b"starcoderX")): "llama.cpp cannot load it",
        broken(
            "noblocks", whole.replace(b"starcoder2.block_count", b"starcoder2.block_cXXXX")
        ): "block_count' is missing",
    }
    for path, says in faults.items():
        with pytest.raises((ModelFileError, ModelNotFoundError), match=says) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_every_cut_and_many_flips_of_the_header_end_well(tmp_path):
    """The header check alone, on damage at every place: it ends, with the named error or none."""
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "damaged.gguf"
    start = whole.index(b"tokenizer.ggml.tokens")
    for place in [*range(0, start, 3), *range(start, 12_000, 97)]:
        path.write_bytes(whole[:place])
        with pytest.raises(ModelFileError):
            read_header(path)
        path.write_bytes(whole[:place] + b"\xff" * 8 + whole[place + 8 :])
        with contextlib.suppress(ModelFileError):
            read_header(path)


def test_the_backend_says_what_it_is():
    backend = LlamaCppBackend()
    assert backend.availability().ok
    assert backend.default_scheme in {scheme.name for scheme in backend.schemes()}
    assert backend.bandwidth("cuda") is None


def test_without_llama_cpp_the_remedy_is_told(monkeypatch):
    pretend_absent(monkeypatch, "llama_cpp")
    availability = LlamaCppBackend().availability()
    assert not availability.ok
    assert "pip install" in availability.remedy


@pytest.fixture
def interrupting():
    """Ctrl-C at every line that llama.cpp logs."""
    lib = library()

    def write(level, text, data):
        signal.raise_signal(signal.SIGINT)
        LOG.write(level, text, data)

    callback = lib.llama_log_callback(write)
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    yield
    lib.llama_log_set(LOG.callback, ctypes.c_void_p(0))


def test_an_interrupt_while_llama_cpp_logs_is_not_forgotten(tiny_gguf, request):
    load(tiny_gguf).close()  # the file is known from here on, and tried in no process of its own
    request.getfixturevalue("interrupting")
    with pytest.raises(KeyboardInterrupt):
        load(tiny_gguf)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
