"""One kind of work whose speed is told: so many tokens, so many sequences, so much context before them."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from codellm.errors import InvalidValueError

Kind = Literal["pp", "tg"]
MOST = (1 << 31) - 1


def at_least(low: int) -> Any:
    """A validator of a field of whole numbers.

    Raises:
        InvalidValueError: the value is less than `low`, or more than anything has; the message names the field.
    """

    def check(_: object, attribute: attrs.Attribute[Any], value: int) -> None:
        if value < low:
            raise InvalidValueError(f"{attribute.name} must be at least {low}, not {value}")
        if value > MOST:
            raise InvalidValueError(f"{attribute.name} must be at most {MOST}, not {value}")

    return check


@attrs.frozen(kw_only=True)
class Workload:
    """Work by the names of llama-bench (pp, tg, depth) and of llama-batched-bench (B).

    Raises:
        InvalidValueError: a size that cannot be measured.
    """

    kind: Kind
    """"pp": the prompt is computed; "tg": tokens are generated."""
    tokens: int = attrs.field(validator=at_least(1))
    """Those that are measured, of each sequence."""
    context: int = attrs.field(default=0, validator=at_least(0))
    """Tokens of each sequence whose keys and values are there before the measured ones."""
    batch_size: int = attrs.field(default=1, validator=at_least(1))
    """Sequences that run together."""

    def __attrs_post_init__(self) -> None:
        if self.kind == "tg" and self.tokens < 2:
            raise InvalidValueError(f"new_tokens must be at least 2, since a rate needs two, not {self.tokens}")

    @property
    def context_length(self) -> int:
        """The tokens that one sequence holds at the end; a prompt is followed by one token, whose time is its end."""
        return self.context + self.tokens + 1 if self.kind == "pp" else max(1, self.context) + self.tokens

    def __str__(self) -> str:
        """Name as llama-bench writes it, `tg128 @ d512`, with the batch size as `b4`; none of either is left out."""
        depth = f" @ d{self.context}" if self.context else ""
        batch = f" b{self.batch_size}" if self.batch_size > 1 else ""
        return f"{self.kind}{self.tokens}{depth}{batch}"

    @property
    def key(self) -> str:
        """Its name as part of a column's key: `tg128_d512_b4`, always whole."""
        return f"{self.kind}{self.tokens}_d{self.context}_b{self.batch_size}"
