"""Long texts without breaks: every pre-tokenizer gives their ids, or one line, and the process goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codellm.errors import InvalidValueError, NotEnoughMemoryError
from codellm_cpu.llama.pretokenizers import bounded
from support.gguf_bytes import STRING, starcoder2
from support.tokenize_child import TEXTS

PRES = (
    *("none", "default", "minicpm5", "llama-bpe", "deepseek-llm", "deepseek-coder", "deepseek-v3", "spark2_5", "youtu"),
    *("falcon", "mpt", "starcoder", "gpt-2", "jais-2", "gemma4", "sarvam-moe", "whitespace", "refact", "command-r"),
    *("qwen2", "qwen35", "dbrx", "poro-chat", "chatglm-bpe", "viking", "tekken", "chameleon", "exaone", "exaone-moe"),
    *("gpt-4o", "granite-embed-multi-97m", "tiny_aya", "superbpe", "bailingmoe", "seed-coder", "hunyuan-dense"),
    *("kimi-k2", "ufakzeka", "grok-2", "afmoe", "laguna", "minimax-m2", "solar-open", "trillion"),
)
"""One name of each pre-tokenizer that llama.cpp knows (src/llama-vocab.cpp); `none` is a file that names none."""


def tokenize(folder: Path, length: int, texts: object, *pres: str, stack: int) -> None:
    """The ids of texts of `length` characters, in a process whose stack is of `stack` KiB."""
    child = Path(__file__).parents[1] / "support" / "tokenize_child.py"
    done = subprocess.run(
        ["sh", "-c", f'ulimit -s {stack}; exec "$@"', "sh", sys.executable, str(child), str(folder), str(length),
         ",".join(texts), *pres],
        env=os.environ | {"PYTHONPATH": str(child.parents[1]), "GGML_NO_BACKTRACE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout[-100:], done.stderr[-1000:])


def test_no_pre_tokenizer_overflows_the_stack(tmp_path):
    """A fifth of the usual stack, and of what overflows that."""
    others = [pre for pre in PRES if pre != "superbpe"]
    tokenize(tmp_path, 8000, TEXTS, *others, stack=1600)
    tokenize(tmp_path, 8000, TEXTS.keys() - {"digits"}, "superbpe", stack=1600)


@pytest.mark.parametrize("pre", ["deepseek-coder", "tekken"])
def test_a_megabyte_without_a_break_gives_its_ids(tmp_path, pre):
    tokenize(tmp_path, 1_000_000, ["letters", "combining marks"], pre, stack=8192)


@pytest.fixture
def tokenizer_of(tmp_path):
    from codellm_cpu.llama.library import NativeModel
    from codellm_cpu.llama.tokenizer import LlamaTokenizer

    def tokenizer(pre):
        file = starcoder2()
        file.put("tokenizer.ggml.pre", STRING, pre)
        path = tmp_path / f"{pre}.gguf"
        path.write_bytes(file.encode())
        return LlamaTokenizer(NativeModel(path, repack=False, mmap=True, vocab_only=True))

    return tokenizer


@pytest.mark.parametrize(
    "text", ["def f(x):\n    return x  # é中\n", "defdef", "x" * 300 + "\n\n  \t", "1 + 22\r\n\v\f"]
)
@pytest.mark.parametrize("pre", ["deepseek-coder", "deepseek-llm", "tekken", "falcon", "starcoder", "llama-bpe"])
def test_a_long_text_has_the_ids_of_its_parts(tokenizer_of, pre, text):
    """Parts that end with a word of their own, since no word begins with what follows it here."""
    tokenizer = tokenizer_of(pre)
    assert tokenizer.encode((text + "\ndef") * 200) == tokenizer.encode(text + "\ndef") * 200


@pytest.mark.parametrize(
    ("pre", "text"),
    [
        ("superbpe", "1" * 9000),
        ("superbpe", "x = " + "12345" * 200_000),
        ("deepseek-llm", " " * 9000 + "中"),
        ("deepseek-llm", ("\t" * 5000 + "9") * 5),
        ("jais-2", "a" + " " * 1_000_000),
        ("jais-2", "a" + "\u3000" * 100_000 + "b"),
    ],
)
def test_what_would_take_minutes_is_refused_in_one_line(tokenizer_of, pre, text):
    with pytest.raises(InvalidValueError, match=rf"in a row, on which the pre-tokenizer {pre} would take minutes"):
        tokenizer_of(pre).encode(text)


@pytest.mark.parametrize("pre", ["superbpe", "deepseek-llm", "jais-2"])
def test_ordinary_runs_are_not_refused(tokenizer_of, pre):
    text = ("x" + " " * 200 + "=" + "7" * 300 + "\n") * 40
    assert tokenizer_of(pre).decode(tokenizer_of(pre).encode(text)) == text
    table = ("中" + " " * 24 + "中 1234567890\n") * 200_000
    assert bounded(table, pre, lambda: table) is table


@pytest.mark.parametrize("end", ["", "\n", "\r\nx"])
def test_blanks_that_end_a_line_are_not_refused(tokenizer_of, end):
    text = "x" + " " * 20_000 + end
    tokenizer = tokenizer_of("deepseek-llm")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_line_for_which_there_is_no_memory_is_refused(tokenizer_of):
    tokenizer = tokenizer_of("deepseek-coder")

    def tokenize(text):
        return bounded(text, "deepseek-coder", lambda: tokenizer.encode(text), lambda: 10**9)

    with pytest.raises(NotEnoughMemoryError, match=r"a line of 3000000 characters may take 1\.2 GB of memory"):
        tokenize("a" * 3_000_000)
    text = "def\n" * 500_000
    assert tokenizer.decode(tokenize(text)) == text
