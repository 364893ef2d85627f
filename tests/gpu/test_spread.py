"""Layers over several devices: how they are shared, and that everything is where it is computed. No GPU is needed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import NotEnoughMemoryError
from codellm.loading import find
from codellm.sources.architectures import ARCHITECTURES
from codellm.spec import LoadSpec
from codellm.torch.load import fitted, unfitted
from codellm.torch.spread import share, spread
from codellm.torch.transformers_load import device_map
from support.checkpoints import config_of

GPUS = [torch.device("cuda", number) for number in range(3)]
TESTS = Path(__file__).parents[1]


@given(
    layers=st.integers(1, 80),
    size=st.integers(1, 1000),
    rooms=st.lists(st.integers(-1000, 40_000), min_size=1, max_size=8),
)
def test_layers_are_shared_in_order_and_within_every_room(layers, size, rooms):
    counts = share(layers, size, rooms)
    most = [max(0, room) // size for room in rooms]
    assert (counts is None) is (rooms[0] < 0 or sum(most) < layers)
    if counts is not None:
        assert sum(counts) == layers
        used = max(place for place, count in enumerate(counts) if count)
        assert counts[:used] == most[:used]  # none is left out before the last
        assert counts[used] <= most[used]


def plan(model="dummy:starcoder2-3b", **fields):
    return unfitted(LoadSpec(model=model, dtype="bfloat16", **fields), find(model).fetch(), torch.device("cuda"))


@given(free=st.lists(st.integers(0, 12_000), min_size=2, max_size=3), batch=st.integers(1, 16))
def test_what_each_device_gets_is_no_more_than_it_has(free, batch):
    """By the check for one device: a plan of its layers alone fits there."""
    made, room = plan(batch_size=batch), {gpu: size << 20 for gpu, size in zip(GPUS, free, strict=False)}
    try:
        placed = spread(made, room, asked=False)
    except NotEnoughMemoryError:
        return
    assert len(placed.layer_devices) == 30
    assert placed.device == GPUS[0]
    assert 256 <= placed.context_length <= made.context_length
    layer = 3072 * (2 * 3072 + 2 * 256 + 2 * 12288) * 2
    ends = 49152 * 3072 * 2
    for gpu, size in room.items():
        cache = placed.cache_bytes(placed.context_length) // 30
        assert placed.layer_devices.count(gpu) * (layer + cache) + (ends if gpu == GPUS[0] else 0) <= size


def test_a_context_that_was_asked_for_is_kept_or_refused():
    room = dict.fromkeys(GPUS[:2], 5 << 30)
    short = spread(plan(batch_size=256), room, asked=False)
    assert short.context_length < 4096
    with pytest.raises(NotEnoughMemoryError, match=r"3b in bfloat16 needs .* GB of memory over 2 GPUs, for 256 x 4096"):
        spread(plan(batch_size=256, context_length=4096), room, asked=True)
    with pytest.raises(NotEnoughMemoryError, match=r"and 0\.0 are free on them"):
        spread(plan(), dict.fromkeys(GPUS[:2], 0), asked=False)


def test_one_device_that_holds_the_model_is_given_all_of_it():
    made = fitted(plan(), 16 << 30, None, asked=False)
    assert device_map(made) == {"": "cuda"}
    placed = spread(plan(), dict.fromkeys(GPUS, 16 << 30), asked=False)
    assert set(placed.layer_devices) == {GPUS[0]}
    assert placed.context_length == made.context_length


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_the_map_names_every_module_that_transformers_makes_once(model_type):
    with torch.device("meta"):
        config = transformers.AutoConfig.for_model(**config_of(model_type, 600, num_hidden_layers=30))
        model = transformers.AutoModelForCausalLM.from_config(config)
    places = device_map(spread(plan(), dict.fromkeys(GPUS, 4 << 30), asked=False))
    assert len(set(places.values())) > 1
    held = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    for name in held:
        assert sum(name.startswith(f"{place}.") for place in places) == 1, name


@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_no_step_mixes_two_devices(attention):
    done = subprocess.run(
        [sys.executable, "-m", "support.two_devices", attention],
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
