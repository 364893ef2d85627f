"""The command, and its report as text and as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import click

if TYPE_CHECKING:
    from codellm.cli.doctor.section import Section
    from codellm.finding import Finding

_WIDEST = 100
"""Columns of a line at most: longer ones are hard to read."""


@click.command()
@click.option(
    "--format",
    "format_",
    type=click.Choice(("table", "json")),
    default="table",
    show_default=True,
    help="How to print the report.",
)
def doctor(format_: str) -> None:
    """Tell what is installed and what this machine has; for what is wrong, the command that mends it.

    It changes nothing, and exits with 0 whatever it finds.
    """
    from codellm.cli.doctor.caches import caches
    from codellm.cli.doctor.hardware import hardware
    from codellm.cli.doctor.plugins import plugins
    from codellm.cli.doctor.software import backends, software

    sections = (software(), backends(), plugins(), hardware(), caches())
    click.echo(_json(sections) if format_ == "json" else _text(sections))


def _json(sections: Sequence[Section]) -> str:
    facts = {key: fact for section in sections for key, fact in section.facts.items()}
    findings = [
        {"section": section.title, **attrs.asdict(finding)} for section in sections for finding in section.findings
    ]
    return json.dumps({**facts, "findings": findings, "problems": _problems(sections)}, indent=2)


def _problems(sections: Sequence[Section]) -> int:
    return sum(not finding.ok for section in sections for finding in section.findings)


def _text(sections: Sequence[Section]) -> str:
    columns = min(shutil.get_terminal_size().columns, _WIDEST)
    lines: list[str] = []
    for section in sections:
        if section.findings:
            topics = max(len(finding.topic) for finding in section.findings)
            lines += [click.style(section.title, bold=True)]
            lines += [line for finding in section.findings for line in _lines(finding, topics, columns)]
            lines += [""]
    problems = _problems(sections)
    if not problems:
        return "\n".join([*lines, "nothing to mend"])
    ending = "1 thing needs mending: the line" if problems == 1 else f"{problems} things need mending: the lines"
    return "\n".join([*lines, click.style(f"{ending} marked with !", fg="red")])


def _lines(finding: Finding, topics: int, columns: int) -> list[str]:
    """A finding in two columns, and its remedy below it: a command is broken as a shell takes it.

    A remedy that quotes commands in backticks is a sentence.
    """
    start = f"{' ' if finding.ok else '!'} {finding.topic:<{topics}}  "
    lines = _wrapped(finding.value, columns - len(start))
    shown = [start + lines[0], *(" " * len(start) + line for line in lines[1:])]
    if not finding.ok:
        shown[0] = click.style(shown[0], fg="red")
    if finding.remedy:
        label, end = "     get: " if finding.ok else "    mend: ", "" if "`" in finding.remedy else " \\"
        remedy = _wrapped(finding.remedy, columns - len(label) - len(end))
        shown.append(label + f"{end}\n{' ' * len(label)}".join(remedy))
    return shown


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of `text`; what people copy, a path or an option, stays in one piece whatever its length."""
    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False) or [""]
