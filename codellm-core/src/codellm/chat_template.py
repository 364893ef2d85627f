"""A model's chat template: a program of others, which writes messages as the text that the model learned.

It is in jinja's language, which can loop, recurse and double a string. So it runs in jinja's immutable sandbox, and
that in a process of its own (chat_child.py) with limits of memory and processor time. The process stays for the next
messages: to start it takes longer than to answer.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import weakref
from collections.abc import Mapping, Sequence

import attrs

from codellm.errors import BackendError, InvalidValueError, ModelFileError
from codellm.sources.regular import shown
from codellm.system.child import Child

LONGEST = 1 << 20
"""Characters of a template: published ones have a few thousand."""

LINE = 500
"""Characters of what a template says that a message shows."""


@attrs.frozen(kw_only=True)
class Limits:
    """What writing a prompt may take: bytes of memory, seconds of processor time."""

    memory: int = 512 << 20
    seconds: int = 5


LIMITS = Limits()

_QUESTION, _ANSWER = "codellm asks", "codellm answers"


class ChatTemplate:
    """A template's `text`, and the `tokens` that it knows by name (`bos_token`, `eos_token`, …).

    `where` names the model or file in messages.
    """

    def __init__(
        self, text: str, tokens: Mapping[str, str], where: object = "the model", limits: Limits = LIMITS
    ) -> None:
        self.text = text
        self.tokens = dict(tokens)
        self._where = shown(str(where))
        self._limits = limits
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._end: weakref.finalize[[], ChatTemplate] | None = None

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """The prompt that the template makes of `messages`; with the beginning of an answer, unless told not to.

        Raises:
            InvalidValueError: the template refuses the messages; the message is its own.
            ModelFileError: the template is no template, fails, or takes more than its limits.
            BackendError: no process can be started for it.
        """
        if len(self.text) > LONGEST:
            raise self._fault(f"has {len(self.text)} characters, more than {LONGEST}")
        variables = {
            **self.tokens,
            "messages": list(messages),
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        with self._lock:
            answer = self._ask(json.dumps(variables))
        if "refused" in answer:
            raise InvalidValueError(f"the chat template of {self._where} refuses: {shown(answer['refused'])[:LINE]}")
        if "fault" in answer:
            raise self._fault(f"fails ({shown(answer['fault'])[:LINE]})")
        return answer["text"]

    @functools.cached_property
    def after_answer(self) -> str:
        """What the template writes after what the assistant says; empty where it refuses to be asked so.

        Raises:
            BackendError: no process can be started for it.
        """
        with contextlib.suppress(InvalidValueError, ModelFileError):
            turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
            return self.render(turns, add_generation_prompt=False).rpartition(_ANSWER)[2]
        return ""

    def close(self) -> None:
        """End the process. May be called twice; another `render` starts another one."""
        with self._lock:
            self._stop()

    def _ask(self, line: str) -> dict[str, str]:
        try:
            child = self._child or self._start()
            answered = child.ask(line)
        except OSError as error:
            self._stop()
            raise BackendError(f"cannot start a process for the chat template ({error.strerror})") from error
        except BaseException:  # Ctrl-C: its answer would be taken for that of the next question
            self._stop()
            raise
        if answered.startswith("{"):
            answer: dict[str, str] = json.loads(answered)
            return answer
        ending = child.wait()
        self._stop()
        if ending.signal == "SIGPROF":
            raise self._fault(f"takes more than {self._limits.seconds} seconds of processor time")
        if "MemoryError" in ending.last or ending.signal == "SIGABRT":
            raise self._fault(f"takes more than {self._limits.memory / 2**30:g} GiB of memory")
        if ending.signal == "SIGKILL":  # somebody else's doing
            raise BackendError("the process of the chat template was killed, perhaps for want of memory; try again")
        if ending.signal:
            raise self._fault(f"crashes ({ending.signal})")
        raise BackendError(f"the process of the chat template failed: {shown(ending.last)[:LINE]}")

    def _start(self) -> Child:
        child = Child("codellm.chat_child", self._limits.memory, self._limits.seconds)
        self._child, self._end = child, weakref.finalize(self, child.end)
        child.tell(json.dumps(self.text))
        return child

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._child = self._end = None

    def _fault(self, what: str) -> ModelFileError:
        return ModelFileError(f"the chat template of {self._where} {what}; use another template, or `generate`")
