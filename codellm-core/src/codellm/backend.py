"""What knows how to load: the contract that a backend author implements."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from codellm.scheme import Scheme

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.options import Option
    from codellm.sources import ModelSource
    from codellm.spec import LoadSpec


_TEXT = attrs.validators.instance_of(str)


@attrs.frozen
class Availability:
    """Whether a backend can run here; where not, the reason and the command that mends it.

    `elsewhere` are devices that a backend of another one, which is missing here, can be asked to run on all the same.
    `optional` says that only an extra is not installed, which nobody has to want.

    Raises:
        TypeError: a field of another type.
    """

    ok: bool = attrs.field(converter=bool)
    reason: str = attrs.field(default="", validator=_TEXT)
    remedy: str = attrs.field(default="", validator=_TEXT)
    elsewhere: frozenset[str] = attrs.field(
        default=frozenset(), validator=attrs.validators.instance_of(frozenset | set)
    )
    optional: bool = attrs.field(default=False, converter=bool)


class Backend(abc.ABC):
    """Loads models of some formats. Cheap to build: nothing heavy is imported before `load`."""

    name: ClassVar[str]
    formats: ClassVar[frozenset[str]]
    """Formats that `load` takes: "safetensors", "gguf"; "folder" for a directory that is no such model; else the
    suffix of a file, without its dot."""
    preference: ClassVar[int] = 0
    """Who is chosen when none is named: cuda-graph 40, transformers-cuda 30, llama-cpp 20, torch-cpu 10,
    transformers-cpu 5."""
    device: ClassVar[str | None] = None
    """What it is for: where another device is asked for, it is chosen by its name alone. None: it does not say."""
    default_scheme: ClassVar[str | None] = None
    """The scheme a source of a foreign format gets when none is named; None: the source's own precision."""
    options: ClassVar[Mapping[str, Option[Any]]] = MappingProxyType({})
    """The `-o` options that `load` takes, by name: `codellm backends NAME` lists them, `codellm.options.read` reads
    what a user wrote."""

    def availability(self) -> Availability:
        """Whether it can run here. Imports nothing heavy: probe with `importlib.util.find_spec`."""
        return Availability(True)

    def schemes(self) -> tuple[Scheme, ...]:
        """The schemes this backend can run, besides a source's own precision."""
        return ()

    @abc.abstractmethod
    def load(self, spec: LoadSpec, source: ModelSource) -> Model:
        """Load `source`, whose format is one of `formats`.

        Raises:
            ModelFileError: the file is not what it claims to be.
            UnknownNameError: an option of `spec.options` that this backend does not have.
            InvalidValueError: an option's value is out of range.
        """

    def bandwidth(self, device: str) -> float | None:
        """Bytes per second that a read of weights achieves on `device`, measured; None where it cannot be told."""
        return None
