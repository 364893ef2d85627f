"""The section that sets one GPU beside the study says what its records and the study say, and nothing else."""

import itertools
import json

import attrs
import pytest

from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.records.record import make_converter
from codellm_eval.perplexity.scored import Scored
from codellm_eval.stats.repeats import Repeats
from support.documentation import generator
from support.recorded import cell, grid, leave, out_of_memory, record

gpu = generator("generate_gpu")
EAGER, SDPA, FLASH = gpu.ATTENTION.values()


def test_the_tables_are_those_of_the_records():
    _, begin, rest = gpu.PAGE.read_text(encoding="utf-8").partition(gpu.BEGIN)
    made, end, _ = rest.partition(gpu.END)
    assert begin
    assert end
    assert made == gpu.page(), "the records have changed: python docs/generate_gpu.py"


def test_without_records_there_is_no_table(tmp_path):
    assert gpu.page(tmp_path) == ""


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    """The section of made-up grids."""
    folder = tmp_path_factory.mktemp("records")
    sizes = list(itertools.product(gpu.BATCHES, (4096, 8192, 16384, 18000)))
    attention = [
        out_of_memory(row, *size)
        if row == EAGER and size[1] > 8192
        else cell(row, *size, prefill=Repeats((share * size[0] * size[1],)))
        for row, share in ((EAGER, 3e-4), (SDPA, 2e-4), (FLASH, 1e-4))
        for size in sizes
    ]
    precision = [cell(row, batch, 4096) for row in gpu.PRECISION.values() for batch in gpu.BATCHES]
    passes = [
        cell(row, 2, context, prefill=None, decode=None, token=Repeats((0.25, 0.35)))
        for row in (EAGER, *gpu.PRECISION.values())
        for context in gpu.SEED_CONTEXTS
    ]
    grids = grid(attention), grid(precision), grid(passes, protocol="seed", new_tokens=4)
    for name, made in zip(gpu.GRIDS, grids, strict=True):
        leave(folder / name, made)
    (folder / "quality").mkdir()
    known, scores = make_converter(), [Scored(name=str(n), bytes=100, tokens=30, nll=70.0 + n) for n in range(12)]
    reference = record("transformers-cuda::dtype=bfloat16", documents=scores, canonical=scores, verdicts={"0": True})
    schemes = ("bnb-int8", "bnb-nf4:compute_dtype=float16", "bnb-nf4:compute_dtype=float32")
    others = [attrs.evolve(reference, row=Row.parse(f"transformers-cuda:{scheme}")) for scheme in schemes]
    rows = [reference, *(each.compared_with(reference) for each in others)]
    text = "".join(json.dumps(known.unstructure(each)) + "\n" for each in rows)
    (folder / "quality" / "rows.jsonl").write_text(text)
    made = {"command": "codellm bench --row …", "bench": {"plan": known.unstructure(Plan()), "quality": None}}
    (folder / "quality" / "manifest.json").write_text(json.dumps(made))
    return gpu.page(folder)


def rows(section, title):
    """The lines below `title` up to the next text, each as its cells."""
    table = section.partition(title)[2].strip().partition("\n\n")[0]
    return [[each.strip() for each in line.strip("|").split("|")] for line in table.splitlines()]


def test_attention_beside_the_study_s(section):
    _, _, *lines = rows(section, "milliseconds of prefill here.\n")
    assert len(lines) == 12
    known = {line[0]: line[1:] for line in lines}
    # 25.71 / 19.64 s is the study's own ratio; ours is of the medians
    assert known["4 x 4096"] == ["25.71", "19.64", "1.31", "4915", "3277", "1638", "2.00", "3.00"]
    assert known["8 x 16384"][:5] == ["out of memory", "out of memory", "", "out of memory", "26214"]
    assert known["8 x 16384"][6:] == ["2.00", ""]


def test_decode_and_peak_are_those_of_the_cells(section):
    _, _, *lines = rows(section, "takes the GPU.\n")
    assert lines[0] == ["2 x 4096", "25.1", "25.1", "25.1", "15.5", "15.5", "15.5"]
    assert lines[-1][1] == "out of memory"


def test_precision_has_a_line_for_each_row(section):
    _, _, *lines = rows(section, "seconds, and milliseconds here.\n")
    assert [line[0] for line in lines] == list(gpu.PRECISION)
    known = {line[0]: line[1:] for line in lines}
    assert known["fp32"] == ["29.02", "58.02", "out of memory", "677", "1354", "2708", "25.1", "25.1", "25.1"]
    assert known["bnb-nf4, bfloat16"][:3] == ["", "", ""]


def test_the_study_s_protocol_stands_apart(section):
    _, _, *lines = rows(section, "3 runs of 4 tokens.\n")
    known = {line[0]: line[1:] for line in lines}
    assert known["bf16"] == ["11.05", "22.75", "300", "300"]
    assert known["bf16, eager"] == ["", "", "300", "300"]


def test_quality_is_beside_the_reference_row_s_and_the_study_s(section):
    _, _, *lines = rows(section, "codellm bench --row …\n```")
    known = {line[0].strip("`").removeprefix("transformers-cuda:"): line[1:] for line in lines}
    assert list(known) == [
        ":dtype=bfloat16",
        "bnb-int8",
        "bnb-nf4:compute_dtype=float16",
        "bnb-nf4:compute_dtype=float32",
    ]
    assert known[":dtype=bfloat16"][-2:] == ["1.107", "0.359"]
    assert known["bnb-nf4:compute_dtype=float16"][-2:] == ["1.714", "0.329"]
    assert known["bnb-nf4:compute_dtype=float32"][-2:] == ["", ""]
    assert known["bnb-int8"][:3] == ["≈1.234", "+.0000…+.0000", "≈12.387"]
    assert known["bnb-int8"][5:7] == ["≈21/164", "+0 -0"]


def test_the_section_names_the_gpu_its_commands_and_its_records(section):
    told = " ".join(section.split())
    assert "NVIDIA H200 (140 GiB), random weights" in told
    assert "nothing else is said, each process within 40 GiB of memory, medians of 3" in told
    assert section.count("codellm bench grid") == 3
    for name in gpu.GRIDS:
        assert f"(results/gpu/{name}/cells.jsonl)" in section


def test_the_study_s_seconds_are_those_that_it_told():
    """The sums of its tables' rows, added by hand: a figure that was copied wrongly changes one."""
    told = {name: round(sum(value for value in known.values() if value), 2) for name, known in gpu.STUDY.items()}
    assert told == {
        "bf16": 284.03,
        "bf16 with FlashAttention-2": 219.86,
        "fp32": 87.04,
        "bnb-int8": 99.12,
        "bnb-nf4, float16": 97.19,
        "bnb-nf4, float32": 705.52,
    }
