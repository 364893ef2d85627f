"""A tokenizer.json is tried under limits, in a process that may die of it, before this one reads it."""

import json

import pytest

from codellm.errors import ModelFileError
from codellm.sources.regular import read_text
from codellm.system.cache import Memo
from codellm.tokenizer import HFTokenizer
from codellm.tokenizer_probe import LIMITS, Limits, probe, require_sound
from support.chains import DEMO

BASE = json.loads((DEMO / "tokenizer.json").read_text())


def split(expression):
    return {
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    }


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def steps(*normalizers):
    return {"normalizer": {"type": "Sequence", "normalizers": list(normalizers)}}


def template(*pieces):
    return {"post_processor": {"type": "TemplateProcessing", "single": list(pieces), "pair": [], "special_tokens": {}}}


PANICS = {
    "a damaged table of characters": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        r"not a readable tokenizer\.json \(Precompiled",
    ),
    "a template of a token that is not there": (
        template({"SpecialToken": {"id": "nope", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}),
        "the tokenizers library fails on a text",
    ),
    "every way to divide letters": (split("(a+)+$"), "retry-limit"),
    "every way to divide with an end to look for": (split(r"(\s+)+x"), "retry-limit"),
    "every way to divide words of others": (split("(é+|ä+)+$"), "retry-limit"),
    "every way to divide in a normalizer": (steps(replace("(x|xx)+y", "", "Regex")), "retry-limit"),
    "an expression that is none": (split("(a"), "not a readable"),
}
GROWING = {
    "a letter": steps(replace("d", "d" * 500)),
    "a letter few texts hold": steps(replace("ŵ", "w" * 5000)),
    "a word, again and again": steps(*[replace("zebra", "zebrazebra")] * 12),
    "any character": steps(*[replace(".", "zz" * 8, "Regex")] * 3),
    "what goes before": {"normalizer": {"type": "Prepend", "prepend": "x" * 1_000_000}},
}
MUCH = {
    "a letter": steps(*[replace("d", "d" * 500)] * 5),
    "a word": steps(*[replace("zebra", "zebra" * 300)] * 4),
}
SLOW = {
    "with the square of the length": split("a+b"),
    "of digits": split(r"\d+x"),
    "in a normalizer": steps(replace(" +_", "", "Regex")),
}


def written(folder, changes):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(BASE | changes))
    return path


def refused(path, message, limits=LIMITS):
    """Twice: by trying, and by the verdict that is kept."""
    text = path.read_text()
    for read in (
        lambda: require_sound(path, text, lambda path: probe(path, limits)),
        lambda: HFTokenizer(path, {}),
    ):
        with pytest.raises(ModelFileError, match=message) as error:
            read()
        assert str(error.value).startswith(f"{path}: ")
        assert str(error.value).isprintable()


@pytest.mark.parametrize(("changes", "message"), PANICS.values(), ids=PANICS.keys())
def test_what_the_library_panics_on_is_one_line(tmp_path, capfd, changes, message):
    refused(written(tmp_path, changes), message)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("changes", GROWING.values(), ids=GROWING.keys())
def test_a_text_that_would_grow_is_one_line(tmp_path, changes):
    refused(written(tmp_path, changes), "its normalizer makes a text more than 64 times as long")


@pytest.mark.parametrize("changes", MUCH.values(), ids=MUCH.keys())
def test_memory_is_bounded(tmp_path, changes):
    limits = Limits(memory=1 << 29)
    refused(written(tmp_path, changes), r"the tokenizers library takes more than 0\.5 GiB of memory for it", limits)


@pytest.mark.parametrize("changes", SLOW.values(), ids=SLOW.keys())
def test_processor_time_is_bounded(tmp_path, changes):
    limits = Limits(seconds=1)
    refused(written(tmp_path, changes), "takes more than 1 seconds of processor time for it", limits)


SOUND = {
    "the bundled one": {},
    "padding without end": {
        "padding": {
            "strategy": {"Fixed": 2_000_000_000},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "a",
        }
    },
    "normal forms that lengthen": {"normalizer": {"type": "NFKD"}},
    "spaces written otherwise": steps(replace(" ", "▁")),
    "an expression of published models": split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ),
}


@pytest.mark.parametrize("changes", SOUND.values(), ids=SOUND.keys())
def test_a_sound_file_is_tried_once(tmp_path, changes):
    path = written(tmp_path, changes)
    first = HFTokenizer(path, {}).encode("def f(x):\n    return x\n")
    require_sound(path, read_text(path), untried)
    assert HFTokenizer(path, {}).encode("def f(x):\n    return x\n") == first


def untried(path):
    raise AssertionError(f"{path} was tried")


def test_a_verdict_is_of_the_content_wherever_it_lies(tmp_path):
    path = written(tmp_path, {"version": "1.0", "model": BASE["model"] | {"dropout": None}})
    HFTokenizer(path, {})
    tried = []

    def sound(path):
        tried.append(path)
        return "", True

    (tmp_path / "copy").mkdir()
    copy = path.rename(tmp_path / "copy" / "tokenizer.json")
    require_sound(copy, read_text(copy), sound)
    assert not tried
    path = written(tmp_path, {"normalizer": {"type": "NFC"}, "model": BASE["model"] | {"dropout": None}})
    require_sound(path, read_text(path), sound)
    assert tried == [path]


def test_what_codellm_brings_with_it_costs_no_process():
    path = DEMO / "tokenizer.json"
    require_sound(path, read_text(path), untried)
    assert HFTokenizer(path, {}).vocab_size


def test_a_process_that_was_killed_decides_nothing(tmp_path):
    path = written(tmp_path, {"normalizer": {"type": "NFC"}, "model": BASE["model"] | {"fuse_unk": True}})
    before = Memo("tokenizers.json").read()
    with pytest.raises(ModelFileError, match="it was killed"):
        require_sound(path, read_text(path), lambda path: ("it was killed", False))
    assert Memo("tokenizers.json").read() == before


def test_a_text_that_the_library_panics_on_later_is_one_line(tmp_path):
    """What the trial did not think of."""
    path = written(tmp_path, split("(ǆ+)+$"))
    require_sound(path, read_text(path), lambda path: ("", True))
    tokenizer = HFTokenizer(path, {})
    assert tokenizer.encode("abc")
    with pytest.raises(ModelFileError, match=r"the tokenizers library fails on a text .*retry-limit") as error:
        tokenizer.encode("ǆ" * 60 + "!")
    assert str(error.value).startswith(f"{path}: ")
