"""The HTML report of a results folder, and its pictures as files."""

import html
import html.parser
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import attrs
import pytest

from codellm_eval.bench.measure.quality import DUMMY
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.record import Gap
from codellm_eval.errors import ResultsError
from codellm_eval.report.inline import inline
from codellm_eval.report.ratios import ratios
from codellm_eval.report.report import write_report
from codellm_eval.stats.repeats import Repeats
from support import recorded
from support.plugin_folder import codellm

PICTURES = ["memory-quality", "speed", "speed-quality"]
NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>-->&amp;$\\frac{${{7*7}}'\""


def report(folder):
    return write_report(folder).read_text()


def plots(folder):
    return sorted(path.name for path in (folder / "plots").iterdir()) if (folder / "plots").exists() else []


class Outline(html.parser.HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def demo(tmp_path):
    return Path(shutil.copytree(recorded.DEMO, tmp_path / "demo"))


def test_the_demo(demo):
    page = report(demo)
    assert plots(demo) == sorted(f"{name}.{ending}" for name in PICTURES for ending in ("png", "svg"))
    text = " ".join(Outline(page).text.split())
    for record in Folder.read(demo).records:
        assert str(record.row) in text
    for part in ("AMD EPYC, 2 cores", "2026-11-23 00:35:49 UTC", "codellm bench --allow-code-execution",
                 "6.0 million parameters", "one sequence, greedy", "±16%", "llama-cpp-python 0.3.36"):  # fmt: skip
        assert part in text, part
    assert "no other row is better in one and no worse in the other: llama-cpp:bf16, llama-cpp:q4_0." in text


def test_a_page_needs_nothing_and_runs_nothing(demo):
    page = Outline(report(demo))
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for name, value in page.attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith(("#", "plots/")), value
    # names of XML dialects are the only addresses
    assert not [value for name, value in page.attributes if "://" in (value or "") and not name.startswith("xmlns")]


def test_the_ids_of_a_page_differ(demo):
    found = [value for name, value in Outline(report(demo)).attributes if name == "id"]
    assert len(found) == len(set(found)) > 10


def test_the_same_records_give_the_same_bytes(demo, tmp_path):
    again = Path(shutil.copytree(demo, tmp_path / "elsewhere" / "again"))
    for folder in (demo, again):
        write_report(folder)
    write_report(demo)  # over itself
    files = [path.relative_to(demo) for path in demo.rglob("*") if path.is_file()]
    assert len(files) == 3 + 1 + 2 * len(PICTURES)
    for file in files:
        assert (demo / file).read_bytes() == (again / file).read_bytes(), file


def test_each_picture_is_what_its_name_says(demo):
    write_report(demo)
    for name in PICTURES:
        assert (demo / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        root = ET.parse(demo / "plots" / f"{name}.svg").getroot()
        assert root.tag.endswith("svg")


def test_names_and_errors_are_text(tmp_path):
    folder = recorded.write(
        tmp_path / "out",
        [
            recorded.row(f"llama-cpp:q8_0:note={NASTY}", model=NASTY),
            recorded.row("llama-cpp:q4_0", bits_per_byte=0.7).with_gap("pass_at_1", Gap(NASTY, NASTY)),
            recorded.failed("llama-cpp:f16", NASTY),
        ],
        command=NASTY,
        cpu=NASTY,
        date=NASTY,
        packages={NASTY: NASTY},
    )
    page = report(folder)
    outline = Outline(page)
    assert not outline.tags & {"script", "img"}
    assert not [name for name, _ in outline.attributes if name.startswith("on")]
    assert outline.text.count("alert(1)") >= 6
    assert html.escape(NASTY, quote=False)[:30] in page
    for svg in (folder / "plots").glob("*.svg"):
        ET.parse(svg)


def test_what_rows_may_hold_can_be_drawn(tmp_path):
    odd = "/" + "x" * 300 + "/你好🎉$x$\u202e"
    records = [recorded.row(f"llama-cpp:q8_0:path={odd},place={n}", bits_per_byte=0.7 + n / 100) for n in range(3)]
    assert report(recorded.write(tmp_path / "out", records)).count(html.escape(odd)) >= 3


@pytest.mark.parametrize("count", [2, 20, 60])
def test_any_number_of_rows(tmp_path, count):
    records = [
        recorded.row(f"backend{n % 9}:s{n}", bits_per_byte=0.7 + n % 7 / 50, decode=Repeats((10.0 + n, 12.0 + n)))
        for n in range(count)
    ]
    folder = recorded.write(tmp_path / "out", records)
    write_report(folder)
    assert len(plots(folder)) == 2 * len(PICTURES)


def test_equal_rows_are_all_on_the_front(tmp_path):
    folder = recorded.write(tmp_path / "out", [recorded.row(f"llama-cpp:q{n}_0") for n in range(5)])
    assert "no worse in the other: llama-cpp:q0_0, llama-cpp:q1_0, llama-cpp:q2_0" in report(folder)


def test_one_row_is_no_tradeoff(tmp_path):
    folder = recorded.write(tmp_path / "out", [recorded.row("llama-cpp:f16")])
    text = report(folder)
    assert plots(folder) == ["speed.png", "speed.svg"]
    assert text.count("not drawn, it takes two rows that have both figures, and there is one") == 2


def test_dummy_rows_have_no_quality_picture(tmp_path):
    records = [
        attrs.evolve(recorded.row(f"llama-cpp:q{n}_0"), bits_per_byte=None, pass_at_1=None)
        .with_gap("bits_per_byte", Gap("dummy", DUMMY))
        .with_gap("pass_at_1", Gap("dummy", DUMMY))
        for n in range(3)
    ]
    folder = recorded.write(tmp_path / "out", records)
    assert f"Speed against quality: not drawn, {DUMMY}." in html.unescape(report(folder))
    assert plots(folder) == ["speed.png", "speed.svg"]


def test_failed_rows_are_told_and_leave_the_others(tmp_path):
    records = [recorded.failed("llama-cpp:f16", "no memory"), *(recorded.row(f"llama-cpp:q{n}_0") for n in range(2))]
    folder = recorded.write(tmp_path / "out", records)
    text = report(folder)
    assert "llama-cpp:f16 failed: no memory" in text
    assert "Not in the picture, since a figure is missing: llama-cpp:f16." in text
    nothing = recorded.write(tmp_path / "none", records[:1])
    assert "Speed of each row: not drawn, no row worked." in report(nothing)
    assert plots(nothing) == []


def test_growth_is_drawn_where_it_was_measured(tmp_path):
    rows = [
        recorded.growing("llama-cpp:a"),
        recorded.growing("llama-cpp:b", batches=(1, 2)),
        recorded.growing("llama-cpp:c", batches=(1,)),
    ]
    folder = recorded.write(tmp_path / "out", [*rows, recorded.row("llama-cpp:d")])
    text = report(folder)
    assert {"batch.png", "batch.svg", "context.png", "context.svg"} <= {*plots(folder)}
    assert "sequences together. Not in the picture, since a figure is missing: llama-cpp:c, llama-cpp:d." in text
    assert "context before it. Not in the picture, since a figure is missing: llama-cpp:d." in text


def test_growth_that_was_not_measured_says_how_it_is(demo, tmp_path):
    assert "codellm bench --growth does so" in report(demo)
    failed = recorded.row("llama-cpp:a").with_gap("points", Gap("failed", "no room for 8 sequences"))
    text = report(recorded.write(tmp_path / "out", [failed]))
    assert "Throughput by batch size: not drawn, no room for 8 sequences." in text


def test_ratios_say_what_may_be_none():
    base = recorded.row("llama-cpp:a", decode=Repeats((90.0, 100.0, 110.0)))
    peak = 2 * base.host_peak
    near = recorded.row("llama-cpp:b", decode=Repeats((100.0, 115.0, 120.0)), host_peak=peak)
    far = recorded.row("llama-cpp:c", decode=Repeats((190.0, 200.0, 210.0)), host_peak=peak, ttft=None)
    found = ratios([base, near, recorded.failed("llama-cpp:d", "x"), far])
    assert found.reference == "llama-cpp:a"
    assert found.columns == ["pp512", "tg128", "TTFT 128+128", "TPOT 128+128", "size", "host peak"]
    assert found.rows == {
        "llama-cpp:b": [("1.00", ""), ("≈1.15", ""), ("1.00", ""), ("1.00", ""), ("1.00", ""), ("2.00", "once")],
        "llama-cpp:c": [("1.00", ""), ("2.00", ""), ("", ""), ("1.00", ""), ("1.00", ""), ("2.00", "once")],
    }
    assert ratios([base]) is None
    assert ratios([recorded.failed("llama-cpp:d", "x"), near]) is None


def test_the_report_is_made_again_from_the_folder(demo, tmp_path):
    write_report(demo)
    before = (demo / "report.html").read_bytes()
    shutil.rmtree(demo / "plots")
    (demo / "report.html").unlink()
    done = codellm("bench", "report", str(demo))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{demo / 'report.html'}\n", "")
    assert (demo / "report.html").read_bytes() == before
    nothing = codellm("bench", "report", str(tmp_path))
    assert nothing.returncode == 1
    assert nothing.stderr.startswith(f"codellm: {tmp_path}: holds no rows.jsonl")


def test_figures_that_no_machine_gave_are_left_out(tmp_path):
    odd = [float("nan"), float("inf"), 1e308, 5e-324, 0.0, -1.0]
    rows = [recorded.row(f"llama-cpp:q{n}", decode=Repeats((value, 3.0))) for n, value in enumerate(odd)]
    rows += [recorded.row(f"llama-cpp:b{n}", bits_per_byte=value) for n, value in enumerate(odd)]
    rows += [recorded.row("llama-cpp:one"), recorded.row("llama-cpp:two", host_peak=2**62)]
    text = report(recorded.write(tmp_path / "out", rows))
    absent = ", ".join(str(record.row) for record in rows[: 2 * len(odd)])
    assert f"since a figure is missing: {absent}." in text


def test_a_killed_benchmark_has_a_report_that_says_so(demo):
    (demo / "manifest.json").unlink()
    assert "This benchmark was killed before its end" in report(demo)


def test_a_folder_that_cannot_be_written(demo):
    (demo / "plots").write_text("a file")
    with pytest.raises(ResultsError, match="cannot be written"):
        write_report(demo)


def test_a_user_s_own_style_changes_nothing(demo, tmp_path, monkeypatch):
    import matplotlib as mpl

    before = report(demo)
    monkeypatch.setitem(mpl.rcParams, "font.size", 30)
    monkeypatch.setitem(mpl.rcParams, "text.usetex", True)
    assert report(demo) == before
    assert mpl.rcParams["font.size"] == 30


def test_inline_keeps_what_is_drawn():
    svg = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg><metadata><x/></metadata><!-- <b> --><g id="a"/><use xlink:href="#a"/>'
        '<path clip-path="url(#c)" d="M 0 0"/></svg>'
    )
    found = inline(svg, "p")
    assert found == '<svg><g id="p-a"/><use xlink:href="#p-a"/><path clip-path="url(#p-c)" d="M 0 0"/></svg>'
    assert not re.search("<!|<[?]", found)
