"""llama.cpp's quantizer behind the hook: real files, real failures."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
import gguf
import numpy as np
import pytest

import codellm
from codellm.artifacts.request import QuantizeRequest
from codellm.errors import ArtifactError, InvalidValueError, ModelFileError
from codellm.scheme import Scheme
from codellm.sources import ModelSource
from codellm.sources.dummy import DummyTensors, dummy_config
from codellm_cpu.llama.library import open_native
from codellm_cpu.quantize import quantize
from codellm_cpu.schemes import CONVERSIONS, SCHEMES

DEMO = Path(codellm.__file__).parent / "data" / "codellm-demo"
BY_NAME = {scheme.name: scheme for scheme in SCHEMES}
CONFIG = dummy_config("tiny") | {"vocab_size": 4352}


def original(config=CONFIG):
    return ModelSource(
        name="test",
        format="safetensors",
        digest="0",
        config=config,
        tokenizer=DEMO / "tokenizer.json",
        tokenizer_config=json.loads((DEMO / "tokenizer_config.json").read_text()),
        tensors=DummyTensors(config),
        dummy=True,
    )


def of_file(path, scheme="bf16"):
    return ModelSource(name="test", format="gguf", digest="0", path=path, files=(path,), scheme=scheme)


def request(source, scheme, destination, **fields):
    return QuantizeRequest(source=source, scheme=BY_NAME[scheme], destination=destination, threads=1, **fields)


def convert(config, path, scheme="bf16"):
    quantize(request(original(config), scheme, path))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return convert(CONFIG, tmp_path_factory.mktemp("base") / "base.gguf")


def types(path):
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


def loads(path):
    with contextlib.ExitStack() as stack:
        return open_native(stack, path, repack=False, mmap=True).parameters


@pytest.mark.parametrize("scheme", CONVERSIONS)
def test_conversion_is_a_scheme_too(tmp_path, scheme):
    path = tmp_path / "model.gguf"
    artifact = quantize(request(original(), scheme, path))
    assert artifact.scheme == scheme
    assert set(types(path).values()) == {"F32", scheme.upper()}
    assert loads(path)


def test_quantizing_starts_from_any_full_precision(tmp_path):
    for scheme in CONVERSIONS:
        base = convert(CONFIG, tmp_path / f"{scheme}.gguf", scheme)
        quantize(request(of_file(base, scheme), "q8_0", tmp_path / f"{scheme}-q8_0.gguf"))
    ours = {scheme: (tmp_path / f"{scheme}-q8_0.gguf").stat().st_size for scheme in CONVERSIONS}
    assert len(set(ours.values())) == 1


def test_another_plugins_scheme_is_left_to_it(base, tmp_path):
    other = Scheme(name="gptq-int4", bits=4.0, applies="file", format="safetensors")
    asked = attrs.evolve(request(of_file(base), "q8_0", tmp_path / "q"), scheme=other)
    assert quantize(asked) is None


@pytest.mark.parametrize("scheme", ["q4_k_m", "q8_0"])
def test_what_would_quantize_nothing_is_refused(tmp_path, scheme):
    config = CONFIG | {"hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 1}
    base = convert(config, tmp_path / "base.gguf")
    with pytest.raises(
        InvalidValueError, match=rf"{scheme} would quantize nothing, since rows of 40 and 72 fill no wh"
    ):
        quantize(request(of_file(base), scheme, tmp_path / "q.gguf"))
    assert list(tmp_path.iterdir()) == [base]


def test_a_quantized_source_is_refused(base, tmp_path):
    path = tmp_path / "q8.gguf"
    quantize(request(of_file(base), "q8_0", path))
    for scheme in ("q8_0", None):  # as the source says, and as the header does
        with pytest.raises(InvalidValueError, match=r"q8\.gguf: already quantized \(.*\); start from its f32, f16"):
            quantize(request(of_file(path, scheme), "q4_0", tmp_path / "q4.gguf"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_source_of_the_wrong_format_is_refused(base, tmp_path):
    with pytest.raises(InvalidValueError, match="scheme q8_0 starts from gguf, not safetensors"):
        quantize(request(original(), "q8_0", tmp_path / "q"))
    with pytest.raises(InvalidValueError, match="scheme f16 starts from safetensors, not gguf"):
        quantize(request(of_file(base), "f16", tmp_path / "q"))
    two = attrs.evolve(of_file(base), files=(base, base))
    with pytest.raises(InvalidValueError, match="needs one GGUF file"):
        quantize(request(two, "q8_0", tmp_path / "q"))


def test_a_cut_source_is_refused(base, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(base.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match=r"cut\.gguf"):
        quantize(request(of_file(cut), "q8_0", tmp_path / "q.gguf"))
    assert list(tmp_path.iterdir()) == [cut]


def test_nan_in_the_source_is_refused(base, tmp_path):
    bad = tmp_path / "bad.gguf"
    content = bytearray(base.read_bytes())
    content[-6000:-5000] = b"\xff" * 1000
    bad.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"bad\.gguf: it computes NaN"):
        quantize(request(of_file(bad), "q8_0", tmp_path / "q.gguf"))
    assert list(tmp_path.iterdir()) == [bad]


def test_a_source_that_llama_cpp_does_not_know_is_refused(tmp_path):
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "nobody-knows")
    writer.add_tensor("a.weight", np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelFileError, match=r"odd\.gguf: llama\.cpp cannot load it: .*nobody-knows"):
        quantize(request(of_file(path, None), "q8_0", tmp_path / "q.gguf"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_crash_of_the_child_is_an_error_here(base, tmp_path, monkeypatch):
    def crash(done, total):
        for child in children():
            os.kill(child, signal.SIGABRT)

    with pytest.raises(ModelFileError, match=r"base\.gguf: llama\.cpp crashed on it \(SIGABRT\)"):
        quantize(request(of_file(base), "q4_k_m", tmp_path / "q.gguf", progress=crash))
    assert not list(tmp_path.iterdir())


def children():
    pids = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
    return [pid for pid, command in commands.items() if b"quantize_child" in command]


def test_a_full_disk_is_noticed_before_writing(base, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(ArtifactError, match=r"q\.gguf: needs \d\.\d MB, 0\.0 MB are free"):
        quantize(request(of_file(base), "q8_0", tmp_path / "q.gguf"))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_no_file(base, tmp_path):
    """The child inherits a limit of 200 kB a file: its writes fail as on a full disk."""
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_quantize as t
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    t.quantize(t.request(t.of_file(t.Path({str(base)!r})), "q8_0", t.Path({str(tmp_path)!r}) / "q.gguf"))
except t.ArtifactError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "q.gguf: cannot be written, " in done.stdout
    assert not list(tmp_path.iterdir())


def test_an_error_in_the_progress_ends_the_child(base, tmp_path):
    def interrupt(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(request(of_file(base), "q4_k_m", tmp_path / "q.gguf", progress=interrupt))
    assert not children()
    assert not list(tmp_path.iterdir())


SLOW = """
import sys
sys.path.insert(0, {tests!r})
import test_quantize as t
def progress(done, total):
    if done:
        print(t.children()[0], flush=True)
t.quantize(t.request(t.of_file(t.Path({base!r})), "q4_k_m", t.Path({folder!r}) / "q.gguf", progress=progress))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Large enough to be interrupted half way."""
    return convert(CONFIG | {"num_hidden_layers": 24}, tmp_path_factory.mktemp("large") / "large.gguf")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_parent_and_child(large, tmp_path, number):
    script = SLOW.format(tests=str(Path(__file__).parent), base=str(large), folder=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with parent:
        child = int(parent.stdout.readline())
        parent.send_signal(number)
        parent.wait(20)
        parent.stdout.read()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and not zombie(child):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.05)
    assert not list(tmp_path.iterdir())


def zombie(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
