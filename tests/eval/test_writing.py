"""What --output names: refused before the work where it cannot be written, and whole whatever happens later."""

import contextlib
import json
import resource

import pytest

from codellm.errors import InputError
from codellm_eval.files.writing import refuse_unwritable, write_whole
from codellm_eval.humaneval.samples import JsonlWriter
from eval.commandline import error_line, evaluate, needs_sandbox, oracle_workdir
from support.bench_toy import bench, toy_workdir
from support.plugin_folder import codellm


@contextlib.contextmanager
def full_disk(size):
    """No file takes more than `size` bytes, in this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("earlier", [None, "earlier"])
def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path, earlier):
    path = tmp_path / "manifest.json"
    if earlier is not None:
        write_whole(path, earlier)
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        write_whole(path, "x" * 200)
    assert [each.name for each in tmp_path.iterdir()] == ([path.name] if earlier else [])
    assert not earlier or path.read_text() == earlier
    write_whole(path, b"now")
    assert path.read_bytes() == b"now"


def test_what_a_kill_left_half_written_is_taken_over(tmp_path):
    (tmp_path / ".table.md.partial").write_text("half")
    write_whole(tmp_path / "table.md", "é")
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]
    assert (tmp_path / "table.md").read_text("utf-8") == "é"


def test_a_folder_that_can_be_written_is_left_as_it_is(tmp_path):
    refuse_unwritable(tmp_path / "a" / "b")
    refuse_unwritable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "a" / "b", "/proc/none"):
        with pytest.raises(InputError, match=r": cannot be written \(.*\); name another --output"):
            refuse_unwritable(type(tmp_path)(folder))
    with full_disk(10), pytest.raises(InputError, match="cannot be written"):
        refuse_unwritable(tmp_path)


def test_lines_of_a_full_disk_are_whole(tmp_path):
    path = tmp_path / "results.jsonl"
    with JsonlWriter(path) as writer:
        writer.write({"a": "x" * 100})
        with (
            full_disk(150),
            pytest.raises(InputError, match=r"results\.jsonl: cannot be written .* its 1 lines are kept"),
        ):
            writer.write({"b": "y" * 100})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": "x" * 100}]


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    made = oracle_workdir(tmp_path, monkeypatch)
    (made / "file").write_text("mine")
    (made / "text.py").write_text("x = 1\n" * 50)
    (made / "s.jsonl").write_text('{"task_id": "HumanEval/0", "completion": "    return 1"}\n')
    return made


MODEL = ("-m", "model", "-b", "oracle")
COMMANDS = {
    "humaneval": ("humaneval", *MODEL, "--limit", "2"),
    "infilling": ("infilling", *MODEL, "--limit", "2"),
    "perplexity": ("perplexity", "text.py", *MODEL),
    "judge": ("judge", "s.jsonl", "--allow-code-execution", "--allow-unsandboxed-execution"),
}
FOLDERS = {"bench": ("bench",), "bench grid": ("bench", "grid")}


@pytest.mark.parametrize("output", ["file/out", "/proc/none/out"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_written_is_one_line_before_anything_is_loaded(workdir, command, output):
    done = evaluate(workdir, *COMMANDS[command], "--output", output, code=1, ORACLE_FAULT="load")
    assert done.stderr == error_line(done) + "\n"
    assert output in done.stderr
    assert "cannot be written" in done.stderr
    assert "another --output" in done.stderr
    assert (done.stdout, (workdir / "file").read_text()) == ("", "mine")


@pytest.mark.parametrize("command", ["humaneval", "infilling"])
def test_a_file_where_a_folder_must_be_is_wrong_use(workdir, command):
    done = evaluate(workdir, *COMMANDS[command], "--output", "file", code=2, ORACLE_FAULT="load")
    assert "'--output': Directory 'file' is a file" in done.stderr
    assert (workdir / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["perplexity", "judge"])
def test_a_folder_where_a_file_must_be_is_wrong_use(workdir, command):
    (workdir / "folder").mkdir()
    done = evaluate(workdir, *COMMANDS[command], "--output", "folder", code=2, ORACLE_FAULT="load")
    assert "'--output': File 'folder' is a directory" in done.stderr


@pytest.mark.parametrize("output", ["file/out", "/proc/none/out"])
@pytest.mark.parametrize("command", FOLDERS)
def test_a_benchmark_that_cannot_be_written_is_one_line_before_any_row(workdir, command, output):
    done = codellm(*FOLDERS[command], *MODEL[:2], "--row", "oracle::delay=0", "--output", output, path=workdir / "site")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"codellm: {output}")
    assert "cannot be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_table_that_cannot_be_written_at_the_end_is_printed(workdir):
    (workdir / "t.json.manifest.json").mkdir()
    done = evaluate(
        workdir, *COMMANDS["perplexity"], "--format", "json", "--output", "t.json", "--window", "64", code=1
    )
    assert len(json.loads(done.stdout)) == 3
    assert error_line(done).startswith("codellm: t.json.manifest.json: cannot be written (Is a directory)")


@needs_sandbox
def test_verdicts_that_find_no_room_keep_those_before(workdir):
    line = json.dumps({"task_id": "HumanEval/0", "completion": "    return 1 #" + "x" * 300}) + "\n"
    (workdir / "s.jsonl").write_text(line * 20)
    with full_disk(5000):
        done = evaluate(workdir, *COMMANDS["judge"], "-o", "r.jsonl", code=1)
    assert "r.jsonl: cannot be written (File too large)" in error_line(done)
    kept = [json.loads(line) for line in (workdir / "r.jsonl").read_text().splitlines()]
    assert 1 <= len(kept) < 20
    assert f"its {len(kept)} lines are kept" in done.stderr


ROWS = ["--no-quality", "--row", "toy:int8", "--row", "toy:int4"]


def test_a_benchmark_on_a_full_disk_ends_in_one_line_and_goes_on_later(tmp_path):
    workdir = toy_workdir(tmp_path)
    whole = bench(workdir, *ROWS, "--output", "whole")
    assert whole.returncode == 0
    rows = (workdir / "whole" / "rows.jsonl").stat().st_size
    manifest = (workdir / "whole" / "manifest.json").stat().st_size
    assert rows > manifest // 2
    with full_disk(manifest // 2):
        done = bench(workdir, *ROWS, code=1)
    assert "out/manifest.json: cannot be written (File too large)" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("codellm:")]) == 1
    bench(workdir, *ROWS)
    assert len((workdir / "out" / "rows.jsonl").read_text().splitlines()) == 2
