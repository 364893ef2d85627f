"""Two results folders side by side: ratios, noise, and what else differs."""

import csv
import io
import json

import attrs
import pytest

from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.point import Point
from codellm_eval.bench.show.comparison import compare
from codellm_eval.bench.show.pairs import differences, pairs
from codellm_eval.errors import ResultsError
from codellm_eval.perplexity.scored import Scored
from codellm_eval.stats.repeats import Repeats
from support.bench_toy import bench, rows
from support.plugin_folder import codellm
from support.recorded import DEMO, failed, row, write


@pytest.fixture
def folders(tmp_path):
    """Write two folders, each of its records; `manifest` are fields of the second's."""

    def make(ours, theirs, **manifest):
        write(tmp_path / "a", ours)
        write(tmp_path / "b", theirs, **manifest)
        return Folder.read(tmp_path / "a"), Folder.read(tmp_path / "b")

    return make


def verdicts(a, b):
    return {pair.a.name: (pair.ratio and round(pair.ratio, 3), pair.noise) for pair in pairs(a, b)}


def test_a_ratio_within_the_spreads_is_noise_and_one_beyond_is_not(folders):
    a, b = folders(
        [row("x:y", decode=Repeats((100.0, 105.0, 95.0)), prefill=Repeats((100.0, 105.0, 95.0)))],
        [row("x:y", decode=Repeats((109.0, 114.0, 104.0)), prefill=Repeats((111.0, 116.0, 106.0)))],
    )
    found = verdicts(a, b)
    assert found["tg128"] == (1.09, True)
    assert found["pp512"] == (1.11, False)


def test_a_folder_beside_itself_differs_in_nothing():
    demo = Folder.read(DEMO)
    assert {(pair.ratio, bool(pair.noise)) for pair in pairs(demo, demo)} == {(1.0, False)}
    assert list(differences(demo, demo)) == []


def test_what_was_measured_once_is_no_certain_difference(folders):
    a, b = folders(
        [row("x:y", decode=Repeats((100.0,)), host_peak=100)], [row("x:y", decode=Repeats((300.0,)), host_peak=200)]
    )
    found = verdicts(a, b)
    assert found["tg128"] == (3.0, None)
    assert found["host peak"] == (2.0, None)


@pytest.mark.parametrize(("ours", "theirs", "noise"), [(3, 1, True), (0, 2, True), (80, 84, True), (30, 100, False)])
def test_few_tasks_are_noise(folders, ours, theirs, noise):
    def passing(count):
        solved = {f"HumanEval/{task}": task < count for task in range(164)}
        return row("x:y", passed=count, pass_at_1=count / 164, verdicts=solved)

    ratio, found = verdicts(*folders([passing(ours)], [passing(theirs)]))["pass@1 of 164 tasks"]
    assert found is noise
    assert (not ratio) is (ours == 0)


@pytest.mark.parametrize(("shifts", "noise"), [([1, -1] * 5, True), ([9, 10] * 5, False), ([1, -1], None)])
def test_texts_are_compared_one_by_one(folders, shifts, noise):
    def scored(*changes):
        texts = tuple(
            Scored(name=str(index), bytes=1000, tokens=300, nll=500.0 + 100 * index + change)
            for index, change in enumerate(changes)
        )
        return row("x:y", documents=texts, bits_per_byte=0.7 + sum(changes) / 1e4, reading="document")

    a, b = folders([scored(*[0] * len(shifts))], [scored(*shifts[:-1], shifts[-1] + 0.1)])
    assert verdicts(a, b)["bits/byte of 65536 bytes, document"][1] is noise


def test_figures_of_two_protocols_are_never_paired(folders):
    short = Plan(new_tokens=64)
    a, b = folders([row("x:y")], [row("x:y", plan=short, points=(), canonical=(), scored_bytes=10, tasks=5)])
    b = attrs.evolve(b, plan=short)
    memory = {"size", "load", "host peak", "private peak", "mapped peak"}
    assert {"pp512", "size"} <= set(verdicts(a, b)) <= {"pp512", *memory}
    told = list(differences(a, b))
    assert any(each.startswith("protocols differ: A pp512 tg128") for each in told)
    assert any("figures only in B: tg64, TTFT 128+64" in each and "pass@1 of 5 tasks" in each for each in told)


