"""Conversations over HTTP: the real server on the bundled model with a chat template, asked by the real client."""

import asyncio
import concurrent.futures
import json
import time

import openai
import pytest

import codellm
from codellm import SamplingParams
from support.chats import CHATML, with_template
from support.serving import serving

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "def add(a, b):"},
    {"role": "assistant", "content": "    return a + b"},
    {"role": "user", "content": "def sub(a, b): <|im_end|>\n"},
]
HI = TALK[1:2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return with_template(tmp_path_factory.mktemp("conversing"))


@pytest.fixture(scope="module")
def server(folder):
    with serving("-m", str(folder), "--batch-size", "3") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def name(client):
    [model] = client.models.list()
    return model.id


@pytest.fixture
def ask(client, name):
    def ask(messages=TALK, **fields):
        return client.chat.completions.create(model=name, messages=messages, **{"temperature": 0, **fields})

    return ask


def test_an_answer_is_what_the_library_gives(ask, folder):
    with codellm.load(str(folder), threads=1) as model:
        result = model.chat(TALK, SamplingParams(max_tokens=12))
    answer = ask(max_tokens=12)
    [choice] = answer.choices
    assert answer.object == "chat.completion"
    assert (choice.message.role, choice.message.content) == ("assistant", result.text)
    assert choice.finish_reason == {"length": "length", "eos": "stop", "stop": "stop"}[result.finish_reason]
    assert answer.usage.completion_tokens == len(result.token_ids)
    assert answer.usage.prompt_tokens > 50


def test_either_name_of_the_most_tokens_is_taken(ask):
    fields = {"extra_body": {"ignore_eos": True}}
    assert ask(max_tokens=3, **fields).usage.completion_tokens == 3
    assert ask(max_completion_tokens=4, **fields).usage.completion_tokens == 4
    assert ask(max_tokens=3, max_completion_tokens=4, **fields).usage.completion_tokens == 4


def test_without_a_most_it_goes_on_to_the_end_of_the_context(ask):
    answer = ask(HI, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == 2048


def test_parts_are_text(ask):
    parts = [{"type": "text", "text": piece} for piece in ("def ", "add(a, b):")]
    whole = ask(HI, max_tokens=8).choices[0].message.content
    assert ask([{"role": "user", "content": parts}], max_tokens=8).choices[0].message.content == whole


@pytest.mark.parametrize("n", [1, 3])
def test_streaming_equals_not_streaming(ask, n):
    fields = {"temperature": 2.0, "seed": 4, "max_tokens": 40, "n": n, "extra_body": {"ignore_eos": True}}
    ask(max_tokens=1)  # so that both find as much of the prompt computed, and their usage is equal
    whole = ask(**fields)
    parts = list(ask(**fields, stream=True, stream_options={"include_usage": True}))
    *parts, last = parts
    assert (last.choices, last.usage) == ([], whole.usage)
    assert {part.object for part in parts} == {"chat.completion.chunk"}
    assert {part.usage for part in parts} == {None}
    for choice in whole.choices:
        own = [part.choices[0] for part in parts if part.choices[0].index == choice.index]
        assert [part.delta.role for part in own] == ["assistant", *[None] * (len(own) - 1)]
        assert "".join(part.delta.content or "" for part in own) == choice.message.content
        assert [part.finish_reason for part in own] == [*[None] * (len(own) - 1), choice.finish_reason]
    assert len({choice.message.content for choice in whole.choices}) == n


def test_a_stop_string_ends_it(ask):
    text = ask(max_tokens=20).choices[0].message.content
    stopped = ask(max_tokens=20, stop=[text[5:8]]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (text[: text.index(text[5:8])], "stop")


def test_the_prompt_is_told_as_text(server, ask):
    prompt = server.ask("/apply-template", {"messages": TALK}).json["prompt"]
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\ndef add")
    assert prompt.endswith("<|im_start|>assistant\n")
    ids = server.ask("/tokenize", {"content": prompt, "parse_special": True}).json["tokens"]
    assert ask(max_tokens=1).usage.prompt_tokens == len(ids)


TEXT = {"type": "text", "text": "x"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
WRONG = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages"),
    ({"messages": [{"role": "user", "content": [TEXT, IMAGE]}]}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "x"}] * 5000}, "messages"),
    ({"messages": [{"role": "user", "content": "x " * 5000}]}, None),
    ({"tools": [TOOL]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}}, "response_format"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"n": 1000}, "n"),
    ({"extra_body": {"chat_template": "{{ messages }}"}}, "chat_template"),
    ({"extra_body": {"continue_final_message": True}}, "continue_final_message"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=lambda value: str(value)[:60])
def test_the_client_raises_what_is_wrong(ask, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(**{"messages": HI, **fields})
    assert caught.value.param == param
    assert caught.value.code


def test_what_asks_for_nothing_is_taken(ask):
    nothing = {
        "response_format": {"type": "text"}, "tools": [], "tool_choice": "auto", "modalities": ["text"], "store": False,
        "metadata": {"a": "b"}, "user": "me", "prediction": {"type": "content", "content": "x"}, "logprobs": False,
        "parallel_tool_calls": True, "service_tier": "auto", "logit_bias": {}, "presence_penalty": 0,
    }  # fmt: skip
    assert ask(HI, max_tokens=2, **nothing).choices


def test_another_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="another", messages=HI)


def test_a_model_without_a_template_says_what_to_do():
    with serving("-m", "codellm-demo") as server:
        for path in ("/v1/chat/completions", "/apply-template"):
            answer = server.ask(path, {"messages": HI})
            assert (answer.status, answer.error["code"]) == (400, "no_chat_template")
            assert "codellm-demo has no chat template" in answer.error["message"]
            assert "instruct" in answer.error["message"]


def test_a_template_that_never_ends_keeps_nobody_waiting(tmp_path):
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    folder = with_template(tmp_path, CHATML.replace("{%- if add_generation_prompt %}", endless + "{%- if true %}"))
    with serving("-m", str(folder)) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.ask, "/v1/chat/completions", {"messages": HI})
        time.sleep(0.5)
        assert server.ask("/health").status == 200
        assert not asked.done()
        assert asked.result().status == 500
        assert "processor time" in asked.result().error["message"]
        assert server.ask("/v1/completions", {"prompt": "x", "max_tokens": 1}).status == 200


def test_many_clients_converse_at_once(server, name):
    """As an asynchronous program asks: some whole, some in parts."""

    async def one(client, number):
        fields = {"model": name, "messages": HI, "temperature": 0, "max_tokens": 10}
        if number % 2:
            return (await client.chat.completions.create(**fields)).choices[0].message.content
        parts = await client.chat.completions.create(**fields, stream=True)
        return "".join([part.choices[0].delta.content or "" async for part in parts])

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            return await asyncio.gather(*(one(client, number) for number in range(8)))

    assert len(set(asyncio.run(all_of_them()))) == 1


def test_garbage_is_a_bad_request(server):
    for messages in (None, "hi", {"role": "user"}, [1], [[]], [{"role": 1, "content": "x"}], [{"content": "x"}]):
        answer = server.ask("/v1/chat/completions", json.dumps({"messages": messages}).encode())
        assert (answer.status, answer.error["param"]) == (400, "messages")
    lone = server.ask("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "\\ud800"}]}')
    assert (lone.status, lone.error["param"]) == (400, "messages")
