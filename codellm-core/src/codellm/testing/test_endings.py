"""Endings: stop strings, end-of-text, max_tokens, the end of the context, and the shortest beginning."""

from __future__ import annotations

import pytest

from codellm.generation import endings
from codellm.model import Model
from codellm.result import Result
from codellm.sampling import SamplingParams
from codellm.testing.running import PROMPTS, result_of, sequence, told
from codellm.testing.subject import Subject

LENGTH = 40


def samples(single: Model) -> list[tuple[int, str, list[bytes]]]:
    """Seeds, with the text that the model gives by each when nothing ends it, and the bytes of its tokens."""
    found = []
    for seed in range(6):
        result = single.generate(PROMPTS[0], drawing(seed))
        pieces = [single.tokenizer.token_bytes(id) for id in result.token_ids]
        if "\ufffd" not in result.text:
            found.append((seed, result.text, pieces))
    if not found:
        pytest.skip("the model's own output holds broken characters only: no stop string can be chosen from it")
    return found


def drawing(seed: int, stop: tuple[str, ...] = ()) -> SamplingParams:
    """Parameters that bring varied text."""
    return SamplingParams(temperature=1.0, seed=seed, max_tokens=LENGTH, ignore_eos=True, stop=stop)


def ends_before(single: Model, seed: int, stop: tuple[str, ...], text: str) -> None:
    """See that `stop` leaves `text`."""
    __tracebackhide__ = True
    result = single.generate_batch([PROMPTS[0]], drawing(seed, stop))[0]
    assert (result.text, result.finish_reason) == (text, "stop"), (
        f"with the stop strings {stop} the text is {result.text!r} and the reason {result.finish_reason!r} "
        f"({told(result.error)}); it must be {text!r} and 'stop'. Core finds stop strings: ignore params.stop, and "
        "yield every token until `finished` is set."
    )


def test_a_stop_string_across_a_token_border_ends(single: Model) -> None:
    """A stop string that begins in one token and ends in the next ends the text before it."""
    for seed, text, pieces in samples(single):
        left = b""
        for piece in pieces[:-1]:
            left += piece
            before = left.decode(errors="replace")
            stop = text[len(before) - 2 : len(before) + 2]
            if piece and len(stop) == 4 and text.find(stop) == len(before) - 2:
                ends_before(single, seed, (stop,), before[:-2])
                return
    pytest.skip("no place in the model's own output tells one token's end from the rest")


def test_a_stop_string_at_the_start_ends(single: Model) -> None:
    """A stop string right at the start leaves an empty text."""
    seed, text, _ = samples(single)[0]
    ends_before(single, seed, (text[:2],), "")


def test_the_stop_string_that_ends_first_wins(single: Model) -> None:
    """Of stop strings that overlap the one that ends first cuts the text; of those that end together, the longest."""
    for seed, text, _ in samples(single):
        for start in range(len(text) - 4):
            outer, inner, tail = (
                text[start : start + 4],
                text[start + 1 : start + 3],
                text[start + 1 : start + 4],
            )
            if (text.find(outer), text.find(inner), text.find(tail)) == (start, start + 1, start + 1):
                ends_before(single, seed, (outer, inner), text[: start + 1])
                ends_before(single, seed, (tail, outer), text[:start])
                return
    pytest.skip("the model's own output repeats itself: no two stop strings overlap in it")


