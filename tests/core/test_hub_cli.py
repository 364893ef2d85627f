"""The command line with a hub on this machine, each command in a process of its own, as people run it."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codellm.sources.download import CHUNK
from support.hub_server import COMMIT, DEMO, Fault, Repo
from support.plugin_folder import codellm

SIZE = len(DEMO["model.safetensors"])
GENERATE = ("generate", "def add(", "--max-tokens", "6", "-m")


@pytest.fixture
def environment(hub, tmp_path):
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}


@pytest.fixture
def run(environment):
    def run(*args, **env):
        return codellm(*args, **{**environment, **env})

    return run


def test_a_hub_model_generates_what_the_bundled_one_does(hub, run, cache):
    expected = codellm(*GENERATE, "codellm-demo").stdout
    first = run(*GENERATE, "ours/demo", "--revision", COMMIT)
    assert (first.returncode, first.stdout) == (0, expected)
    told = first.stderr.splitlines()
    assert told[:2] == ["licence of ours/demo: apache-2.0", f"fetching ours/demo@{COMMIT}, 12 MB"]
    assert re.fullmatch(r"6 tokens, .*", told[-1])
    # nothing comes again; q8_0 is what llama-cpp makes of it anyway, so it is made once
    again = run(*GENERATE, "ours/demo:q8_0")
    assert (again.returncode, again.stdout) == (0, expected)
    assert again.stderr.count("\n") == 1
    assert run(*GENERATE, "ours/demo", HF_HUB_OFFLINE="1").stdout == expected
    assert hub.served["model.safetensors"] == SIZE


def test_the_manifest_of_an_artifact_says_which_commit_and_licence(run, tmp_path):
    made = run("quantize", "ours/demo", "-q", "q8_0", CODELLM_CACHE=str(tmp_path / "cache"))
    assert made.returncode == 0, made.stderr
    assert made.stderr.count("licence of ours/demo: apache-2.0") == 1
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "cache" / "artifacts").glob("*/manifest.json")]
    assert {(one["source"], one["revision"], one["licence"]) for one in manifests} == {
        ("ours/demo", COMMIT, "apache-2.0")
    }


def test_a_published_file_runs_as_it_is(hub, run, tmp_path, cache):
    content = Path(codellm("quantize", "codellm-demo", "-q", "q8_0").stdout.strip()).read_bytes()
    hub.repos["ours/demo"].files["demo-Q8_0.gguf"] = content
    hub.repos["ours/gguf"] = Repo({"demo.q8_0.gguf": content, "README.md": DEMO["README.md"]})
    expected = codellm(*GENERATE, "codellm-demo", "-q", "q8_0").stdout
    fresh = {"CODELLM_CACHE": str(tmp_path / "empty")}
    for model in (
        ("ours/demo", "-q", "q8_0"),
        ("ours/demo",),
        ("ours/demo:q8_0",),
        ("ours/gguf",),
        ("ours/gguf:q8_0",),
    ):
        done = run(*GENERATE, *model, **fresh)
        assert (done.returncode, done.stdout) == (0, expected), done.stderr
        assert "writing" not in done.stderr
    size = len(content)
    small = {"README.md": 2 * len(DEMO["README.md"]), "config.json": len(DEMO["config.json"])}
    assert hub.served == {"demo-Q8_0.gguf": size, "demo.q8_0.gguf": size, **small}


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        (("ours/none",), {}, "ours/none: the hub has no such model, or it is private"),
        (("ours/gated",), {}, "/ours/gated, then set HF_TOKEN"),
        (("ours/demo", "--revision", "nope"), {}, "ours/demo@nope: no such revision"),
        (("ours/demo",), {"HF_ENDPOINT": "http://127.0.0.1:9"}, "refused"),
        (("ours/demo",), {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set; unset it, or fetch it elsewhere"),
        (("ours/demo",), {"HF_HOME": "/dev/null/hf"}, "Not a directory"),
    ],
)
def test_what_keeps_a_model_away_is_one_line(hub, run, arguments, env, words):
    hub.repos["ours/gated"] = Repo(dict(DEMO), gated=True, token="hf_secret")
    done = run(*GENERATE, *arguments, **env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("codellm: ours/")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_remarks_of_the_server_and_the_client_stay_off_stderr(hub, run):
    hub.headers = {"X-HF-Warning": "unauthenticated; You are sending unauthenticated requests"}
    done = run("quantize", "ours/demo", "-q", "q8_0")
    assert done.returncode == 0
    assert "unauthenticated" not in done.stderr


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(hub, environment):
    """A limit on the size of a file, in kB, fails as a full disk does."""
    command = f'ulimit -f 4000; exec "{sys.executable}" -m codellm convert ours/demo'
    env = {**os.environ, **environment}
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(
        r"^codellm: ours/demo: .*File too large.*free some space, or set HF_HOME", done.stderr, re.MULTILINE
    )
    assert "Traceback" not in done.stderr
    [partial] = Path(environment["HF_HOME"]).rglob("*.incomplete")
    had = partial.stat().st_size
    hub.served.clear()
    done = codellm("convert", "ours/demo", **environment)
    assert done.returncode == 0, done.stderr
    assert hub.served["model.safetensors"] == SIZE - had < SIZE


def test_ctrl_c_ends_a_download_that_the_next_run_goes_on_with(hub, run, environment):
    hub.faults.append(Fault("GET /cdn", delay=0.1))
    child = subprocess.Popen(
        [sys.executable, "-m", "codellm", *GENERATE, "ours/demo"],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while hub.served.get("model.safetensors", 0) < 3_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    hub.faults.clear()
    assert run(*GENERATE, "ours/demo").returncode == 0
    # a chunk, and what was on its way, comes again
    assert hub.served["model.safetensors"] < SIZE + CHUNK + 1_200_000
    assert len(hub.cdn.lines("GET /cdn")) == 2


def test_on_a_terminal_the_bar_is_ours(environment):
    """A terminal for stderr: no bar of the client's, and nothing left of ours at the end but the remarks."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "codellm", "convert", "ours/demo"],
        env={**os.environ, **environment, "TERM": "xterm", "COLUMNS": "120"}, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # how a terminal ends
            break
    os.close(ours)
    child.communicate(timeout=60)
    assert child.returncode == 0
    text = shown.decode()
    assert "fetching ours/demo, 12 MB" in text
    assert "B/s" not in text
    assert "it/s" not in text