def test_curves_are_compared_point_by_point(folders):
    four, one = Workload(kind="tg", tokens=128, batch_size=4), Workload(kind="tg", tokens=128)
    a, b = folders(
        [row("x:y", points=(Point(one, Repeats((10.0, 11.0))), Point(four, Repeats((40.0, 41.0)))))],
        [row("x:y", points=(Point(four, Repeats((80.0, 81.0))), Point(one, Repeats((10.0, 11.0)))))],
    )
    found = verdicts(a, b)
    assert found["tg128 b4"] == (1.988, False)
    assert found["tg128 b1"] == (1.0, False)


def test_what_else_differs_is_told_in_a_line_each(folders):
    info = row("x:y").info
    a, b = folders(
        [row("x:y"), row("x:alone"), row("m:n")],
        [row("x:y", info=attrs.evolve(info, threads=7)), row("m:n", model="other"), failed("f:g", "out of \x1b luck")],
        cpu="Other CPU", packages={"numpy": "0"},
    )  # fmt: skip
    told = "\n".join(differences(a, b))
    for expected in (
        "machines differ: cpu AMD EPYC in A, Other CPU in B", "numpy", "x:y: 2 threads in A, 7 in B",
        "m:n: the model is codellm-demo in A, other in B", "only in A: x:alone", "only in B: f:g", "f:g failed in B",
    ):  # fmt: skip
        assert expected in told, expected
    shown = compare(a.path, b.path, "table")
    assert "\x1b" not in shown
    # the paths of temporary folders have no place to break at
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80


def test_a_killed_benchmark_is_compared_as_far_as_it_came(folders):
    a, b = folders([row("x:y"), row("x:z")], [row("x:y")])
    (b.path / "manifest.json").unlink()
    b = Folder.read(b.path)
    assert verdicts(a, b)["pp512"] == (1.0, False)
    assert any(each.startswith("B was killed before its end") for each in differences(a, b))


def test_folders_without_a_common_row(folders):
    a, b = folders([row("x:y")], [row("x:z")])
    with pytest.raises(ResultsError, match=r"share no row: x:y .* x:z"):
        compare(a.path, b.path, "table")


def test_every_format_on_the_command_line():
    for format_ in ("table", "md"):
        shown = codellm("bench", "compare", str(DEMO), str(DEMO), "--format", format_)
        assert shown.returncode == 0, shown.stderr
        assert "llama-cpp:q4_k_m" in shown.stdout
        assert "one sequence, greedy, median of 5" in " ".join(shown.stdout.split())
    found = json.loads(codellm("bench", "compare", str(DEMO), str(DEMO), "--format", "json").stdout)
    table = csv.DictReader(io.StringIO(codellm("bench", "compare", str(DEMO), str(DEMO), "--format", "csv").stdout))
    assert [each["figure"] for each in found] == [each["figure"] for each in table]
    assert found[0].keys() == {"row", "figure", "unit", "a", "a_spread", "b", "b_spread", "ratio", "noise"}


def test_two_real_runs(workdir):
    rows(workdir, "--no-quality", "--row", "toy:int8", "--row", "toy:int4")
    (workdir / "out").rename(workdir / "before")
    bench(workdir, "--no-quality", "--row", "toy:int8", "--repeats", "3")
    done = codellm("bench", "compare", str(workdir / "before"), str(workdir / "out"))
    assert done.returncode == 0, done.stderr
    for expected in ("tg8 tok/s", "ITL p95 128+8 ms", "private peak MB", "only in A: toy:int4", "protocols differ"):
        assert expected in " ".join(done.stdout.split()), expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compare", "none", "none"], "none: holds no rows.jsonl"),
        (["compare", "none"], "Missing argument 'B'"),
        (["--seed", "3", "compare", "a", "b"], "--seed says how to measure; compare measures nothing"),
        (["compere"], "compare"),
    ],
)
def test_what_cannot_be_compared(arguments, says):
    done = codellm("bench", *arguments)
    assert done.returncode in {1, 2}
    assert says in done.stderr
    assert "Traceback" not in done.stderr
