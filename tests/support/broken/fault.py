"""How a broken backend is told: which checks of the conformance kit must fail it, and for what."""

from __future__ import annotations

import re
from collections.abc import Callable

from codellm.sampler import Sampler
from codellm.tokenizer import Tokenizer
from support.sound_backend import SoundBackend, SoundModel

BROKEN: dict[str, SoundBackend] = {}
"""The broken backends by name."""
FAILS: dict[str, dict[str, str]] = {}
"""By backend: the checks that it must fail (a name without its parameter stands for all of them), and why."""
MISHANDLES: dict[str, str] = {}
"""By field of `SamplingParams`: the backend that does otherwise than it says."""

STOPS = (
    "test_a_stop_string_across_a_token_border_ends",
    "test_a_stop_string_at_the_start_ends",
    "test_the_stop_string_that_ends_first_wins",
)
WHOLE = (
    *STOPS,
    "test_stop_strings_end_sequences_of_a_batch",
    "test_ignore_eos_goes_on",
    "test_a_seed_repeats",
    "test_seeds_differ",
)
"""The checks that need a whole output of one sequence."""
AS_ALONE = (
    "test_a_batch_equals_singles",
    "test_hundreds_of_sequences_refill_the_slots",
    "test_a_faulty_sequence_leaves_its_neighbours",
)
"""The checks that hold a batch to its sequences run alone."""
GREEDY = (
    "test_greedy_is_the_argmax",
    "test_ties_go_to_the_lowest_id",
    "test_the_narrowest_draw_is_the_likeliest",
    "test_a_repetition_is_penalized",
)
"""The checks that hold each token of an output to the logits."""


def fails(reason: str, *checks: str) -> Callable[[type], type]:
    """The class is a backend, or the model, tokenizer or sampler of one, that fails `checks` for `reason`."""

    def register(broken: type) -> type:
        name = name_of(broken)
        FAILS.setdefault(name, {}).update(dict.fromkeys(checks, reason))
        BROKEN[name] = backend_of(name, broken)
        return broken

    return register


def mishandles(field: str) -> Callable[[type], type]:
    """The class does otherwise than this field of `SamplingParams` says."""

    def register(broken: type) -> type:
        MISHANDLES[field] = name_of(broken)
        return broken

    return register


def name_of(broken: type) -> str:
    """The name of its backend."""
    return re.sub("(?<!^)(?=[A-Z])", "-", broken.__name__).lower()


def backend_of(name: str, broken: type) -> SoundBackend:
    """The sound backend with the one part that is broken."""
    if issubclass(broken, SoundBackend):
        return type("Broken", (broken,), {"name": name})()
    model = broken
    if issubclass(broken, Tokenizer):
        model = type("BrokenModel", (SoundModel,), {"tokenizer_type": broken})
    elif issubclass(broken, Sampler):
        model = type("BrokenModel", (SoundModel,), {"sampler_type": broken})
    return type("Broken", (SoundBackend,), {"name": name, "model": model})()
