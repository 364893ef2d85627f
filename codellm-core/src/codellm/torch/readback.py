"""What a step chose, on its way to the host, which goes on meanwhile."""

from __future__ import annotations

from typing import Self

import torch

from codellm.sequence import Ranked


class Readback:
    """Host memory for the choice of one step: pinned where the device is another, so that the copy waits for nothing.

    It is used again and again: `begin`, `read`, `begin`, …
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        elsewhere = device.type == "cuda"
        self._ids = torch.empty(slots, dtype=torch.long, pin_memory=elsewhere)
        self._logprobs = torch.empty(slots, dtype=torch.float32, pin_memory=elsewhere)
        self._top: tuple[torch.Tensor, torch.Tensor] | None = None
        self._arrived = torch.cuda.Event() if elsewhere else None  # type: ignore[no-untyped-call]

    def begin(
        self, ids: torch.Tensor, logprobs: torch.Tensor, top: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> Self:
        """Have `ids` and `logprobs` [P] copied as soon as the device has them, and those of the `top`, [P, K] both."""
        self._top = None
        if top is not None:
            self._top = self._host(top[0]), self._host(top[1])
        self._ids.copy_(ids, non_blocking=True)
        self._logprobs.copy_(logprobs, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()
        return self

    def read(self) -> tuple[list[int], list[float]]:
        """The ids and their log-probabilities, as soon as they are here: the one place where the host waits."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._ids.tolist(), self._logprobs.tolist()

    def _host(self, there: torch.Tensor) -> torch.Tensor:
        here = torch.empty_like(there, device="cpu", pin_memory=self._arrived is not None)
        return here.copy_(there, non_blocking=True)

    def top(self, slot: int, count: int) -> Ranked:
        """The `count` likeliest of a slot, of what `read` has waited for."""
        if self._top is None:
            return ()
        ids, logprobs = (each[slot, :count].tolist() for each in self._top)
        return tuple(zip(ids, logprobs, strict=True))
