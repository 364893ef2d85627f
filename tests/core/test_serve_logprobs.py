"""Log-probabilities over HTTP, held against those of the library: the real server, asked by the real client."""

import asyncio
import functools

import openai
import pytest

import codellm
from codellm import SamplingParams
from codellm.result import TokenLogprobs
from codellm.serve.logprobs import Columns, Vocabulary, contents
from codellm.tokenizer import ByteTokenizer
from support.chats import with_template
from support.serving import serving

PROMPT = "def add(a, b):"
TALK = [{"role": "user", "content": PROMPT}]
HOT = {"temperature": 3.0, "seed": 1, "max_tokens": 60, "extra_body": {"ignore_eos": True}}
"""So hot that the bytes of several characters come, whole and not."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return with_template(tmp_path_factory.mktemp("telling"))


@pytest.fixture(scope="module")
def client(folder):
    with (
        serving("-m", str(folder), "--batch-size", "3") as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def name(client):
    [model] = client.models.list()
    return model.id


@pytest.fixture(scope="module")
def model(folder):
    with codellm.load(str(folder), threads=1) as model:
        yield model


@pytest.fixture
def complete(client, name):
    def complete(**fields):
        return client.completions.create(**{"model": name, "prompt": PROMPT, "temperature": 0, **fields})

    return complete


@pytest.fixture
def talk(client, name):
    def talk(**fields):
        return client.chat.completions.create(
            **{"model": name, "messages": TALK, "temperature": 0, "logprobs": True, **fields}
        )

    return talk


def test_a_completion_tells_what_the_library_tells(complete, model):
    told = model.generate(PROMPT, SamplingParams(max_tokens=12, logprobs=3)).logprobs
    choice = complete(max_tokens=12, logprobs=3).choices[0]
    found = choice.logprobs
    assert "".join(found.tokens) == choice.text
    assert found.token_logprobs == pytest.approx([one.logprob for one in told], abs=1e-4)
    for top, one in zip(found.top_logprobs, told, strict=True):
        assert list(top.values())[:3] == pytest.approx([logprob for _, logprob in one.top], abs=1e-4)
        assert list(top.values()) == sorted(top.values(), reverse=True)
    places = zip(found.text_offset, found.tokens, strict=True)
    assert all(choice.text[offset:].startswith(token) for offset, token in places)


def test_none_beside_a_token_is_its_own_alone(complete):
    found = complete(max_tokens=4, logprobs=0).choices[0].logprobs
    assert [list(top) for top in found.top_logprobs] == [[token] for token in found.tokens]
    assert complete(max_tokens=4).choices[0].logprobs is None
    assert complete(max_tokens=4, extra_body={"logprobs": False}).choices[0].logprobs is None


def test_a_conversation_tells_what_the_library_tells(talk, model):
    told = model.chat(TALK, SamplingParams(max_tokens=12, logprobs=20)).logprobs
    choice = talk(max_tokens=12, top_logprobs=20).choices[0]
    content = choice.logprobs.content
    assert [one.logprob for one in content] == pytest.approx([one.logprob for one in told], abs=1e-4)
    assert [len(one.top_logprobs) for one in content] == [20] * len(told)
    assert b"".join(bytes(one.bytes or []) for one in content).decode("utf-8", "replace") == choice.message.content
    assert [one.logprobs for one in talk(max_tokens=3, logprobs=False).choices] == [None]


@pytest.mark.parametrize("n", [1, 2])
def test_the_parts_of_a_completion_tell_what_the_whole_tells(complete, n):
    fields = {**HOT, "logprobs": 2, "n": n}
    whole = complete(**fields)
    parts = list(complete(**fields, stream=True))
    for choice in whole.choices:
        own = [part.choices[0].logprobs for part in parts if part.choices[0].index == choice.index]
        for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [one for part in own for one in getattr(part, field)] == getattr(choice.logprobs, field)
        assert len(choice.logprobs.tokens) == 60
        assert any(token.startswith("bytes:\\x") for token in choice.logprobs.tokens)


def test_the_parts_of_an_answer_tell_what_the_whole_tells(talk):
    fields = {**HOT, "top_logprobs": 2}
    [choice] = talk(**fields).choices
    parts = [part.choices[0] for part in talk(**fields, stream=True)]
    assert parts[0].logprobs is None  # it says whose turn it is
    assert [one for part in parts[1:] for one in part.logprobs.content] == choice.logprobs.content
    assert any(one.token.startswith("\\x") for one in choice.logprobs.content)


def test_what_a_stop_string_cuts_off_is_told_all_the_same(complete):
    text = complete(max_tokens=20).choices[0].text
    [choice] = complete(max_tokens=20, stop=[text[4:6]], logprobs=1).choices
    assert "".join(choice.logprobs.tokens).startswith(text[: text.index(text[4:6]) + 2])
    parts = list(complete(max_tokens=20, stop=[text[4:6]], logprobs=1, stream=True))
    assert [token for part in parts for token in part.choices[0].logprobs.tokens] == choice.logprobs.tokens


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 21}, "top_logprobs"), ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_conversation_cannot_ask(talk, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        talk(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("field", "value"), [("logprobs", 6), ("logprobs", -1), ("logprobs", True), ("top_logprobs", 1)]
)
def test_what_a_completion_cannot_ask(complete, field, value):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(extra_body={field: value})
    assert caught.value.param == field


@pytest.mark.parametrize("top", [0, 3])
@pytest.mark.parametrize("ids", [False, True])
def test_a_prompt_is_told_as_the_library_scores_it(complete, model, top, ids):
    """As lm-eval's local-completions asks: the last token is the one that was generated."""
    prompt = model.tokenizer.prompt_ids(PROMPT)
    [scores] = model.score([prompt])
    choice = complete(prompt=prompt if ids else PROMPT, max_tokens=1, echo=True, logprobs=top).choices[0]
    found = choice.logprobs
    assert "".join(found.tokens) == choice.text
    assert choice.text.startswith(PROMPT)
    assert (found.token_logprobs[0], found.top_logprobs[0]) == (None, None)
    assert found.token_logprobs[1:-1] == pytest.approx(scores.tolist(), abs=2e-3)
    assert found.text_offset == [len("".join(found.tokens[:index])) for index in range(len(prompt) + 1)]
    for told, token, logprob in zip(found.top_logprobs[1:], found.tokens[1:], found.token_logprobs[1:], strict=True):
        assert told[token] == logprob
        assert len(told) in (max(top, 1), top + 1)


