"""A machine with too little memory is told before llama.cpp sees the file, and with the figure that is needed."""

import pytest

from codellm.errors import InvalidValueError, NotEnoughMemoryError
from codellm.spec import LoadSpec
from codellm_cpu.llama.backend import LlamaCppBackend
from codellm_cpu.llama.header import read_header
from codellm_cpu.llama.memory import Need, cell_bytes, fitting_context
from support.tiny_gguf import CONTEXT, HEADS, HIDDEN, INNER, KV_HEADS, LAYERS, source_of, vocabulary, write_gguf

GB = 10**9


def load(path, **spec):
    return LlamaCppBackend().load(LoadSpec(model=str(path), threads=1, **spec), source_of(path))


def test_what_the_header_tells(tiny_gguf, tmp_path):
    header = read_header(tiny_gguf)
    assert cell_bytes(header) == LAYERS * KV_HEADS * 2 * (HIDDEN // HEADS) * 2
    need = Need.of(header, chunk=512, outputs=128)
    assert need.weights == sum(tensor.size for tensor in header.tensors.values())
    assert need.rest == 2 * 128 * len(vocabulary()) * 4 + 512 * (INNER + 8 * HIDDEN) * 4
    other = write_gguf(tmp_path / "other.gguf", attention__key_length=32, attention__value_length=16)
    assert cell_bytes(read_header(other)) == LAYERS * KV_HEADS * (32 + 16) * 2


def fitting(path, available, **spec):
    header = read_header(path)
    need = Need.of(header, chunk=512, outputs=128)
    return fitting_context(path.name, header, LoadSpec(model="m", **spec), need, available)


def test_what_does_not_fit_is_told_with_what_is_needed(tiny_gguf):
    with pytest.raises(NotEnoughMemoryError, match=r"needs 0\.0 GB of memory .* for 1 x 256 tokens of context"):
        fitting(tiny_gguf, 3 << 20)
    with pytest.raises(NotEnoughMemoryError, match=f"for 16 x {CONTEXT} tokens of context"):
        fitting(tiny_gguf, 3 << 20, context_length=CONTEXT, batch_size=16)


def test_it_is_told_before_llama_cpp_sees_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "endless.gguf", context_length=1 << 30)
    with pytest.raises(NotEnoughMemoryError, match=f"for 256 x {1 << 30} tokens of context"):
        load(path, context_length=1 << 30, batch_size=256)
    assert not (tmp_path / "cache").exists()  # nor a process that tries it


def test_a_context_that_nothing_has_is_refused_for_that(tiny_gguf):
    assert fitting(tiny_gguf, 20 << 20, context_length=10**9) >= CONTEXT
    with pytest.raises(InvalidValueError, match="trained for"):
        load(tiny_gguf, context_length=10**9)


def test_the_context_shrinks_to_what_fits(tmp_path):
    path = write_gguf(tmp_path / "long.gguf", context_length=1 << 20)
    need = Need.of(read_header(path), chunk=512, outputs=128)
    free = need.weights + need.rest + 4 * 1000 * need.cell
    assert fitting(path, free * 10 // 9 + 10, batch_size=4) == 768


def test_the_message_holds_the_figures_of_a_large_model(tiny_gguf):
    need = Need(weights=29 * GB, cell=10**5, rest=GB)
    with pytest.raises(NotEnoughMemoryError) as caught:
        fitting_context(tiny_gguf.name, read_header(tiny_gguf), LoadSpec(model="m"), need, 20 * GB)
    assert str(caught.value) == (
        f"{tiny_gguf.name} needs 30.0 GB of memory (29.0 for weights, 0.0 for 1 x 256 tokens of context), and 18.0 are "
        "free; take a smaller context_length or batch_size, or a scheme of fewer bits"
    )
