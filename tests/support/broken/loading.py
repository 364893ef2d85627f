"""Backends that break how a model is named and loaded."""

from __future__ import annotations

from types import MappingProxyType

import attrs

from codellm.options import choice
from codellm.scheme import Scheme
from support.broken.fault import fails
from support.sound_backend import SoundBackend, SoundModel


@fails("schemes() returned a list", "test_the_backend_describes_itself")
class ListsItsSchemes(SoundBackend):
    """Gives a list where a tuple is due."""

    def schemes(self):
        return [Scheme(name="int3", bits=3, applies="load")]


@fails("and the backend's name 'names-another'", "test_the_model_says_what_was_loaded")
class NamesAnother(SoundModel):
    """Says the library's name for the backend's."""

    def __init__(self, backend, spec):
        super().__init__("table", spec)


@fails("and 512 was asked for", "test_the_context_is_not_longer_than_asked")
class TakesTheWholeContext(SoundModel):
    """Ignores the context length that was asked for."""

    def __init__(self, backend, spec):
        super().__init__(backend, attrs.evolve(spec, context_length=None))


@fails("load() with the option no-such-option=1 gave no error", "test_an_unknown_option_is_refused")
class TakesAnyOption(SoundBackend):
    """Ignores options."""

    def load(self, spec, source):
        return super().load(attrs.evolve(spec, options={}), source)


@fails("-o speed=slow is among options, and load() gave", "test_the_options_that_are_listed_are_taken")
class ListsAnOptionOfNobody(SoundBackend):
    """Lists an option that it does not read."""

    options = MappingProxyType({**SoundBackend.options, "speed": choice("slow", "fast")})


@fails("load() with a wrong file raised FileNotFoundError", "test_load_raises_only_our_errors[file]")
@fails("load() with a wrong device raised KeyError", "test_load_raises_only_our_errors[device]")
@fails("load() with a wrong attention raised", "test_load_raises_only_our_errors[attention]")
class RaisesWhatComes(SoundBackend):
    """Lets the errors of its library out."""

    def load(self, spec, source):
        next(source.path.iterdir())
        {"auto": 0, "cpu": 1}[spec.device]
        if spec.attn_implementation:
            raise NotImplementedError(spec.attn_implementation)
        return super().load(spec, source)
