"""The process of a row: whatever it does, the row says so, the rest goes on, and nothing stays behind."""

import json
import signal
import subprocess
import time

from support.bench_toy import COMMAND, SMALL, bench, children_of, environment, rows


def test_a_failing_row_says_why_and_the_rest_go_on(workdir):
    faults = ("load", "crash", "exit", "short")
    found = rows(
        workdir, "--no-quality", *(part for fault in faults for part in ("--row", f"toy:int8:fault={fault}")),
        "--row", "absent", "--row", "toy:int4",
    )  # fmt: skip
    errors = {row["row"].rpartition("=")[2]: row["error"] for row in found}
    assert errors["load"] == "the weights | are upside down"
    assert "killed by SIGSEGV in the phase 'warm-up'" in errors["crash"]
    assert "ended with code 3" in errors["exit"]
    assert "nothing more comes" in errors["short"]
    assert "no such hardware; buy some" in errors["absent"]
    assert errors["toy:int4"] is None
    assert found[0]["pp_tokens_per_second"] is None


def test_all_rows_failing_is_exit_code_1(workdir):
    done = bench(workdir, "--row", "toy:int8:fault=load", code=1)
    assert "toy:int8:fault=load failed: the weights | are upside down" in " ".join(done.stdout.split())


def test_a_hanging_row_is_ended_and_its_process_gone(workdir):
    start = time.monotonic()
    [hung, fine] = rows(workdir, "--no-quality", "--timeout", "4", "--row", "toy:int8:fault=hang", "--row", "toy:int8")
    assert time.monotonic() - start < 60
    assert "not done after 4 s, ended in the phase 'load'" in hung["error"]
    assert fine["error"] is None
    assert children_of(workdir) == []


def test_a_library_that_prints_disturbs_nothing(workdir):
    done = bench(workdir, "--no-quality", "--format", "json", "--row", "toy:int8:fault=chatter")
    [row] = json.loads(done.stdout)
    assert row["error"] is None


def test_ctrl_c_keeps_the_finished_rows(workdir):
    process = subprocess.Popen(
        [*COMMAND, "-m", "model", *SMALL, "--no-quality", "--output", "out", "--row", "toy:int8", "--row",
         "toy:int8:fault=hang"],
        cwd=workdir, env=environment(workdir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    rows_file = workdir / "out" / "rows.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (rows_file.exists() and rows_file.read_text()):
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "toy:int8" in out
    assert "fault=hang" not in out
    assert "results: out\nreport: out/report.html\n" in err
    page = (workdir / "out" / "report.html").read_text()
    assert "fault=hang" not in page.partition("Manifest")[0].partition("<h2>")[2]
    assert len(rows_file.read_text().splitlines()) == 1
    assert json.loads((workdir / "out" / "manifest.json").read_text())["command"]
    assert not list((workdir / "out").glob(".reference*"))
    assert children_of(workdir) == []


def test_a_killed_parent_takes_its_row_along(workdir):
    process = subprocess.Popen(
        [*COMMAND, "-m", "model", *SMALL, "--no-quality", "--row", "toy:int8:fault=hang"],
        cwd=workdir, env=environment(workdir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(children_of(workdir)) < 2:
        time.sleep(0.1)
    process.kill()
    process.wait()
    while time.monotonic() < deadline and children_of(workdir):
        time.sleep(0.1)
    assert children_of(workdir) == []


def test_what_a_load_needs_for_a_moment_is_in_the_peak(workdir):
    hungry, modest = rows(workdir, "--no-quality", "--row", "toy:int8:fault=hungry", "--row", "toy:int8")
    assert hungry["peak_anonymous_bytes"] > modest["peak_anonymous_bytes"] + 80_000_000
    assert modest["peak_file_bytes"] > 0
