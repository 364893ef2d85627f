"""Options that several commands share, and what they add up to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
import click

from codellm.errors import InvalidValueError
from codellm.sampling import SamplingParams
from codellm.spec import DTYPES, LoadSpec

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_MODEL = "codellm-demo"

_MODEL = click.option(
    "-m", "--model", default=DEFAULT_MODEL, show_default=True, metavar="MODEL",
    help="Bundled name, directory, .gguf file, hub id, hub-id:SCHEME or dummy:NAME.",
)  # fmt: skip

_MODELS = click.option(
    "-m", "--model", "models", multiple=True, default=[DEFAULT_MODEL], show_default=True, metavar="MODEL",
    help="Bundled name, directory, .gguf file, hub id, hub-id:SCHEME or dummy:NAME; repeatable.",
)  # fmt: skip

_LOAD = (
    click.option("-b", "--backend", metavar="NAME", help="See `codellm backends`.  [default: the preferred one]"),
    click.option("-q", "--scheme", metavar="NAME", help="Quantization, as q4_k_m.  [default: the backend's]"),
    click.option("--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="Type to compute in."),
    click.option("--device", default="auto", show_default=True, metavar="NAME", help="Device to run on, as cpu."),
    click.option(
        "--context-length", type=int, metavar="N",
        help="Tokens of prompt and output together.  [default: what fits]",
    ),
    click.option("--batch-size", type=int, default=1, show_default=True, metavar="N", help="Sequences run together."),
    click.option("--threads", type=int, metavar="N", help="CPU threads.  [default: physical cores, fewer if as fast]"),
    click.option("--attn-implementation", metavar="NAME", help="Attention kernel, where the backend has several."),
    click.option("--revision", metavar="REV", help="Revision of a hub model."),
    click.option("-o", "options", multiple=True, metavar="KEY=VALUE", help="Option of the backend; repeatable."),
)  # fmt: skip

_SAMPLING = (
    click.option("--max-tokens", type=int, default=256, show_default=True, metavar="N", help="Most new tokens."),
    click.option(
        "--temperature", type=float, default=0.0, show_default=True, metavar="T",
        help="Randomness; 0 is greedy.",
    ),
    click.option(
        "--top-p", type=float, default=1.0, show_default=True, metavar="P",
        help="Draw from the likeliest tokens that add up to this probability; 1 is all.",
    ),
    click.option(
        "--top-k", type=int, default=0, show_default=True, metavar="K",
        help="Draw from so many of the likeliest tokens; 0 is all.",
    ),
    click.option(
        "--min-p", type=float, default=0.0, show_default=True, metavar="P",
        help="Leave out tokens below this share of the likeliest; 0 is none.",
    ),
    click.option(
        "--repetition-penalty", type=float, default=1.0, show_default=True, metavar="R",
        help="Make tokens that were there less likely; 1 is none.",
    ),
    click.option("--seed", type=int, metavar="N", help="Seed of the sampling.  [default: a fresh one]"),
    click.option("--stop", multiple=True, metavar="TEXT", help="String that ends the output; repeatable."),
    click.option("--ignore-eos", is_flag=True, help="Go on after the end-of-text token."),
    click.option(
        "--logprobs", type=int, metavar="K",
        help="Tell the log-probabilities of each token and of the K likeliest there, as JSON.",
    ),
)  # fmt: skip

_LOAD_FIELDS = (
    "model", "backend", "scheme", "dtype", "device", "context_length", "batch_size", "threads", "attn_implementation",
    "revision",
)  # fmt: skip


def load_options(command: Command) -> Command:
    """Add the options that name what to load; `load_spec` takes them out of the command's arguments."""
    return _decorate(command, (_MODEL, *_LOAD))


def several_load_options(command: Command) -> Command:
    """Add the options that name several models to load; `load_specs` takes them out of the command's arguments."""
    return _decorate(command, (_MODELS, *_LOAD))


def sampling_options(command: Command) -> Command:
    """Add the options of sampling; `sampling_params` takes them out of the command's arguments."""
    return _decorate(command, _SAMPLING)


def load_spec(arguments: dict[str, Any]) -> LoadSpec:
    """Take the options of `load_options` out of `arguments`.

    Raises:
        InvalidValueError: a value is out of range.
    """
    options = parse_options(arguments.pop("options"))
    return LoadSpec(**{field: arguments.pop(field) for field in _LOAD_FIELDS}, options=options)


def load_specs(arguments: dict[str, Any]) -> list[LoadSpec]:
    """Take the options of `several_load_options` out of `arguments`; what is no model's name holds for each.

    Raises:
        InvalidValueError: a value is out of range.
    """
    arguments["model"], *others = arguments.pop("models")
    spec = load_spec(arguments)
    return [spec, *(attrs.evolve(spec, model=other) for other in others)]


def sampling_params(arguments: dict[str, Any]) -> SamplingParams:
    """Take the options of `sampling_options` out of `arguments`.

    Raises:
        InvalidValueError: a value is out of range.
    """
    return SamplingParams(**{field: arguments.pop(field) for field in attrs.fields_dict(SamplingParams)})


def parse_options(texts: tuple[str, ...]) -> Mapping[str, str]:
    """`key=value` strings to a mapping.

    Raises:
        InvalidValueError: a string has no `=`, or no key.
    """
    pairs = [text.partition("=") for text in texts]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise InvalidValueError(f"-o {key!r}: give it as key=value")
    return {key: value for key, _, value in pairs}


def _decorate(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
