"""`codellm quantize` and `codellm convert`, which is quantize with a lossless scheme."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from codellm.cli.options import DEFAULT_MODEL
from codellm.cli.output import note, progress, size
from codellm.errors import ArtifactError, InvalidValueError

_output = click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Copy the file there too; the cache keeps its own.",
)
_threads = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: physical cores]"
)
_revision = click.option("--revision", metavar="REV", help="Revision of a hub model.")


@click.command()
@click.argument("model", default=DEFAULT_MODEL)
@click.option("-q", "--scheme", required=True, metavar="NAME", help="Quantization, such as q4_k_m.")
@_output
@_threads
@_revision
def quantize(model: str, scheme: str, output: Path | None, threads: int | None, revision: str | None) -> None:
    """Write MODEL in a scheme of fewer bits, check what it lost, keep the file, and print its path."""
    _make(model, scheme, output, threads, revision)


@click.command()
@click.argument("model", default=DEFAULT_MODEL)
@click.option("-q", "--scheme", metavar="NAME", help="f32, f16 or bf16.  [default: the model's own precision]")
@_output
@_threads
@_revision
def convert(model: str, scheme: str | None, output: Path | None, threads: int | None, revision: str | None) -> None:
    """Write MODEL in llama.cpp's format (GGUF) without loss, keep the file, and print its path."""
    from codellm.artifacts import PRECISIONS

    if scheme is not None and scheme not in PRECISIONS.values():
        raise InvalidValueError(
            f"convert keeps the precision, so --scheme is one of {', '.join(PRECISIONS.values())}, not {scheme!r}; "
            "`codellm quantize` writes fewer bits"
        )
    _make(model, scheme, output, threads, revision)


def _make(model: str, name: str | None, output: Path | None, threads: int | None, revision: str | None) -> None:
    from codellm import artifacts
    from codellm.progress import tell_licence
    from codellm.registry import registry
    from codellm.sources import find

    wanted = registry().scheme(name) if name is not None else None
    with progress() as update:
        source = find(model, revision, update).fetch()
        tell_licence(source.name, source.licence, update)
        scheme = wanted or registry().scheme(artifacts.PRECISIONS.get(source.dtype, source.dtype))
        if scheme.applies != "file":
            raise InvalidValueError(
                f"scheme {scheme.name} is applied while loading and writes no file; use it with `-q` there"
            )
        made = artifacts.ensure(source, scheme, threads=threads, progress=update)
    assert made.path is not None  # an artifact is a file
    path = _copy(made.path, output) if output is not None else made.path
    click.echo(path)
    note(f"{scheme.name}, {size(path.stat().st_size)}")


def _copy(path: Path, output: Path) -> Path:
    """Copy an artifact out, complete or not at all.

    Raises:
        ArtifactError: it cannot be written.
    """
    target = output / path.name if output.is_dir() else output
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(path, partial)
        partial.replace(target)
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    return target
