"""Backends that each break one contract, with the checks of the conformance kit that must fail them, and for what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import ClassVar

import attrs
import numpy as np

from codellm import hookimpl
from codellm.errors import BackendError, InvalidValueError
from codellm.fim import FimIds
from codellm.model import Memory
from codellm.places import Places
from codellm.sampler import Sampler
from codellm.scheme import Scheme
from codellm.sequence import Token
from codellm.tokenizer import Tokenizer
from support.sound_backend import EOS, SPECIAL, VOCABULARY, SoundBackend, SoundModel, SoundTokenizer

BROKEN: dict[str, SoundBackend] = {}
"""The broken backends by name."""
FAILS: dict[str, dict[str, str]] = {}
"""By backend: the checks that it must fail (a name without its parameter stands for all of them), and why."""

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
    "test_hundreds_of_sequences_refill_the_places",
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
        name = re.sub("(?<!^)(?=[A-Z])", "-", broken.__name__).lower()
        FAILS.setdefault(name, {}).update(dict.fromkeys(checks, reason))
        BROKEN[name] = backend_of(name, broken)
        return broken

    return register


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


@hookimpl
def codellm_backends() -> list[SoundBackend]:
    return [SoundBackend(), *BROKEN.values()]


# --- batching ---------------------------------------------------------------------------------------------------------


@fails("in a batch and", "test_a_batch_equals_singles", "test_hundreds_of_sequences_refill_the_places")
@fails("in a batch and", "test_a_faulty_sequence_leaves_its_neighbours", "test_stop_strings_end_sequences_of_a_batch")
class MixesRows(SoundModel):
    """Rows of a batch see each other, as with a wrong mask."""

    def compute(self, rows):
        logits = super().compute(rows)
        return logits + (0.05 * logits.mean(0) if len(rows) > 1 else 0)


@fails("of 300 got 0 of", "test_hundreds_of_sequences_refill_the_places")
class RunsOutOfIds(SoundModel):
    """Numbers its sequences in a byte."""

    def begin(self, one, slots):
        if len(slots) > 256:
            one.error = BackendError("no more ids")
        else:
            super().begin(one, slots)


@fails("taken and unfinished at once", "test_no_more_are_taken_than_there_are_places")
@fails("asked its live iterable 1000 times", "test_a_live_iterable_may_have_nothing_now")
@fails("asked its live iterable 1000 times", "test_a_newcomer_joins_those_that_run")
class ReadsItAll(SoundModel):
    """Makes a list of what it is given."""

    def places(self, sequences):
        return super().places(list(sequences))


class WaitingPlaces(Places):
    def refill(self):
        self._running = [one for one in self._running if not one.finished and one.error is None]
        return super().refill() if not self._running else list(self._running)


@fails("a place stayed free for", "test_a_free_place_is_taken_at_once")
@fails("came after the other's end", "test_a_newcomer_joins_those_that_run")
class WaitsForAll(SoundModel):
    """Static batches: takes new sequences when all places are free."""

    def places(self, sequences):
        return WaitingPlaces(sequences, self.info.batch_size)


@fails("None is not the end", "test_a_live_iterable_may_have_nothing_now")
@fails("the newcomer got 0 of 3", "test_a_newcomer_joins_those_that_run")
class NoneIsTheEnd(SoundModel):
    """Stops reading at None."""

    def places(self, sequences):
        return super().places(iter(iter(sequences).__next__, None))


@fails("yields brought tokens of the sequence", "test_a_finished_sequence_is_let_go")
class LetsGoLate(SoundModel):
    """Computes a finished sequence for five steps more."""

    def step(self, running, slots):
        self.late = getattr(self, "late", Counter())
        late = [one for one in slots if one.finished and self.late[one] < 5]
        self.late.update(late)
        return super().step(running + late, slots)


@fails("for the fault of one sequence, which ends all of them", "test_a_faulty_sequence_leaves_its_neighbours")
class OneFaultEndsAll(SoundModel):
    """Lets the error of one prompt out of `run`."""

    def begin(self, one, slots):
        super().begin(one, slots)
        if one.error is not None:
            raise IndexError("index out of range")


@fails("run() changed index of a sequence", "test_sequences_are_left_as_they_are")
@fails("alone", "test_a_batch_equals_singles[sampled]")
class WritesOnSequences(SoundModel):
    """Keeps the number of the place on the sequence."""

    def begin(self, one, slots):
        super().begin(one, slots)
        one.index = len(slots)


# --- endings ----------------------------------------------------------------------------------------------------------


class LeavingPlaces(Places):
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

    def places(self, sequences):
        self.left = set()
        return LeavingPlaces(sequences, self.info.batch_size, self.left)

    def step(self, running, slots):
        tokens = super().step(running, slots)
        self.left |= {token.sequence for token in tokens if self.leaves(token)}
        return [token for token in tokens if token.sequence not in self.left]


@fails("ignore params.stop", *STOPS)
@fails("ended its run before this sequence did", "test_stop_strings_end_sequences_of_a_batch")
class EndsAtStops(Leaves):
    """Looks for stop strings itself."""

    def leaves(self, token):
        text = self.tokenizer.decode([*token.sequence.token_ids, token.id])
        return any(stop in text for stop in token.sequence.params.stop)


@fails("Core counts", "test_max_tokens_ends")
@fails("alone", *AS_ALONE)
@fails("ended its run before this sequence did", *WHOLE, "test_a_stream_is_the_result_in_pieces")
@fails("ended its run before this sequence did", "test_an_empty_prompt_runs", "test_an_infill_prompt_runs")
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
class EndsAtEosAnyway(Leaves):
    """Does not know ignore_eos, where a sequence runs alone."""

    def leaves(self, token):
        return self.info.batch_size == 1 and token.id == EOS and token.sequence.params.ignore_eos


@fails("it must not change what is drawn", "test_ignore_eos_goes_on")
@fails("the greatest, that of 262", "test_greedy_is_the_argmax")
@fails("less likely than the likeliest", "test_the_narrowest_draw_is_the_likeliest")
@fails("below the greatest penalized logit", "test_a_repetition_is_penalized")
@fails("the logprob of token 0 is", "test_log_probabilities_agree_with_score")
class MasksEos(Sampler):
    """Makes end-of-text impossible where it is to be ignored."""

    def __call__(self, logits):
        if self._sequence.params.ignore_eos:
            logits = logits.copy()
            logits[EOS] = -50.0
        return super().__call__(logits)


@fails("the model must hold exactly that many", "test_the_end_of_the_context_ends")
class ContextOneShort(SoundModel):
    """Needs one place of the context for itself."""

    def step(self, running, slots):
        for one in running:
            if len(one.prompt_ids) + len(one.token_ids) >= self.info.context_length - 1:
                one.error = BackendError("the context is full")
        return super().step([one for one in running if one.error is None], slots)


@fails("look at prompts of one token", "test_an_empty_prompt_runs")
class EndsAtOnce(SoundModel):
    """Takes an end-of-text token in the prompt for the end."""

    def begin(self, one, slots):
        super().begin(one, slots)
        if one.prompt_ids[-1:] == [EOS]:
            one.error = BackendError("the text has ended")


class NeverEnds(SoundModel):
    """Goes on when all is done, so that it fails whatever runs it."""

    def steps(self, sequences):
        yield from super().steps(sequences)
        while True:
            yield []


BROKEN["never-ends"] = backend_of("never-ends", NeverEnds)


# --- lifetime ---------------------------------------------------------------------------------------------------------


@fails("beside a run gave", "test_a_second_use_is_refused")
@fails("of a closed model gave", "test_a_closed_model_says_so[run]")
class RunsTwice(SoundModel):
    """Does not hold the model while it runs."""

    def run(self, sequences):
        yield from self.steps(sequences)


@fails("frees it however the run ends", "test_a_stream_left_frees_the_model")
@fails("frees it however the run ends", "test_an_iterable_that_raises_frees_the_model")
class KeepsTheModel(SoundModel):
    """Frees the model at the end of a run, and only there."""

    claims: ClassVar = []

    def run(self, sequences):
        self.claims.append(self.claim())
        self.claims[-1].__enter__()
        yield from self.steps(sequences)
        self.claims[-1].__exit__(None, None, None)


@fails("came out of run() as no error", "test_an_iterable_that_raises_frees_the_model")
class SwallowsErrors(SoundModel):
    """Ends its run quietly at any error."""

    def steps(self, sequences):
        try:
            yield from super().steps(sequences)
        except Exception:
            return


@fails("the second close() raised RuntimeError", "test_close_may_be_called_twice")
class ClosesOnce(SoundModel):
    """Raises when it is closed again."""

    def close(self):
        if self._closed:
            raise RuntimeError("already closed")
        super().close()


@fails("of a closed model gave", "test_a_closed_model_says_so")
class StaysOpen(SoundModel):
    """Frees its table and does not say that it is closed."""

    def close(self):
        self.table = None


@fails("exceed their peak", "test_memory_is_counted")
class HasNoPeak(SoundModel):
    """Counts no peak."""

    def memory(self):
        return Memory(host=self.table.nbytes, host_peak=0)


@fails("left", "test_memory_returns_after_close")
class Leaks(SoundModel):
    """Keeps what it closes."""

    kept: ClassVar = []

    def close(self):
        self.kept.append(self.table)
        super().close()


@fails("bytes of device memory were in use at the first load", "test_memory_returns_after_close")
class LeaksOnTheDevice(SoundModel):
    """Takes device memory for each load."""

    loads: ClassVar = Counter()

    def __init__(self, backend, spec):
        super().__init__(backend, spec)
        self.loads[backend] += 1

    def memory(self):
        taken = self.loads[self.info.backend] * self.table.nbytes
        return attrs.evolve(super().memory(), device=taken, device_peak=taken)


# --- loading ----------------------------------------------------------------------------------------------------------


@fails("schemes() returned a list", "test_the_backend_describes_itself")
class ListsItsSchemes(SoundBackend):
    """Gives a list where a tuple is due."""

    def schemes(self):
        return [Scheme(name="int3", bits=3, applies="load")]


@fails("and the backend's name 'names-another'", "test_the_model_says_what_was_loaded")
class NamesAnother(SoundModel):
    """Says the library's name for the backend's."""

    def __init__(self, backend, spec):
        super().__init__("table", spec)


@fails("and 512 was asked for", "test_the_context_is_not_longer_than_asked")
class TakesTheWholeContext(SoundModel):
    """Ignores the context length that was asked for."""

    def __init__(self, backend, spec):
        super().__init__(backend, attrs.evolve(spec, context_length=None))


@fails("load() with the option no-such-option=1 gave no error", "test_an_unknown_option_is_refused")
class TakesAnyOption(SoundBackend):
    """Ignores options."""

    def load(self, spec, source):
        return super().load(attrs.evolve(spec, options={}), source)


@fails("load() with a wrong file raised FileNotFoundError", "test_load_raises_only_our_errors[file]")
@fails("load() with a wrong device raised KeyError", "test_load_raises_only_our_errors[device]")
@fails("load() with a wrong attention raised", "test_load_raises_only_our_errors[attention]")
class RaisesWhatComes(SoundBackend):
    """Lets the errors of its library out."""

    def load(self, spec, source):
        next(source.path.iterdir())
        {"auto": 0, "cpu": 1}[spec.device]
        if spec.attn_implementation:
            raise NotImplementedError(spec.attn_implementation)
        return super().load(spec, source)


# --- sampling ---------------------------------------------------------------------------------------------------------


class Misreads(Sampler):
    """Draws by other parameters than those it was given."""

    def misread(self, params):
        raise NotImplementedError

    def __call__(self, logits):
        real = self._sequence
        self._sequence = attrs.evolve(real, params=self.misread(real.params))
        token = super().__call__(logits)
        self._sequence = real
        return Token(token.id, real, token.logprob)


@fails("Temperature 0 is the exact argmax", "test_greedy_is_the_argmax")
@fails("share the greatest logit", "test_ties_go_to_the_lowest_id")
@fails("below the greatest penalized logit", "test_a_repetition_is_penalized")
@fails("in a batch and", "test_hundreds_of_sequences_refill_the_places")
class GreedyIsWarm(Misreads):
    """Draws at a low temperature where 0 was asked for."""

    def misread(self, params):
        return attrs.evolve(params, temperature=params.temperature or 0.2)


@fails("share the greatest logit", "test_ties_go_to_the_lowest_id")
class LastOfTies(Sampler):
    """Takes the last of several greatest logits."""

    def __call__(self, logits):
        token = super().__call__(logits)
        if self._sequence.params.temperature or self._sequence.params.repetition_penalty != 1:
            return token
        return Token(int(np.flatnonzero(logits == logits.max())[-1]), self._sequence, token.logprob)


@fails("Seed each sequence's generator from (seed, index)", "test_a_seed_repeats")
@fails("alone", "test_a_batch_equals_singles[sampled]", "test_stop_strings_end_sequences_of_a_batch")
@fails("with the stop strings", *STOPS)
@fails("it must not change what is drawn", "test_ignore_eos_goes_on")
@fails("Both are built on run()", "test_a_stream_is_the_result_in_pieces[sampled]")
class HasNoSeed(Sampler):
    """Draws from a generator of its own."""

    def __init__(self, sequence):
        super().__init__(sequence)
        self._rng = np.random.default_rng()


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
class HasNoTopK(Misreads):
    """Does not know top_k."""

    def misread(self, params):
        return attrs.evolve(params, top_k=0)


@fails("top_p is not honoured", "test_the_narrowest_draw_is_the_likeliest[top_p]")
class HasNoTopP(Misreads):
    """Does not know top_p."""

    def misread(self, params):
        return attrs.evolve(params, top_p=1.0)


@fails("min_p is not honoured", "test_the_narrowest_draw_is_the_likeliest[min_p]")
class HasNoMinP(Misreads):
    """Does not know min_p."""

    def misread(self, params):
        return attrs.evolve(params, min_p=0.0)


@fails("below the greatest penalized logit", "test_a_repetition_is_penalized")
class HasNoPenalty(Misreads):
    """Does not know repetition_penalty."""

    def misread(self, params):
        return attrs.evolve(params, repetition_penalty=1.0)


@fails("Draw from softmax(logits / temperature)", "test_draws_follow_the_logits")
class HasOneTemperature(Misreads):
    """Draws at 1 whatever the temperature."""

    def misread(self, params):
        return attrs.evolve(params, temperature=min(1.0, params.temperature * 1e6))


# --- scoring ----------------------------------------------------------------------------------------------------------


@fails("cut the padding rows", "test_logits_cover_the_vocabulary")
class PadsTheVocabulary(SoundModel):
    """Gives the logits of the padded output matrix."""

    def logits(self, ids):
        return np.append(super().logits(ids), np.full(16, -1e4, np.float32))


@fails("returned float64", "test_scores_have_their_shape")
class ScoresInDouble(SoundModel):
    """Gives scores in another type."""

    def score_one(self, ids):
        return super().score_one(ids).astype(np.float64)


@fails("Look for a shift by one", "test_scores_agree_with_logits", "test_log_probabilities_agree_with_score")
class ScoresOffByOne(SoundModel):
    """Gives each token the score of the one before."""

    def score_one(self, ids):
        return np.roll(super().score_one(ids), 1)


@fails("the logprob of token 0 is", "test_log_probabilities_agree_with_score")
class WarmProbabilities(Sampler):
    """Gives log-probabilities at the temperature of the draw."""

    def __call__(self, logits):
        token = super().__call__(logits)
        scores = logits / (self._sequence.params.temperature or 1.0)
        return Token(token.id, self._sequence, float(scores[token.id] - np.log(np.exp(scores).sum())))


@fails("look at padding and masks", "test_a_scored_batch_equals_singles")
class ScoresPadding(SoundModel):
    """Counts padding as context of the shorter entries."""

    def score(self, batch):
        longest = max(map(len, batch))
        return [scores - 0.1 * (len(scores) + 1 < longest) for scores in super().score(batch)]


@fails("not a ContextLengthError", "test_a_text_over_the_context_is_refused")
class ScoresAnyLength(SoundModel):
    """Does not look at the context."""

    def fitting(self, ids):
        return self.checked(ids)


@fails("raised IndexError", "test_an_id_that_is_no_token_is_our_error")
class RaisesIndexErrors(SoundModel):
    """Lets numpy find ids that are no tokens."""

    def score_one(self, ids):
        return super().score_one(self.looked_up(ids))

    def logits(self, ids):
        return super().logits(self.looked_up(ids))

    def looked_up(self, ids):
        if any(not 0 <= id < VOCABULARY for id in ids):
            raise IndexError("index out of range")
        return ids


@fails("logits([]) gave no error", "test_logits_of_nothing_are_refused")
class ContinuesNothing(SoundModel):
    """Gives logits after nothing."""

    def logits(self, ids):
        return super().logits(ids or [0])


# --- text and tokens --------------------------------------------------------------------------------------------------


@fails("Both are built on run()", "test_a_stream_is_the_result_in_pieces")
@fails("in a batch and", "test_stop_strings_end_sequences_of_a_batch")
class HasItsOwnGenerate(SoundModel):
    """Has a `generate` of its own, which tidies up."""

    def generate(self, prompt, params=None):
        result = super().generate(prompt, params)
        return attrs.evolve(result, text=result.text.upper())


@fails("yielded all 32 tokens at once", "test_tokens_come_as_they_are_computed")
class YieldsAtTheEnd(SoundModel):
    """Collects 32 tokens of a sequence that runs alone."""

    def step(self, running, slots):
        step = super().step
        alone = len(running) == 1 and running[0].params.repetition_penalty == 1
        return [token for _ in range(32 if alone else 1) for token in step(running, slots)]


@fails("decoding single tokens to str and back", "test_characters_across_tokens_stay_whole")
@fails("look at token_bytes", "test_a_stop_string_may_be_any_unicode")
@fails("came back as", "test_text_survives_encoding")
class DecodesSingleTokens(SoundTokenizer):
    """Makes text of each token by itself."""

    def token_bytes(self, id):
        return super().token_bytes(id).decode(errors="replace").encode()


@fails("came back as", "test_text_survives_encoding", "test_special_strings_in_text_stay_text")
@fails("were streamed as [' ', ", "test_characters_across_tokens_stay_whole")
@fails("look at token_bytes", "test_a_stop_string_may_be_any_unicode")
class AddsASpace(SoundTokenizer):
    """Begins every text with a space."""

    def encode(self, text, special=False):
        return super().encode(f" {text}", special)


@fails("holds the special token", "test_special_strings_in_text_stay_text")
@fails("came back as b'#  </s>  are text'", "test_text_survives_encoding")
@fails("were streamed as", "test_characters_across_tokens_stay_whole")
class ParsesSpecials(SoundTokenizer):
    """Takes special strings in a text for what they mean."""

    def encode(self, text, special=False):
        return super().encode(text, special=True)


@fails("or it shows in text", "test_every_id_has_bytes")
class ShowsEos(SoundTokenizer):
    """Has text for end-of-text."""

    def token_bytes(self, id):
        return b"<|endoftext|>" if id == EOS else super().token_bytes(id)


@fails("fim is None, but special_id knows", "test_fim_tokens_are_found")
class HidesFim(SoundTokenizer):
    """Does not look for its fill-in-the-middle tokens."""

    fim = None


@fails("are not distinct", "test_fim_tokens_are_found")
class MixesFim(SoundTokenizer):
    """Has one id for two of them."""

    fim = FimIds(prefix=SPECIAL["<fim_prefix>"], suffix=SPECIAL["<fim_prefix>"], middle=SPECIAL["<fim_middle>"])


@fails("of 8 tokens, and InvalidValueError", "test_an_infill_prompt_runs")
class RefusesSpecials(SoundModel):
    """Takes no special tokens in a prompt."""

    def begin(self, one, slots):
        super().begin(one, slots)
        if max(one.prompt_ids, default=0) > EOS:
            one.error = InvalidValueError("a special token in the prompt")
