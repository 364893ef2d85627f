"""The `-o` options, each a choice of words."""

from __future__ import annotations

from collections.abc import Mapping

from codellm.errors import InvalidValueError, UnknownNameError


def choice(options: Mapping[str, str], **known: tuple[str, ...]) -> dict[str, str]:
    """The value of every option of `known`, by default the first that it takes.

    Raises:
        UnknownNameError: no such option.
        InvalidValueError: a value that the option does not take.
    """
    for key, value in options.items():
        if key not in known:
            raise UnknownNameError("option", key, known)
        if value not in known[key]:
            raise InvalidValueError(f"option {key} is one of {', '.join(known[key])}, not {value!r}")
    return {key: options.get(key, values[0]) for key, values in known.items()}
