"""What the hooks of a plugin, and what they bring, must return: looked at once, before anybody relies on it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args

from codellm.backend import Availability, Backend
from codellm.errors import shown
from codellm.finding import Finding
from codellm.options import Option
from codellm.plugins.manager import describe
from codellm.scheme import CalibrationUse, Scheme

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.tokenizer import Tokenizer

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_MOST = 1000
"""Things that one hook returns: an iterable that never ends would fill the memory."""


def backends(results: Iterable[Iterable[Any]]) -> list[Backend]:
    """What a plugin's `codellm_backends` returned.

    Raises:
        TypeError: something that is no backend, or no whole one; says which, which attribute and what it must be.
    """
    found = [_instance(item, Backend, "codellm_backends") for item in _listed(results, "codellm_backends")]
    for backend in found:
        _check_backend(backend)
    _once("codellm_backends", [backend.name for backend in found])
    return found


def schemes(results: Iterable[Iterable[Any]]) -> list[Scheme]:
    """What a plugin's `codellm_schemes` returned.

    Raises:
        TypeError: see `backends`.
    """
    found = [_instance(item, Scheme, "codellm_schemes") for item in _listed(results, "codellm_schemes")]
    for scheme in found:
        _check_scheme(scheme, "codellm_schemes")
        _must(
            f"scheme {scheme.name!r} of codellm_schemes", "applies", scheme.applies, scheme.applies == "file", "'file'"
        )
    _once("codellm_schemes", [scheme.name for scheme in found])
    return found


def findings(results: Iterable[Iterable[Any]]) -> list[Finding]:
    """What a plugin's `codellm_doctor` returned.

    Raises:
        TypeError: something that is no finding.
    """
    found = []
    for item in _listed(results, "codellm_doctor"):
        if not isinstance(item, Finding):
            raise TypeError(f"it returned {type(item).__name__}, not Finding")
        found.append(item)
    return found


def availability(backend: Backend) -> Availability:
    """What a backend's `availability` returns.

    Raises:
        TypeError: something else; or what it raises.
    """
    found: Any = backend.availability()
    if not isinstance(found, Availability):
        raise TypeError(f"it returned {type(found).__name__}, not Availability")
    return found


def model(found: Any) -> Model:
    """What `codellm_load` returned: a model that says what it is, and whose tokenizer gives ids and bytes.

    Raises:
        TypeError: something else; says what, and what it must be.
    """
    from codellm.model import Model, ModelInfo
    from codellm.tokenizer import Tokenizer

    if not isinstance(found, Model):
        raise TypeError(f"loaded a {type(found).__name__}, not a Model")
    for attribute, kind in (("info", ModelInfo), ("tokenizer", Tokenizer)):
        value: Any = getattr(found, attribute, None)
        _must("its model", attribute, value, isinstance(value, kind), f"a {kind.__name__}")
    _check_tokenizer(found.tokenizer)
    return found


def _check_tokenizer(tokenizer: Tokenizer) -> None:
    who = "the tokenizer of its model"
    size: Any = getattr(tokenizer, "vocab_size", None)
    _must(who, "vocab_size", size, type(size) is int and size > 0, "an int above 0")
    ids: Any = tokenizer.encode("x = 1")
    whole = isinstance(ids, list) and all(type(id) is int and 0 <= id < size for id in ids)
    _must(who, "encode()", ids, whole, f"a list of ints from 0 to {size - 1}")
    for id in ids:
        data: Any = tokenizer.token_bytes(id)
        _must(who, f"token_bytes({id})", data, isinstance(data, bytes), "bytes")


def _listed(results: Iterable[Iterable[Any]], hook: str) -> Iterator[Any]:
    """All that the implementations of `hook` in one plugin returned, each of them an iterable."""
    for result in results:
        items = iter(result)
        yield from itertools.islice(items, _MOST)
        if next(items, items) is not items:
            raise TypeError(f"{hook} returned more than {_MOST} items")


def _check_backend(backend: Backend) -> None:
    who = f"backend {type(backend).__name__}"
    name: Any = getattr(backend, "name", None)
    _must(who, "name", name, _is_name(name), f"a str like {_NAME}")
    who = f"backend {name!r}"
    formats: Any = getattr(backend, "formats", None)
    _must(who, "formats", formats, _is_names(formats), "a frozenset of str")
    # a bool is an int to Python, and a mistake to anybody else
    preference: Any = backend.preference
    _must(who, "preference", preference, type(preference) is int, "an int")
    device: Any = backend.device
    _must(who, "device", device, device is None or isinstance(device, str), "a str or None")
    default: Any = backend.default_scheme
    _must(who, "default_scheme", default, default is None or isinstance(default, str), "a str or None")
    _check_options(who, backend.options)
    try:
        listed: Any = backend.schemes()
    except Exception as error:
        raise TypeError(f"{who}: schemes() raised {describe(error)}") from error
    _must(who, "schemes()", listed, isinstance(listed, list | tuple), "a tuple of Scheme")
    for scheme in listed:
        _check_scheme(_instance(scheme, Scheme, f"schemes() of {who}"), f"schemes() of {who}")


def _check_options(who: str, options: Any) -> None:
    _must(who, "options", options, isinstance(options, Mapping), "a mapping of names to Options")
    for name, option in options.items():
        _must(who, "a name of options", name, _is_name(name), f"a str like {_NAME}")
        _must(who, f"option {name!r}", option, isinstance(option, Option), "an Option")
        for field in ("takes", "otherwise", "help"):
            text: Any = getattr(option, field)
            _must(f"{who}: option {name!r}", field, text, isinstance(text, str), "a str")
        _must(f"{who}: option {name!r}", "schemes", option.schemes, _is_names(option.schemes), "a frozenset of str")


def _check_scheme(scheme: Scheme, where: str) -> None:
    values: dict[str, Any] = {name: getattr(scheme, name) for name in ("name", "bits", "applies", "format", "takes")}
    _must(f"a scheme of {where}", "name", values["name"], _is_name(values["name"]), f"a str like {_NAME}")
    who = f"scheme {scheme.name!r} of {where}"
    _must(who, "bits", values["bits"], _is_number(values["bits"]) and values["bits"] > 0, "a number above 0")
    _must(who, "applies", values["applies"], values["applies"] in ("file", "load"), "'file' or 'load'")
    _must(who, "format", values["format"], isinstance(values["format"], str), "a str")
    _must(who, "takes", values["takes"], _is_names(values["takes"]), "a frozenset of str")
    kinds = get_args(CalibrationUse)
    calibration: Any = scheme.calibration
    _must(who, "calibration", calibration, calibration in kinds, f"one of {', '.join(kinds)}")
    bound: Any = scheme.bound
    _must(who, "bound", bound, bound is None or (_is_number(bound) and bound >= 0), "a number, or None")
    description: Any = scheme.description
    _must(who, "description", description, isinstance(description, str), "a str")


def _instance(item: Any, kind: type[Any], where: str) -> Any:
    if not isinstance(item, kind):
        raise TypeError(f"{where} returned {shown(item)}, which must be a {kind.__name__}")
    return item


def _must(who: str, attribute: str, value: object, fits: bool, kind: str) -> None:
    if not fits:
        raise TypeError(f"{who}: {attribute} is {shown(value)}, which must be {kind}")


def _once(hook: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise TypeError(f"{hook} returned {name!r} twice, which must be there once")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]  # which mypy does not narrow


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(_NAME, value) is not None


def _is_names(value: object) -> bool:
    return isinstance(value, frozenset | set) and all(isinstance(item, str) for item in value)
