"""The real server on the bundled model, asked by the real client and by what no client would send."""

import concurrent.futures

import openai
import pytest

from support.serving import serving

PROMPTS = ["def add(a, b):", "import os\n", "class Point:\n    def", "for i in", "# ünï\n", "return "]


@pytest.fixture(scope="module")
def server():
    with serving("--batch-size", "3") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def greedy(client, prompt, **fields):
    return client.completions.create(model="codellm-demo", prompt=prompt, temperature=0, **fields)


def test_the_client_finds_the_model(client, server):
    assert [model.id for model in client.models.list()] == ["codellm-demo"]
    assert server.ask("/health").json == {"status": "ok"}


def test_a_completion_is_what_the_library_generates(client):
    import codellm

    with codellm.load("codellm-demo", threads=1) as model:
        result = model.generate(PROMPTS[0], codellm.SamplingParams(max_tokens=12))
    answer = greedy(client, PROMPTS[0], max_tokens=12)
    assert answer.choices[0].text == result.text
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 12)


def test_a_stop_string_ends_it(client):
    answer = greedy(client, PROMPTS[0], max_tokens=40, stop=['"""'])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].text.strip() == ""


@pytest.mark.parametrize("prompt", PROMPTS[:2])
@pytest.mark.parametrize("seed", [1, 2])
def test_streaming_equals_not_streaming_byte_for_byte(client, prompt, seed):
    """So hot that the bytes of several characters come, whole and not."""
    wild = {"model": "codellm-demo", "prompt": prompt, "temperature": 3.0, "seed": seed, "max_tokens": 120}
    greedy(client, prompt, max_tokens=1)  # so that both find as much of it computed, and their usage is equal
    whole = client.completions.create(**wild, extra_body={"ignore_eos": True})
    parts = list(
        client.completions.create(
            **wild, stream=True, stream_options={"include_usage": True}, extra_body={"ignore_eos": True}
        )
    )
    assert "".join(part.choices[0].text for part in parts if part.choices).encode() == whole.choices[0].text.encode()
    assert not whole.choices[0].text.isascii()
    assert parts[-1].usage == whole.usage
    assert [part.choices[0].finish_reason for part in parts if part.choices][-1] == "length"


def test_what_was_not_computed_again_is_told(client, server):
    prompt = "".join(f"def from_{number}(x):\n    return x - {number}\n" for number in range(20))
    first, second = (greedy(client, prompt, max_tokens=1).usage for _ in range(2))
    assert first.prompt_tokens_details.cached_tokens < 20
    assert second.prompt_tokens == first.prompt_tokens > 200
    other = server.ask("/completion", {"prompt": prompt, "n_predict": 1}).json
    assert second.prompt_tokens_details.cached_tokens == other["tokens_cached"] > 200


def test_clients_at_once_get_what_each_gets_alone(client):
    alone = [greedy(client, prompt, max_tokens=30).choices[0].text for prompt in PROMPTS]
    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        together = pool.map(lambda prompt: greedy(client, prompt, max_tokens=30).choices[0].text, PROMPTS * 2)
    assert list(together) == alone * 2


def test_a_list_of_prompts_and_samples_of_each(client):
    answer = greedy(client, PROMPTS[:2], max_tokens=8, n=2)
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert texts[0] == texts[1] == greedy(client, PROMPTS[0], max_tokens=8).choices[0].text
    assert texts[2] == texts[3] == greedy(client, PROMPTS[1], max_tokens=8).choices[0].text
    hot = client.completions.create(model="codellm-demo", prompt="x", n=2, seed=5, temperature=2.0, max_tokens=16)
    assert hot.choices[0].text != hot.choices[1].text


def test_ids_are_a_prompt_too(client, server):
    ids = server.ask("/tokenize", {"content": PROMPTS[0]}).json["tokens"]
    assert server.ask("/detokenize", {"tokens": ids}).json == {"content": PROMPTS[0]}
    assert greedy(client, ids, max_tokens=8).choices[0].text == greedy(client, PROMPTS[0], max_tokens=8).choices[0].text
    both = greedy(client, [ids, ids], max_tokens=8)
    assert len(both.choices) == 2


def test_special_strings_are_text_unless_they_are_asked_for(server):
    text = "a<fim_prefix>"
    assert len(server.ask("/tokenize", {"content": text}).json["tokens"]) > 2
    assert len(server.ask("/tokenize", {"content": text, "parse_special": True}).json["tokens"]) == 2


def test_echo_gives_the_prompt_back(client):
    alone = greedy(client, "# é\n", max_tokens=8).choices[0].text
    assert greedy(client, "# é\n", max_tokens=8, echo=True).choices[0].text == f"# é\n{alone}"
    parts = greedy(client, "# é\n", max_tokens=8, echo=True, stream=True)
    assert "".join(part.choices[0].text for part in parts) == f"# é\n{alone}"


