"""Backend: what it says of itself, and how it loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from codellm.backend import Availability
from codellm.errors import InvalidValueError, UnknownNameError
from codellm.model import Model
from codellm.options import Option
from codellm.scheme import Scheme
from codellm.testing.running import error_of, is_ours, told
from codellm.testing.subject import Subject


def test_the_backend_describes_itself(subject: Subject) -> None:
    """`formats` is a frozenset of names, `availability` an Availability, `schemes` a tuple of Schemes, each once."""
    backend = subject.backend
    assert isinstance(backend.formats, frozenset), f"formats is {backend.formats!r}, not a frozenset of names."
    assert backend.formats, "formats is empty: the backend takes no model at all."
    available = backend.availability()
    assert isinstance(available, Availability), f"availability() returned {available!r}, not an Availability."
    schemes = backend.schemes()
    assert isinstance(schemes, tuple), f"schemes() returned a {type(schemes).__name__}, not a tuple."
    assert all(isinstance(scheme, Scheme) for scheme in schemes), f"schemes() holds more than Schemes: {schemes!r}."
    names = [scheme.name for scheme in schemes]
    assert len(set(names)) == len(names), f"schemes() names one scheme twice: {names}."


def test_the_model_says_what_was_loaded(subject: Subject, model: Model) -> None:
    """`info` holds the backend's registered name, the scheme asked for, and sizes that can be."""
    info, (spec, _) = model.info, subject.prepared
    assert info.backend == subject.backend.name, (
        f"info.backend is {info.backend!r} and the backend's name {subject.backend.name!r}: tables and errors name it."
    )
    assert spec.scheme in (None, info.scheme), f"info.scheme is {info.scheme!r}, and {spec.scheme!r} was asked for."
    assert info.architecture, "info.architecture is empty."
    assert info.weight_bytes > 0, (
        f"info.weight_bytes is {info.weight_bytes}: it counts the bytes of weights that one decoded token reads."
    )
    assert 1 <= info.batch_size <= subject.spec.batch_size, (
        f"info.batch_size is {info.batch_size}, and {subject.spec.batch_size} was asked for."
    )


def test_the_context_is_not_longer_than_asked(subject: Subject, model: Model) -> None:
    """`info.context_length` is at most `spec.context_length`, for which memory was set aside."""
    asked, got = subject.spec.context_length, model.info.context_length
    assert asked is None or 1 <= got <= asked, (
        f"info.context_length is {got}, and {asked} was asked for: core ends sequences by it, so it must be what the "
        "model can hold and no more than the user allowed."
    )


def test_an_unknown_option_is_refused(subject: Subject) -> None:
    """An option that the backend does not have raises UnknownNameError, so that a typing error is never ignored."""
    error = error_of(lambda: subject.load(options={**subject.spec.options, "no-such-option": "1"}).close())
    assert isinstance(error, (UnknownNameError, InvalidValueError)), (
        f"load() with the option no-such-option=1 gave {told(error)}. Compare spec.options with the options you have, "
        'and raise UnknownNameError("option", name, known) for any other.'
    )


def test_the_options_that_are_listed_are_taken(subject: Subject) -> None:
    """`load` takes every option of `options` that fits the scheme, with the value that it has otherwise."""
    spec, said = subject.spec, subject.prepared[0].options
    fitting = {name: option for name, option in subject.backend.options.items() if option.fits(spec.scheme)}
    listed = {name: option.otherwise for name, option in fitting.items() if _takes(option, option.otherwise)}
    error = error_of(lambda: subject.load(options={**listed, **said}).close())
    assert error is None, (
        f"{' '.join(f'-o {name}={text}' for name, text in listed.items())} is among options, and load() gave "
        f"{told(error)}. `codellm backends NAME` lists them, so spec.options may hold them: read it by "
        "codellm.options.read(spec.options, self.options)."
    )


def _takes(option: Option[Any], text: str) -> bool:
    return error_of(lambda: option.parse(text)) is None


@pytest.mark.parametrize("fault", ["file", "device", "attention"])
def test_load_raises_only_our_errors(subject: Subject, tmp_path: Path, fault: str) -> None:
    """Whatever `load` cannot take is a CodellmError that says what to do; core wraps others, and the remedy is lost."""
    gone = tmp_path / "gone"
    source = attrs.evolve(subject.prepared[1], path=gone, files=(gone,))
    changes: dict[str, dict[str, Any]] = {
        "file": {"source": source},
        "device": {"device": "no-such-device"},
        "attention": {"attn_implementation": "no-such-attention"},
    }
    error = error_of(lambda: subject.load(**changes[fault]).close())
    assert is_ours(error), (
        f"load() with a wrong {fault} raised {told(error)}. Raise ModelFileError for a file, "
        "InvalidValueError for a field of the spec, chained from what went wrong."
    )
