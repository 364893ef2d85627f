"""Every field of `SamplingParams` that says which token is drawn does so on llama.cpp."""

from __future__ import annotations

import pytest

from support.sampling_fields import DRAWN, hold_draws

PROMPT = list(range(40, 240))
"""So much of the vocabulary that the likeliest next token is in it, and a penalty moves it."""


@pytest.mark.parametrize("name", DRAWN)
def test_llama_cpp_reads_it(load_tiny, name):
    model = load_tiny(batch_size=8)

    def choose(sequences):
        found = {}
        for tokens in model.run(sequences):
            for token in tokens:
                found[token.sequence] = token.id
                token.sequence.finished = True
        return [found[one] for one in sequences]

    where = "codellm-cpu/src/codellm_cpu/llama/schedule.py, which draws by codellm-core/src/codellm/sampler.py"
    hold_draws(name, choose, model.logits(PROMPT), PROMPT, where)
