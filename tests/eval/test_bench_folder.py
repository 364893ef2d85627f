"""Results folders read back: whole, cut short, and with garbage in them."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codellm_eval.bench.ask.job import QualityPlan
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.records.folder import Folder
from codellm_eval.errors import ResultsError
from support.recorded import DEMO


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(DEMO, tmp_path / "demo"))


def test_a_whole_folder(folder):
    found = Folder.read(folder)
    assert [str(record.row) for record in found.records][:2] == ["llama-cpp:f16", "llama-cpp:bf16"]
    assert (found.plan, found.quality, found.finished) == (Plan(), QualityPlan(allow_code_execution=True), True)
    assert found.manifest["cpu"] == "AMD EPYC"


def test_a_byte_order_mark_changes_nothing(folder):
    plain = Folder.read(folder)
    for name in ("manifest.json", "rows.jsonl"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert Folder.read(folder) == plain


def test_a_folder_of_a_killed_benchmark(folder):
    (folder / "manifest.json").unlink()
    rows = (folder / "rows.jsonl").read_text()
    (folder / "rows.jsonl").write_text(rows[:-40])
    found = Folder.read(folder)
    assert (len(found.records), found.plan, found.quality, found.finished) == (5, Plan(), None, False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", ""),
        ("rows.jsonl", "not JSON\n"),
        ("rows.jsonl", "{}\n"),
        ("rows.jsonl", '{"row": 3, "model": "m"}\n'),
        ("rows.jsonl", '{"row": "a:b", "model": "m", "from_the_future": 1}\n'),
        ("rows.jsonl", '{"row": "a:b", "model": "m", "prefill": ["fast"]}\n'),
        ("rows.jsonl", '{"row": "a:b", "model": "m", "prefill": []}\n'),
        ("rows.jsonl", '{"row": "a:b", "model": "m", "host_peak": 1' + 400 * "0" + "}\n"),
        ("rows.jsonl", "[" * 100_000 + "\n"),
        ("manifest.json", "[]"),
        ("manifest.json", '{"bench": 3}'),
        ("manifest.json", '{"bench": {"plan": {"repeats": 0}}}'),
        ("manifest.json", '{"bench": {"plan": {}, "quality": 3}}'),
    ],
)
def test_garbage_is_one_line_that_names_the_file(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(ResultsError) as caught:
        Folder.read(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(folder))


def test_what_is_no_folder_of_results(tmp_path):
    for path in (tmp_path, tmp_path / "none", Path(__file__), tmp_path / "none" / "such"):
        with pytest.raises(ResultsError, match=r"holds no rows\.jsonl"):
            Folder.read(path)
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(ResultsError, match="cannot be read"):
        Folder.read(tmp_path)


@settings(max_examples=60)
@given(place=st.integers(0, 4000), byte=st.binary(min_size=1, max_size=3))
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, place, byte):
    folder = tmp_path_factory.mktemp("damaged")
    data = (DEMO / "rows.jsonl").read_bytes()
    (folder / "rows.jsonl").write_bytes(data[:place] + byte + data[place + len(byte) :])
    try:
        found = Folder.read(folder)
    except ResultsError:
        return
    assert json.dumps([str(record.row) for record in found.records])
