"""The tables and pictures of a grid, without a process."""

import json

import attrs
import pytest

from codellm_eval.grid import picture
from codellm_eval.grid.figures import PREFILL, SpeedUp
from codellm_eval.grid.folder import Grid
from codellm_eval.grid.table import markdown, render, sections
from codellm_eval.stats.repeats import Repeats
from support.recorded import cell, grid, leave, out_of_memory

EAGER = "transformers-cuda::attn_implementation=eager,dtype=bfloat16"
FLASH = "transformers-cuda:bnb-nf4:attn_implementation=flash_attention_2,compute_dtype=bfloat16"


def whole():
    """Two rows with long names, some cells of which are out of memory."""
    sizes = [(batch, context) for batch in (2, 8) for context in (4096, 8192, 16384, 18000)]
    eager = [cell(EAGER, *size) if size[0] * size[1] < 60000 else out_of_memory(EAGER, *size) for size in sizes]
    fast = [cell(FLASH, *size, prefill=Repeats((0.001 * size[1], 0.0011 * size[1]))) for size in sizes[:-1]]
    return grid(
        [
            *eager,
            *fast,
            cell(FLASH, *sizes[-1], error="killed", info=None, prefill=None, host_peak=None, device_peak=None),
        ]
    )


def test_every_table_fits_80_columns_and_names_its_protocol_and_random_weights():
    text = render(whole(), "table")
    assert max(map(len, text.splitlines())) <= 80
    for section in sections(whole()):
        assert section.title.startswith("dummy:starcoder2-7b, random weights: ")
        assert section.title.endswith("; protocol cached, 32 new tokens, median of 3")
    assert [section.title.split(":")[2].split(",")[0] for section in sections(whole())] == [
        " prefill", " decode", " decode", " peak memory of the device", " prefill", " decode",
    ]  # fmt: skip


def test_a_figure_has_its_least_and_greatest_below():
    made = grid([cell(batch_size=2)])
    lines = render(made, "table").splitlines()
    assert lines[3].split() == ["row", "batch", "4096"]
    assert lines[5].split() == ["chip", "2", "677"]
    assert lines[6].split() == ["671–688"]


def test_out_of_memory_is_a_cell_and_its_figure_a_note():
    [eager, *_] = [section for section in sections(whole()) if "prefill, ms" in section.title]
    known = {(str(line.row), line.batch_size): line.cells for line in eager.lines}
    assert known[EAGER, 8][1:] == [("out of", "memory")] * 3
    assert known[FLASH, 8][3] == ("failed", "")
    text = render(whole(), "md")
    assert f"out of memory ({EAGER} 8x18000): 8 x 18000 tokens need 41.2 GB and 40.0 are free" in text
    assert f"failed ({FLASH} 8x18000): killed" in text


def test_a_cell_that_was_not_measured_is_a_dash():
    made = grid([cell("chip", 2, 4096), cell("chop", 2, 8192)])
    assert markdown(sections(made)[0]).splitlines()[-1].split() == [
        "|",
        "chop",
        "|",
        "2",
        "|",
        "-",
        "|",
        "1354",
        "(1342–1376)",
        "|",
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "noise"),
    [
        ((1.0, 1.1, 1.2), (2.0, 2.1, 2.2), False),
        ((1.0, 1.1, 2.0), (2.0, 2.1, 2.2), True),  # one touches
        ((2.05, 2.1), (1.0, 3.0), True),  # one holds the other
        ((3.0, 3.1), (1.0, 1.1), False),  # slower
        ((1.0,), (2.0, 2.1), None),
    ],
)
def test_a_speed_up_is_noise_where_the_repeats_overlap(ours, theirs, noise):
    own, reference = cell(prefill=Repeats(ours)), cell(prefill=Repeats(theirs))
    found = SpeedUp.of(PREFILL, reference, own)
    assert found.noise is noise
    assert found.low == min(theirs) / max(ours)
    assert found.high == max(theirs) / min(ours)
    shown = markdown(sections(grid([reference, attrs.evolve(own, row=cell("chop").row)]))[4]).splitlines()[-1]
    assert {True: "noise", None: "once", False: f"({found.low:.2f}–{found.high:.2f})"}[noise] in shown


def test_a_grid_without_a_reference_s_figure_has_no_speed_up():
    assert SpeedUp.of(PREFILL, None, cell()) is None
    assert SpeedUp.of(PREFILL, out_of_memory("chip", 2, 4096), cell()) is None


def test_programs_get_a_line_for_each_cell():
    found = json.loads(render(whole(), "json"))
    assert len(found) == 16
    first, *_, last = found
    assert first["prefill_seconds"] == 0.677
    assert first["decode_tokens_per_second"] == pytest.approx(2 / 0.0251)
    assert first["dummy"] is True
    assert last["error"] == "killed"
    nf4 = next(each for each in found if each["row"] == FLASH)
    assert nf4["prefill_speedup"] == pytest.approx(0.677 / (0.00105 * 4096))
    assert nf4["prefill_speedup_noise"] is False
    assert nf4["options"] == "attn_implementation=flash_attention_2,compute_dtype=bfloat16"


def test_more_contexts_than_a_table_has_room_for_go_on_in_a_second_one():
    made = grid([cell("chip", 2, context) for context in (1, 2, 3, 4, 5, 6)])
    shown = [section.contexts for section in sections(made) if "prefill" in section.title]
    assert shown == [[1, 2, 3, 4], [5, 6]]


def test_what_was_left_is_read_as_it_was(tmp_path):
    made = whole()
    leave(tmp_path / "out", made)
    read = Grid.read(tmp_path / "out")
    assert read.cells == made.cells
    assert read.plan == made.plan
    assert render(read, "md") == render(made, "md")


def test_a_picture_of_each_figure():
    found = {each.name: each for each in picture.pictures(whole())}
    assert list(found) == ["prefill", "decode", "rate", "peak"]
    assert found["peak"].title == "Peak memory of the device, GiB"
    assert "random weights" in found["prefill"].caption
    assert "NVIDIA H200" in found["prefill"].caption
    assert "×: out of memory." in found["prefill"].caption
    again = {each.name: each for each in picture.pictures(whole())}
    assert all(found[name].svg == again[name].svg for name in found)


def test_many_batch_sizes_are_several_pictures():
    made = grid([cell("chip", batch, 64) for batch in (1, 2, 3, 4, 5)])
    assert [each.name for each in picture.pictures(made)][:2] == ["prefill", "prefill-2"]
