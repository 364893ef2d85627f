"""What the hooks of a plugin must return: looked at once, before anybody relies on it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from codellm.backend import Backend
from codellm.scheme import Scheme

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


def backends(results: Iterable[Iterable[Any]]) -> list[Backend]:
    """What a plugin's `codellm_backends` returned.

    Raises:
        TypeError: something that is no backend, or no whole one; says which, which attribute and what it must be.
    """
    found = [_instance(item, Backend, "codellm_backends") for result in results for item in result]
    for backend in found:
        _check_backend(backend)
    _once("codellm_backends", [backend.name for backend in found])
    return found


def schemes(results: Iterable[Iterable[Any]]) -> list[Scheme]:
    """What a plugin's `codellm_schemes` returned.

    Raises:
        TypeError: see `backends`.
    """
    found = [_instance(item, Scheme, "codellm_schemes") for result in results for item in result]
    for scheme in found:
        _check_scheme(scheme, "codellm_schemes")
        _must(
            f"scheme {scheme.name!r} of codellm_schemes", "applies", scheme.applies, scheme.applies == "file", "'file'"
        )
    _once("codellm_schemes", [scheme.name for scheme in found])
    return found


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
    try:
        listed: Any = backend.schemes()
    except Exception as error:
        raise TypeError(f"{who}: schemes() raised {type(error).__name__}: {error}") from error
    _must(who, "schemes()", listed, isinstance(listed, list | tuple), "a tuple of Scheme")
    for scheme in listed:
        _check_scheme(_instance(scheme, Scheme, f"schemes() of {who}"), f"schemes() of {who}")


def _check_scheme(scheme: Scheme, where: str) -> None:
    values: dict[str, Any] = {name: getattr(scheme, name) for name in ("name", "bits", "applies", "format", "takes")}
    _must(f"a scheme of {where}", "name", values["name"], _is_name(values["name"]), f"a str like {_NAME}")
    who = f"scheme {scheme.name!r} of {where}"
    _must(who, "bits", values["bits"], isinstance(values["bits"], int | float), "a number")
    _must(who, "applies", values["applies"], values["applies"] in {"file", "load"}, "'file' or 'load'")
    _must(who, "format", values["format"], isinstance(values["format"], str), "a str")
    _must(who, "takes", values["takes"], _is_names(values["takes"]), "a frozenset of str")
    kinds = ("none", "takes", "wants", "needs")
    calibration: Any = scheme.calibration
    _must(who, "calibration", calibration, calibration in kinds, f"one of {', '.join(kinds)}")
    bound: Any = scheme.bound
    _must(who, "bound", bound, bound is None or isinstance(bound, int | float), "a number or None")


def _instance(item: Any, kind: type[Any], where: str) -> Any:
    if not isinstance(item, kind):
        raise TypeError(f"{where} returned {_shown(item)}, which must be a {kind.__name__}")
    return item


def _must(who: str, attribute: str, value: object, fits: bool, kind: str) -> None:
    if not fits:
        raise TypeError(f"{who}: {attribute} is {_shown(value)}, which must be {kind}")


def _once(hook: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise TypeError(f"{hook} returned {name!r} twice, which must be there once")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(_NAME, value) is not None


def _is_names(value: object) -> bool:
    return isinstance(value, frozenset | set) and all(isinstance(item, str) for item in value)


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(value).__name__})"
