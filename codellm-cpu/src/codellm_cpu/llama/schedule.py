"""Many sequences on one context: places refilled as sequences end, a shared prompt prefix computed once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from codellm.errors import BackendError, ContextLengthError, InvalidValueError
from codellm.sampler import Sampler
from codellm.sequence import Sequence, Token

if TYPE_CHECKING:
    import numpy.typing as npt

    from codellm_cpu.llama.library import NativeContext

_WORTH_SHARING = 32
"""Tokens from which on a common prefix of two different prompts is worth waiting for and copying."""

_NOTHING = np.zeros(0, np.int32)


class Place:
    """One of llama.cpp's sequence ids: who sits there, and which tokens its key-value cells hold.

    The cells outlive the sequence until the place is taken again, so that a later sequence finds its prefix there.
    """

    def __init__(self, id: int) -> None:
        self.id = id
        self.sequence: Sequence | None = None
        self.sampler: Sampler | None = None
        self.prompt: npt.NDArray[np.int32] = _NOTHING
        self.done = 0
        """Tokens computed: of the prompt first, then of the output."""
        self.next = -1
        """The sampled token to compute next; -1 while the prompt is not done."""
        self.leader: Place | None = None
        """Who is computing the prefix that this place waits for."""

    @property
    def reach(self) -> int:
        """Tokens of the prompt whose cells are there, or will be once its sequence has computed them."""
        return len(self.prompt) if self.sequence is not None else min(self.done, len(self.prompt))


class Scheduler:
    """Steps of one `run`: release finished places, fill free ones, compute one batch, sample.

    A batch holds one token of every sequence that generates, then as much of the waiting prompts as there is room for.
    """

    def __init__(self, context: NativeContext, sequences: Iterable[Sequence | None], vocab_size: int) -> None:
        self._context = context
        self._source = iter(sequences)
        self._exhausted = False
        self._vocab_size = vocab_size
        self._length = context.shape.context_length
        self._places = [Place(id) for id in range(context.shape.places)]

    def steps(self) -> Iterator[list[Token]]:
        """Each step's tokens; an empty list where a step only computed prompt, or only refused sequences."""
        while True:
            self._release()
            refused = self._admit()
            self._close_ranks()
            running = [place for place in self._places if place.sequence is not None]
            if running:
                yield self._step(running)
            elif refused:
                yield []
            elif self._exhausted:
                return

    def _release(self) -> None:
        for place in self._places:
            sequence = place.sequence
            if sequence is None:
                continue
            if not sequence.finished and sequence.error is None and place.next >= 0 and place.done >= self._length:
                sequence.error = ContextLengthError(f"the context of {self._length} tokens is full")
            if sequence.finished or sequence.error is not None:
                place.sequence = place.sampler = place.leader = None
        for place in self._places:
            if place.leader is not None and place.leader.sequence is None:
                self._find_prefix(place)

    def _admit(self) -> bool:
        """Seat new sequences while there is a free place; whether one was refused."""
        while not self._exhausted and any(place.sequence is None for place in self._places):
            try:
                sequence = next(self._source)
            except StopIteration:
                self._exhausted = True
                break
            if sequence is None:
                if all(place.sequence is None for place in self._places):
                    time.sleep(0.001)  # a live iterable should block here; do not burn a core where it does not
                break
            if sequence.finished:
                continue
            error = self._fault(sequence)
            if error is None:
                self._seat(sequence)
            else:
                sequence.error = error
                return True  # let core see it before its iterable is asked, and may block, again
        return False

    def _close_ranks(self) -> None:
        """Move sequences so that the ids of those that run follow each other.

        llama.cpp computes only sequences of consecutive ids together; at every gap it would read all weights again.
        """
        while True:
            running = [place for place in self._places if place.sequence is not None]
            if not running or running[-1].id - running[0].id < len(running):
                return
            last = running[-1]
            gap = next(place for place in self._places[running[0].id :] if place.sequence is None)
            if last.done:
                self._context.copy(last.id, gap.id, last.done)
            else:
                self._context.trim(gap.id, 0)
            self._context.trim(last.id, 0)
            last.id, gap.id, gap.done = gap.id, last.id, 0
            self._places.sort(key=lambda place: place.id)

    def _fault(self, sequence: Sequence) -> Exception | None:
        """What keeps `sequence`, and it alone, from being computed."""
        ids = sequence.prompt_ids
        if not ids:
            return InvalidValueError("a prompt must have at least one token")
        if len(ids) > self._length:
            return ContextLengthError(f"the prompt has {len(ids)} tokens, the context {self._length}")
        if not 0 <= min(ids) <= max(ids) < self._vocab_size:
            return InvalidValueError(f"a prompt id is outside the vocabulary of {self._vocab_size} tokens")
        return None

    def _seat(self, sequence: Sequence) -> None:
        prompt = np.array(sequence.prompt_ids, np.int32)
        free = [place for place in self._places if place.sequence is None]
        # the cells of a free place can be kept where they are; else take the first
        place = max(free, key=lambda place: self._shared(place, prompt))
        shared = min(self._shared(place, prompt), place.done, len(prompt) - 1)
        self._context.trim(place.id, shared)
        place.sequence, place.sampler = sequence, Sampler(sequence)
        place.prompt, place.done, place.next, place.leader = prompt, shared, -1, None
        self._find_prefix(place)

    def _find_prefix(self, place: Place) -> None:
        """Take over the longest prefix of the prompt that another place holds, or wait for one that computes it.

        The last token of a prompt is always computed, for its logits; only who waits for an equal prompt shares those.
        """
        place.leader = None
        best, shared = place, place.done
        for other in self._places:
            # of two that compute the same prompt, the earlier seated leads: never wait for one that waits itself
            if other is not place and other.leader is None:
                common = self._shared(other, place.prompt)
                if common > shared:
                    best, shared = other, common
        if best is place:
            return
        if best.sequence is not None and best.done < min(shared, len(place.prompt) - 1):
            place.leader = best
            return
        self._copy(best, place, min(shared, len(place.prompt) - 1))

    def _shared(self, place: Place, prompt: npt.NDArray[np.int32]) -> int:
        """Tokens of `prompt` that `place` holds or will hold; 0 where too few to be worth it."""
        length = min(place.reach, len(prompt))
        differ = place.prompt[:length] != prompt[:length]
        common = int(differ.argmax()) if differ.any() else length
        return common if common >= min(_WORTH_SHARING, len(prompt) - 1) else 0

    def _copy(self, source: Place, target: Place, length: int) -> None:
        if length > target.done:
            self._context.copy(source.id, target.id, length)
            target.done = length

    def _step(self, running: list[Place]) -> list[Token]:
        takes = self._share_out(running)
        rows, ends = self._fill(takes)
        logits = self._context.decode(rows)
        tokens: list[Token] = []
        for row, place in enumerate(ends):
            self._sample(place, logits[row], tokens)
            for follower in running:
                if follower.leader is place:
                    follower.leader = None
                    if np.array_equal(follower.prompt, place.prompt):
                        self._copy(place, follower, len(place.prompt))
                        self._sample(follower, logits[row], tokens)
                    else:
                        self._find_prefix(follower)
        return tokens

    def _share_out(self, running: list[Place]) -> list[tuple[Place, int]]:
        """How many rows of the batch each place gets: one to each that generates, the rest to prompts."""
        room = self._context.shape.chunk - sum(place.next >= 0 for place in running)
        takes = []
        for place in running:
            if place.next >= 0:
                takes.append((place, 1))
            elif place.leader is None and room:
                take = min(room, len(place.prompt) - place.done)
                takes.append((place, take))
                room -= take
        return takes

    def _fill(self, takes: list[tuple[Place, int]]) -> tuple[int, list[Place]]:
        """Write the batch; the number of its rows, and the places whose logits it computes, in order."""
        context = self._context
        row = 0
        ends: list[Place] = []
        for place, take in takes:
            stop = row + take
            ends_prompt = place.next < 0 and place.done + take == len(place.prompt)
            context.wanted[row:stop] = 0
            if place.next >= 0:
                context.tokens[row] = place.next
                context.positions[row] = place.done
            else:
                context.tokens[row:stop] = place.prompt[place.done : place.done + take]
                context.positions[row:stop] = np.arange(place.done, place.done + take)
            context.places[row:stop] = place.id
            if place.next >= 0 or ends_prompt:
                context.wanted[stop - 1] = 1
                ends.append(place)
            place.done += take
            row = stop
        return row, ends

    def _sample(self, place: Place, logits: npt.NDArray[np.float32], tokens: list[Token]) -> None:
        assert place.sampler is not None
        assert place.sequence is not None
        try:
            token = place.sampler(logits)
        except BackendError as error:  # not finite logits
            place.sequence.error = error
            return
        place.next = token.id
        tokens.append(token)
