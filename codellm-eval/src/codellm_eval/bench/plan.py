"""What every row of one benchmark measures: sizes, repeats, seeds."""

from __future__ import annotations

from typing import Any

import attrs

from codellm.errors import ContextLengthError, InvalidValueError


def _at_least(low: int) -> Any:
    def check(_: object, attribute: attrs.Attribute[Any], value: int) -> None:
        if value < low:
            raise InvalidValueError(f"{attribute.name} must be at least {low}, not {value}")

    return check


@attrs.frozen(kw_only=True)
class Plan:
    """Sizes in tokens, the same for every row; `fit` makes them smaller where a model's context asks for it.

    Raises:
        InvalidValueError: a size that cannot be measured.
    """

    prompt_tokens: int = attrs.field(default=512, validator=_at_least(1))
    """pp: the tokens of the prompt whose prefill is timed."""
    new_tokens: int = attrs.field(default=128, validator=_at_least(2))
    """tg: the tokens generated after a prompt of one token; a rate needs two."""
    request_tokens: int = attrs.field(default=128, validator=_at_least(1))
    """The prompt of the request that TTFT and TPOT are told of; it generates `new_tokens`."""
    repeats: int = attrs.field(default=5, validator=_at_least(1))
    seed: int = attrs.field(default=0, validator=_at_least(0))
    """Prompts are drawn from it: every row is given the same ones."""

    def fit(self, context_length: int) -> Plan:
        """This plan within `context_length`: the generated tokens get at most half of it.

        Raises:
            ContextLengthError: the context is too short to measure anything.
        """
        if context_length < 4:
            raise ContextLengthError(f"a context of {context_length} tokens is too short to measure; it needs 4")
        new = min(self.new_tokens, context_length // 2)
        return attrs.evolve(
            self,
            prompt_tokens=min(self.prompt_tokens, context_length - 1),
            new_tokens=new,
            request_tokens=min(self.request_tokens, context_length - new),
        )

    @property
    def context_length(self) -> int:
        """The tokens that the longest request of this plan holds."""
        return max(self.prompt_tokens + 1, self.request_tokens + self.new_tokens)

    def describe(self) -> str:
        """The protocol in one sentence, for the header of a table."""
        return (
            f"pp{self.prompt_tokens}: prompt tokens / TTFT of a prompt of {self.prompt_tokens} random tokens; "
            f"tg{self.new_tokens}: 1 / TPOT of {self.new_tokens} tokens after a prompt of one; "
            f"TTFT, TPOT: a request of {self.request_tokens} prompt tokens and {self.new_tokens} new ones; "
            f"one sequence, greedy, end-of-text ignored, no prompt given twice, one warm-up of each left out; "
            f"median of {self.repeats}, ± the greatest distance of a repeat from it"
        )
