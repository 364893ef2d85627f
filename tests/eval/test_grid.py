"""`codellm bench grid` from the command line to its folder, on a small real backend that a plugin brings."""

import csv
import io
import json
import shutil
import signal
import subprocess
import time

import pytest

from codellm_eval.grid.folder import Grid
from support.bench_toy import children_of, environment
from support.grid_chip import SMALL, cells, chip_workdir, command, grid, small

ROW = "chip"


@pytest.fixture
def workdir(tmp_path):
    return chip_workdir(tmp_path)


def test_each_cell_has_every_figure_of_its_own_load(workdir):
    found = cells(workdir, "--row", ROW)
    assert [key[1:] for key in found] == [(1, 20), (1, 40), (2, 20), (2, 40)]
    for (_, batch_size, context), cell in found.items():
        assert cell["error"] is cell["out_of_memory"] is None
        # the chip computes 0.1 ms a token of a prompt, and 0.5 ms a step
        assert cell["prefill_seconds"] > 1e-4 * batch_size * context
        assert cell["prefill_seconds_least"] <= cell["prefill_seconds"] <= cell["prefill_seconds_greatest"]
        assert cell["decode_seconds"] > 5e-4
        assert cell["decode_tokens_per_second"] == pytest.approx(batch_size / cell["decode_seconds"], rel=0.5)
        assert cell["host_peak_bytes"] == 2**30
        room = 4 + 2 + batch_size - 1
        assert cell["device_peak_bytes"] == 2**30 + 2**20 * batch_size * (context + room)


def test_out_of_memory_is_a_cell_with_the_figure(workdir):
    done = grid(workdir, "--row", ROW, "-o", "hungry=40", "-o", "holds=50")
    text = " ".join(done.stdout.split())
    assert "out of memory (chip 1x40): the chip needs 40 GB and has 40" in text
    assert "out of memory (chip 2x20, chip 2x40)" not in text  # each with its own figure
    assert "out of memory (chip 2x20): 2 x 27 tokens need 41 GB and 40 are free" in text
    known = Grid.read(workdir / "out").cells.values()
    assert [cell.out_of_memory is not None for cell in known] == [False, True, True, True]


def test_a_killed_process_costs_its_cell_alone(workdir):
    found = cells(workdir, "--row", ROW, "--row", f"{ROW}::killed=40,broken=20", "--reference", ROW)
    errors = {(row, *size): cell["error"] for (row, *size), cell in found.items() if cell["error"]}
    assert set(errors) == {(f"{ROW}::killed=40,broken=20", *size) for size in ((1, 20), (1, 40), (2, 20), (2, 40))}
    for (_, _, context), error in errors.items():
        says = (
            "killed by SIGKILL in the phase 'warm-up'; perhaps the memory ran out" if context == 40 else "the chip | is"
        )
        assert says in error
    assert sum(cell["prefill_speedup"] == 1 for cell in found.values()) == 4


def test_a_hanging_cell_is_ended_and_the_next_one_measured(workdir):
    found = cells(workdir, "--row", ROW, "-o", "hanging=20", "--timeout", "5", sizes=small("1"))
    first, second, *_ = found.values()
    assert "not done after 5 s, ended in the phase 'warm-up'; raise --timeout" in first["error"]
    assert second["error"] is None


def test_the_same_command_goes_on_where_it_stopped(workdir):
    arguments = ("--row", ROW, "-o", f"log={workdir / 'log'}")
    grid(workdir, *arguments)
    whole = (workdir / "out" / "cells.jsonl").read_text()
    lines = whole.splitlines(keepends=True)
    (workdir / "out" / "cells.jsonl").write_text("".join(lines[:2]) + lines[2][:50])  # killed while it wrote the third
    (workdir / "log").unlink()
    done = grid(workdir, *arguments)
    assert "out has 2 of 4 cells already" in done.stderr
    assert {line.split()[0] for line in (workdir / "log").read_text().splitlines()} == {"20", "40"}
    assert (workdir / "out" / "cells.jsonl").read_text().startswith("".join(lines[:2]))
    assert len(Grid.read(workdir / "out").cells) == 4
    (workdir / "log").unlink()
    grid(workdir, *arguments)
    assert not (workdir / "log").exists()


def test_a_folder_takes_further_rows_and_sizes_and_no_other_settings(workdir):
    grid(workdir, "--row", ROW, sizes=small("1"))
    found = cells(workdir, "--row", f"{ROW}::x=1", "--reference", f"{ROW}::x=1", sizes=small("2"))
    assert len(found) == 4
    done = grid(workdir, "--row", ROW, "--repeats", "3", code=1)
    assert "was begun with other settings (repeats was 2 and is 3)" in done.stderr


def test_what_failed_is_tried_again_and_what_was_out_of_memory_is_not(workdir):
    size = small("1")
    grid(workdir, "--row", f"{ROW}::broken=20,hungry=40", sizes=size)
    done = grid(workdir, "--row", f"{ROW}::broken=20,hungry=40", sizes=size)
    assert "out has 1 of 2 cells already" in done.stderr
    assert "1/1 chip::broken=20,hungry=40 1x20: failed" in done.stderr


