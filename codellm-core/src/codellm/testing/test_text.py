"""Text: streaming equals not streaming, and characters that span tokens stay whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

import pytest

from codellm.model import Model
from codellm.sampling import SamplingParams
from codellm.sequence import Sequence, Token
from codellm.testing.running import PROMPTS, TEXTS, sequence, steps

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Replay(Model):
    """Says what it is told to, with the tokenizer of the backend: what any model could say, it must be able to show."""

    def __init__(self, like: Model, text: str) -> None:
        self.info = like.info
        self.tokenizer = like.tokenizer
        self.ids = like.tokenizer.encode(text)

    def say(self, stop: tuple[str, ...] = ()) -> list[str]:
        """The pieces of its text."""
        return list(self.stream([0], SamplingParams(max_tokens=len(self.ids), ignore_eos=True, stop=stop)))

    def run(self, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
        for one in sequences:
            if one is not None:
                yield from ([Token(id, one)] for id in self.ids)

    def score(self, batch: Seq[Seq[int]]) -> list[npt.NDArray[np.float32]]:
        raise NotImplementedError

    def logits(self, ids: Seq[int]) -> npt.NDArray[np.float32]:
        raise NotImplementedError


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_a_stream_is_the_result_in_pieces(single: Model, temperature: float) -> None:
    """`stream` gives the same text and the same tokens as `generate`, piece by piece."""
    params = SamplingParams(temperature=temperature, seed=1, max_tokens=24)
    for prompt in PROMPTS:
        stream = single.stream(prompt, params)
        text, result = "".join(stream), single.generate(prompt, params)
        assert text == result.text, (
            f"streaming {prompt!r} gave {text!r}, generating it {result.text!r}. Both are built on run(): do not "
            "override them, and keep nothing from one run to the next that changes what comes."
        )
        streamed = stream.result.token_ids if stream.result else ()
        assert streamed == result.token_ids, f"streaming gave the tokens {streamed}, generating {result.token_ids}."


def test_tokens_come_as_they_are_computed(single: Model) -> None:
    """Each step of `run` yields its tokens; a user who streams does not wait for the last one."""
    one = sequence(single, PROMPTS[0], max_tokens=32)
    sizes = []
    for tokens in steps(single, [one]):
        sizes.append(len(tokens))
        one.token_ids += [token.id for token in tokens]
        one.finished = len(one.token_ids) >= 32
    assert max(sizes, default=0) < 32, "run() yielded all 32 tokens at once; yield after every step."


def test_characters_across_tokens_stay_whole(single: Model) -> None:
    """A character whose bytes span several tokens is streamed once it is whole: `token_bytes` gives raw bytes."""
    for text in TEXTS:
        pieces = Replay(single, text).say()
        assert "".join(pieces) == text, (
            f"the tokens of {text!r} were streamed as {pieces}. token_bytes(id) must give the token's raw bytes, also "
            "a part of a character; decoding single tokens to str and back loses them."
        )


@pytest.mark.parametrize(
    ("text", "stop", "left"),
    [("naïve 🙂 été", "🙂", "naïve "), ("naïve 🙂 été", "é", "naïve 🙂 "), ("a = 'ß→日本'", "→日", "a = 'ß")],
    ids=["emoji", "accent", "several"],
)
def test_a_stop_string_may_be_any_unicode(single: Model, text: str, stop: str, left: str) -> None:
    """A stop string of any characters ends the text before it, however the tokens cut their bytes."""
    said = "".join(Replay(single, text).say((stop,)))
    assert said == left, (
        f"the tokens of {text!r} with the stop string {stop!r} gave {said!r}, not {left!r}: look at token_bytes."
    )
