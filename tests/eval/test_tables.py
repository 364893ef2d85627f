import csv
import io
import json
import math

import attrs
import pytest

from codellm.cli.output import FORMATS
from codellm.errors import UnknownNameError
from codellm_eval.files.tables import Column, fixed, gib, number, percent, render

COLUMNS = (
    Column("row", "Row"),
    Column("pass@1", "pass@1", percent, "right"),
    number("tps", "Tokens per second", 1),
    Column("memory", "Peak memory [GiB]", gib, "right"),
)
ROWS = (
    {"row": "llama-cpp:q8_0", "pass@1": 0.25, "tps": 12.3456, "memory": 3 << 30},
    {"row": "a|b", "pass@1": "not judged: apt-get install bubblewrap", "tps": None, "memory": math.nan},
)


def test_a_table_for_the_terminal():
    assert render(COLUMNS, ROWS) == (
        "Row                          pass@1  Tokens per second  Peak memory [GiB]\n"
        "--------------  -------------------  -----------------  -----------------\n"
        "llama-cpp:q8_0                25.0%               12.3               3.00\n"
        "a|b             not judged: apt-get                  -                  -\n"
        "                 install bubblewrap\n"
    )


def test_markdown_escapes_what_would_break_a_row():
    assert render(COLUMNS, ROWS, "md") == (
        "| Row            |                                 pass@1 |   Tokens per second |   Peak memory [GiB] |\n"
        "|----------------|----------------------------------------|---------------------|---------------------|\n"
        "| llama-cpp:q8_0 |                                  25.0% |                12.3 |                3.00 |\n"
        "| a\\|b           | not judged: apt-get install bubblewrap |                   - |                   - |\n"
    )


def test_csv_holds_unrounded_values_under_keys():
    rows = list(csv.DictReader(io.StringIO(render(COLUMNS, ROWS, "csv"))))
    assert rows[0] == {"row": "llama-cpp:q8_0", "pass@1": "0.25", "tps": "12.3456", "memory": str(3 << 30)}
    assert (rows[1]["tps"], rows[1]["memory"]) == ("", "")


def test_json_and_jsonl_agree_and_hold_no_nan():
    rows = json.loads(render(COLUMNS, ROWS, "json"))
    assert rows == [json.loads(line) for line in render(COLUMNS, ROWS, "jsonl").splitlines()]
    assert rows[0] == ROWS[0]
    assert rows[1] == {**ROWS[1], "memory": None}
    infinite = render([number("x", "X")], [{"x": math.inf}], "json")
    assert json.loads(infinite) == [{"x": None}]


def test_a_narrow_table_stays_and_a_wide_one_wraps_between_words():
    narrow = render([Column("a", "A"), number("b", "B")], [{"a": "x", "b": 1}])
    assert narrow == "A     B\n-  ----\nx  1.00\n"
    wide = [Column("a", "One"), Column("b", "Two"), Column("c", "A title of several words", align="right")]
    text = "a reason that is told in a good many words, more than fit beside the rest of the row"
    table = render(wide, [{"a": "llama-cpp:q4_k_m:threads=2", "b": text, "c": 1}])
    assert max(map(len, table.splitlines())) <= 80
    for word in [*text.split(), "llama-cpp:q4_k_m:threads=2", "several"]:
        assert word in table


def test_a_word_is_never_broken_even_where_the_table_gets_too_wide():
    word = "x" * 100
    assert word in render([Column("a", "A"), Column("b", "B")], [{"a": word, "b": "some words"}])


def test_control_characters_do_not_reach_the_terminal():
    table = render([Column("a", "A")], [{"a": "red \x1b[31m\nnew\rline\x9b"}])
    assert not set("\x1b\r\x9b") & set(table)
    assert len(table.splitlines()) == 3


@pytest.mark.parametrize("format_", FORMATS)
def test_no_rows(format_):
    assert isinstance(render(COLUMNS, [], format_), str)
    if format_ == "json":
        assert json.loads(render(COLUMNS, [], format_)) == []
    if format_ == "jsonl":
        assert render(COLUMNS, [], format_) == ""


def test_attrs_rows_and_missing_keys():
    @attrs.frozen
    class Row:
        row: str
        tps: float

    assert json.loads(render(COLUMNS, [Row("x", 1.5)], "jsonl")) == {
        "row": "x", "pass@1": None, "tps": 1.5, "memory": None,
    }  # fmt: skip


def test_an_unknown_format_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'csv'"):
        render(COLUMNS, ROWS, "cvs")


def test_numbers():
    assert (fixed(2)(1.005), percent(0.5), gib(2**29)) == ("1.00", "50.0%", "0.50")
