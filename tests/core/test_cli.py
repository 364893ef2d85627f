import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codellm import load
from support.plugin_folder import codellm

PROMPT = "def add(a, b):"


def one_line_error(done, code=1):
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("codellm: ")]
    assert len(lines) == 1
    return lines[0]


def test_generate_streams_what_the_library_generates():
    done = codellm("generate", PROMPT, "--max-tokens", "24")
    assert done.returncode == 0, done.stderr
    with load("codellm-demo") as model:
        from codellm import SamplingParams

        result = model.generate(PROMPT, SamplingParams(max_tokens=24))
    assert done.stdout == result.text + "\n"
    assert f"{len(result.token_ids)} tokens" in done.stderr


def test_generate_reads_standard_input_and_prints_json():
    done = codellm("generate", "-", "--max-tokens", "5", "--format", "json", stdin=PROMPT.encode())
    result = json.loads(done.stdout)
    assert result["finish_reason"] in {"length", "eos"}
    assert len(result["token_ids"]) <= 5


def test_generate_stops_and_repeats_its_seed():
    arguments = ("generate", PROMPT, "--max-tokens", "30", "--temperature", "0.9", "--seed", "4")
    first, second = codellm(*arguments), codellm(*arguments)
    assert first.stdout == second.stdout
    assert (
        codellm(*arguments, "--stop", first.stdout[3:6]).stdout
        == first.stdout[: first.stdout.find(first.stdout[3:6])] + "\n"
    )


def test_infill_takes_lines_or_a_cursor(tmp_path):
    file = tmp_path / "code.py"
    file.write_text("def add(a, b):\n    pass\n\nprint(add(1, 2))\n")
    by_lines = codellm("infill", str(file), "--lines", "2:2", "--max-tokens", "12")
    assert by_lines.returncode == 0, by_lines.stderr
    by_cursor = codellm("infill", str(file), "--offset", "15", "--max-tokens", "12", "--format", "json")
    assert json.loads(by_cursor.stdout)["token_ids"]
    assert "1 <= A <= B <= 4" in one_line_error(codellm("infill", str(file), "--lines", "3:9"), code=2)
    assert "0 to" in one_line_error(codellm("infill", str(file), "--offset", "999"), code=2)
    assert "No such file" in one_line_error(codellm("infill", str(tmp_path / "no.py"), "--offset", "0"))
    file.write_bytes(b"\xff")
    assert "byte 0 is not UTF-8" in one_line_error(codellm("infill", str(file), "--offset", "0"))


def test_quantize_convert_and_models(tmp_path):
    env = {"CODELLM_CACHE": str(tmp_path / "cache")}
    made = codellm("quantize", "codellm-demo", "-q", "q4_k_m", "--output", str(tmp_path / "demo.gguf"), **env)
    assert made.stdout == f"{tmp_path / 'demo.gguf'}\n", made.stderr
    assert codellm("convert", "codellm-demo", **env).stdout.endswith("codellm-demo-bf16.gguf\n")
    assert codellm("generate", PROMPT, "-m", str(tmp_path / "demo.gguf"), "--max-tokens", "3", **env).returncode == 0
    rows = json.loads(codellm("models", "--format", "json", **env).stdout)
    assert [row["scheme"] for row in rows if row["kind"] == "artifact"] == ["bf16", "q4_k_m"]
    assert "did you mean" in one_line_error(codellm("models", "remove", rows[1]["name"] + "x", **env))
    assert codellm("models", "remove", "--all", **env).returncode == 0
    assert len(json.loads(codellm("models", "--format", "json", **env).stdout)) == 1
    assert "convert keeps the precision" in one_line_error(codellm("convert", "-q", "q4_0", **env), code=2)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("generate", "x", "-m", "no-such.gguf"), 1, "no such file"),
        (("generate", "x", "-m", "nothing"), 1, "unknown model"),
        (("generate", "x", "-m", "some/where"), 1, "not in the local cache"),
        (("generate", "x", "-b", "llama-cp"), 1, "did you mean 'llama-cpp'?"),
        (("generate", "x", "-q", "q4_k"), 1, "did you mean 'q4_k_"),
        (("generate", "x", "-o", "repac=on"), 1, "did you mean 'repack'?"),
        (("generate", "x", "-o", "repack"), 2, "key=value"),
        (("generate", "x", "--max-tokens", "0"), 2, "max_tokens"),
        (("generate", "x", "--top-p", "7"), 2, "top_p"),
        (("generate", "x", "--batch-size", "0"), 2, "batch_size"),
        (("generate", "x" * 9000), 1, "leaves no room for output"),
        (("quantize", "codellm-demo", "-q", "q9"), 1, "unknown scheme"),
    ],
)
def test_bad_input_is_one_line(arguments, code, message):
    assert message in one_line_error(codellm(*arguments), code)


def test_invalid_utf8_on_standard_input():
    assert "byte 3 is not UTF-8" in one_line_error(codellm("generate", "-", stdin=b"abc\xff"))


@pytest.mark.parametrize("size", [0, 3, 4, 20, 1000, -1, -5000])
def test_a_broken_gguf_is_one_line(tmp_path, size):
    with load("codellm-demo") as model:
        data = Path(model.info.path).read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(data[:size])
    assert "broken.gguf" in one_line_error(codellm("generate", "x", "-m", str(broken)))


def test_usage_errors_exit_with_2():
    assert codellm("generate").returncode == 2
    assert codellm("generate", "x", "--max-tokens", "many").returncode == 2
    assert codellm("nonsense").returncode == 2


def test_ctrl_c_is_130_and_what_came_stays():
    child = subprocess.Popen(
        [sys.executable, "-m", "codellm", "generate", PROMPT, "--max-tokens", "2000", "--ignore-eos"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with child:
        first = child.stdout.read(1)
        child.send_signal(signal.SIGINT)
        rest, errors = child.stdout.read(), child.stderr.read()
    assert child.wait(timeout=30) == 130
    assert errors.endswith(b"interrupted\n")
    assert b"Traceback" not in errors
    assert len(first + rest) > 1


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m codellm generate '{PROMPT}' --max-tokens 500 --ignore-eos | head -c 5"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120)
    assert len(done.stdout) == 5
    assert b"Traceback" not in done.stderr
    assert b"rror" not in done.stderr


def test_tables_fit_a_terminal_of_80_columns():
    main, side = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "codellm", "backends"], stdout=side, env={**os.environ, "COLUMNS": "80"}
    )
    child.wait(timeout=60)
    os.close(side)
    time.sleep(0.1)
    shown = os.read(main, 100_000).decode()
    assert "llama-cpp" in shown
