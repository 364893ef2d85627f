"""`POST /completion` of llama.cpp's server (tools/server/README.md), against the real server."""

import pytest

from support.serving import serving

GREEDY = {"prompt": "def add(a, b):", "n_predict": 12, "temperature": 0}


@pytest.fixture(scope="module")
def server():
    with serving("-m", "codellm-demo", "--batch-size", "2") as server:
        yield server


def complete(server, **fields):
    answer = server.ask("/completion", fields)
    assert answer.status == 200, answer.body
    return answer.json


def test_it_is_what_the_other_endpoint_says(server):
    answer = complete(server, **GREEDY)
    other = server.ask("/v1/completions", {"prompt": GREEDY["prompt"], "max_tokens": 12, "temperature": 0}).json
    assert answer["content"] == other["choices"][0]["text"]
    assert (answer["stop"], answer["stop_type"], answer["tokens_predicted"]) == (True, "limit", 12)
    assert answer["tokens_evaluated"] == other["usage"]["prompt_tokens"]
    assert answer["timings"]["predicted_n"] == 12
    assert answer["generation_settings"]["temperature"] == 0
    assert answer["model"] == "codellm-demo"


def test_streaming_is_the_same_text(server):
    whole = complete(server, **GREEDY)
    with server.streaming("/completion", GREEDY) as events:
        *parts, last, done = events
    assert done == "[DONE]"
    assert "".join(part["content"] for part in parts) == whole["content"]
    assert all(part["stop"] is False for part in parts)
    assert (last["content"], last["stop_type"]) == ("", "limit")


def test_a_stop_string_and_the_fields_that_are_asked_for(server):
    answer = complete(
        server, **{**GREEDY, "stop": ['"""'], "response_fields": ["stop_type", "generation_settings/n_ctx"]}
    )
    assert answer == {"stop_type": "word", "generation_settings/n_ctx": 2048}


def test_special_strings_are_tokens(server):
    prefix, suffix = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
    written = f"<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>"
    answer = complete(server, prompt=written, n_predict=12, temperature=0)
    infilled = server.ask("/infill", {"input_prefix": prefix, "input_suffix": suffix, "n_predict": 12}).json
    assert answer["content"] == infilled["content"]
    ids = server.ask("/tokenize", {"content": written, "parse_special": True}).json["tokens"]
    assert complete(server, prompt=ids, n_predict=12, temperature=0)["content"] == answer["content"]


def test_the_names_of_sampling_are_those_of_llama_cpp(server):
    settings = complete(server, prompt="x", n_predict=1)["generation_settings"]
    assert (settings["temperature"], settings["top_k"], settings["top_p"], settings["min_p"]) == (0.8, 40, 0.95, 0.05)
    repeating = {"prompt": "a a a a a a", "n_predict": 24, "temperature": 0, "ignore_eos": True}
    assert complete(server, **repeating, repeat_penalty=30)["content"] != complete(server, **repeating)["content"]
    hot = {"prompt": "x", "n_predict": 16, "temperature": 2.0, "top_k": 0, "top_p": 1, "min_p": 0, "seed": 3}
    assert complete(server, **hot)["content"] == complete(server, **hot)["content"]


def test_to_warm_returns_nothing_and_an_empty_prompt_begins(server):
    warm = complete(server, prompt="def add", n_predict=0)
    assert (warm["content"], warm["tokens_predicted"], warm["timings"]["predicted_n"]) == ("", 0, 0)
    assert complete(server, prompt="", n_predict=4)["tokens_evaluated"] == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": {"prompt_string": "a"}}, "prompt"), ({}, "prompt"),
        ({"prompt": "a", "n": 2}, "n"), ({"prompt": "a", "n_cmpl": 2}, "n_cmpl"),
        ({"prompt": "a", "n_probs": 5}, "n_probs"),
        ({"prompt": "a", "grammar": "root ::= x"}, "grammar"),
        ({"prompt": "a", "dry_multiplier": 0.8}, "dry_multiplier"),
        ({"prompt": "a", "n_indent": -1}, "n_indent"), ({"prompt": "a", "repeat_penalty": "x"}, "repeat_penalty"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_had_is_named(server, fields, param):
    answer = server.ask("/completion", fields)
    assert (answer.status, answer.error["param"]) == (400, param)


def test_a_prompt_longer_than_the_context_is_an_error(server):
    answer = server.ask("/completion", {"prompt": "x " * 5000})
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