def test_stop_strings_end_sequences_of_a_batch(subject: Subject, model: Model, single: Model) -> None:
    """A stop string ends each sequence of a batch where it ends it alone, and the others go on."""
    seed, text, _ = samples(single)[0]
    params = drawing(seed, (text[len(text) // 2 :][:2],))
    results = model.generate_batch(PROMPTS, params)
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.error is None, f"{prompt!r} with the stop string {params.stop} failed: {told(result.error)}."
        whole = single.tokenizer.decode(result.token_ids)
        assert (result.finish_reason == "stop") == (params.stop[0] in whole), (
            f"{prompt!r} ended by {result.finish_reason!r}; its tokens say {whole!r}, the stop is {params.stop[0]!r}."
        )
        if not subject.tolerance:
            lone = single.generate(prompt, params)
            assert result.text == lone.text, f"{prompt!r} gave {result.text!r} in a batch and {lone.text!r} alone."


@pytest.mark.parametrize("count", [1, 2, 7])
def test_max_tokens_ends(single: Model, count: int) -> None:
    """`max_tokens` gives exactly so many tokens, and the reason "length"."""
    result = single.generate_batch([PROMPTS[0]], SamplingParams(max_tokens=count, ignore_eos=True))[0]
    assert (len(result.token_ids), result.finish_reason) == (count, "length"), (
        f"max_tokens={count} gave {len(result.token_ids)} tokens and {result.finish_reason!r} ({told(result.error)}). "
        "Core counts: yield tokens until `finished` is set, and one for each step, the first after the prompt."
    )


def end_of_text(single: Model, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Result]:
    """An index of a sampled sequence that ends by end-of-text, and its result."""
    for index in range(32):
        result = result_of(single, sequence(single, PROMPTS[0], index, **SAMPLED, ignore_eos=False))
        assert result.error is None, (
            f"a sampled sequence failed with {told(result.error)} after {result.token_ids[-5:]}: yield the end-of-text "
            "token as any other and go on until core sets `finished`."
        )
        if result.finish_reason == "eos":
            return index, result
    output = result_of(single, sequence(single, PROMPTS[0], 0, **SAMPLED)).token_ids
    last = max(output.index(id) for id in output)
    try:
        monkeypatch.setattr(single.tokenizer, "eos", output[last])
    except AttributeError:
        pytest.skip("none of 32 samples ended by end-of-text, and the tokenizer's eos cannot be set")
    return 0, result_of(single, sequence(single, PROMPTS[0], 0, **SAMPLED, ignore_eos=False))


SAMPLED = {"temperature": 1.0, "seed": 2, "max_tokens": 32}


def test_end_of_text_ends(single: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end-of-text token ends a sequence by its id: it is the last of the tokens and has no text."""
    _, result = end_of_text(single, monkeypatch)
    tokenizer = single.tokenizer
    ends = endings(tokenizer)
    assert result.finish_reason == "eos", (
        f"no sequence ended by end-of-text, not even where token {tokenizer.eos} stood for it: {result.token_ids}."
    )
    assert result.token_ids[-1] in ends, f"the last token is {result.token_ids[-1]}, none of {ends}."
    assert result.text == tokenizer.decode(result.token_ids[:-1]), (
        f"the text is {result.text!r}: it shows more than the tokens before the end-of-text."
    )


def test_ignore_eos_goes_on(single: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `ignore_eos` the same seed gives the same tokens, end-of-text included, and goes on to max_tokens."""
    index, ended = end_of_text(single, monkeypatch)
    result = result_of(single, sequence(single, PROMPTS[0], index, **SAMPLED))
    count = len(ended.token_ids)
    assert (len(result.token_ids), result.finish_reason) == (SAMPLED["max_tokens"], "length"), (
        f"ignore_eos gave {len(result.token_ids)} of {SAMPLED['max_tokens']} tokens and {result.finish_reason!r} "
        f"({told(result.error)}). Leave end-of-text to core: yield it as any other token, and go on."
    )
    assert result.token_ids[:count] == ended.token_ids, (
        f"up to the end-of-text the tokens were {ended.token_ids}, with ignore_eos {result.token_ids[:count]}: it "
        "must not change what is drawn."
    )


def test_the_end_of_the_context_ends(single: Model) -> None:
    """A prompt of three tokens less than the context gives three tokens, and the reason "length"."""
    limit = single.info.context_length
    ids = (single.tokenizer.encode("x = 1\n") * limit)[: limit - 3]
    result = single.generate_batch([ids], SamplingParams(max_tokens=10, ignore_eos=True))[0]
    assert (len(result.token_ids), result.finish_reason) == (3, "length"), (
        f"{len(ids)} prompt tokens in a context of {limit} gave {len(result.token_ids)} tokens and "
        f"{result.finish_reason!r} ({told(result.error)}). Core ends a sequence where prompt and output fill "
        "info.context_length: the model must hold exactly that many."
    )


def test_an_empty_prompt_runs(single: Model) -> None:
    """An empty prompt is one token, BOS or end-of-text, and generates as any other."""
    if not single.tokenizer.prompt_ids(""):
        pytest.skip("the model has neither BOS nor end-of-text to begin with")
    result = single.generate_batch([""], SamplingParams(max_tokens=4, ignore_eos=True))[0]
    assert len(result.token_ids) == 4, (
        f"an empty prompt gave {len(result.token_ids)} of 4 tokens, and {told(result.error)}: look at prompts of one "
        "token."
    )
