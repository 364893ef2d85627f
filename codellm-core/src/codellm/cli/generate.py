"""`codellm generate`."""

from __future__ import annotations

import json
import sys
from typing import Any

import attrs
import click

from codellm.cli.options import load_options, load_spec, sampling_options, sampling_params
from codellm.cli.output import note, progress, text_format_option
from codellm.errors import CodellmError, InputError
from codellm.sampling import SamplingParams


@click.command()
@click.argument("prompt")
@load_options
@sampling_options
@text_format_option
def generate(prompt: str, format_: str, **arguments: Any) -> None:
    """Continue PROMPT (`-` reads it from standard input) and print the text as it comes."""
    params, spec = sampling_params(arguments), load_spec(arguments)
    see_told(params, format_)
    text = read_stdin() if prompt == "-" else prompt
    from codellm.loading import open_spec

    with progress() as update:
        model = open_spec(spec, update)
    with model:
        emit(model.stream(text, params), format_)


def see_told(params: SamplingParams, format_: str) -> None:
    """See that what `params` ask to be told has a place where it is printed.

    Raises:
        click.UsageError: it has none.
    """
    if params.logprobs is not None and format_ != "json":
        raise click.UsageError("--logprobs goes with --format json")


def read_stdin() -> str:
    """Standard input as text.

    Raises:
        InputError: it is closed, or not UTF-8.
    """
    if sys.stdin is None:
        raise InputError("standard input is closed; give the prompt as an argument")
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"standard input: byte {error.start} is not UTF-8 ({error.reason}); convert it first, with iconv perhaps"
        ) from error


def emit(stream: Any, format_: str) -> None:
    """Print a stream's text as it comes, or its result as one JSON object; figures go to stderr."""
    begun = False
    with stream:
        try:
            for piece in stream:
                if format_ == "text":
                    click.echo(piece, nl=False)
                    begun = True
        except CodellmError:
            if begun:
                click.echo()  # what is said of it stands on a line of its own
            raise
        result = stream.result
    timing = result.timing
    if format_ == "json":
        click.echo(
            json.dumps(
                {
                    "text": result.text,
                    "token_ids": list(result.token_ids),
                    "finish_reason": result.finish_reason,
                    "cached_tokens": result.cached_tokens,
                    "logprobs": [attrs.asdict(one) for one in told] if (told := result.logprobs) is not None else None,
                    "ttft_s": timing.ttft,
                    "tpot_s": timing.tpot,
                }
            )
        )
    else:
        click.echo()
    rate = f", {1 / timing.tpot:.1f} tokens/s" if timing.tpot else ""
    first = f", first after {timing.ttft * 1000:.0f} ms" if timing.ttft is not None else ""
    note(f"{len(result.token_ids)} tokens{first}{rate}, finished by {result.finish_reason}")
