"""What an examination of this installation found."""

from __future__ import annotations

import attrs

_TEXT = attrs.validators.instance_of(str)


@attrs.frozen(kw_only=True)
class Finding:
    """One line of `codellm doctor`: `remedy` is the command that mends what is not `ok`, or says what to do.

    Of what is `ok` it is the command that brings what is optional and absent.

    Raises:
        TypeError: a field of another type.
    """

    topic: str = attrs.field(validator=_TEXT)
    value: str = attrs.field(validator=_TEXT)
    ok: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))
    remedy: str = attrs.field(default="", validator=_TEXT)
