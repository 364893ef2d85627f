"""Lines of `codellm infill --lines` are the lines that editors count."""

import re
import shutil
import subprocess

import pytest

from codellm.cli.infill import read_text, split_lines
from codellm.errors import InvalidValueError

FORM_FEED = "import os\n\f\ndef add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n"
SEPARATOR = "SEP = '\u2028'\ndef add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    ("text", "lines", "replaced"),
    [
        (FORM_FEED, "4:4", "    return a + b\n"),
        (FORM_FEED, "3:4", "def add(a, b):\n    return a + b\n"),
        (FORM_FEED, "2:2", "\f\n"),
        (SEPARATOR, "3:3", "    return a + b\n"),
        (SEPARATOR, "1:1", "SEP = '\u2028'\n"),
        ("a\x0bb\nc\n", "2:2", "c\n"),
        ("a\x1cb\x1dc\x1ed\ne\n", "2:2", "e\n"),
        ("a\x85b\nc\n", "2:2", "c\n"),
        ("a\u2029b\nc\n", "2:2", "c\n"),
        ("a\r\nb\r\nc\r\n", "2:2", "b\r\n"),
        ("a\rb\rc", "2:2", "b\r"),
        ("a\rb\r\nc\nd", "3:4", "c\nd"),
        ("a\n\rb\n", "2:3", "\rb\n"),
        ("a\r\r\nb", "2:2", "\r\n"),
        ("no end", "1:1", "no end"),
        ("\n\n\n", "2:2", "\n"),
    ],
)
def test_a_line_is_what_editors_count(text, lines, replaced):
    prefix, suffix = split_lines(text, lines)
    assert prefix + replaced + suffix == text
    first = int(lines.partition(":")[0])
    assert len(re.findall(r"\r\n|\r|\n", prefix)) == first - 1


@pytest.mark.skipif(shutil.which("vim") is None, reason="counts with vim itself")
@pytest.mark.parametrize("text", [FORM_FEED, SEPARATOR, "a\x0bb\x1cc\x85d\u2029e\nf\n"])
def test_vim_counts_the_same(text, tmp_path):
    file = tmp_path / "code.py"
    file.write_text(text, newline="")
    command = ["vim", "-es", "-u", "NONE", "-c", "set enc=utf-8", "-c", "put =line('$')", "-c", "$p", "-c", "qa!", file]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    last = int(told.strip())
    split_lines(text, f"{last}:{last}")
    with pytest.raises(InvalidValueError):
        split_lines(text, f"{last + 1}:{last + 1}")


@pytest.mark.parametrize(
    "lines", ["0:1", "2:1", "1:9", "1", "", ":", "1:", "a:b", "1:2:3", "-1:2", "9" * 5000 + ":1", "1:" + "9" * 5000]
)
def test_what_is_no_range_of_lines_is_one_line(lines):
    with pytest.raises(InvalidValueError, match="give A:B with 1 <= A <= B <= 8"):
        split_lines(FORM_FEED, lines)


def test_a_byte_order_mark_is_no_character_of_the_text(tmp_path):
    (tmp_path / "code.py").write_bytes(b"\xef\xbb\xbfa\r\nb\n")
    assert read_text(tmp_path / "code.py") == "a\r\nb\n"
