"""`codellm quantize` and `codellm convert`, which is quantize with a lossless scheme."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codellm.cli.destination import require_writable
from codellm.cli.options import DEFAULT_MODEL
from codellm.cli.output import for_people, format_option, note, progress, show, size
from codellm.errors import ArtifactError, InvalidValueError

if TYPE_CHECKING:
    from codellm.artifacts.calibration import Calibration
    from codellm.artifacts.ladder import Rung
    from codellm.progress import Progress
    from codellm.scheme import Scheme
    from codellm.sources import ModelSource

_REFUSED = "refused: "

_output = click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Copy the file or directory there too; the cache keeps its own.",
)
_threads = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: physical cores]"
)
_revision = click.option("--revision", metavar="REV", help="Revision of a hub model.")


@click.command()
@click.argument("model", default=DEFAULT_MODEL)
@click.option(
    "-q", "--scheme", "schemes", multiple=True, metavar="NAME", help="Quantization, such as q4_k_m; may be repeated."
)
@click.option("--all", "everything", is_flag=True, help="Every scheme of fewer bits than the model has.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Text for the importance matrix, for schemes that take one.  [default: a bundled text, where one is wanted]",
)
@click.option("--discard", is_flag=True, help="Remove each file again once it is measured; only the table stays.")
@_output
@_threads
@_revision
@format_option
@click.pass_context
def quantize(
    ctx: click.Context,
    model: str,
    schemes: tuple[str, ...],
    everything: bool,
    calibration: Path | None,
    discard: bool,
    output: Path | None,
    threads: int | None,
    revision: str | None,
    format_: str,
) -> None:
    """Write MODEL in a scheme of fewer bits, check what it lost, keep the file, and print its path.

    With several schemes or --all, print a table of what each takes and costs instead; one that fails leaves the others
    alone.
    """
    from codellm.artifacts import ladder
    from codellm.artifacts.calibration import of_file
    from codellm.plugins.registry import registry

    if bool(schemes) == everything:
        raise click.UsageError("name a scheme with -q, or several, or give --all")
    wanted = [registry().scheme(name) for name in dict.fromkeys(schemes)]
    text = of_file(calibration) if calibration is not None else None
    if text is not None and wanted and not any(scheme.takes_calibration for scheme in wanted):
        raise InvalidValueError(f"{', '.join(schemes)}: takes no calibration text")
    if len(wanted) == 1:
        if discard:
            raise click.UsageError("--discard is for a table of several schemes")
        _make_one(model, revision, wanted[0], text, threads, output)
        return
    if output is not None and not output.is_dir():
        raise click.UsageError(f"--output is for several files then, and {output} is no directory")
    if output is not None:
        require_writable(output)
    with progress() as update:
        source = _source(model, revision, update)
        chosen = wanted or ladder.all_schemes(source)
        rungs = ladder.climb(source, chosen, threads=threads, calibration=text, keep=not discard, progress=update)
        rows = [_told(rung, source, format_, output) for rung in rungs]
    if format_ != "jsonl":
        show(rows, format_)
    refused = [row["verdict"].startswith(_REFUSED) for row in rows]
    if all(refused) if everything else any(refused):
        ctx.exit(1)


@click.command()
@click.argument("model", default=DEFAULT_MODEL)
@click.option("-q", "--scheme", metavar="NAME", help="f32, f16 or bf16.  [default: the model's own precision]")
@_output
@_threads
@_revision
def convert(model: str, scheme: str | None, output: Path | None, threads: int | None, revision: str | None) -> None:
    """Write MODEL in llama.cpp's format (GGUF) without loss, keep the file, and print its path."""
    from codellm.plugins.registry import registry
    from codellm.scheme import PRECISIONS, is_quantized

    if is_quantized(scheme):
        raise InvalidValueError(
            f"convert keeps the precision, so --scheme is one of {', '.join(PRECISIONS.values())}, not {scheme!r}; "
            "`codellm quantize` writes fewer bits"
        )
    _make_one(model, revision, registry().scheme(scheme) if scheme is not None else None, None, threads, output)


def _source(model: str, revision: str | None, update: Progress) -> ModelSource:
    from codellm.loading import find
    from codellm.progress import tell_licence

    source = find(model, revision, update).fetch()
    tell_licence(source.name, source.licence, update)
    return source


def _make_one(
    model: str,
    revision: str | None,
    wanted: Scheme | None,
    calibration: Calibration | None,
    threads: int | None,
    output: Path | None,
) -> None:
    """Make one artifact, in the model's own precision where no scheme is wanted, and print its path."""
    from codellm.artifacts import store
    from codellm.artifacts.ensure import ensure
    from codellm.plugins.registry import registry
    from codellm.scheme import PRECISIONS

    if output is not None:
        require_writable(output)
    with progress() as update:
        source = _source(model, revision, update)
        scheme = wanted or registry().scheme(PRECISIONS.get(source.dtype, source.dtype))
        if not scheme.format:
            raise InvalidValueError(
                f"scheme {scheme.name} is applied while loading and writes no file; use it with `-q` there"
            )
        made = ensure(source, scheme, threads=threads, calibration=calibration, progress=update)
    assert made.path is not None  # an artifact lies on the disk
    path = _copy(made.path, output) if output is not None else made.path
    click.echo(path)
    note(f"{scheme.name}, {size(store.size(path))}")


def _told(rung: Rung, source: ModelSource, format_: str, output: Path | None) -> dict[str, Any]:
    """The row of a rung; as jsonl it is printed at once, since a ladder may take hours."""
    if output is not None and rung.kept is not None:
        _copy(rung.kept.path, output)
    row = _row(rung, source, people=for_people(format_))
    if format_ == "jsonl":
        show([row], format_)
    return row


def _row(rung: Rung, source: ModelSource, *, people: bool) -> dict[str, Any]:
    """A row of the table; programs get bytes and null where people get words."""
    lost, weight = rung.bits_per_byte, rung.bits_per_weight
    return {
        "scheme": rung.scheme.name,
        "size": size(rung.size) if people and rung.size is not None else rung.size,
        "bits_per_weight": round(weight, 2) if weight is not None else None,
        "bits_per_byte": round(lost, 3) if lost is not None else "n/a" if people else None,
        "seconds": rung.seconds,
        "verdict": _verdict(rung, source),
    }


def _verdict(rung: Rung, source: ModelSource) -> str:
    if rung.fault:
        return _REFUSED + rung.fault.removeprefix(f"{source.name}: {rung.scheme.name} ")
    return "not checked: dummy weights" if source.dummy else "passed"


def _copy(path: Path, output: Path) -> Path:
    """Copy an artifact out, complete or not at all.

    Raises:
        ArtifactError: it cannot be written.
    """
    target = output / path.name if output.is_dir() else output
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if path.is_dir():
            shutil.copytree(path, partial)
        else:
            shutil.copyfile(path, partial)
        partial.replace(target)
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
    return target
