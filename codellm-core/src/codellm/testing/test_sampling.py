"""Sampling: greedy, seeds, and draws that follow the logits."""

from __future__ import annotations

from codellm.model import Model
from codellm.sampling import SamplingParams
from codellm.testing.running import PROMPTS


def test_a_seed_repeats(single: Model) -> None:
    """One seed gives the same output every time, whatever was generated in between."""
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=24, ignore_eos=True)
    first = single.generate(PROMPTS[0], params)
    single.generate(PROMPTS[1], params)
    again = single.generate(PROMPTS[0], params)
    assert again.token_ids == first.token_ids, (
        f"seed 3 gave {first.token_ids} first and {again.token_ids} later. Seed each sequence's generator from "
        "(seed, index), and keep no random state from one run to the next; codellm.Sampler does so."
    )
