"""Rendering of one chat template, in a process that may die of it.

`python -m codellm.chat_child MEMORY SECONDS`

The first line of stdin is the template, a JSON string; each further one is a JSON object of its variables, and is
answered by a line of JSON: `text`, or `fault`, or, in the template's own words, `refused`. A signal is the end of a
limit, of memory or of processor time, which counts for each answer by itself.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from codellm.system.child import limit

if TYPE_CHECKING:
    import jinja2

CHARACTERS = 1 << 24
"""Characters of the longest prompt that a template may write."""


def main() -> None:
    """Answer until nobody asks any more."""
    memory, seconds = int(sys.argv[1]), int(sys.argv[2])
    limit(memory)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    source = json.loads(sys.stdin.readline())
    render: Callable[..., str] | None = None
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal is no exception that a template could catch
        variables = json.loads(line)
        try:
            render = render or compiled(source)
            answer = rendered(render, variables)
        except MemoryError:
            raise
        except Exception as error:
            answer = {"fault": f"{type(error).__name__}: {error}"[:CHARACTERS]}
        text = json.dumps(answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(text, flush=True)  # noqa: T201  # to the process that asked


class RefusedError(Exception):
    """What a template says by `raise_exception`."""


def rendered(render: Callable[..., str], variables: Mapping[str, Any]) -> dict[str, str]:
    """What a template makes of its variables, or what it has against them."""
    try:
        text = render(**variables)
    except RefusedError as error:
        return {"refused": str(error)}
    if len(text) > CHARACTERS:
        return {"fault": f"it writes {len(text)} characters, more than {CHARACTERS}"}
    return {"text": text}


def compiled(source: str) -> Callable[..., str]:
    """The template, with what the published ones count on: transformers/utils/chat_template_utils.py has the list."""
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """`{% generation %}…{% endgeneration %}` stands around what the assistant says, and is of training."""

        tags = {"generation"}  # noqa: RUF012  # as jinja declares it

        def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
            line = next(parser.stream).lineno
            return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    return environment.from_string(source).render


def tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter writes HTML's characters as escapes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: object) -> None:
    """Let a template refuse."""
    raise RefusedError(str(message))


def strftime_now(format: str) -> str:
    """The time here, as templates write today's date."""
    return datetime.now().strftime(format)  # noqa: DTZ005  # the day where the user is


if __name__ == "__main__":
    main()