def test_a_suffix_fills_in_the_middle(client, server):
    prefix, suffix = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
    middle = greedy(client, prefix, suffix=suffix, max_tokens=12).choices[0].text
    infilled = server.ask("/infill", {"input_prefix": prefix, "input_suffix": suffix, "n_predict": 12}).json
    assert middle == infilled["content"] != greedy(client, prefix, max_tokens=12).choices[0].text


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"top_p": 0}, openai.BadRequestError, "top_p"),
        ({"n": 1000}, openai.BadRequestError, "n"),
        ({"stop": [""]}, openai.BadRequestError, "stop"),
        ({"best_of": 1, "n": 2}, openai.BadRequestError, "best_of"),
        ({"logprobs": 6}, openai.BadRequestError, "logprobs"),
        ({"presence_penalty": 0.5}, openai.BadRequestError, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, openai.BadRequestError, "logit_bias"),
        ({"prompt": "x " * 5000}, openai.BadRequestError, None),
        ({"prompt": [99999999]}, openai.BadRequestError, None),
        ({"prompt": []}, openai.BadRequestError, "prompt"),
        ({"model": "another"}, openai.NotFoundError, "model"),
    ],
    ids=str,
)
def test_the_client_raises_what_is_wrong(client, fields, kind, param):
    with pytest.raises(kind) as caught:
        client.completions.create(**{"model": "codellm-demo", "prompt": "x", **fields})
    assert caught.value.param == param
    assert caught.value.code


def test_what_changes_nothing_is_taken(client):
    fields = {"best_of": 1, "logit_bias": {}, "presence_penalty": 0, "user": "me", "extra_body": {"whatever": [1]}}
    assert greedy(client, "x", max_tokens=2, **fields).choices


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"prompt": "\\ud800"}', b'{"prompt": NaN}',
        b'{"prompt": ' + b"9" * 5000, b"[" * 100_000, b'{"prompt": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"prompt": "x", "temperature": 1e999}',
        b'{"prompt": "x", "seed": 1' + b"0" * 40 + b"}", b'{"prompt": "x", "stop": 5}', b'{"prompt": [true]}',
        b'{"prompt": {"a": 1}}', b'{"prompt": "x", "max_tokens": "5"}', b'{"prompt": "x", "stream": "yes"}',
    ],
    ids=lambda body: repr(body[:40]),
)  # fmt: skip
def test_garbage_is_a_bad_request(server, body):
    answer = server.ask("/v1/completions", body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"


def test_what_is_too_large_or_not_there_is_said(server):
    assert server.ask("/v1/completions", b" " * (8 * 2**20 + 1)).status == 413
    assert server.ask("/v1/nothing").error["code"] == "not_found"
    wrong = server.ask("/v1/completions")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert b" 400 " in server.raw(b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000)[:20]
    assert b" 400 " in server.raw(b"\x16\x03\x01 no http\r\n\r\n")[:20]
    assert server.ask("/health").status == 200


def test_no_prompt_is_logged(server):
    secret = "hunter2"
    server.ask("/v1/completions", {"prompt": secret, "max_tokens": 1})
    server.ask(f"/v1/models?{secret}")
    server.ask("/v1/completions", {"prompt": secret, "max_tokens": secret})
    assert any(line.startswith("POST /v1/completions 400 ") for line in server.log)
    assert secret not in "".join(server.log)


LONG = "".join(f"def function_{number}(value):\n    return value + {number}\n\n" for number in range(2000))


def test_a_long_file_is_cut_to_fit(server):
    """As llama.vim sends it, and longer than any context."""
    request = {
        "input_prefix": LONG, "prompt": "    retu", "input_suffix": LONG, "n_predict": 16, "n_indent": 4, "top_k": 40,
        "top_p": 0.9, "stream": False, "samplers": ["top_k", "top_p", "infill"], "cache_prompt": True, "stop": [],
        "t_max_prompt_ms": 500, "t_max_predict_ms": 100_000, "id_slot": 0,
        "input_extra": [{"filename": f"f{number}.py", "text": LONG[:200]} for number in range(40)],
        "response_fields": ["content", "timings/prompt_n", "timings/predicted_n", "timings/nothing"],
    }  # fmt: skip
    answer = server.ask("/infill", request).json
    assert set(answer) == {"content", "timings/prompt_n", "timings/predicted_n"}
    assert 1900 < answer["timings/prompt_n"] <= 2048 - 16
    whole = server.ask("/infill", {**request, "response_fields": None}).json
    assert whole["content"] == answer["content"]
    with server.streaming("/infill", {**request, "response_fields": None}) as events:
        *parts, last, done = events
    assert done == "[DONE]"
    assert "".join(part["content"] for part in parts) == whole["content"]
    assert last["stop"] is True
    assert last["tokens_predicted"] == whole["tokens_predicted"]


def test_to_warm_returns_nothing(server):
    answer = server.ask("/infill", {"input_prefix": "a", "input_suffix": "b", "n_predict": 0}).json
    assert (answer["content"], answer["tokens_predicted"]) == ("", 0)


def test_the_time_of_an_infill_ends_after_a_line(server):
    limit = {"input_prefix": "a = 1\nb", "input_suffix": "", "t_max_predict_ms": 1, "ignore_eos": True}
    answer = server.ask("/infill", {**limit, "n_predict": 1000}).json
    assert answer["stop_type"] == "limit"
    assert "\n" in answer["content"]
    assert answer["tokens_predicted"] < 1000
