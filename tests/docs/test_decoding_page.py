"""The section of decoding on a GPU says what its records say, and what of it has none."""

import json
from pathlib import Path

import attrs
import pytest

from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.records.point import Point
from codellm_eval.stats.repeats import Repeats
from support.documentation import generator
from support.recorded import GPU_INFO, record, write

decoding = generator("generate_decoding")
GPU = "NVIDIA H200 (140 GiB)"
COMMAND = "codellm bench --output docs/results/gpu/decode"


def test_the_section_is_that_of_the_records():
    _, begin, rest = decoding.PAGE.read_text(encoding="utf-8").partition(decoding.BEGIN)
    made, end, _ = rest.partition(decoding.END)
    assert begin
    assert end
    assert made == decoding.page(), "the records have changed: python docs/generate_decoding.py"


def test_without_records_there_is_no_section(tmp_path):
    assert decoding.page(tmp_path) == ""


def measured(row, rate, bandwidth, sizes):
    """A row of the 7B that decodes `rate` tokens per second at the first of the sizes, half of that at the next, …"""
    points = tuple(
        Point(Workload(kind="tg", tokens=64, **size), Repeats((rate / n, 1.004 * rate / n, 0.999 * rate / n)))
        for n, size in enumerate(sizes, 1)
    )
    info = attrs.evolve(GPU_INFO, backend="torch-cuda")
    plan = Plan(workloads=tuple(point.workload for point in points))
    return record(
        row,
        info=info,
        plan=plan,
        points=points,
        decode=Repeats((rate,)),
        bandwidth=bandwidth,
        device_peak=30_500_000_000,
    )


def leave(folder: Path, name: str, bandwidth: float, sizes) -> None:
    rows = [measured(row, rate, bandwidth, sizes) for row, rate in (("torch-cuda", 280.0), ("torch-cuda:int8", 140.0))]
    write(folder / name, rows, gpus=[GPU], command=f"{COMMAND}/{name}")
    manifest = folder / name / "manifest.json"
    made = json.loads(manifest.read_text())
    made["bench"]["plan"]["repeats"] = 3
    manifest.write_text(json.dumps(made))


@pytest.fixture
def records(tmp_path):
    """Rows by context, whose first one read faster (280 x 14.3 GB) than the plain read beside them."""
    leave(tmp_path, "context", 3.5e12, [{"context": size} for size in (128, 1024, 3800)])
    return tmp_path


def tables(section):
    """The tables of a section, each a list of lines, those of their cells."""
    blocks = [block for block in section.split("\n\n") if block.startswith("|")]
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]


def test_rates_are_by_context(records):
    (head, _, first, second), _ = tables(decoding.page(records))
    assert head == [
        "",
        "weights, GB",
        "tok/s at 128",
        "tok/s at 1024",
        "tok/s at 3800",
        "read, TB/s",
        "peak, GB",
        "J/token",
    ]
    assert first == ["`torch-cuda`", "14.3", "280", "140", "93.3", "4.02", "30.5", ""]
    assert second[:5] == ["`torch-cuda:int8`", "14.3", "140", "70.0", "46.7"]


def test_rows_that_are_faster_than_the_plain_read_have_no_share_of_it(records):
    told = " ".join(decoding.page(records).split())
    assert f"on {GPU}, medians of 3, from which no repeat is further than 0.4 %" in told
    assert "is not told: the one beside these rows reached 3.50 TB/s" in told
    assert "In the record's own table the limit is above 100 %" in told


def test_a_plain_read_of_either_record_is_the_limit(records):
    leave(records, "batch", 4.4e12, [{"batch_size": size} for size in (1, 8, 32)])
    section = decoding.page(records)
    (head, _, first, second), *_ = tables(section)
    assert head[6] == "of the limit, %"
    assert (first[6], second[6]) == ("91", "46")
    assert "in the best of the measurements beside the rows, 4.40 TB/s" in " ".join(section.split())


def test_several_sequences_are_left_out_until_there_is_a_record(records):
    assert len(tables(decoding.page(records))) == 2
    leave(records, "batch", 4.4e12, [{"batch_size": size} for size in (1, 8, 32)])
    _, (head, _, first, _), (others, _, ours, *_) = tables(decoding.page(records))
    assert head == ["", "1", "8", "32"]
    assert first == ["`torch-cuda`", "280", "140", "93.3"]
    assert others == ["", "one sequence", "8 together", "32 together"]
    assert ours == ["`torch-cuda`", "280", "140", "93.3"]


def test_others_are_said_to_have_no_record(records):
    section = decoding.page(records)
    _, (_, _, ours, *others) = tables(section)
    assert ours == ["`torch-cuda`", "280"]
    assert dict(others) == {name: known[1] for name, known in decoding.OTHERS.items()}
    assert "Only the first line is of this run" in section
    assert "has no record here" in " ".join(section.split())


def test_the_section_shows_the_commands_of_its_records(records):
    leave(records, "batch", 4.4e12, [{"batch_size": size} for size in (1, 8, 32)])
    section = decoding.page(records)
    for name in ("context", "batch"):
        assert f"\n{COMMAND}/{name}\n" in section
        assert f"](results/gpu/decode/{name}/rows.jsonl)" in section
        assert f"](results/gpu/decode/{name}/plots/{name}.svg)" in section


def test_what_was_aimed_at_stands_beside_what_is_reached(records):
    # 93.3 of 270 at 3800 and 280 of 285 at 128; int8 46.7 of 480
    assert "\n\nThe aims are, row by row, 285, 280, 270; 520, 505, 480; reached are 10 to 98 %.\n\n" in decoding.page(
        records
    )
