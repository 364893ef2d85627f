"""LLM, the program at a shell: its command, and its models that speak as OpenAI's do, against the real server."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import codellm
from codellm import SamplingParams

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
PROMPT = "def add(a, b):"
OPTIONS = ("-o", "temperature", "0", "-o", "max_tokens", "12")


@pytest.fixture(scope="module")
def llm(api, tmp_path_factory):
    """Run the command in a folder of its own, which names the two models of the server."""
    folder = tmp_path_factory.mktemp("llm")
    [demo] = re.findall(r"^```yaml\n(- model_id: demo\n.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    models = demo.replace("http://127.0.0.1:8012/v1", api)
    models += f"- {json.dumps({'model_id': 'chat', 'model_name': 'demo-chat', 'api_base': api})}\n"
    (folder / "extra-openai-models.yaml").write_text(models)
    env = {**os.environ, "LLM_USER_PATH": str(folder), "HOME": str(folder / "none")}

    def llm(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "llm", *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    return llm


@pytest.fixture(scope="module")
def said(llm):
    """What the command prints, where it ends well."""

    def said(*arguments):
        done = llm(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return said


def test_the_models_are_listed(said):
    assert {"OpenAI Completion: demo", "OpenAI Chat: chat"} <= set(said("models").splitlines())


@pytest.mark.parametrize("streaming", [(), ("--no-stream",)], ids=["streaming", "whole"])
def test_a_completion_is_what_the_library_gives(said, streaming):
    with codellm.load("codellm-demo", threads=1) as model:
        result = model.generate(PROMPT, SamplingParams(max_tokens=12))
    assert said("-m", "demo", *streaming, PROMPT, *OPTIONS) == result.text + "\n"


@pytest.mark.parametrize("streaming", [(), ("--no-stream",)], ids=["streaming", "whole"])
def test_an_answer_is_what_the_library_gives(said, streaming, folder):
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
    with codellm.load(str(folder), threads=1) as model:
        result = model.chat(talk, SamplingParams(max_tokens=12))
    assert said("-m", "chat", *streaming, "-s", "Be brief.", PROMPT, *OPTIONS) == result.text + "\n"


def test_a_conversation_goes_on_and_is_counted(said):
    said("-m", "chat", PROMPT, *OPTIONS)
    said("-c", "and sub", "-o", "temperature", "0", "-o", "max_tokens", "5")
    entries = json.loads(said("logs", "--json", "-n", "2"))
    first, second = sorted(entries, key=lambda entry: entry["datetime_utc"])
    assert first["conversation_id"] == second["conversation_id"]
    assert (first["prompt"], second["prompt"]) == (PROMPT, "and sub")
    assert (first["output_tokens"], second["output_tokens"]) == (12, 5)
    assert second["input_tokens"] > first["input_tokens"] + first["output_tokens"]


def test_an_error_is_told(llm):
    done = llm("-m", "chat", PROMPT, "-o", "json_object", "1")
    assert done.returncode == 1
    assert "response_format is not supported here" in done.stderr
