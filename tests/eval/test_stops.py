"""Generation stops at no string at which the chosen list does not cut: no text that would be judged goes missing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codellm_eval.humaneval.completion import ENDS, STOPS, Continuation
from codellm_eval.humaneval.infilling import Infilling
from codellm_eval.humaneval.sampling import generate, sampling
from codellm_eval.judge.judge import CONTROL
from support.script_model import ScriptModel

WHERE = (
    "generation stopped before the text that is judged had come: look at STOPS, ENDS and Continuation.ends in "
    "codellm_eval/humaneval/completion.py, or at `ends` and `completion` of the form in its own file"
)


class Fewer(Continuation):
    """A list with fewer stops than others have."""

    @property
    def strings(self):
        return ("\nclass", "\n@")


class Apart(Fewer):
    """A form that stops at the strings of another list than the one it cuts by."""

    @property
    def ends(self):
        return ENDS


CONTINUED = {**{name: Continuation(name) for name in STOPS}, "fewer": Fewer()}
FORMS = {**CONTINUED, "infilling": Infilling()}
BY_NAME = pytest.mark.parametrize("name", FORMS)

WORDS = sorted({stop for stops in STOPS.values() for stop in stops})
TEXTS = st.lists(
    st.sampled_from([*WORDS, *(word[: len(word) // 2] for word in WORDS), "\n    x", "\n", "    return 1", "é", "a"]),
    max_size=12,
).map("".join)
"""What a model could write: stops at any place, whole, begun, overlapping, and none."""


def written(text, form):
    """The sample of a model that would write `text`."""
    model = ScriptModel(text, context=4096)
    [sample] = generate(model, [CONTROL], sampling(max_tokens=2048), form=form)
    return sample


def hold(text, form):
    """See that what was written makes the completion that all of `text` would make."""
    __tracebackhide__ = True
    sample = written(text, form)
    assert sample.completion == form.completion(CONTROL, text), f"{form} of {text!r}: {WHERE}"


@BY_NAME
@settings(max_examples=60)
@given(text=TEXTS)
def test_what_generation_leaves_out_is_in_no_completion(name, text):
    hold(text, FORMS[name])


@BY_NAME
def test_each_string_that_ends_generation_ends_the_completion(name):
    form = FORMS[name]
    for stop in form.ends:
        before, after = f"\n    return 1{stop}", " x\n    return 2\n"
        assert form.completion(CONTROL, before + after) == form.completion(CONTROL, before), f"{stop!r}: {WHERE}"


@pytest.mark.parametrize("made", CONTINUED)
@settings(max_examples=60)
@given(text=TEXTS)
def test_a_list_that_a_run_was_not_made_with_gets_its_text_or_is_refused(made, text):
    sample = written(text, CONTINUED[made])
    for name, form in CONTINUED.items():
        if not form.lacks(sample.raw, sample.finish_reason):
            whole = form.completion(CONTROL, text)
            assert form.completion(CONTROL, sample.raw) == whole, f"{made} cut as {name}, {text!r}: {WHERE}"


def test_a_list_is_refused_only_where_a_stop_of_another_has_ended_the_text():
    ended, over = "\n    return 1\ndef", "\n    return 1"
    assert Fewer().lacks(ended, "stop")
    assert Continuation("none").lacks(ended, "stop")
    assert not Fewer().lacks("\n    return 1\nclass", "stop")
    for form in CONTINUED.values():
        assert not form.lacks(over, "eos")
        assert not form.lacks(over, "length")
    assert not any(Continuation(name).lacks(ended, "stop") for name in ("bigcode", "humaneval"))


def test_a_form_that_stops_by_another_list_than_it_cuts_by_is_told():
    with pytest.raises(
        AssertionError, match=r"STOPS, ENDS and Continuation\.ends in codellm_eval/humaneval/completion"
    ):
        hold("\n    return 1\ndef g(): pass\nclass A: pass\n", Apart())
