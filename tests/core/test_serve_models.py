"""A server of several models, over HTTP: names, loads on demand, idleness, and models that are not there."""

import concurrent.futures
import shutil
import subprocess
import sys
from pathlib import Path

import openai
import pytest

import codellm
from support.serving import serving

DEMO = Path(codellm.__file__).parent / "data" / "codellm-demo"
PROMPT = {"prompt": "def add(a, b):", "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The bundled model under another name."""
    return shutil.copytree(DEMO, tmp_path_factory.mktemp("models") / "other-demo")


@pytest.fixture(scope="module")
def server(other):
    with serving("-m", "codellm-demo", "-m", str(other), "--context-length", "512") as server:
        yield server


def states(server):
    return {model["id"]: model["status"]["value"] for model in server.ask("/v1/models").json["data"]}


def test_the_field_model_chooses(server):
    assert states(server) == {"codellm-demo": "loaded", "other-demo": "unloaded"}
    first = server.ask("/v1/completions", PROMPT).json
    assert first["model"] == "codellm-demo"
    assert states(server)["other-demo"] == "unloaded"
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        asked = threads.map(lambda _: server.ask("/v1/completions", {**PROMPT, "model": "other-demo"}).json, range(4))
    for answer in asked:
        assert answer["model"] == "other-demo"
        assert answer["choices"][0]["text"] == first["choices"][0]["text"]
    assert states(server) == {"codellm-demo": "loaded", "other-demo": "loaded"}
    assert sum("loaded other-demo in" in line for line in server.log) == 1
    unknown = server.ask("/infill", {"model": "third", "input_prefix": "x"})
    assert (unknown.status, unknown.error["code"], unknown.error["param"]) == (404, "model_not_found", "model")


def test_the_client_lists_both(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["codellm-demo", "other-demo"]


def test_an_idle_model_goes_and_comes_back(other, tmp_path):
    gone = shutil.copytree(other, tmp_path / "gone")
    with serving("-m", str(other), "-m", str(gone), "--keep-alive", "0") as server:
        while states(server)["other-demo"] != "unloaded":
            pass
        assert server.ask("/v1/completions", PROMPT).status == 200
        shutil.rmtree(gone)
        failed = server.ask("/v1/completions", {**PROMPT, "model": "gone"})
        assert (failed.status, failed.error["code"]) == (500, "model_not_loaded")
        assert "gone cannot be loaded" in failed.error["message"]
        shutil.copytree(other, gone)
        assert server.ask("/v1/completions", {**PROMPT, "model": "gone"}).json["model"] == "gone"
        while "loaded" in states(server).values():
            pass


@pytest.mark.parametrize(
    ("models", "code", "said"),
    [
        (["codellm-demo", "codellm-demo"], 2, "two models called 'codellm-demo'"),
        (["codellm-demo", "none/such.gguf"], 1, "none/such.gguf: no such file"),
    ],
)
def test_what_cannot_be_served_is_said_at_the_start(models, code, said):
    options = [word for model in models for word in ("-m", model)]
    command = [sys.executable, "-m", "codellm", "serve", "--port", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