def test_ctrl_c_keeps_and_prints_what_is_done(workdir):
    process = subprocess.Popen(
        command(*SMALL, "--row", ROW, "-o", "hanging=40"),
        cwd=workdir, env=environment(workdir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    file, deadline = workdir / "out" / "cells.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and not (file.exists() and file.read_text()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "prefill, ms" in out
    assert len(file.read_text().splitlines()) == 1
    assert (workdir / "out" / "plots" / "prefill.png").stat().st_size > 5000
    assert children_of(workdir) == []


def test_every_cell_failing_is_exit_code_1(workdir):
    done = grid(workdir, "--row", ROW, "-o", "broken=20", sizes=small("1", "20"), code=1)
    assert "RuntimeError: the chip | is" in " ".join(done.stdout.split())


def test_the_seed_s_protocol_is_a_pass_for_each_token(workdir):
    log = workdir / "log"
    sizes = ["--protocol", "seed", "--batch-size", "2", "--context", "40", "--device", "chip"]
    [cell] = cells(workdir, "--row", ROW, "-o", f"log={log}", sizes=sizes).values()
    passes = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    one = [(40, 1)] * 2
    run = [(40 + grown, 1) for grown in range(4) for _ in range(2)]
    assert passes == [*one, *run, *run]  # a warm-up pass, then two runs of four tokens, of two sequences
    assert cell["token_seconds"] > 2 * 40e-4
    assert cell["prefill_seconds"] is cell["decode_seconds"] is None
    assert cell["device_peak_bytes"] == 2**30 + 2**20 * 2 * 44


def test_the_seed_s_protocol_refuses_a_model_that_keeps_what_it_computed(workdir):
    sizes = ["--protocol", "seed", "--batch-size", "1", "--context", "400", "--device", "chip"]
    done = grid(workdir, "--row", ROW, "-o", "keeps=1", sizes=sizes, code=1)
    assert "less than 60 % of the first pass's time for the later ones, so it keeps what it computed" in " ".join(
        done.stdout.split()
    )


def test_the_folder_tells_it_all_and_its_report_can_be_made_again(workdir):
    done = grid(workdir, "--row", ROW, "--row", f"{ROW}::x=1", "--format", "md")
    folder = workdir / "out"
    assert (folder / "table.md").read_text() == done.stdout
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["command"].startswith("-c bench grid")
    assert [model["name"] for model in manifest["models"]] == [ROW, f"{ROW}::x=1"]
    pictures = sorted(path.name for path in (folder / "plots").iterdir())
    assert pictures == [f"{name}.{kind}" for name in ("decode", "peak", "prefill", "rate") for kind in ("png", "svg")]
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    shutil.rmtree(folder / "plots")
    again = subprocess.run(
        [*command()[:4], "report", "out"],
        cwd=workdir,
        env=environment(workdir),
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout == "out/table.md\n"
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_process_without_device_memory_measures_one_cell(workdir):
    """The most that a process ever held is told of it: a second cell in it would be told the first one's peak."""
    pytest.importorskip("llama_cpp")
    sizes = ["--batch-size", "4,1", "--context", "900,16", "--repeats", "1"]
    found = cells(workdir, "--row", "llama-cpp:q8_0:threads=1", model="dummy:tiny", sizes=sizes)
    peaks = {key[1:]: cell["host_peak_bytes"] for key, cell in found.items()}
    assert peaks[1, 16] < peaks[4, 900]
    assert all(cell["dummy"] for cell in found.values())


def test_the_formats_tell_the_same(workdir):
    done = grid(workdir, "--row", ROW, "--format", "csv")
    first, *_ = csv.DictReader(io.StringIO(done.stdout))
    again = grid(workdir, "--row", ROW, "--format", "json")
    assert float(first["prefill_seconds"]) == json.loads(again.stdout)[0]["prefill_seconds"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--row", "chop"], "did you mean 'chip'"),
        (["--row", "chip::batch_size=3"], "row chip::batch_size=3 sets batch_size, which the grid does"),
        (["--row", "chip", "--context", "0"], "context must be at least 1"),
        (["--row", "chip", "--new-tokens", "1"], "new_tokens must be at least 2"),
        (["--row", "chip", "--repeats", "0"], "repeats must be at least 1"),
        (["--row", "chip", "--batch-size", "two"], "'two' is not whole numbers"),
        (["--row", "chip::prefix_cache=64"], "with prefix_cache a prompt is not computed whole"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(workdir, arguments, says):
    done = subprocess.run(
        [*command()[:4], "grid", "-m", "model", *arguments],
        cwd=workdir, env=environment(workdir), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in {1, 2}
    assert says in done.stderr
    assert not (workdir / "results").exists()


def test_neither_command_takes_the_folder_of_the_other(workdir):
    grid(workdir, "--row", ROW, sizes=small("1", "20"))
    made = (workdir / "out" / "manifest.json").read_bytes()
    done = subprocess.run(
        [*command()[:4], "-m", "model", "--row", ROW, "--output", "out"],
        cwd=workdir, env=environment(workdir), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "out: holds what another command left" in done.stderr
    assert (workdir / "out" / "manifest.json").read_bytes() == made
    (workdir / "out" / "manifest.json").unlink()
    (workdir / "out" / "rows.jsonl").touch()
    assert "holds the results of another benchmark" in grid(workdir, "--row", ROW, code=1).stderr
