"""Backends whose `score` and `logits` are not what they generate by."""

from __future__ import annotations

import attrs
import numpy as np

from codellm.sampler import Sampler, log_probabilities
from support.broken.fault import fails
from support.sound_backend import VOCABULARY, SoundModel


@fails("cut the padding rows", "test_logits_cover_the_vocabulary")
@fails("gave blocks that are", "test_distributions_agree_with_logits")
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


@fails("gave blocks that are", "test_distributions_agree_with_logits")
class DistributesEverything(SoundModel):
    """Gives the distributions of the positions before `start` too."""

    def distributions(self, ids, start=0):
        yield from super().distributions(ids)


@fails("the logprob of token 0 is", "test_log_probabilities_agree_with_score")
@fails("nats from what logits() gives", *(f"test_the_likeliest_are_told[{count}-hot]" for count in (0, 1, 5)))
class WarmProbabilities(Sampler):
    """Gives log-probabilities at the temperature of the draw."""

    def __call__(self, logits):
        token = super().__call__(logits)
        own, *others = log_probabilities(
            logits / (self._sequence.params.temperature or 1.0), [token.id, *(id for id, _ in token.top or ())]
        )
        top = token.top and tuple((id, logprob) for (id, _), logprob in zip(token.top, others, strict=True))
        return attrs.evolve(token, logprob=own, top=top)


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
