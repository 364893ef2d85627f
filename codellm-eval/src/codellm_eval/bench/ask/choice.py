"""The rows of one benchmark: those that `--row` names, with patterns expanded, else the usual ones of the model."""

from __future__ import annotations

from collections.abc import Sequence

from codellm.cli.output import note
from codellm.errors import BackendChoiceError, InvalidValueError, UnknownNameError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.spec import LoadSpec
from codellm_eval.bench.ask.ladder import Rows, default_rows
from codellm_eval.bench.ask.pattern import is_pattern, matching_rows
from codellm_eval.bench.ask.row import Row


def choose_rows(model: str, texts: Sequence[str]) -> list[Row]:
    """The rows to measure, each once.

    Raises:
        InvalidValueError: a text is no row, is given twice, or is a pattern that nothing matches.
        UnknownNameError: a backend, a scheme or a model that nobody knows.
        BackendChoiceError: none was named and no backend takes this model here.
    """
    if not texts:
        return _usual(model)
    named = [Row.parse(text) for text in texts if not is_pattern(text)]
    for row in named:
        row.check(registry())
    twice = next((row for row in named if named.count(row) > 1), None)
    if twice is not None:
        raise InvalidValueError(f"row {twice} is given twice")
    rows: dict[Row, None] = {}
    for text in texts:
        rows |= dict.fromkeys(_matching(model, text) if is_pattern(text) else [Row.parse(text)])
    return list(rows)


def _matching(model: str, text: str) -> list[Row]:
    found = matching_rows(registry(), find(model).format, text)
    _tell(found)
    if not found.rows:
        known = matching_rows(registry(), find(model).format, "*:*").rows
        names = f"; there are {', '.join(map(str, known))}" if known else ""
        raise InvalidValueError(f"--row {text!r} matches nothing that {model!r} can be measured with{names}")
    return list(found.rows)


def _usual(model: str) -> list[Row]:
    reference = find(model)
    found = default_rows(registry(), reference.format, reference.scheme)
    _tell(found)
    if not found.rows:
        registry().choose(LoadSpec(model=model), reference.format)  # says why there is none
        raise BackendChoiceError(f"no backend here has a row for {model!r}; name one with --row")
    return list(found.rows)


def _tell(found: Rows) -> None:
    for reason in found.left_out:
        note(f"left out: {reason}")


def reference_first(rows: list[Row], text: str | None) -> list[Row]:
    """The rows, first the one named by `text`: what the others are compared with has to be there before them.

    Raises:
        InvalidValueError: `text` is no row.
        UnknownNameError: it is none of these.
    """
    if text is None:
        return rows
    reference = Row.parse(text)
    if reference not in rows:
        raise UnknownNameError("row for --reference", text, map(str, rows))
    return sorted(rows, key=lambda row: row != reference)
