"""A file that grows, whatever happens to who writes it."""

import contextlib
import json
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import InputError
from codellm_eval.files.journal import Journal

objects = st.dictionaries(st.text(max_size=5), st.text() | st.integers() | st.none(), max_size=3)


@given(st.lists(objects, max_size=4), st.data(), st.lists(objects, max_size=2))
def test_wherever_a_writer_dies_the_whole_lines_stay_and_the_next_goes_on(tmp_path_factory, first, data, later):
    path = tmp_path_factory.mktemp("journal") / "lines.jsonl"
    with Journal(path) as journal:
        for line in first:
            journal.append(line)
    whole = path.read_bytes() if first else b""
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    path.write_bytes(cut)
    kept = first[: cut.count(b"\n")]
    with Journal(path) as journal:
        assert [line for _, line in journal.lines] == kept
        for line in later:
            journal.append(line)
    if kept or later:
        assert [json.loads(line) for line in path.read_text().splitlines()] == [*kept, *later]
    else:
        assert not path.exists()


def test_a_full_disk_leaves_whole_lines(tmp_path):
    path, (soft, hard) = tmp_path / "lines.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        journal.append({"a": "x" * 100})
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
        try:
            with pytest.raises(InputError, match=r"lines\.jsonl: cannot be written"):
                journal.append({"b": "y" * 100})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        journal.append({"c": 1})
    assert [list(json.loads(line)) for line in path.read_text().splitlines()] == [["a"], ["c"]]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    with Journal(path) as journal:
        journal.append({"b": 2})
    with Journal(path) as journal:
        assert journal.lines == [(1, {"a": 1}), (2, {"b": 2})]


def test_only_one_writes_at_a_time(tmp_path):
    with Journal(tmp_path / "lines.jsonl") as journal:
        journal.append({})
        with pytest.raises(InputError, match="another run writes it"):
            Journal(tmp_path / "lines.jsonl")
    with Journal(tmp_path / "lines.jsonl") as journal:
        assert journal.lines == [(1, {})]


@pytest.mark.parametrize(("data", "message"), [(b"[]\n{}\n", "line 1 is no JSON object"), (b"\xff\n", "not UTF-8")])
def test_what_is_no_journal_is_refused_and_kept(tmp_path, data, message):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(data)
    for _ in range(2):  # the lock is given back
        with pytest.raises(InputError, match=message):
            Journal(path)
    assert path.read_bytes() == data


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path)
    with contextlib.suppress(InputError):
        Journal(tmp_path / "none" / "lines.jsonl")
    assert not (tmp_path / "none").exists()
