"""Requests whose tokens are counted: a rate told from another count than the one asked for would be a lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from codellm.errors import BackendError
from codellm.sampling import SamplingParams

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.result import Result


def request(model: Model, prompt: list[int], new_tokens: int) -> Result:
    """Generate exactly `new_tokens` greedily.

    Raises:
        BackendError: the model gave another count of tokens than asked, or tokens that are none.
    """
    return _counted(model, model.generate(prompt, _params(new_tokens)), new_tokens)


def requests(model: Model, prompts: Sequence[list[int]], new_tokens: int) -> list[Result]:
    """Generate exactly `new_tokens` greedily from each of `prompts`, all together.

    Raises:
        BackendError: see `request`.
    """
    results = model.generate_batch(prompts, _params(new_tokens))
    return [_counted(model, result, new_tokens) for result in results]


def _params(new_tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=new_tokens, ignore_eos=True)


def _counted(model: Model, result: Result, new_tokens: int) -> Result:
    if result.error is not None:
        raise result.error
    got = len(result.token_ids)
    if got != new_tokens or result.finish_reason != "length":
        raise BackendError(
            f"{model.info.backend} was asked for {new_tokens} tokens and gave {got} (finish reason "
            f"{result.finish_reason!r}); a rate from that would mean nothing"
        )
    wrong = next((id for id in result.token_ids if not 0 <= id < model.tokenizer.vocab_size), None)
    if wrong is not None:
        raise BackendError(f"{model.info.backend} gave token {wrong}, which is not in the vocabulary")
    return result
