"""What a quantization of transformers' models is: how it is told to, and what it needs around that."""

from __future__ import annotations

import abc
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from codellm.scheme import Scheme
    from codellm.sources import Tensors


class Quantization(abc.ABC):
    """A scheme with its options: applied to each weight as it is read, or `stored`, where the checkpoint is in it."""

    scheme: Scheme
    stored: bool = False

    @abc.abstractmethod
    def require(self, remedy: str) -> None:
        """See that what it needs is installed; `remedy` installs what the backend itself does.

        Raises:
            BackendUnavailableError: it is not.
        """

    def dtype(self, asked: str, device: torch.device) -> str:
        """The type to compute in on `device`, for what `LoadSpec.dtype` asks.

        Raises:
            InvalidValueError: it does not compute in that.
        """
        return asked

    @abc.abstractmethod
    def config(self, dtype: torch.dtype) -> Any:
        """The `quantization_config` of transformers, for a model in `dtype`."""

    def tensors(self, tensors: Tensors) -> Tensors:
        """What is read of a source's `tensors`."""
        return tensors

    def loading(self) -> contextlib.AbstractContextManager[object]:
        """Context in which transformers makes the model."""
        return contextlib.nullcontext()

    def finished(self, model: Any) -> Any:
        """The `model` that was made, ready to run."""
        return model
