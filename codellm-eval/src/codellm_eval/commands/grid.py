"""`codellm bench grid`."""

from __future__ import annotations

from typing import Any

import click

from codellm.cli.output import format_option
from codellm_eval.commands.bench_options import measured_options, numbers


@click.command()
@measured_options("What the others are compared with")
@click.option(
    "--protocol",
    type=click.Choice(["cached", "seed"]),
    default="cached",
    show_default=True,
    help="Prefill and decode with the cache of keys and values, or each token by a pass over everything before it.",
)
@click.option(
    "--batch-size",
    multiple=True,
    callback=numbers,
    metavar="N,…",
    help="Sequences that run together.  [default: 1,2,4,8; seed: 2]",
)
@click.option(
    "--context",
    multiple=True,
    callback=numbers,
    metavar="N,…",
    help="Tokens of each prompt.  [default: 512; seed: 4096,8192]",
)
@click.option(
    "--new-tokens", type=int, metavar="N", help="Tokens of each sequence that are timed.  [default: 32; seed: 4]"
)
@click.option("--repeats", type=int, metavar="N", help="Runs that count.  [default: 3; seed: 2]")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="Longest time for one cell.",
)
@format_option
@click.pass_context
def grid(ctx: click.Context, /, **arguments: Any) -> None:
    """Measure each row by batch size and context.

    Of each cell prefill, decode and peak memory are told, and how much faster than the reference row it is. A cell that
    runs out of memory says so, and the others go on. The same command with the same --output goes on where it stopped.
    """
    from codellm_eval.grid.run import GridRun

    if not GridRun.of(**arguments).run():
        ctx.exit(1)
