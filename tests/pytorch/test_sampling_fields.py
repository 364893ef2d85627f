"""Every field of `SamplingParams` that says which token is drawn is read on the device too."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from codellm.sampling import SamplingParams
from codellm.torch.sampling import BatchSampler
from support.sampling_fields import DRAWN, hold_draws

LOGITS = np.log([0.1, 0.2, 0.3, 0.4]).astype(np.float32)
WHERE = "codellm-core/src/codellm/torch/sampling.py"


def choose(sequences):
    sampler, rows = BatchSampler(len(sequences), len(LOGITS), torch.device("cpu")), list(range(len(sequences)))
    for row, one in enumerate(sequences):
        sampler.seat(row, one)
    return sampler.choose(torch.from_numpy(LOGITS).repeat(len(rows), 1), rows)[0].tolist()


@pytest.mark.parametrize("name", DRAWN)
def test_the_sampler_of_the_device_reads_it(name):
    hold_draws(name, choose, LOGITS, [3], WHERE)


@pytest.mark.parametrize("name", DRAWN)
def test_a_field_that_it_does_not_read_is_told(name):
    default = attrs.fields_dict(SamplingParams)[name].default

    def deaf(sequences):
        return choose([attrs.evolve(one, params=attrs.evolve(one.params, **{name: default})) for one in sequences])

    with pytest.raises(AssertionError, match=rf"(?s){name}.*codellm/torch/sampling\.py"):
        hold_draws(name, deaf, LOGITS, [3], WHERE)
