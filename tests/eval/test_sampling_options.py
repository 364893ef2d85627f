"""Every field of `SamplingParams` is an option of the benchmarks, or it is said here why it is none."""

from __future__ import annotations

import attrs
import pytest

from codellm.sampling import SamplingParams
from codellm_eval.commands.eval import humaneval, infilling

NOT_ASKED = {
    "top_k": "no published figure of HumanEval is drawn so",
    "min_p": "no published figure of HumanEval is drawn so",
    "repetition_penalty": "code repeats itself rightly",
    "stop": "the form of the benchmark says where a completion ends: --stops",
    "logprobs": "a verdict looks at the text; `eval perplexity` and `bench` tell of probabilities",
    "ignore_eos": "what follows the end of a text answers nothing",
}


@pytest.mark.parametrize("command", [humaneval, infilling])
@pytest.mark.parametrize("name", attrs.fields_dict(SamplingParams))
def test_a_field_is_an_option_or_it_is_said_why_not(command, name):
    known = {param.name for param in command.params}
    assert (name in known) != (name in NOT_ASKED), (
        f"{name}: make it an option in codellm_eval/commands/eval.py and name it in SAMPLED of humaneval_run.py, "
        "or say in NOT_ASKED why it is none"
    )
