"""GGUF files that do not say all of their vocabulary: nothing is guessed by a number, what is assumed is told once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from codellm.spec import LoadSpec
from codellm_cpu.llama.backend import LlamaCppBackend
from codellm_cpu.llama.gaps import gaps
from codellm_cpu.llama.header import read_header
from codellm_cpu.llama.library import NativeModel
from codellm_cpu.llama.tokenizer import LlamaTokenizer
from support.gguf_bytes import BOOL, F32, I32, STRING, U32, WORDS, Gguf, starcoder2
from support.tiny_gguf import source_of

PRE, EOS, BOS = "tokenizer.ggml.pre", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.bos_token_id"
GUESS = 11
"""What llama.cpp takes for bos and eos of a byte-level vocabulary that names none."""


def renamed(**names: str) -> Gguf:
    """A file whose special tokens are called otherwise: `t0` is the first."""
    file = starcoder2()
    words = list(WORDS)
    for key, name in names.items():
        words[int(key[1:])] = name
    file.put_array("tokenizer.ggml.tokens", STRING, words)
    return file


def without(file: Gguf, *keys: str) -> Gguf:
    for key in keys:
        file.drop(key)
    return file


@pytest.fixture
def tokenizer_of(tmp_path):
    models = []

    def tokenizer_of(file: Gguf) -> LlamaTokenizer:
        path = tmp_path / f"{len(models)}.gguf"
        path.write_bytes(file.encode())
        models.append(NativeModel(path, repack=False, mmap=True, vocab_only=True))
        return LlamaTokenizer(models[-1])

    yield tokenizer_of
    for model in models:
        model.close()


def special(file: Gguf, id: int) -> Gguf:
    """With token `id` marked as one that is no text."""
    kinds = [3 if place < 4 or place == id else 1 for place in range(len(WORDS))]
    file.put_array("tokenizer.ggml.token_type", I32, kinds)
    return file


@pytest.mark.parametrize(
    ("file", "eos", "ends"),
    [
        (starcoder2(), 0, {0}),
        (without(starcoder2(), EOS), 0, {0}),  # by its text
        (without(renamed(t0="<|end_of_text|>"), EOS), 0, {0}),
        (without(renamed(t0="</s>", t1="<s>"), EOS), 0, {0}),
        (without(renamed(t0="<odd>"), EOS), None, set()),
        (without(special(renamed(t0="<odd>"), GUESS), EOS), None, set()),
        (without(renamed(t0="<odd>", t3="<|im_end|>"), EOS), None, {3}),
        (without(renamed(t0="<odd>", t11="<|endoftext|>"), EOS), GUESS, {GUESS}),  # what llama.cpp guesses, by its text
        (without(renamed(t0="<odd>", t11="<|im_end|>"), EOS), None, {GUESS}),
    ],
)
def test_a_text_ends_at_what_the_file_names_and_at_no_guess(tokenizer_of, file, eos, ends):
    tokenizer = tokenizer_of(file)
    assert tokenizer.eos == eos
    assert tokenizer.ends == ends


@pytest.mark.parametrize("add", [False, True])
def test_a_text_begins_with_what_the_file_names_and_with_no_guess(tokenizer_of, add):
    file = without(starcoder2(), BOS)
    file.put("tokenizer.ggml.add_bos_token", BOOL, add)
    tokenizer = tokenizer_of(file)
    assert tokenizer.bos is None
    assert tokenizer.prompt_ids("def") == tokenizer.encode("def")
    named = starcoder2()
    named.put(BOS, U32, GUESS)
    assert tokenizer_of(named).bos == GUESS


def test_a_vocabulary_of_sentencepiece_says_by_its_texts_where_a_text_begins_and_ends(tokenizer_of):
    file = without(starcoder2(), BOS, EOS, PRE, "tokenizer.ggml.merges", "tokenizer.ggml.add_bos_token")
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a"][: len(WORDS)]
    file.put("tokenizer.ggml.model", STRING, "llama")
    file.put_array("tokenizer.ggml.tokens", STRING, words + [f"x{n}" for n in range(len(WORDS) - len(words))])
    file.put_array("tokenizer.ggml.scores", F32, [0.0] * len(WORDS))
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(WORDS)]
    file.put_array("tokenizer.ggml.token_type", I32, kinds[: len(WORDS)])
    tokenizer = tokenizer_of(file)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.add_bos) == (1, 2, True)
    assert tokenizer.ends == {2}


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (starcoder2(), []),
        (without(starcoder2(), PRE), ["names no pre-tokenizer (tokenizer.ggml.pre), so text is cut"]),
        (without(starcoder2(), EOS), ["names no end-of-text token (tokenizer.ggml.eos_token_id), and '<|endoftext|>'"]),
        (without(renamed(t0="<odd>"), EOS), ["and none is known; texts end at --max-tokens"]),
        (without(renamed(t0="<odd>", t3="<|im_end|>"), EOS), ["and none is known; texts end at '<|im_end|>'"]),
        (without(starcoder2(), BOS), []),  # none is asked for
        (without(renamed(t0="<odd>"), PRE, EOS), ["names no pre-tokenizer", "names no end-of-text token"]),
    ],
)
def test_what_is_missing_and_assumed_is_said_in_one_line_each(tokenizer_of, file, told):
    tokenizer = tokenizer_of(file)
    lines = gaps(read_header(tokenizer._model.path), tokenizer)
    assert len(lines) == len(told)
    for line, words in zip(lines, told, strict=True):
        assert words in line
        assert "\n" not in line


def test_what_is_missing_and_what_llama_cpp_warns_of_is_told_once_in_one_line_each(tmp_path, caplog):
    file = without(renamed(t9="<|im_end|>"), PRE)  # which looks like the end of a turn, and is listed as text
    path = tmp_path / "both.gguf"
    path.write_bytes(file.encode())
    for _ in range(2):
        LlamaCppBackend().load(LoadSpec(model=str(path), threads=1), source_of(path)).close()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("both.gguf: llama.cpp: load: control-looking token:      9 '<|im_end|>' was not")
    assert told[1].startswith("both.gguf: names no pre-tokenizer")


def test_a_warning_reaches_stderr_once_and_leaves_stdout_alone(tmp_path):
    path = tmp_path / "gap.gguf"
    path.write_bytes(without(starcoder2(), PRE).encode())
    (tmp_path / "text").write_text("x = 1\n" * 40)
    command = [sys.executable, "-m", "codellm", "eval", "perplexity", "-m", str(path), str(tmp_path / "text")]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("pre-tokenizer") == 2  # the one line has the word twice
    assert "*" not in done.stderr
    assert "pre-tokenizer" not in done.stdout
