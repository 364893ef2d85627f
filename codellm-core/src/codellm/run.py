"""One call of `codellm_generate`, held to its contract: steps that are lists of tokens, and an end."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator

from codellm.errors import BackendError, CodellmError
from codellm.model import Model
from codellm.plugins.guard import GENERATE, breach, closing, failure, guarded
from codellm.plugins.manager import manager
from codellm.sequence import Sequence, Token

GENERATING = "while generating"

_AHEAD = 100
"""Yields in a row that may bring nothing where nothing runs. The contract says two: more cost little."""

_WAITING = 10_000
"""The same for each sequence that runs: a backend may wait for what computes elsewhere."""


class Run:
    """What a backend, and the plugins that wrap it, yield for some sequences."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._name = model.info.backend
        self._steps: object = None
        self._idle = 0

    def steps(self, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
        """Each step's tokens.

        Raises:
            BackendError: they are no such steps, or the run failed; names the plugins that had a hand in it.
        """
        with guarded(self._name, GENERATING):
            found = self._steps = manager().hook.codellm_generate(model=self._model, sequences=sequences)
        if not isinstance(found, Iterator):
            raise self._broken(f"gave {type(found).__name__}")
        while True:
            try:
                tokens = next(found)
            except StopIteration:
                return
            except (CodellmError, KeyboardInterrupt):
                raise
            except BaseException as error:  # not `guarded`, which costs something at every step
                raise failure(self._name, GENERATING, error) from error
            if not isinstance(tokens, list):
                raise self._broken(f"yielded {type(tokens).__name__}")
            for token in tokens:
                if not isinstance(token, Token):
                    raise self._broken(f"yielded a list of {type(token).__name__}")
            yield tokens

    def progress(self) -> None:
        """Know that the step brought something: a token that counts, or the end of a sequence."""
        self._idle = 0

    def see_end(self, running: Collection[Sequence]) -> None:
        """See after each step that the run goes on for a reason.

        Raises:
            BackendError: nothing runs any more, or for longer than any prompt takes nothing has come.
        """
        self._idle += 1
        if self._idle > _AHEAD and self._idle > sum(_WAITING + len(one.prompt_ids) for one in running):
            raise breach(self._name, f"its run() does not end: {self._idle} yields in a row brought no token", GENERATE)

    def close(self) -> None:
        """End it, if it has not ended."""
        if isinstance(self._steps, Generator):
            with closing(self._name):
                self._steps.close()

    def _broken(self, what: str) -> BackendError:
        return breach(self._name, f"its run {what}, and must be an iterator of lists of Token", GENERATE)
