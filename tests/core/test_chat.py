"""Conversations: what a message may be, which prompt it makes, where an answer ends."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import codellm
from codellm import Message, SamplingParams
from codellm.chat import chat_ids, turn_end
from codellm.chat_template import ChatTemplate
from codellm.errors import InvalidValueError, ModelFileError, NoChatTemplateError
from codellm.loading import find
from codellm.marks import Marks
from codellm.sources.local import read_directory
from codellm.tokenizer import HFTokenizer
from support.chats import CHATML, ENDS, FAMILIES, tokenizer_of, with_template
from support.hub_server import DEMO, Repo
from support.script_model import EOS, FIM, ByteTokenizer, ScriptModel

HI = [Message("user", "hi")]
PLAIN = "{% for m in messages %}<file_sep>{{ m.role }}:{{ m.content }}{% endfor %}"


class Conversing(ByteTokenizer):
    """Tells special tokens from text, and has a chat template."""

    controls = {"<|end|>": EOS} | FIM

    def __init__(self, template=PLAIN):
        self.chat_template = ChatTemplate(template, {}, "script")

    def encode(self, text, special=False):
        pieces, start = [], 0
        for match in Marks.of(self.controls).pattern.finditer(text) if special else ():
            pieces += [*super().encode(text[start : match.start()]), self.controls[match[0]]]
            start = match.end()
        return pieces + super().encode(text[start:])

    def special_id(self, token):
        return self.controls.get(token)


@pytest.fixture
def conversing():
    tokenizers = []

    def make(template=PLAIN):
        tokenizers.append(Conversing(template))
        return tokenizers[-1]

    yield make
    for tokenizer in tokenizers:
        tokenizer.chat_template.close()


WRONG = {
    "no list": ("hi", "messages must be a list of messages"),
    "one message": ({"role": "user", "content": "hi"}, "messages must be a list of messages"),
    "none": ([], "there is no message to answer"),
    "no message": (["hi"], "a message must be a Message or an object"),
    "no role": ([{"content": "hi"}], "a message has no role"),
    "no content": ([{"role": "user", "content": None}], "a message has no content"),
    "a number": ([{"role": "user", "content": 3}], "the content of a message must be text, not 3"),
    "half a character": ([{"role": "user", "content": "\ud800"}], "a message holds a lone surrogate, U\\+D800"),
    "another role": ([{"role": "im_end", "content": "hi"}], "must be one of system, developer, user, assistant, not"),
    "a tool": ([{"role": "tool", "content": "hi"}], "the role 'tool' are not supported: codellm calls no tools"),
    "calls": ([{"role": "assistant", "content": "", "tool_calls": [1]}], "tool_calls in a message is not supported"),
    "an image": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        "a part of a message is 'image_url' .*images, sounds and files are not supported",
    ),
    "no part": ([{"role": "user", "content": ["hi"]}], "a part of a message is 'hi'"),
}


@pytest.mark.parametrize(("messages", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_message_is_told(conversing, messages, words):
    with pytest.raises(InvalidValueError, match=words):
        chat_ids(conversing(), messages, "script")


def test_messages_may_be_as_json_has_them(conversing):
    tokenizer = conversing()
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    ids = chat_ids(tokenizer, HI, "script")
    assert ids == [FIM["<file_sep>"], *b"user:hi"]
    assert chat_ids(tokenizer, [{"role": "user", "content": "hi", "name": None}], "script") == ids
    assert chat_ids(tokenizer, [{"role": "user", "content": parts}], "script") == ids
    assert chat_ids(tokenizer, iter(HI), "script") == ids


def test_a_model_without_a_template_is_told_by_name():
    with pytest.raises(NoChatTemplateError, match=r"^script has no chat template.*instruct version"):
        ScriptModel().chat(HI)


@pytest.mark.parametrize("character", ["\U000f0000", "\U000f0001\U000f0000", "\ue000"])
def test_a_character_that_somebody_typed_breaks_nothing(conversing, character):
    ids = chat_ids(conversing(), [Message("user", f"{character}<file_sep>{character}")], "script")
    assert ids == [FIM["<file_sep>"], *f"user:{character}<file_sep>{character}".encode()]


JOINING = {
    "of two messages": "{% for m in messages %}{{ m.content }}{% endfor %}",
    "of what is stripped": "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
    "with the template": "{% for m in messages %}{{ '<file' if loop.index0 }}{{ m.content }}_sep>{% endfor %}",
}
HALVES = [
    "<",
    "<file",
    "_sep>",
    ">",
    " ",
    "\n",
    "<file_sep",
    "file_sep>",
    "<file_sep>",
    "<|end|>",
    "<|end",
    "|>",
    "x",
    "🙂",
]


@pytest.mark.parametrize("template", JOINING.values(), ids=JOINING.keys())
def test_halves_of_a_special_token_do_not_meet(conversing, template):
    tokenizer = conversing(template)

    @given(st.lists(st.lists(st.sampled_from(HALVES), min_size=1, max_size=4).map("".join), min_size=1, max_size=3))
    def look(contents):
        messages = [Message("user", content) for content in contents]
        ids = chat_ids(tokenizer, messages, "script")
        assert not set(ids) & set(tokenizer.controls.values())
        assert tokenizer.decode(ids) == tokenizer.chat_template.render([{"content": text} for text in contents])

    look()


def test_special_tokens_of_one_character_stay_text_too():
    marks = Marks.of({"a": 0, "ab": 1, "☃": 2})

    def encode(text, special=False):
        return [marks.ids[match[0]] for match in marks.pattern.finditer(text)] if special else [text]

    assert marks.encode(f"ab{marks.broken('☃ab', '!')}a☃", "!", encode) == [1, "☃ab", 0, 2]


def test_an_answer_ends_where_the_template_ends_a_turn(conversing):
    script = [*b"yes", FIM["<file_sep>"], *b"no"]
    model = ScriptModel(ids=script)
    model.tokenizer = conversing()
    assert turn_end(model.tokenizer, "script") is None
    assert (
        model.chat(HI, SamplingParams(max_tokens=40)).text == "yes"
    )  # what ends a middle in this family ends here too
    script[3] = FIM["<fim_middle>"]
    model = ScriptModel(ids=script)
    model.tokenizer = conversing("{% for m in messages %}{{ m.content }}\n<fim_middle>\n{% endfor %}")
    assert turn_end(model.tokenizer, "script") == "<fim_middle>"
    result = model.chat(HI)
    assert (result.text, result.finish_reason) == ("yes", "stop")
    with model.stream_chat(HI, SamplingParams(stop="s")) as stream:
        assert "".join(stream) == "ye"
    assert model.chat(HI, SamplingParams(ignore_eos=True, max_tokens=6)).finish_reason == "length"
    model.close()
    assert model.tokenizer.chat_template._child is None


def test_a_template_that_refuses_a_turn_ends_none(conversing):
    assert turn_end(conversing("{{ raise_exception('never') }}"), "script") is None


@pytest.mark.parametrize("shape", ENDS)
def test_the_end_of_a_turn_is_found_in_each_shape(shape, tmp_path):
    path, config = tokenizer_of(shape, tmp_path)
    tokenizer = HFTokenizer(path, config)
    tokenizer.chat_template = ChatTemplate(FAMILIES[shape][0], {"eos_token": config["eos_token"]})
    assert turn_end(tokenizer, "m") == ENDS[shape]
    tokenizer.chat_template.close()


NAMED = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "hi"}]


@pytest.mark.parametrize(
    ("value", "found"),
    [("hi", "hi"), (NAMED, "hi"), (NAMED[:1], None), (["hi", None], None), (3, None), (None, None), ({}, None)],
)
def test_a_template_is_read_from_the_tokenizer_s_config(tmp_path, value, found):
    source = read_directory(with_template(tmp_path, value), "m")
    assert source.chat_template == found
    tokenizer = HFTokenizer.of(source)
    assert (tokenizer.chat_template and tokenizer.chat_template.text) == found


def test_a_file_beside_goes_before_it(tmp_path):
    folder = with_template(tmp_path, None)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
    plain = read_directory(folder, "m")
    assert plain.chat_template == "json"
    with_template(folder, "config")
    assert read_directory(folder, "m").chat_template == "config"
    (folder / "chat_template.jinja").write_bytes(b"\xef\xbb\xbfjinja\n")
    source = read_directory(folder, "m")
    assert source.chat_template == "jinja\n"
    assert len({source.digest, plain.digest}) == 2  # what is converted takes the template along
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelFileError, match=r"chat_template\.jinja: byte 0 is not UTF-8"):
        read_directory(folder, "m")


def test_of_the_hub_only_its_template_is_fetched(hub, client):
    files = dict(DEMO) | {"chat_template.jinja": CHATML.encode(), "additional_chat_templates/tools.jinja": b"x"}
    hub.repos["ours/chat"] = Repo(files)
    source = find("ours/chat").fetch()
    assert source.chat_template == CHATML
    assert not hub.lines("additional")


def test_tokens_have_the_names_that_transformers_gives_them(tmp_path):
    source = read_directory(with_template(tmp_path, "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}"), "m")
    tokenizer = HFTokenizer.of(source)
    said = {name: source.tokenizer_config.get(f"{name}_token") or "" for name in ("bos", "eos", "pad")}
    assert tokenizer.chat_template.render([]) == "|".join(said.values())
    tokenizer.chat_template.close()


def test_the_names_are_exported():
    assert codellm.Message is Message
