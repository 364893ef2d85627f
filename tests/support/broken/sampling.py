"""Backends that draw otherwise than they were asked to."""

from __future__ import annotations

import itertools

import attrs
import numpy as np

from codellm.sampler import Sampler
from support.broken.fault import STOPS, fails, mishandles


class Misreads(Sampler):
    """Draws by other parameters than those it was given."""

    def misread(self, params):
        raise NotImplementedError

    def __call__(self, logits):
        real = self._sequence
        self._sequence = attrs.evolve(real, params=self.misread(real.params))
        token = super().__call__(logits)
        self._sequence = real
        return attrs.evolve(token, sequence=real)


@fails("Temperature 0 is the exact argmax", "test_greedy_is_the_argmax")
@fails("share the greatest logit", "test_ties_go_to_the_lowest_id")
@fails("below the greatest penalized logit", "test_a_repetition_is_penalized")
@fails("in a batch and", "test_hundreds_of_sequences_refill_the_slots")
@mishandles("temperature")
class GreedyIsWarm(Misreads):
    """Draws at a low temperature where 0 was asked for, and so the same in every test run: luck may hide it."""

    _count = itertools.count()

    def __init__(self, sequence):
        super().__init__(sequence)
        if sequence.params.seed is None:
            self._rng = np.random.default_rng(next(self._count))

    def misread(self, params):
        return attrs.evolve(params, temperature=params.temperature or 0.2)


@fails("share the greatest logit", "test_ties_go_to_the_lowest_id")
class LastOfTies(Sampler):
    """Takes the last of several greatest logits."""

    def __call__(self, logits):
        token = super().__call__(logits)
        if self._sequence.params.temperature or self._sequence.params.repetition_penalty != 1:
            return token
        return attrs.evolve(token, id=int(np.flatnonzero(logits == logits.max())[-1]))


@fails("Seed each sequence's generator from (seed, index)", "test_a_seed_repeats")
@fails("alone", "test_a_batch_equals_singles[sampled]", "test_stop_strings_end_sequences_of_a_batch")
@fails("with the stop strings", *STOPS)
@fails("it must not change what is drawn", "test_ignore_eos_goes_on")
@fails("Both are built on run()", "test_a_stream_is_the_result_in_pieces[sampled]")
@mishandles("seed")
class HasNoSeed(Sampler):
    """Draws from a generator of its own, another for each sequence, and the same ones in every test run."""

    _count = itertools.count()

    def __init__(self, sequence):
        super().__init__(sequence)
        self._rng = np.random.default_rng(next(self._count))


@fails("6 samples of one prompt at temperature 2 gave 1 different", "test_samples_of_one_seed_differ")
class ForgetsTheIndex(Sampler):
    """Seeds every sample alike."""

    def __init__(self, sequence):
        super().__init__(sequence)
        self._rng = np.random.default_rng(sequence.params.seed)


@fails("6 seeds at temperature 2 gave 1 different", "test_seeds_differ")
class HasOneSeed(Sampler):
    """Seeds by the index alone."""

    def __init__(self, sequence):
        super().__init__(sequence)
        self._rng = np.random.default_rng([7, sequence.index])


@fails("top_k is not honoured", "test_the_narrowest_draw_is_the_likeliest[top_k]")
@mishandles("top_k")
class HasNoTopK(Misreads):
    """Does not know top_k."""

    def misread(self, params):
        return attrs.evolve(params, top_k=0)


@fails("top_p is not honoured", "test_the_narrowest_draw_is_the_likeliest[top_p]")
@mishandles("top_p")
class HasNoTopP(Misreads):
    """Does not know top_p."""

    def misread(self, params):
        return attrs.evolve(params, top_p=1.0)


@fails("min_p is not honoured", "test_the_narrowest_draw_is_the_likeliest[min_p]")
@mishandles("min_p")
class HasNoMinP(Misreads):
    """Does not know min_p."""

    def misread(self, params):
        return attrs.evolve(params, min_p=0.0)


@fails("below the greatest penalized logit", "test_a_repetition_is_penalized")
@mishandles("repetition_penalty")
class HasNoPenalty(Misreads):
    """Does not know repetition_penalty."""

    def misread(self, params):
        return attrs.evolve(params, repetition_penalty=1.0)


@fails("of the likeliest tokens are told", "test_the_likeliest_are_told")
@fails("each asks for itself", "test_some_ask_and_some_do_not")
@mishandles("logprobs")
class TellsOneMore(Misreads):
    """Tells one of the likeliest more than asked for."""

    def misread(self, params):
        return params if params.logprobs is None else attrs.evolve(params, logprobs=params.logprobs + 1)


@fails("Draw from softmax(logits / temperature)", "test_draws_follow_the_logits")
class HasOneTemperature(Misreads):
    """Draws at 1 whatever the temperature."""

    def misread(self, params):
        return attrs.evolve(params, temperature=min(1.0, params.temperature * 1e6))
