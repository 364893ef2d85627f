"""Messages to prompt ids, by the model's own chat template.

The template writes text, and the marks of turns in it are special tokens. What somebody typed is text, also where it
looks like such a mark: before the template sees it, it is broken by a character that nobody typed, and once the tokens
are found that character is taken out again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from typing import Any, Self

import attrs

from codellm.chat_template import ChatTemplate
from codellm.errors import InvalidValueError, NoChatTemplateError, shown
from codellm.marks import Marks
from codellm.sampling import SamplingParams
from codellm.text import utf8
from codellm.tokenizer import Tokenizer

ROLES = ("system", "developer", "user", "assistant")
"""Who speaks. A template may write a role between two halves of a mark, so that no other one is taken."""

_PRIVATE = range(0xF0000, 0xFFFFE)
"""Supplementary private use: characters that stand for nothing."""


@attrs.frozen
class Message:
    """What one side says in a conversation.

    Raises:
        InvalidValueError: the role is none of `ROLES`, or the content is not text.
    """

    role: str = attrs.field()
    content: str = attrs.field()

    @role.validator
    def _check_role(self, _: object, value: object) -> None:
        if value in ("tool", "function"):
            raise InvalidValueError(f"messages of the role {value!r} are not supported: codellm calls no tools")
        if value not in ROLES:
            raise InvalidValueError(f"the role of a message must be one of {', '.join(ROLES)}, not {shown(value)}")

    @content.validator
    def _check_content(self, _: object, value: object) -> None:
        if not isinstance(value, str):
            raise InvalidValueError(f"the content of a message must be text, not {shown(value)}")
        utf8(value, "a message")

    @classmethod
    def of(cls, value: Message | Mapping[str, Any]) -> Self | Message:
        """A message, or one as JSON has it: `role` and `content`, the content text or a list of parts that are text.

        Raises:
            InvalidValueError: it is none, or holds what is not supported: tools, images, sounds, files.
        """
        if isinstance(value, Message):
            return value
        if not isinstance(value, Mapping):
            raise InvalidValueError(f"a message must be a Message or an object of role and content, not {shown(value)}")
        tools = next((key for key in ("tool_calls", "function_call", "tool_call_id") if value.get(key)), None)
        if tools is not None:
            raise InvalidValueError(f"{tools} in a message is not supported: codellm calls no tools")
        missing = next((key for key in ("role", "content") if value.get(key) is None), None)
        if missing is not None:
            raise InvalidValueError(f"a message has no {missing}")
        content = value["content"]
        return cls(value["role"], "".join(map(_text_of, content)) if isinstance(content, list) else content)


def _text_of(part: object) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or kind != "text" or not isinstance(part.get("text"), str):
        told = f"a part of a message is {shown(kind or part)}"
        raise InvalidValueError(
            f"{told}, and images, sounds and files are not supported: only parts of the type 'text'"
        )
    return str(part["text"])


def chat_request(
    tokenizer: Tokenizer, messages: Iterable[Message | Mapping[str, Any]], params: SamplingParams, model: str
) -> tuple[list[int], SamplingParams]:
    """What asks `model` for its answer to `messages`: ids of the prompt, and `params` with the end of a turn as a stop.

    Raises:
        NoChatTemplateError, InvalidValueError, ModelFileError: see `chat_ids`.
    """
    ids = chat_ids(tokenizer, messages, model)
    end = turn_end(tokenizer, model)
    if end is None or params.ignore_eos:
        return ids, params
    return ids, attrs.evolve(params, stop=(*params.stop, end))


def chat_text(tokenizer: Tokenizer, messages: Iterable[Message | Mapping[str, Any]], model: str) -> str:
    """The prompt as text, in which a mark that somebody typed looks like one of the template.

    Raises:
        NoChatTemplateError, InvalidValueError, ModelFileError: see `chat_ids`.
    """
    template = template_of(tokenizer, model)
    return template.render([attrs.asdict(message) for message in _checked(messages)])


def chat_ids(tokenizer: Tokenizer, messages: Iterable[Message | Mapping[str, Any]], model: str) -> list[int]:
    """Ids of the prompt that asks `model` for its answer to `messages`.

    They are those of transformers' `apply_chat_template(messages, add_generation_prompt=True)`, but that special
    tokens' strings in a message are text.

    Raises:
        NoChatTemplateError: the model has no chat template.
        InvalidValueError: there are no messages, one is not what it must be, or the template refuses them.
        ModelFileError: the template is broken, or takes more than its limits.
    """
    template = template_of(tokenizer, model)
    conversation = _checked(messages)
    marks = Marks.of(tokenizer.controls)
    breaker = _unused([template.text, *(message.content for message in conversation)])
    broken = [{"role": one.role, "content": marks.broken(one.content, breaker)} for one in conversation]
    return marks.encode(template.render(broken), breaker, tokenizer.encode)


def template_of(tokenizer: Tokenizer, model: str) -> ChatTemplate:
    """The chat template of a model.

    Raises:
        NoChatTemplateError: it has none.
    """
    if tokenizer.chat_template is None:
        raise NoChatTemplateError(
            f"{model} has no chat template, so it was not taught to converse: use `generate`, take the model's "
            "instruct version, or put its chat_template.jinja beside the weights"
        )
    return tokenizer.chat_template


def turn_end(tokenizer: Tokenizer, model: str) -> str | None:
    """The special token that the template writes after what the assistant says; None where it writes another thing.

    A model may be taught turns while its files end texts with another token.

    Raises:
        NoChatTemplateError: the model has no chat template.
    """
    after = template_of(tokenizer, model).after_answer
    match = Marks.of(tokenizer.controls).pattern.match(after.lstrip())
    return match[0] if match else None


def _checked(messages: Iterable[Message | Mapping[str, Any]]) -> list[Message]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise InvalidValueError(f"messages must be a list of messages, not {shown(messages)}")
    found = [Message.of(message) for message in messages]
    if not found:
        raise InvalidValueError("there is no message to answer; give at least one")
    return found


def _unused(texts: Seq[str]) -> str:
    """A character that is in none of `texts`.

    Raises:
        InvalidValueError: they hold all that stand for nothing.
    """
    found = next((char for char in map(chr, _PRIVATE) if not any(char in text for text in texts)), None)
    if found is None:
        raise InvalidValueError("the messages hold every character of private use; leave some out")
    return found
