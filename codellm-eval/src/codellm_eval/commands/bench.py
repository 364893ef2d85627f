"""`codellm bench`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from codellm.cli.output import format_option
from codellm_eval.commands.bench_options import Command, measured_options, numbers
from codellm_eval.commands.grid import grid


def _sizes(name: str, default: int, text: str) -> Callable[[Command], Command]:
    return click.option(
        name, multiple=True, default=[str(default)], show_default=True, callback=numbers, metavar="N,…", help=text
    )


@click.group(invoke_without_command=True, subcommand_metavar="[compare A B | grid | report DIR]")
@measured_options("The row that the others' quality is compared with")
@click.option("--repeats", type=int, default=5, show_default=True, metavar="N", help="Speed runs that count.")
@_sizes("--prompt-tokens", 512, "Prompt of the pp figure; of several sizes, repeatable, all are measured.")
@_sizes("--new-tokens", 128, "Output of the tg figure; likewise.")
@_sizes("--context", 0, "Tokens that are there before the measured ones (llama-bench's depth); likewise.")
@_sizes("--batch-size", 1, "Sequences generated together; likewise.")
@click.option(
    "--task",
    metavar="TASK",
    help="Time one request, the prompt of this HumanEval task and --new-tokens, instead of pp, tg and random prompts.",
)
@click.option(
    "--growth",
    is_flag=True,
    help="Measure too how tg grows with the batch size (1, 2, 4, 8) and with the context, up to the model's.",
)
@click.option("--no-quality", is_flag=True, help="Leave out what tells of quality.")
@click.option(
    "--quality-bytes",
    type=int,
    default=65536,
    show_default=True,
    metavar="N",
    help="Bytes of the held-out corpus to score.",
)
@click.option(
    "--allow-code-execution",
    is_flag=True,
    help="Run what the model writes, in a sandbox, to tell pass@1 on HumanEval.",
)
@click.option("--limit", type=int, metavar="N", help="HumanEval tasks, for pass@1 and canonical.  [default: all]")
@click.option(
    "--max-tokens",
    type=int,
    default=512,
    show_default=True,
    metavar="N",
    help="Most tokens of a HumanEval completion.",
)
@click.option(
    "--humaneval-batch-size",
    type=int,
    default=16,
    show_default=True,
    metavar="N",
    help="HumanEval tasks generated together.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=7200,
    show_default=True,
    metavar="SECONDS",
    help="Longest time for one row.",
)
@format_option
@click.pass_context
def bench(ctx: click.Context, /, **arguments: Any) -> None:
    """Measure speed, memory and quality of a model, over backends and schemes.

    Each row runs in a process of its own; one that fails says why and the others go on.
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options(ctx)
        return
    from codellm_eval.bench.benchmark import Benchmark

    if not Benchmark.of(**arguments).run(_write_report):
        ctx.exit(1)


def _write_report(folder: Path) -> Path:
    from codellm_eval.report.report import write_report

    return write_report(folder)


def _refuse_options(ctx: click.Context) -> None:
    """Options of a benchmark before a command that runs none would do nothing.

    Raises:
        UsageError: one was given.
    """
    for parameter in ctx.command.params:
        if ctx.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{parameter.opts[0]} says how to measure; {ctx.invoked_subcommand} measures nothing"
            )


bench.add_command(grid)
_folder = click.Path(path_type=Path)


@bench.command()
@click.argument("a", type=_folder)
@click.argument("b", type=_folder)
@format_option
def compare(a: Path, b: Path, format_: str) -> None:
    """Set two results folders side by side.

    Each figure that a row has in both, the ratio B/A, and whether it is noise; then what else differs between them.
    """
    import shutil
    import sys

    from codellm_eval.bench.show.comparison import compare as compare_folders
    from codellm_eval.files import tables

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else tables.WIDTH
    click.echo(compare_folders(a, b, format_, width), nl=False)


@bench.command()
@click.argument("folder", metavar="DIR", type=_folder)
def report(folder: Path) -> None:
    """Make the report of a results folder again.

    That is report.html, or of a grid table.md, and the pictures in plots/.
    """
    from codellm_eval.grid.folder import CELLS

    if (folder / CELLS).exists():
        from codellm_eval.grid.folder import Grid
        from codellm_eval.grid.run import leave

        click.echo(leave(folder, Grid.read(folder)))
        return
    click.echo(_write_report(folder))
