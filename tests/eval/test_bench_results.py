"""The folder that a benchmark leaves."""

import json
import re
import subprocess

import pytest

from support.bench_toy import COMMAND, SMALL, bench, environment


def test_the_results_folder(workdir):
    done = bench(workdir, "--no-quality", "--row", "toy:int8", "--row", "toy:int4:fault=load")
    assert done.stderr.splitlines()[-2:] == ["results: out", "report: out/report.html"]
    out = workdir / "out"
    assert "toy:int4:fault=load failed: the weights | are upside down" in (out / "report.html").read_text()
    kept = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert [row["row"] for row in kept] == ["toy:int8", "toy:int4:fault=load"]
    assert len(kept[0]["prefill"]) == 2
    assert "toy:int8" in (out / "table.md").read_text()
    manifest = json.loads((out / "manifest.json").read_text())
    assert "--row toy:int8" in manifest["command"]
    assert manifest["seeds"] == [0]
    assert manifest["bench"]["plan"]["prompt_tokens"] == 32
    again = bench(workdir, "--row", "toy:int8", code=2)
    assert "holds the results of another benchmark" in again.stderr


def test_a_report_that_cannot_be_made_leaves_the_results(workdir):
    (workdir / "out").mkdir()
    (workdir / "out" / "plots").write_text("a file where a folder should be")
    done = bench(workdir, "--no-quality", "--row", "toy:int8")
    assert "toy:int8" in done.stdout
    *_, results, report = done.stderr.splitlines()
    assert results == "results: out"
    assert report.startswith("no report: out/plots: cannot be written")
    assert report.endswith("; `codellm bench report out` makes it again")
    assert (workdir / "out" / "manifest.json").exists()


def test_the_default_folder_is_named_by_time_and_model(workdir):
    subprocess.run(
        [*COMMAND, "-m", "model", *SMALL, "--no-quality", "--row", "toy:int8"],
        cwd=workdir, env=environment(workdir), capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    [folder] = (workdir / "results").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-model", folder.name)


ROWS = ["--no-quality", "--row", "toy:int8", "--row", "toy:int4"]


def killed(workdir):
    """The folder of a benchmark that was killed while it wrote its second row."""
    bench(workdir, *ROWS)
    out = workdir / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["bench"]["finished"] = False
    (out / "manifest.json").write_text(json.dumps(manifest))
    (out / "table.md").unlink()
    lines = (out / "rows.jsonl").read_text()
    (out / "rows.jsonl").write_text(lines[:-30])
    return lines.splitlines()[0]


def test_a_killed_benchmark_goes_on(workdir):
    first = killed(workdir)
    done = bench(workdir, *ROWS)
    assert "out has 1 rows already" in done.stderr
    kept = (workdir / "out" / "rows.jsonl").read_text().splitlines()
    assert (len(kept), kept[0]) == (2, first)
    assert json.loads(kept[1])["row"] == "toy:int4"
    assert "toy:int8" in (workdir / "out" / "table.md").read_text()
    assert json.loads((workdir / "out" / "manifest.json").read_text())["bench"]["finished"]


@pytest.mark.parametrize("other", [["--seed", "1"], ["-o", "fault=none"], ["--threads", "1"]])
def test_it_does_not_go_on_with_other_settings(workdir, other):
    killed(workdir)
    before = (workdir / "out" / "rows.jsonl").read_text()
    assert "holds the results of another benchmark" in bench(workdir, *ROWS, *other, code=2).stderr
    assert (workdir / "out" / "rows.jsonl").read_text().startswith(before[: before.rfind("\n")])


@pytest.mark.parametrize("other", [{"packages": {"numpy": "0.1"}}, {"cpu": "Another"}, {"cpu_features": ["sse3"]}])
def test_nor_with_other_versions_or_on_another_machine(workdir, other):
    killed(workdir)
    manifest = json.loads((workdir / "out" / "manifest.json").read_text())
    (workdir / "out" / "manifest.json").write_text(json.dumps({**manifest, **other}))
    assert "made with other versions or on another machine" in " ".join(bench(workdir, *ROWS, code=2).stderr.split())


@pytest.mark.parametrize("quality", [["--no-quality"], ["--quality-bytes", "2000"]])
def test_a_row_that_failed_in_further_workloads_is_measured_again_by_the_same_command(workdir, quality, monkeypatch):
    command = [*quality, "--row", "toy:int8", "--row", "toy:int4", "--batch-size", "1,2"]
    with monkeypatch.context() as patch:
        patch.setenv("TOY_FAULT", "narrow")
        patch.setenv("TOY_FAULTY", "int4")
        assert "failed" in bench(workdir, *command).stdout
    done = bench(workdir, *command)
    assert "toy:int4, measured again" in done.stderr
    kept = [json.loads(line) for line in (workdir / "out" / "rows.jsonl").read_text().splitlines()]
    first, *_, last = kept
    assert (first["row"], last["row"]) == ("toy:int8", "toy:int4")
    assert {point["workload"]["batch_size"] for point in last["points"]} == {1, 2}
    assert last["gaps"].get("points") is None
    assert len(kept) == (3 if quality == ["--no-quality"] else 4)  # with quality, what it is compared with too
    assert (workdir / "out" / "report.html").read_text().count("runs 1 sequences together") == 0
    if quality != ["--no-quality"]:
        assert last["against"]["reference"] == "toy:int8"
        assert last["divergence"]["kl"] == pytest.approx(0, abs=1e-6)
    again = bench(workdir, *command)
    assert "out has 2 rows already" in again.stderr
    assert "measured again" not in again.stderr


def test_a_row_that_fails_when_it_is_measured_again_keeps_what_it_had(workdir, monkeypatch):
    command = ["--no-quality", "--row", "toy:int8", "--batch-size", "1,2", "--format", "json"]
    monkeypatch.setenv("TOY_FAULT", "narrow")
    bench(workdir, *command)
    monkeypatch.setenv("TOY_FAULT", "load")
    [row] = json.loads(bench(workdir, *command).stdout)
    assert row["error"] is None
    assert row["pp_tokens_per_second"] > 0
    assert len((workdir / "out" / "rows.jsonl").read_text().splitlines()) == 2


def test_quality_does_not_go_on_beside_another_row(workdir):
    bench(workdir, "--quality-bytes", "2000", "--row", "toy:int8", "--row", "toy:int4")
    done = bench(workdir, "--quality-bytes", "2000", "--row", "toy:int4", "--row", "toy:int8", code=2)
    assert "its rows are compared with toy:int8; name that with --reference" in " ".join(done.stderr.split())
    assert "toy:int8" in (workdir / "out" / "table.md").read_text()


def test_what_the_reference_row_left_goes_at_the_end_and_at_the_next_start(workdir):
    bench(workdir, "--quality-bytes", "2000", "--row", "toy:int8", "--row", "toy:int4")
    out = workdir / "out"
    assert list(out.glob(".*")) == []
    (out / ".reference-killed").mkdir()
    (out / ".reference-killed" / "distributions").write_bytes(b"x")
    bench(workdir, "--quality-bytes", "2000", "--row", "toy:int8", "--row", "toy:int4")
    assert list(out.glob(".*")) == []
