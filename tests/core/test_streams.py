"""The standard streams on bad ground: printing never ends a command in a traceback, nor in the wrong exit code."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from support.plugin_folder import codellm, install_plugin

TEXT = "naïve → 日本 🙂 ☃"
GUEST = f"""
from codellm import ByteTokenizer, Backend, Model, ModelInfo, Token, hookimpl

DATA = {TEXT!r}.encode()

class Says(Model):
    def __init__(self):
        self.tokenizer = ByteTokenizer()
        self.info = ModelInfo(backend="says", architecture="a", parameters=1, weight_bytes=1, context_length=99)
    def run(self, sequences):
        with self.claim():
            for one in sequences:
                for id in (*DATA, 256):
                    yield [Token(id, one)]
    def score(self, batch): return []
    def logits(self, ids): return None

class Backend(Backend):
    name, formats, preference = "says", frozenset({{"safetensors"}}), -1
    def load(self, spec, source): return Says()

@hookimpl
def codellm_backends(): return [Backend()]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A backend that says a text of many scripts."""
    path = tmp_path_factory.mktemp("says")
    install_plugin(path, "says", GUEST)
    return path


@pytest.mark.parametrize(
    "encoding", ["cp1252", "latin-1", "cp437", "koi8-r", "big5", "utf-8", "cp1252:strict", "latin-1:surrogateescape"]
)
def test_what_an_encoding_does_not_have_is_a_question_mark(folder, encoding):
    variables = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "codellm", "generate", "x", "-b", "says"]
    done = subprocess.run(command, capture_output=True, env=variables, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{TEXT}\n".encode(encoding.partition(":")[0], "replace")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("handler", ["xmlcharrefreplace", "backslashreplace", "namereplace", "ignore"])
def test_who_asks_for_another_handler_has_it(folder, handler):
    done = codellm("generate", "x", "-b", "says", path=folder, PYTHONIOENCODING=f"ascii:{handler}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("command", [("plugins",), ("backends",), ("models", "--format", "md"), ("doctor",)])
def test_a_table_is_printed_in_any_encoding(folder, encoding, command):
    install_plugin(folder, "broken-☃", f"raise ValueError({TEXT!r})")
    done = codellm(*command, path=folder, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Traceback" not in done.stderr


def test_an_error_about_a_file_of_another_script_is_one_line(tmp_path):
    for encoding in ("cp1252", "latin-1", "ascii"):
        done = codellm("infill", str(tmp_path / "no→file☃.py"), "--offset", "0", PYTHONIOENCODING=encoding)
        assert done.returncode == 1
        assert "cannot be read (No such file or directory)" in done.stderr
        assert "Traceback" not in done.stderr


def test_bytes_of_a_name_that_is_no_text_are_printed_as_they_are(tmp_path):
    target = os.fsencode(tmp_path) + b"/\xff\xfe.gguf"
    command = [sys.executable, "-m", "codellm", "convert", "--output", target]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, target + b"\n"), done.stderr


def shell(line, **env):
    """Run a shell's line, in which `codellm` is ours; its exit code is that of the first of a pipe."""
    ours = f'codellm() {{ {shlex.quote(sys.executable)} -m codellm "$@"; }}'
    done = subprocess.run(
        ["bash", "-c", f"{ours}\n{line}\nexit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, env={**os.environ, **env}, timeout=300,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


@pytest.mark.parametrize("command", ["plugins", "backends --format json", "models", "doctor", "--help"])
def test_a_reader_that_leaves_is_no_error(command):
    done = shell(f"codellm {command} | true")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["backends", "models --format json", "generate x -b says", "--version"])
def test_a_full_disk_is_one_line(folder, command):
    done = shell(f"codellm {command} > /dev/full", PYTHONPATH=str(folder))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "codellm: standard output cannot be written (No space left on device)"


def test_closed_streams_lead_nowhere():
    assert shell("codellm models >&-").returncode == 0
    assert "codellm-demo" in shell("codellm models 2>&-").stdout
    assert shell("codellm generate x -q nope 2>&-").returncode == 1
    assert shell("codellm generate x -q nope 2>/dev/full").returncode == 1
    assert shell("codellm generate x -q nope 2>&1 >/dev/null | true").returncode == 1
    closed = shell("codellm generate - <&-")
    assert closed.returncode == 1
    assert closed.stderr.splitlines()[-1] == "codellm: standard input is closed; give the prompt as an argument"


@pytest.mark.parametrize(
    ("output", "what"),
    [
        ("no/such/x.gguf", "there is no directory"),
        ("file/x.gguf", "there is no directory"),
        ("/proc/x.gguf", ""),
        ("/proc", ""),
        ("/dev/null", "it is neither a file nor a directory"),
        ("x" * 300, "File name too long"),
        ("x" * 250, "File name too long"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_the_work(tmp_path, output, what):
    (tmp_path / "file").write_text("")
    target, cache = str(tmp_path / output), tmp_path / "cache"
    for command in (("convert",), ("quantize", "-q", "q4_0")):
        done = codellm(*command, "--output", target, CODELLM_CACHE=str(cache))
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"codellm: {target}: cannot be written (")
        assert what in line
        assert line.endswith("; give another --output")
    assert not (cache / "artifacts").exists()


def test_json_is_the_same_whatever_the_encoding(folder):
    done = codellm("generate", "x", "-b", "says", "--format", "json", path=folder, PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["text"] == TEXT
