"""Backends that break how sequences share places."""

from __future__ import annotations

from collections import Counter

from codellm.errors import BackendError
from codellm.places import Places
from support.broken.fault import fails
from support.sound_backend import SoundModel


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
