"""litellm, through which agents and tools of many kinds ask their models: its calls against the real server."""

import asyncio
import gc

import pytest

import codellm
from codellm import SamplingParams

PROMPT = "def add(a, b):"
CHAT = ("openai/demo-chat", {"messages": [{"role": "user", "content": PROMPT}]})
TEXT = ("text-completion-openai/codellm-demo", {"prompt": PROMPT})
SAMPLING = {"temperature": 2.0, "seed": 4, "max_tokens": 12}

pytestmark = pytest.mark.filterwarnings("ignore")  # all are of litellm: the server is another process


@pytest.fixture(scope="module")
def litellm():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it is fetched
        patch.setenv("LITELLM_MODE", "PRODUCTION")  # else it reads a .env
        import litellm

        patch.setattr(litellm, "suppress_debug_info", True)
        yield litellm
        litellm.in_memory_llm_clients_cache.flush_cache()  # what it leaves open is to be warned of here, not later
        gc.collect()


@pytest.fixture
def ask(litellm, api):
    """Ask for a completion or an answer, and return what litellm makes of it."""

    def ask(kind, **fields):
        model, prompt = kind
        call = litellm.completion if kind is CHAT else litellm.text_completion
        fields = {"model": model, **prompt, **SAMPLING, **fields}
        return call(api_base=api, api_key="any", num_retries=0, max_retries=0, **fields)

    return ask


@pytest.fixture
def ask_async(litellm, api):
    async def ask(kind, **fields):
        model, prompt = kind
        call = litellm.acompletion if kind is CHAT else litellm.atext_completion
        answer = await call(
            model=model, api_base=api, api_key="any", num_retries=0, max_retries=0, **prompt, **SAMPLING, **fields
        )
        return [part async for part in answer] if "stream" in fields else answer

    return lambda *what, **fields: asyncio.run(ask(*what, **fields))


def text(answer):
    [choice] = answer.choices
    return choice.message.content if hasattr(choice, "message") else choice.text


def streamed(parts):
    """The text and the reason of an end that chunks hold together."""
    choices = [choice for part in parts for choice in part.choices]
    deltas = [choice.delta.content if hasattr(choice, "delta") else choice.text for choice in choices]
    [reason] = {choice.finish_reason for choice in choices} - {None}
    return "".join(delta or "" for delta in deltas), reason


def test_a_completion_is_what_the_library_gives(ask):
    with codellm.load("codellm-demo", threads=1) as model:
        result = model.generate(PROMPT, SamplingParams(max_tokens=12))
    answer = ask(TEXT, temperature=0)
    assert text(answer) == result.text
    assert answer.choices[0].finish_reason == {"length": "length"}.get(result.finish_reason, "stop")
    assert answer.usage.completion_tokens == len(result.token_ids)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("kind", [TEXT, CHAT], ids=["completion", "chat"])
def test_every_way_to_ask_gives_the_same(ask, ask_async, kind):
    whole = ask(kind)
    assert text(whole)
    expected = text(whole), whole.choices[0].finish_reason
    assert text(ask_async(kind)) == text(whole)
    assert streamed(ask(kind, stream=True)) == expected
    assert streamed(ask_async(kind, stream=True)) == expected


@pytest.mark.parametrize("kind", [TEXT, CHAT], ids=["completion", "chat"])
def test_a_stream_counts_as_the_whole_does(ask, kind):
    usage = ask(kind).usage
    *_, last = ask(kind, stream=True, stream_options={"include_usage": True})
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (usage.prompt_tokens, usage.completion_tokens)


def test_fields_beyond_those_of_openai_arrive(ask):
    assert text(ask(TEXT, extra_body={"top_k": 1})) == text(ask(TEXT, temperature=0))


WRONG = [
    (TEXT, {"temperature": -1}, "BadRequestError"),
    (TEXT, {"prompt": "x " * 5000}, "ContextWindowExceededError"),
    (CHAT, {"messages": [{"role": "user", "content": "x " * 5000}]}, "ContextWindowExceededError"),
    (CHAT, {"response_format": {"type": "json_object"}}, "BadRequestError"),
    (CHAT, {"model": "openai/another"}, "NotFoundError"),
    (CHAT, {"model": "openai/codellm-demo"}, "BadRequestError"),  # it has no chat template
]


@pytest.mark.parametrize(("kind", "fields", "name"), WRONG, ids=lambda value: str(value)[:50])
def test_an_error_is_raised_as_what_it_is(litellm, ask, kind, fields, name):
    with pytest.raises(getattr(litellm, name)) as caught:
        ask(kind, **fields)
    assert type(caught.value).__name__ == name  # and no subclass of it
