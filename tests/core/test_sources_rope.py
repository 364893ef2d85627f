"""The rope that a config.json asks for: how far it reaches, what stands where, and what is no rope."""

from __future__ import annotations

import math

import numpy as np
import pytest

from codellm.errors import ModelFileError
from codellm.sources.architectures import ARCHITECTURES
from codellm.sources.rope import Rope, read_rope

KINDS = ("default", "linear", "llama3", "yarn", "dynamic")
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
QWEN = {
    "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 100,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32768, "rope_theta": 1000000.0,
}  # fmt: skip


def read(**fields):
    return read_rope({"rope_theta": 1000000.0, "max_position_embeddings": 32768} | fields, KINDS, "config.json")


@pytest.mark.parametrize(("scaling", "context"), [
    (YARN, 131072),
    ({"type": "yarn", "factor": 4.0}, 131072),  # of the model's own context
    (YARN | {"factor": 2.5}, 81920),
    (YARN | {"original_max_position_embeddings": 4096}, 32768),
    ({"type": "linear", "factor": 4.0}, 32768),  # which counts it already
    ({"type": "dynamic", "factor": 4.0}, 32768),  # past which it would be another rope for every length
    (LLAMA3 | {"original_max_position_embeddings": 8192}, 32768),
    (None, 32768),
])  # fmt: skip
def test_yarn_stretches_the_context_to_what_it_was_made_for(scaling, context):
    assert ARCHITECTURES["qwen2"].read(QWEN | {"rope_scaling": scaling}, "config.json").context_length == context


def test_fields_are_read_where_transformers_reads_them():
    assert read(rope_scaling=YARN, rope_parameters={"rope_type": "linear", "factor": 2.0}).rope_type == "yarn"
    assert read(rope_parameters=YARN | {"rope_theta": 500.0}).theta == 500.0
    assert read(rope_scaling=YARN, original_max_position_embeddings=4096).original_context_length == 4096
    assert read(rope_scaling=LLAMA3).original_context_length == 32768
    assert read(rope_scaling=YARN | {"beta_fast": None, "attention_factor": None}) == read(rope_scaling=YARN)
    assert read(rope_scaling={"type": "dynamic", "factor": 2.0}) == Rope(theta=1000000.0)


def test_yarn_grows_by_the_logarithm_of_the_stretch_unless_told_otherwise():
    grown = 0.1 * math.log(4) + 1
    assert read(rope_scaling=YARN).attention_factor == grown
    assert read(rope_scaling=YARN | {"attention_factor": 1.5}).attention_factor == 1.5
    assert read(rope_scaling=YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}).attention_factor == 1.0
    assert read(rope_scaling=YARN | {"factor": 0.5}).attention_factor == 1.0


def test_yarn_keeps_fast_frequencies_and_stretches_slow_ones():
    freq_factors = read(rope_scaling=YARN).freq_factors(128)
    assert freq_factors.dtype == np.float32
    assert (freq_factors[:20] == 1).all()
    assert (freq_factors[-20:] == 4).all()
    assert (np.diff(freq_factors) >= 0).all()


BROKEN = {
    "no factor": (YARN | {"factor": None}, "factor is None, not a positive number"),
    "factor of words": (YARN | {"factor": "4"}, "factor is '4'"),
    "context of nothing": (YARN | {"original_max_position_embeddings": 0}, "original_max_position_embeddings is 0"),
    "betas of nothing": (YARN | {"beta_fast": 0}, "beta_fast is 0"),
    "truncate": (YARN | {"truncate": 3}, "truncate is 3, neither true nor false"),
    "base of 1": (YARN | {"rope_theta": 1}, "rope_theta 1 is not above 1"),
    "scale of words": (YARN | {"mscale": "a", "mscale_all_dim": 1.0}, "mscale is 'a'"),
    "one for each kind of layer": (
        {"full_attention": YARN, "sliding_attention": {"rope_type": "default"}},
        "rope_parameters differ by layer \\('full_attention'\\), which is not supported",
    ),
    "kind": ({"rope_type": "longrope"}, "rope type 'longrope' is not supported; known: default, linear"),
    "a part of each head": (YARN | {"partial_rotary_factor": 0.5}, r"partial_rotary_factor 0\.5 is not supported"),
}


@pytest.mark.parametrize(("scaling", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_rope_is_refused_by_name(scaling, message):
    with pytest.raises(ModelFileError, match=rf"^config\.json: {message}"):
        read(rope_scaling=scaling)
