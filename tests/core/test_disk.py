"""Whether files can be written somewhere is tried, and nothing of the trial stays."""

import resource
from pathlib import Path

import pytest

from codellm.cli.destination import require_writable
from codellm.errors import ArtifactError
from codellm.system.disk import try_writing


@pytest.fixture
def full_disk():
    """No file of this process takes a byte, as where the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_folder_that_is_there_or_to_be_made_stays_as_it_is(tmp_path):
    for folder in (tmp_path, tmp_path / "a" / "b"):
        try_writing(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_folder_refuses(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for path in (tmp_path / "file", tmp_path / "file" / "a", tmp_path / "link", Path("/proc/none")):
        with pytest.raises(OSError, match=r"."):
            try_writing(path)


def test_a_full_disk_refuses(tmp_path, full_disk):
    with pytest.raises(OSError, match="File too large"):
        try_writing(tmp_path)
    with pytest.raises(ArtifactError, match=r"cannot be written \(File too large\); give another --output"):
        require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
