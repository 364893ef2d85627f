"""Many sequences on one engine: places refilled as sequences end, an equal prompt computed once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from codellm.errors import BackendError, ContextLengthError, InvalidValueError
from codellm.places import Places
from codellm.sequence import Sequence, Token
from codellm.torch.engine import Engine
from codellm.torch.sampling import Draws

if TYPE_CHECKING:
    import torch


class Place:
    """A place of the engine, the sequence in it, and how far that is.

    The cells outlive the sequence until the place is taken again, so that an equal prompt finds them.
    """

    def __init__(self, id: int) -> None:
        self.id = id
        self.sequence: Sequence | None = None
        self.prompt: list[int] = []
        self.done = 0
        """Tokens computed: of the prompt first, then of the output."""
        self.next: int | None = None
        """The sampled token to compute next; None while there is none."""
        self.logits: torch.Tensor | None = None
        """Logits [V] after the prompt, kept for other samples of it; None while the prompt is not done."""

    def forget(self) -> None:
        """Hold nothing any more."""
        self.prompt, self.done, self.next, self.logits = [], 0, None, None

    @property
    def waits(self) -> bool:
        """Whether its prompt is not done."""
        return self.sequence is not None and self.sequence.error is None and self.logits is None

    def begun(self, prompt: list[int]) -> bool:
        """Whether it is computing `prompt`."""
        return self.waits and self.done > 0 and self.prompt == prompt


class Scheduler:
    """Steps of one `run`: take sequences, compute one token of each that generates, then waiting prompts, sample.

    A step computes at most a chunk of prompts, so that it never keeps those that generate waiting longer than that.
    """

    def __init__(self, engine: Engine, sequences: Iterable[Sequence | None]) -> None:
        self._engine = engine
        self._sequences = sequences
        self._places = [Place(id) for id in range(engine.places)]
        self._draws = Draws(engine.places, engine.vocabulary, engine.device)

    def steps(self) -> Iterator[list[Token]]:
        """Each step's tokens; an empty list where a step only computed prompt, or only refused sequences."""
        waiting = Places(self._sequences, len(self._places))
        while running := waiting.refill():
            self._seat(running)
            yield self._step()

    def _seat(self, running: list[Sequence]) -> None:
        """Free the places of those that run no more, and give them to those that are new."""
        kept = set(running)
        for place in self._places:
            if place.sequence is not None and place.sequence not in kept:
                place.sequence = place.next = None
                self._draws.leave(place.id)
        seated = {place.sequence for place in self._places}
        for sequence in running:
            if sequence not in seated:
                sequence.error = self._fault(sequence)
                if sequence.error is None:
                    self._take(sequence)

    def _fault(self, sequence: Sequence) -> Exception | None:
        """What keeps `sequence`, and it alone, from being computed."""
        ids, engine = sequence.prompt_ids, self._engine
        if not ids:
            return InvalidValueError("a prompt must have at least one token")
        if len(ids) > engine.context:
            return ContextLengthError(f"the prompt has {len(ids)} tokens, the context {engine.context}")
        if not 0 <= min(ids) <= max(ids) < engine.vocabulary:
            return InvalidValueError(f"a prompt id is outside the vocabulary of {engine.vocabulary} tokens")
        return None

    def _take(self, sequence: Sequence) -> None:
        free = [place for place in self._places if place.sequence is None]
        # one that holds the prompt already needs no copy; else spare those that hold one
        place = next((place for place in free if self._holds(place, sequence.prompt_ids)), None)
        if place is None:
            place = min(free, key=lambda place: place.logits is not None)
            place.prompt, place.logits, place.done = list(sequence.prompt_ids), None, 0
        else:
            place.done = len(place.prompt)
        place.sequence, place.next = sequence, None
        self._draws.seat(place.id, sequence)

    def _holds(self, place: Place, prompt: list[int]) -> bool:
        """Whether all cells of `prompt`, and the logits after it, are in `place`."""
        return place.logits is not None and place.prompt == prompt and place.done < self._engine.kept

    def _step(self) -> list[Token]:
        logits = self._decode()
        ready = [place for place in self._places if place.next is not None]
        self._prefill()
        for place in self._places:
            if place.sequence is not None and place.next is None and place.logits is not None:
                if logits is None:
                    logits = place.logits.new_zeros((len(self._places), len(place.logits)))
                logits[place.id] = place.logits
                ready.append(place)
        return [] if logits is None else self._sample(logits, ready)

    def _decode(self) -> torch.Tensor | None:
        """One token of each place that generates → logits [P, V]; the other places compute along for nothing."""
        for place in self._places:
            if place.next is not None and place.done >= self._engine.context:
                assert place.sequence is not None
                place.sequence.error = ContextLengthError(f"the context of {self._engine.context} tokens is full")
                place.next = place.logits = None
        if all(place.next is None for place in self._places):
            return None
        ids = [place.next or 0 for place in self._places]
        # where a place would go on: what idle ones write there is overwritten before it is read
        positions = [min(place.done, self._engine.context - 1) for place in self._places]
        logits = self._engine.decode(ids, positions)
        for place in self._places:
            place.done += place.next is not None
        return logits

    def _prefill(self) -> None:
        """Go on with the prompts that are not done, those begun first, up to a chunk in all."""
        room = self._engine.chunk
        waiting = [place for place in self._places if place.waits]
        for place in sorted(waiting, key=lambda place: -place.done):
            donor = next((other for other in self._places if self._holds(other, place.prompt)), None)
            if donor is not None:
                self._engine.copy(donor.id, place.id, len(place.prompt))
                place.logits, place.done = donor.logits, len(place.prompt)
            elif room > 0 and not any(other is not place and other.begun(place.prompt) for other in waiting):
                room -= self._chunk(place)

    def _chunk(self, place: Place) -> int:
        """The next chunk of a prompt, cut where it is cut alone → its tokens."""
        size, start = self._engine.chunk, place.done
        place.done = min(start - start % size + size, len(place.prompt))
        logits = self._engine.prefill(place.id, place.prompt[start : place.done], start)
        if place.done == len(place.prompt):
            place.logits = logits
        return place.done - start

    def _sample(self, logits: torch.Tensor, ready: list[Place]) -> list[Token]:
        tokens = []
        chosen, logprobs = self._draws(logits, [place.id for place in ready])
        for place, id, logprob in zip(ready, chosen, logprobs, strict=True):
            assert place.sequence is not None
            if math.isfinite(logprob):
                place.next = id
                tokens.append(Token(id, place.sequence, logprob))
            else:
                place.sequence.error = BackendError(
                    "the model computed NaN or infinity as a logit: its weights or its file are broken"
                )
                self._engine.wipe(place.id)
                place.forget()
        return tokens
