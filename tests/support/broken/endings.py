"""Backends that end sequences by themselves, or not at all."""

from __future__ import annotations

from codellm.errors import BackendError
from codellm.sampler import Sampler
from codellm.sequence import Token
from codellm.slots import Slots
from support.broken.fault import AS_ALONE, BROKEN, GREEDY, STOPS, WHOLE, backend_of, fails, mishandles
from support.sound_backend import EOS, SoundModel


class LeavingSlots(Slots):
    def __init__(self, sequences, count, left):
        super().__init__(sequences, count)
        self.left = left

    def refill(self):
        self._running = [one for one in self._running if one not in self.left]
        return super().refill()


class Leaves(SoundModel):
    """Ends sequences by itself, and withholds the token that ends them."""

    def leaves(self, token: Token) -> bool:
        raise NotImplementedError

    def slots(self, sequences):
        self.left = set()
        return LeavingSlots(sequences, self.info.batch_size, self.left)

    def step(self, running, states):
        tokens = super().step(running, states)
        self.left |= {token.sequence for token in tokens if self.leaves(token)}
        return [token for token in tokens if token.sequence not in self.left]


@fails("ignore params.stop", *STOPS)
@fails("ended its run before this sequence did", "test_stop_strings_end_sequences_of_a_batch")
@mishandles("stop")
class EndsAtStops(Leaves):
    """Looks for stop strings itself."""

    def leaves(self, token):
        text = self.tokenizer.decode([*token.sequence.token_ids, token.id])
        return any(stop in text for stop in token.sequence.params.stop)


@fails("Core counts", "test_max_tokens_ends")
@fails("alone", *AS_ALONE)
@fails("ended its run before this sequence did", *WHOLE, "test_a_stream_is_the_result_in_pieces")
@fails("ended its run before this sequence did", "test_an_empty_prompt_runs", "test_an_infill_prompt_runs")
@mishandles("max_tokens")
class OneTokenLess(Leaves):
    """Counts the token that the prompt brings as one of the prompt's, where a sequence runs alone."""

    def leaves(self, token):
        return self.info.batch_size == 1 and len(token.sequence.token_ids) + 1 >= token.sequence.params.max_tokens


@fails("yield the end-of-text token as any other", "test_end_of_text_ends", "test_ignore_eos_goes_on")
@fails("ended its run before this sequence did", "test_a_stream_is_the_result_in_pieces")
class SwallowsEos(Leaves):
    """Ends a sequence by end-of-text itself."""

    def leaves(self, token):
        return token.id == EOS and not token.sequence.params.ignore_eos


@fails("Leave end-of-text to core", "test_ignore_eos_goes_on")
@fails("alone", *AS_ALONE)
@fails("ended its run before this sequence did", *WHOLE)
@fails("gave no tokens at all", *GREEDY)
@mishandles("ignore_eos")
class EndsAtEosAnyway(Leaves):
    """Does not know ignore_eos, where a sequence runs alone."""

    def leaves(self, token):
        return self.info.batch_size == 1 and token.id == EOS and token.sequence.params.ignore_eos


@fails("it must not change what is drawn", "test_ignore_eos_goes_on")
@fails("the greatest, that of 262", "test_greedy_is_the_argmax")
@fails("less likely than the likeliest", "test_the_narrowest_draw_is_the_likeliest")
@fails("below the greatest penalized logit", "test_a_repetition_is_penalized")
@fails("the logprob of token 0 is", "test_log_probabilities_agree_with_score")
@fails("nats from what logits() gives", "test_the_likeliest_are_told")
class MasksEos(Sampler):
    """Makes end-of-text impossible where it is to be ignored."""

    def __call__(self, logits):
        if self._sequence.params.ignore_eos:
            logits = logits.copy()
            logits[EOS] = -50.0
        return super().__call__(logits)


@fails("the model must hold exactly that many", "test_the_end_of_the_context_ends")
class ContextOneShort(SoundModel):
    """Needs one position of the context for itself."""

    def step(self, running, states):
        for one in running:
            if len(one.prompt_ids) + len(one.token_ids) >= self.info.context_length - 1:
                one.error = BackendError("the context is full")
        return super().step([one for one in running if one.error is None], states)


@fails("look at prompts of one token", "test_an_empty_prompt_runs")
class EndsAtOnce(SoundModel):
    """Takes an end-of-text token in the prompt for the end."""

    def begin(self, one, states):
        super().begin(one, states)
        if one.prompt_ids[-1:] == [EOS]:
            one.error = BackendError("the text has ended")


class NeverEnds(SoundModel):
    """Goes on when all is done, so that it fails whatever runs it."""

    def steps(self, sequences):
        yield from super().steps(sequences)
        while True:
            yield []


BROKEN["never-ends"] = backend_of("never-ends", NeverEnds)