def test_a_prompt_alone_is_told_and_nothing_generated(complete, model):
    prompts = [PROMPT, "# né\n", "x"]
    answer = complete(prompt=prompts, max_tokens=0, echo=True, logprobs=1, n=2)
    assert [choice.text for choice in answer.choices] == [prompt for prompt in prompts for _ in range(2)]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.usage.completion_tokens == 0
    scores = model.score([model.tokenizer.prompt_ids(prompt) for prompt in prompts])
    for choice, row in zip(answer.choices[::2], scores, strict=True):
        assert choice.logprobs.token_logprobs[1:] == pytest.approx(row.tolist(), abs=2e-3)
    assert complete(max_tokens=0, echo=True).choices[0].text == PROMPT


@pytest.mark.parametrize("most", [0, 5])
def test_the_parts_of_an_echo_tell_what_the_whole_tells(complete, most):
    fields = {"max_tokens": most, "echo": True, "logprobs": 2}
    [choice] = complete(**fields).choices
    parts = [part.choices[0] for part in complete(**fields, stream=True)]
    assert "".join(part.text for part in parts) == choice.text
    assert parts[0].text == PROMPT
    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        told = [one for part in parts if part.logprobs for one in getattr(part.logprobs, field)]
        assert told == getattr(choice.logprobs, field)


