"""Every malformed file is refused in one line that names it, through the library and through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import codellm
from codellm.errors import CodellmError
from codellm.sources.regular import shown
from codellm_cpu.blocks import BLOCKS
from codellm_cpu.llama.check import check
from codellm_cpu.llama.header import read_header
from support.gguf_bytes import starcoder2
from support.malformed import FATAL, HEADERS, REFUSED, write_directories, write_ggufs

LOOP = """
import contextlib, io, json, sys
from codellm.cli import main
found = []
for path in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(["generate", "def", "-m", path, "-b", "llama-cpp", "--max-tokens", "1"])
    found.append((code, said.getvalue()))
json.dump(found, sys.stdout)
"""
"""One process for all of them: the command line as it is, called again and again."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of this module's own, so that every file is tried once and not twice."""
    path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODELLM_CACHE", str(path))
        yield path


@pytest.fixture(scope="module")
def malformed(tmp_path_factory, cache):
    """Path → what a message must say."""
    folders = tmp_path_factory.mktemp("gguf"), tmp_path_factory.mktemp("safetensors")
    return write_ggufs(folders[0]) | write_directories(folders[1])


def check_message(path: Path, says: str, message: str) -> None:
    assert says in message
    assert shown(path).rpartition("/")[2] in message
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 1000


def test_a_whole_file_of_this_kind_loads(tmp_path, cache):
    """What the others are variations of: a test that refuses everything would pass them all."""
    path = tmp_path / "whole.gguf"
    path.write_bytes(starcoder2().encode())
    with codellm.load(str(path), threads=1) as model:
        assert len(model.generate("def", codellm.SamplingParams(max_tokens=2, ignore_eos=True)).token_ids) == 2


def test_the_library_refuses_each_with_its_name_and_fault(malformed, capfd):
    assert len(malformed) > 100
    for path, says in malformed.items():
        with pytest.raises(CodellmError) as caught:
            codellm.load(str(path), backend="llama-cpp", threads=1)
        check_message(path, says, str(caught.value))
    assert capfd.readouterr() == ("", "")


def test_the_command_line_refuses_each_in_one_line(malformed, cache):
    """After the library has tried them: the verdicts of both are the same, and kept."""
    paths = [str(path) for path in malformed]
    done = subprocess.run(
        [sys.executable, "-c", LOOP],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for (path, says), (code, said) in zip(malformed.items(), json.loads(done.stdout), strict=True):
        assert code == 1, said
        assert said.count("\n") == 1
        assert "Traceback" not in said
        check_message(path, says, said.strip())


@pytest.mark.parametrize("name", ["token-twice", "last-byte", "pipe", "blocks-100000"])
def test_the_program_itself_refuses_some(malformed, name):
    path = next(path for path in malformed if path.name == f"{name}.gguf")
    command = [sys.executable, "-m", "codellm", "generate", "def", "-m", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    check_message(path, malformed[path], done.stderr.strip())


def test_quantizing_refuses_what_loading_refuses(malformed, tmp_path):
    path = next(path for path in malformed if path.name == "rope-scaling.gguf")
    output = tmp_path / "out.gguf"
    command = [sys.executable, "-m", "codellm", "quantize", str(path), "--scheme", "q8_0", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "GGML_ASSERT(hparams.rope_scaling" in done.stderr
    assert not output.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_must_not_be_read_is_refused(tmp_path):
    path = tmp_path / "secret.gguf"
    path.write_bytes(starcoder2().encode())
    path.chmod(0)
    with pytest.raises(CodellmError, match="Permission denied"):
        codellm.load(str(path))


def test_the_checks_find_what_they_are_there_for(malformed):
    """Whatever our own checks can see never reaches llama.cpp, and the others do pass them."""
    for path in malformed:
        if path.stem in HEADERS:
            with pytest.raises(CodellmError):
                check(path, read_header(path))
        elif path.stem in {*FATAL, *REFUSED}:
            check(path, read_header(path))


def test_the_sizes_of_blocks_are_those_that_the_gguf_package_knows():
    gguf = pytest.importorskip("gguf")
    known = {kind.value: sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: BLOCKS.get(kind) for kind in known} == known
