"""Backends that break how sequences share slots."""

from __future__ import annotations

from collections import Counter

from codellm.errors import BackendError
from codellm.slots import Slots
from support.broken.fault import fails
from support.sound_backend import SoundModel


@fails("in a batch and", "test_a_batch_equals_singles", "test_hundreds_of_sequences_refill_the_slots")
@fails("in a batch and", "test_a_faulty_sequence_leaves_its_neighbours", "test_stop_strings_end_sequences_of_a_batch")
class MixesRows(SoundModel):
    """Rows of a batch see each other, as with a wrong mask."""

    def compute(self, rows):
        logits = super().compute(rows)
        return logits + (0.05 * logits.mean(0) if len(rows) > 1 else 0)


@fails("of 300 got 0 of", "test_hundreds_of_sequences_refill_the_slots")
class RunsOutOfIds(SoundModel):
    """Numbers its sequences in a byte."""

    def begin(self, one, states):
        if len(states) > 256:
            one.error = BackendError("no more ids")
        else:
            super().begin(one, states)


@fails("taken and unfinished at once", "test_no_more_are_taken_than_there_are_slots")
@fails("asked its live iterable 1000 times", "test_a_live_iterable_may_have_nothing_now")
@fails("asked its live iterable 1000 times", "test_a_newcomer_joins_those_that_run")
class ReadsItAll(SoundModel):
    """Makes a list of what it is given."""

    def slots(self, sequences):
        return super().slots(list(sequences))


class WaitingSlots(Slots):
    def refill(self):
        self._running = [one for one in self._running if not one.finished and one.error is None]
        return super().refill() if not self._running else list(self._running)


@fails("a slot stayed free for", "test_a_free_slot_is_taken_at_once")
@fails("came after the other's end", "test_a_newcomer_joins_those_that_run")
class WaitsForAll(SoundModel):
    """Static batches: takes new sequences when all slots are free."""

    def slots(self, sequences):
        return WaitingSlots(sequences, self.info.batch_size)


@fails("None is not the end", "test_a_live_iterable_may_have_nothing_now")
@fails("the newcomer got 0 of 3", "test_a_newcomer_joins_those_that_run")
class NoneIsTheEnd(SoundModel):
    """Stops reading at None."""

    def slots(self, sequences):
        return super().slots(iter(iter(sequences).__next__, None))


@fails("yields brought tokens of the sequence", "test_a_finished_sequence_is_let_go")
class LetsGoLate(SoundModel):
    """Computes a finished sequence for five steps more."""

    def step(self, running, states):
        self.late = getattr(self, "late", Counter())
        late = [one for one in states if one.finished and self.late[one] < 5]
        self.late.update(late)
        return super().step(running + late, states)


@fails("for the fault of one sequence, which ends all of them", "test_a_faulty_sequence_leaves_its_neighbours")
class OneFaultEndsAll(SoundModel):
    """Lets the error of one prompt out of `run`."""

    def begin(self, one, states):
        super().begin(one, states)
        if one.error is not None:
            raise IndexError("index out of range")


@fails("run() changed index of a sequence", "test_sequences_are_left_as_they_are")
@fails("alone", "test_a_batch_equals_singles[sampled]")
class WritesOnSequences(SoundModel):
    """Keeps the number of the slot on the sequence."""

    def begin(self, one, states):
        super().begin(one, states)
        one.index = len(states)
