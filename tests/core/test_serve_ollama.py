"""Ollama's own Python client, against the real server, and requests as its documentation has them (docs/api.md)."""

import asyncio
import json

import ollama
import pytest

from codellm import __version__
from support.serving import serving

PREFIX, SUFFIX = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
GREEDY = {"temperature": 0, "num_predict": 6}


@pytest.fixture(scope="module")
def server():
    with serving("-m", "codellm-demo", "--batch-size", "2") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with ollama.Client(server.url) as client:
        yield client


def generate(client, prompt=PREFIX, options=GREEDY, **fields):
    return client.generate("codellm-demo", prompt, options=options, **fields)


def test_the_client_finds_the_model(client, server):
    assert [model.model for model in client.list().models] == ["codellm-demo"]
    assert server.ask("/api/version").json == {"version": __version__}


def test_it_is_what_the_other_endpoint_says(client, server):
    answer = generate(client)
    other = server.ask("/v1/completions", {"prompt": PREFIX, "max_tokens": 6, "temperature": 0}).json
    assert answer.response == other["choices"][0]["text"]
    assert (answer.done, answer.done_reason) == (True, "length")
    assert (answer.prompt_eval_count, answer.eval_count) == (other["usage"]["prompt_tokens"], 6)
    assert answer.total_duration >= answer.prompt_eval_duration + answer.eval_duration > 0
    assert generate(client, options={**GREEDY, "stop": ["\n"], "num_predict": -1}).done_reason == "stop"


def test_streaming_is_the_same_text(client, server):
    *parts, last = generate(client, stream=True)
    assert "".join(part.response for part in parts) == generate(client).response
    assert not any(part.done for part in parts)
    assert (last.response, last.done, last.done_reason) == ("", True, "length")
    lines = server.ask("/api/generate", {"model": "codellm-demo", "prompt": PREFIX, "options": GREEDY})
    assert lines.headers["Content-Type"].startswith("application/x-ndjson")
    assert "".join(json.loads(line)["response"] for line in lines.body.splitlines()) == generate(client).response


def test_the_client_that_waits_for_several(server):
    async def several():
        async with ollama.AsyncClient(server.url) as client:
            whole = await asyncio.gather(*(generate(client) for _ in range(4)))
            parts = [part.response async for part in await generate(client, stream=True)]
            return [answer.response for answer in whole], "".join(parts)

    whole, streamed = asyncio.run(several())
    assert set(whole) == {streamed}


@pytest.mark.parametrize("raw", [False, True])
def test_a_suffix_fills_in_the_middle(client, server, raw):
    infilled = server.ask("/infill", {"input_prefix": PREFIX, "input_suffix": SUFFIX, "n_predict": 6}).json
    assert generate(client, suffix=SUFFIX, raw=raw).response == infilled["content"]
    assert generate(client, "", suffix=SUFFIX, raw=raw).eval_count >= 1
    assert generate(client, PREFIX * 2000, suffix=SUFFIX * 2000, raw=raw).prompt_eval_count > 1900


def test_special_strings_of_a_raw_prompt_are_tokens(client):
    written = f"<fim_prefix>{PREFIX}<fim_suffix>{SUFFIX}<fim_middle>"
    assert generate(client, written, raw=True).response == generate(client, suffix=SUFFIX).response


def test_no_prompt_loads(client):
    answer = client.generate("codellm-demo")
    assert (answer.response, answer.done, answer.done_reason) == ("", True, "load")


def test_the_names_of_options_are_those_of_ollama(client):
    hot = {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "num_predict": 16}
    assert (
        generate(client, options={**hot, "seed": 3}).response == generate(client, options={**hot, "seed": 3}).response
    )
    repeating = {"temperature": 0, "num_predict": 24}
    plain = generate(client, "a a a a a a", options=repeating).response
    assert generate(client, "a a a a a a", options={**repeating, "repeat_penalty": 30.0}).response != plain
    without = {**repeating, "repeat_penalty": 30.0, "repeat_last_n": 0}
    assert generate(client, "a a a a a a", options=without).response == plain
    assert generate(client, options={**GREEDY, "num_ctx": 4096, "num_thread": 2, "num_gpu": 1}).eval_count == 6


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"template": "{{ .Prompt }}"}, 400, "template"), ({"images": ["aGk="]}, 400, "images"),
        ({"format": "json"}, 400, "format"), ({"think": True}, 400, "think"), ({"context": [1]}, 400, "context"),
        ({"system": "be brief", "raw": True}, 400, "system"), ({"system": "be brief"}, 400, "chat template"),
        ({"options": {"mirostat": 1}}, 400, "mirostat"), ({"options": {"temperature": -1}}, 400, "temperature"),
        ({"options": {"num_predict": -3}}, 400, "num_predict"), ({"model": "another"}, 404, "another"),
        ({"logprobs": True}, 400, "logprobs"),
    ],
    ids=str,
)  # fmt: skip
def test_the_client_raises_what_is_wrong(client, fields, status, named):
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate(**{"model": "codellm-demo", "prompt": "x", **fields})
    assert caught.value.status_code == status
    assert isinstance(caught.value.error, str)
    if status == 400:
        assert named in caught.value.error


def test_an_error_of_the_body_is_a_text_too(server):
    answer = server.ask("/api/generate", b"{")
    assert (answer.status, list(answer.json)) == (400, ["error"])
    assert isinstance(answer.json["error"], str)
