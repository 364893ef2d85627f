"""Where a text ends: at every token that a model's files name."""

import json

import pytest

from codellm.fim import TEMPLATES, find_fim
from codellm.generation import endings
from codellm.loading import find
from codellm.sampling import SamplingParams
from codellm.tokenizer import HFTokenizer
from support.chains import TURN, TURN_ENDS, TURN_OVER, A, write_chain
from support.script_model import EOS, FIM, ScriptModel


def tokenizer_of(folder, **change):
    return HFTokenizer.of(find(str(write_chain(folder / "model", {}, **change))).fetch())


@pytest.mark.parametrize("name", TURN_ENDS)
def test_every_file_that_names_an_end_is_heard(tmp_path, name):
    tokenizer = tokenizer_of(tmp_path, **TURN_ENDS[name])
    alone = name.endswith("alone")
    assert tokenizer.ends == ({TURN} if alone else {0, TURN})
    assert tokenizer.eos == (TURN if alone or name.startswith("tokenizer_config") else 0)


def test_what_no_file_names_is_no_end(tmp_path):
    tokenizer = tokenizer_of(tmp_path)
    assert (tokenizer.eos, tokenizer.ends) == (0, {0})
    assert endings(tokenizer) == {0, 5, 6}  # <repo_name> and <file_sep> end a middle; 4 is another token here


def test_the_tokenizers_own_file_says_what_begins_a_text(tmp_path):
    """An instructed model: its tokenizer's files name the end of a turn, the list has that of a text too."""
    files = {
        "tokenizer_config.json": {"eos_token": TURN_OVER},
        "generation_config.json": {"eos_token_id": [0, TURN]},
    }
    tokenizer = tokenizer_of(tmp_path, files=files)
    assert (tokenizer.eos, tokenizer.ends) == (TURN, {0, TURN})
    assert tokenizer.prompt_ids("") == [TURN]


@pytest.mark.parametrize("named", [-1, 10**9, 2**40, True, "4", 4.0, None, [], [[4]], [None, -1], {"id": 4}])
def test_what_is_no_id_ends_nothing(tmp_path, named):
    files = {"generation_config.json": {"eos_token_id": named}, "config.json": {"eos_token_id": named}}
    tokenizer = tokenizer_of(tmp_path, files=files)
    assert (tokenizer.eos, tokenizer.ends) == (0, {0})


def test_an_ordinary_word_may_end_a_text_and_never_begins_one(tmp_path):
    """Some lists have an empty line: the model ends there, while the text of other files may hold it."""
    files = {"config.json": {"eos_token_id": [A, 0]}, "tokenizer_config.json": None}
    tokenizer = tokenizer_of(tmp_path, files=files)
    assert (tokenizer.eos, tokenizer.ends) == (0, {0, A})
    assert tokenizer.token_bytes(A)


@pytest.mark.parametrize("change", [TURN_ENDS["tokenizer_config, not special"], TURN_ENDS["listed by id, not special"]])
def test_an_end_that_is_listed_as_ordinary_stays_text_in_a_prompt(tmp_path, change):
    tokenizer = tokenizer_of(tmp_path, **change)
    text = f"a{TURN_OVER}b"
    assert TURN not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert TURN in tokenizer.encode(text, special=True)
    assert tokenizer.token_bytes(TURN) == b""


def test_the_files_that_name_ends_are_part_of_what_an_artifact_is_made_from(tmp_path):
    source = find(str(write_chain(tmp_path / "model", {}))).fetch()
    before = source.digest
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, TURN]}))
    assert find(str(tmp_path / "model")).fetch().digest != before


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.family)
def test_a_middle_ends_at_the_tokens_between_files(template):
    words = {text: id for id, text in enumerate((template.prefix, template.suffix, template.middle, *template.eot))}
    assert find_fim(words.get).eot == {words[text] for text in template.eot}
    if template.family in {"StarCoder2", "Qwen2.5-Coder"}:
        assert len(template.eot) == 3  # the padding, the name of a repository, the end of a file


def test_a_tokenizer_that_knows_eos_alone_ends_there():
    model = ScriptModel("hello")
    assert endings(model.tokenizer) == {EOS, FIM["<file_sep>"]}
    result = model.generate("x", SamplingParams(max_tokens=9))
    assert (result.text, result.finish_reason, result.token_ids[-1]) == ("hello", "eos", EOS)


@pytest.mark.parametrize("ends", [[ord("l")], {ord("l")}, frozenset({ord("l"), 3})])
def test_a_tokenizer_may_name_more_ends(ends):
    model = ScriptModel("hello")
    model.tokenizer.ends = ends
    result = model.generate("x", SamplingParams(max_tokens=9))
    assert (result.text, result.finish_reason) == ("he", "eos")
    ignored = model.generate("x", SamplingParams(max_tokens=9, ignore_eos=True))
    assert (ignored.text, ignored.finish_reason) == ("hellohel", "length")


MIDDLE = FIM["<fim_middle>"]


@pytest.mark.parametrize("stop", [("<fim_middle>",), ("zz", "<fim_middle>"), ("<fim_middle>", "d")])
def test_a_stop_string_that_is_a_special_token_ends_there(stop):
    """It shows no text, so that its string is never found there."""
    model = ScriptModel(ids=[*b"ab", MIDDLE, *b"cd"])
    result = model.generate("x", SamplingParams(max_tokens=20, stop=stop))
    assert (result.text, result.finish_reason, result.token_ids) == ("ab", "stop", (*b"ab", MIDDLE))
    assert [*model.stream("x", SamplingParams(max_tokens=20, stop=stop))] == ["a", "b"]
    batch = model.generate_batch(["x", "y"], SamplingParams(max_tokens=20, stop=stop, ignore_eos=True))
    assert [(each.text, each.finish_reason) for each in batch] == [("ab", "stop")] * 2


def test_a_string_in_the_text_still_stops_before_a_special_token():
    model = ScriptModel(ids=[*b"ab", MIDDLE, *b"cd"])
    result = model.generate("x", SamplingParams(max_tokens=20, stop=("b", "<fim_middle>")))
    assert (result.text, result.finish_reason) == ("a", "stop")
    written = ScriptModel("ab<fim_middle>cd")  # as text, in letters
    result = written.generate("x", SamplingParams(max_tokens=40, stop=("<fim_middle>",)))
    assert (result.text, result.finish_reason) == ("ab", "stop")
