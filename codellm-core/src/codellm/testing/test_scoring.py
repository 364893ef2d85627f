"""Scoring: `logits`, `score`, and the log-probabilities of generation are three views of one model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from codellm.errors import CodellmError, ContextLengthError
from codellm.model import Model
from codellm.testing.running import PROMPTS, drive, error_of, sequence, told
from codellm.testing.subject import Subject


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Natural-log probabilities of `logits` [V]."""
    shifted: npt.NDArray[np.float64] = logits.astype(np.float64) - logits.max()
    return shifted - float(np.log(np.exp(shifted).sum()))


def kind(array: npt.NDArray[np.float32]) -> str:
    """Type and shape of `array`: "float32 [7]"."""
    return f"{array.dtype} {list(array.shape)}"


def texts(model: Model) -> list[list[int]]:
    """Ids to score, of different lengths."""
    return [model.tokenizer.encode(prompt) for prompt in PROMPTS]


def test_logits_cover_the_vocabulary(single: Model) -> None:
    """`logits` gives one finite float32 for every id of the vocabulary."""
    logits, size = single.logits(texts(single)[0]), single.tokenizer.vocab_size
    assert kind(logits) == f"float32 [{size}]", (
        f"logits() returned {kind(logits)}, and the vocabulary has {size} tokens: cut the padding rows of the output "
        "matrix, and convert to float32."
    )
    assert np.isfinite(logits).all(), "logits() holds NaN or infinity."


def test_scores_have_their_shape(single: Model) -> None:
    """`score` gives for T ids a float32 array of T-1 log-probabilities: none for one id, nothing above 0."""
    batch = [*texts(single), texts(single)[0][:1]]
    scores = single.score(batch)
    assert len(scores) == len(batch), f"score() of {len(batch)} entries returned {len(scores)} arrays."
    for ids, found in zip(batch, scores, strict=True):
        assert kind(found) == f"float32 [{len(ids) - 1}]", (
            f"score() of {len(ids)} ids returned {kind(found)}, not float32 [{len(ids) - 1}]."
        )
        assert np.isfinite(found).all(), f"score() holds NaN or infinity: {found}."
        assert (found <= 1e-6).all(), f"score() holds {found.max()}: a log-probability is at most 0."


def test_scores_agree_with_logits(subject: Subject, single: Model) -> None:
    """`score(ids)[i]` is the natural log-softmax of `logits(ids[: i + 1])` at `ids[i + 1]`."""
    for ids in texts(single):
        if len(ids) < 2:
            continue
        scores = single.score([ids])[0]
        for position in sorted({0, 1, len(scores) // 2, len(scores) - 1} & set(range(len(scores)))):
            expected = float(log_softmax(single.logits(ids[: position + 1]))[ids[position + 1]])
            agree(subject, float(scores[position]), expected, f"score()[{position}] of {len(ids)} ids", "logits()")


def test_distributions_agree_with_logits(subject: Subject, single: Model) -> None:
    """`distributions(ids, start)` gives the natural log-softmax of `logits(ids[: i + 1])`, for i from `start` on."""
    size = single.tokenizer.vocab_size
    for ids in texts(single):
        for start in sorted({0, len(ids) - 1}):
            rows = np.concatenate(list(single.distributions(ids, start)))
            assert kind(rows) == f"float32 [{len(ids) - start}, {size}]", (
                f"distributions() of {len(ids)} ids from {start} on gave blocks that are {kind(rows)} together, not "
                f"float32 [{len(ids) - start}, {size}]."
            )
            for row in sorted({0, len(rows) - 1}):
                expected = log_softmax(single.logits(ids[: start + row + 1]))
                id = int(np.abs(rows[row] - expected).argmax())
                what = f"distributions()[{row}] of {len(ids)} ids from {start} on at the token {id}"
                agree(subject, float(rows[row, id]), float(expected[id]), what, "logits()")


def test_log_probabilities_agree_with_score(subject: Subject, single: Model) -> None:
    """A token's `logprob` is what `score` gives it: of the model itself, before penalty, temperature and cuts."""
    one = sequence(single, PROMPTS[0], temperature=0.7, top_k=8, repetition_penalty=1.2, seed=1)
    tokens = drive(single, [one]).get(one, [])
    if all(token.logprob is None for token in tokens):
        pytest.skip("the backend gives no log-probabilities with its tokens")
    scores = single.score([one.prompt_ids + one.token_ids])[0][len(one.prompt_ids) - 1 :]
    for position, token in enumerate(tokens):
        assert token.logprob is not None, f"token {position} has no logprob, others of its sequence have one."
        agree(subject, token.logprob, float(scores[position]), f"the logprob of token {position}", "score()")


def agree(subject: Subject, mine: float, other: float, what: str, reference: str) -> None:
    """Hold a log-probability to that of another way, and measure how far they are apart."""
    __tracebackhide__ = True
    difference, stated = abs(mine - other), subject.scores.stated
    subject.scores.see(difference)
    assert difference <= stated, (
        f"{what} is {mine:.5f}, and by {reference} it is {other:.5f}: {difference:.2g} nats apart, {stated:g} may be. "
        "Look for a shift by one, another base than e, or a temperature; if it is rounding, state --codellm-tolerance."
    )


def test_a_scored_batch_equals_singles(subject: Subject, model: Model) -> None:
    """An entry's scores do not depend on what is scored beside it."""
    batch = texts(model)
    for ids, found in zip(batch, model.score(batch), strict=True):
        lone = model.score([ids])[0]
        difference = float(np.abs(found - lone).max(initial=0.0))
        assert difference <= subject.scores.stated, (
            f"{len(ids)} ids scored beside others differ by {difference:.2g} nats from those scored alone: look at "
            "padding and masks."
        )


def test_a_text_over_the_context_is_refused(single: Model) -> None:
    """`score` of more ids than the context holds raises ContextLengthError; core splits texts by it."""
    limit = single.info.context_length
    error = error_of(lambda: single.score([(texts(single)[0] * limit)[: limit + 1]]))
    assert isinstance(error, ContextLengthError), (
        f"score() of {limit + 1} ids in a context of {limit} gave {told(error)}, not a ContextLengthError."
    )


@pytest.mark.parametrize("use", ["score", "logits"])
def test_an_id_that_is_no_token_is_our_error(single: Model, use: str) -> None:
    """An id that is no token raises a CodellmError, or is computed as something finite; nothing else comes out."""
    for wrong in (single.tokenizer.vocab_size + 5, -1):
        ids = [*texts(single)[0], wrong]
        try:
            found = single.score([ids]) if use == "score" else [single.logits(ids)]
        except CodellmError:
            continue
        except Exception as error:
            raise AssertionError(f"{use}() with the id {wrong} raised {told(error)}, not a CodellmError.") from error
        assert all(np.isfinite(row).all() for row in found), f"{use}() with the id {wrong} gave NaN or infinity."


def test_logits_of_nothing_are_refused(single: Model) -> None:
    """`logits` of no ids raises a CodellmError: there is nothing to continue."""
    error = error_of(lambda: single.logits([]))
    assert isinstance(error, CodellmError), f"logits([]) gave {told(error)}, not a CodellmError (InvalidValueError)."
