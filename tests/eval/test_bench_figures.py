"""Figures are declared once: nothing of a Record is forgotten, and one entry is enough for all that is told of one."""

import ast
import csv
import io
import json
from pathlib import Path

import attrs
import pytest

from codellm_eval.bench import measure
from codellm_eval.bench.ask.job import QualityPlan
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.records import figures
from codellm_eval.bench.records.failure import failed
from codellm_eval.bench.records.figure import Compared, Figure, Unit
from codellm_eval.bench.records.figures import FIGURES
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.record import FAILED, Record
from codellm_eval.bench.show.notes import notes
from codellm_eval.bench.show.quantity import quantities
from codellm_eval.bench.show.table import render
from codellm_eval.report.page import page
from codellm_eval.report.ratios import ratios
from codellm_eval.stats.repeats import Repeats
from support.recorded import record

DECLARED = "codellm_eval/bench/records/figures.py"
HERE = Path(__file__).name
OTHER = {
    "row": "names the row",
    "model": "names what the row measured",
    "scored_documents": "the notes tell it, with the protocol of bits per byte",
    "documents": "what bits_per_byte adds up",
    "canonical_asked": "the notes tell it, with the protocol of the canonical solutions",
    "passed": "pass_at_1 is told as its count too",
    "verdicts": "what pass_at_1 counts",
    "gaps": "why figures are empty",
    "error": "why the row has none",
}
"""The fields of Record that no figure comes from, each with the reason."""


def faults(kind, declared):
    """What is wrong between the fields of `kind` and the `declared` figures, and which file mends it."""
    fields, told = {each.name for each in attrs.fields(kind)}, {figure.field for figure in declared}
    return [
        *(
            f"Record.{name} is told nowhere: declare a figure in {DECLARED}, or name it in OTHER of {HERE}"
            for name in sorted(fields - told - OTHER.keys())
        ),
        *(f"{DECLARED} declares a figure of {name}, which Record has no field of" for name in sorted(told - fields)),
        *(
            f"OTHER of {HERE} names {name}, which is a figure or no field"
            for name in sorted(OTHER.keys() & (told | OTHER.keys() - fields))
        ),
    ]


def test_every_field_of_a_record_is_told_or_is_no_figure():
    assert faults(Record, FIGURES) == []


WIDER = attrs.make_class("Wider", {"watts": attrs.field(default=None)}, bases=(Record,), frozen=True, kw_only=True)
WATTS = Figure(
    kind="energy", field="watts", repeated=True, unit=Unit("W", "mW", lambda value: 1000 * value),
    key="watts", table="latency", title="power", programs="watts", compared=Compared(name=lambda _: "power"),
    missing="power",
)  # fmt: skip


def wider(row="llama-cpp:q4_k_m", **fields):
    """A record that has a field more."""
    one = record(row)
    return WIDER(**{each.name: getattr(one, each.name) for each in attrs.fields(Record)}, **fields)


def test_a_field_without_a_figure_is_named_with_the_file_that_mends_it():
    [fault] = faults(WIDER, FIGURES)
    assert fault.startswith("Record.watts is told nowhere: declare a figure in codellm_eval/bench/records/figures.py")
    assert faults(WIDER, (*FIGURES, WATTS)) == []


def test_a_figure_without_a_field_is_named():
    assert faults(Record, (*FIGURES, WATTS)) == [
        "codellm_eval/bench/records/figures.py declares a figure of watts, which Record has no field of"
    ]


def test_a_figure_that_nothing_comes_from_any_more_leaves_its_field():
    left = tuple(figure for figure in FIGURES if figure.field != "tasks")
    assert [fault.partition(":")[0] for fault in faults(Record, left)] == ["Record.tasks is told nowhere"]


def test_no_two_figures_share_a_column_a_key_or_a_reason():
    for names in (
        [figure.key for figure in FIGURES if figure.table is not None],
        [figure.programs for figure in FIGURES if figure.programs is not None],
        [figure.field for figure in FIGURES if figure.missing is not None],
    ):
        assert all(names)
        assert len(set(names)) == len(names)


def test_every_gap_that_a_row_reports_is_told_by_name():
    """`report.gap(FIELD, …)` and `report.gap_on_error(FIELD)`, wherever a row is measured."""
    told = {figure.field for figure in FIGURES if figure.missing is not None}
    calls = [
        node
        for file in Path(*measure.__path__).glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("gap", "gap_on_error")
    ]
    reported = {each.args[0].value for each in calls if isinstance(each.args[0], ast.Constant)}
    assert {"pass_at_1", "points", "bandwidth", "joules_per_token"} <= reported
    assert reported <= told, f"no figure of {DECLARED} has a name for it in `missing`"


@pytest.fixture
def with_watts(monkeypatch):
    """The one entry that a new figure takes."""
    monkeypatch.setattr(figures, "FIGURES", (*FIGURES, WATTS))


@pytest.mark.usefixtures("with_watts")
def test_one_entry_is_a_column_for_people_and_for_programs():
    rows = [wider(watts=Repeats((1.5, 1.6, 1.4))), wider("llama-cpp:q8_0")]
    text = render(rows, Plan(), [], "table")
    lines = [line.split() for line in text.splitlines() if line]
    assert [line[-1] for line in lines[-6:]][:2] == ["power", "mW"]
    assert [line[-1] for line in lines[-3:]] == ["1500", "±7%", "-"]
    assert "| power mW |" in " ".join(render(rows, Plan(), [], "md").split())
    assert "1500 ±7%" in render(rows, Plan(), [], "md")
    for found in (
        json.loads(render(rows, Plan(), [], "json")),
        [*csv.DictReader(io.StringIO(render(rows, Plan(), [], "csv")))],
    ):
        assert [float(row["watts"] or 0) for row in found] == [1.5, 0]
        assert "watts_spread" in found[0]
        assert "watts_reason" in found[0]


@pytest.mark.usefixtures("with_watts")
def test_one_entry_is_compared_and_reported():
    rows = (wider(watts=Repeats((1.5, 1.6))), wider("llama-cpp:q8_0", watts=Repeats((3.0, 3.2))))
    quantity = quantities(rows[0])["power"]
    assert (quantity.value, quantity.unit.shown) == (1.55, "mW")
    text = page(Folder(path=Path(), records=rows, plan=Plan(), quality=None, manifest={}), [])
    assert "power" in text
    assert "1550" in text
    assert "power" not in ratios(rows).columns


@pytest.mark.usefixtures("with_watts")
def test_what_a_fault_leaves_out_is_told_of_it_too():
    died = failed(wider(), "it died")
    assert died.gaps["watts"].cell == FAILED
    assert not died.whole
    [told] = [note for note in notes([died], Plan(), QualityPlan()) if "it died" in note]
    assert "power" in told.partition(":")[0].split(", ")
    assert json.loads(render([died], Plan(), [], "json"))[0]["watts_reason"] == "it died"
    assert "watts" not in failed(wider(watts=Repeats((1.0,))), "it died").gaps


def test_a_row_that_died_before_its_speed_has_an_error_and_no_gaps():
    died = failed(record(tpot=None), "it died")
    assert (died.error, died.gaps) == ("it died", {})
