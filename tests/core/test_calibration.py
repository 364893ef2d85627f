import hashlib

import pytest

from codellm.artifacts import calibration, quality
from codellm.errors import InputError


def test_the_bundled_text_is_not_the_gates():
    text = calibration.bundled()
    assert len(text.text) > 30_000
    assert not sentences(text.text) & sentences(quality.gate_text())
    assert text.digest == calibration.bundled().digest


def test_both_texts_are_those_of_the_recorded_figures():
    assert calibration.bundled().digest.startswith("48e0b2477827953b")  # docs/results/gptq-demo.json
    assert hashlib.sha256(quality.gate_text().encode()).hexdigest().startswith("498e0b5ce342921e")


def sentences(text):
    return {line for line in text.splitlines() if len(line) > 60}


def test_a_file_is_read_up_to_a_bound_even_inside_a_character(tmp_path):
    (tmp_path / "long.txt").write_text("é" + "日" * (1 << 19))
    text = calibration.of_file(tmp_path / "long.txt")
    assert text.name == "long.txt"
    assert 1 + len(text.text) * 3 - 3 <= calibration.MOST
    assert set(text.text) == {"é", "日"}


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "is empty"),
    (b" \n\t", "is empty"),
    (b"\xff\xfe\x00a", "is no UTF-8 text"),
    (None, "no such file"),
])  # fmt: skip
def test_what_is_no_text_is_told(tmp_path, content, reason):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"calibration text .*text\.txt: {reason}"):
        calibration.of_file(path)