def test_prompts_are_told_while_others_generate(client, complete, model, name):
    prompt = model.tokenizer.prompt_ids(PROMPT)
    alone = complete(max_tokens=30).choices[0].text

    async def asked():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key="any", max_retries=0) as beside:
            create = functools.partial(beside.completions.create, model=name, temperature=0)
            generated = [create(prompt=PROMPT, max_tokens=30) for _ in range(6)]
            told = [create(prompt=prompt, max_tokens=1, echo=True, logprobs=1) for _ in range(6)]
            return await asyncio.gather(*(one for pair in zip(generated, told, strict=True) for one in pair))

    answers = asyncio.run(asked())
    assert {answer.choices[0].text for answer in answers[::2]} == {alone}
    [scores] = model.score([prompt])
    for answer in answers[1::2]:
        assert answer.choices[0].logprobs.token_logprobs[1:-1] == pytest.approx(scores.tolist(), abs=2e-3)


def mean(choice):
    return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)


def test_the_best_are_those_whose_tokens_are_likeliest_in_the_mean(complete):
    fields = {"prompt": [PROMPT, "import os"], "temperature": 1.5, "seed": 2, "max_tokens": 12}
    choices = complete(**fields, n=6, logprobs=1).choices
    answer = complete(**fields, n=2, best_of=6, logprobs=1)
    best = [one for of in (choices[:6], choices[6:]) for one in sorted(of, key=mean, reverse=True)[:2]]
    assert [choice.text for choice in answer.choices] == [choice.text for choice in best]
    assert [choice.logprobs for choice in answer.choices] == [choice.logprobs for choice in best]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.completion_tokens == sum(len(choice.logprobs.tokens) for choice in choices)
    untold = complete(**fields, n=2, best_of=6, echo=True)
    assert [choice.text for choice in untold.choices] == [
        prompt + choice.text for prompt, choice in zip(2 * [PROMPT] + 2 * ["import os"], best, strict=True)
    ]
    assert {choice.logprobs for choice in untold.choices} == {None}


def test_which_is_best_is_known_at_the_end(complete):
    with pytest.raises(openai.BadRequestError, match="best_of"):
        complete(best_of=2, stream=True)
    assert list(complete(best_of=2, n=2, stream=True, max_tokens=2))
    with pytest.raises(openai.BadRequestError, match="best_of times the prompts"):
        complete(prompt=["x"] * 3, best_of=100)


def test_bytes_special_tokens_and_what_cannot_come():
    told = [
        TokenLogprobs(0xC3, -1.0, ((0x61, -0.5), (0xC3, -1.0))), TokenLogprobs(0xA9, 1e-4, ((0xA9, 1e-4),)),
        TokenLogprobs(256, -float("inf"), ()),
    ]  # fmt: skip
    vocabulary = Vocabulary(ByteTokenizer())
    columns = Columns(vocabulary)
    assert [columns.of([one]) for one in told] == [
        {
            "tokens": ["bytes:\\xc3"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -0.5, "bytes:\\xc3": -1.0}],
            "text_offset": [0],
        },
        {
            "tokens": ["bytes:\\xa9"], "token_logprobs": [0.0], "top_logprobs": [{"bytes:\\xa9": 0.0}],
            "text_offset": [0],
        },
        {
            "tokens": ["token_id:256"], "token_logprobs": [-9999.0], "top_logprobs": [{"token_id:256": -9999.0}],
            "text_offset": [1],
        },
    ]  # fmt: skip
    first, _, last = contents(vocabulary, told)["content"]
    assert first["top_logprobs"][0] == {"token": "a", "logprob": -0.5, "bytes": [0x61]}
    assert (first["token"], first["bytes"]) == ("\\xc3", [0xC3])
    assert (last["token"], last["logprob"], last["bytes"]) == ("token_id:256", -9999.0, None)
