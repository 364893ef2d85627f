"""What runs: a loaded model, its contract for backend authors and its face for users."""

from __future__ import annotations

import abc
import contextlib
import operator
import threading
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs

from codellm.errors import ModelBusyError, ModelClosedError
from codellm.sampling import SamplingParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from codellm.chat import Message
    from codellm.generation import Stream
    from codellm.result import Result
    from codellm.sequence import Sequence, Token
    from codellm.tokenizer import Tokenizer


_TEXT = attrs.validators.instance_of(str)


@attrs.frozen(kw_only=True)
class ModelInfo:
    """What was loaded. `weight_bytes` are the bytes of weights that one decoded token reads; `path` names the file.

    Raises:
        TypeError, ValueError: a field of another type, or below 0 (context and batch: below 1).
    """

    backend: str = attrs.field(validator=_TEXT)
    architecture: str = attrs.field(validator=_TEXT)
    parameters: int = attrs.field(converter=operator.index, validator=attrs.validators.ge(0))
    weight_bytes: int = attrs.field(converter=operator.index, validator=attrs.validators.ge(0))
    context_length: int = attrs.field(converter=operator.index, validator=attrs.validators.ge(1))
    dtype: str = attrs.field(default="float32", validator=_TEXT)
    scheme: str = attrs.field(default="none", validator=_TEXT)
    device: str = attrs.field(default="cpu", validator=_TEXT)
    path: str = attrs.field(default="", validator=_TEXT)
    batch_size: int = attrs.field(default=1, converter=operator.index, validator=attrs.validators.ge(1))
    threads: int | None = None
    dummy: bool = False
    """Random weights: fit for speed, never for a quality figure."""
    prefix_cache: int | None = attrs.field(
        default=None, validator=attrs.validators.optional([attrs.validators.instance_of(int), attrs.validators.ge(0)])
    )
    """Bytes for what finished sequences leave, beside the slots that they leave it in; None: nothing is kept."""


@attrs.frozen(kw_only=True)
class Memory:
    """Bytes in use now and at their peak since loading, on the host and on the device (0 where there is none).

    Raises:
        TypeError, ValueError: a field that is no whole number, or below 0.
    """

    host: int = attrs.field(converter=operator.index, validator=attrs.validators.ge(0))
    host_peak: int = attrs.field(converter=operator.index, validator=attrs.validators.ge(0))
    device: int = attrs.field(default=0, converter=operator.index, validator=attrs.validators.ge(0))
    device_peak: int = attrs.field(default=0, converter=operator.index, validator=attrs.validators.ge(0))


class Model(abc.ABC):
    """A loaded model. A context manager; `close` is idempotent.

    A backend author writes `run`, `score` and `logits`, sets `info` and `tokenizer`, and does the work of all three
    inside `claim`; `distributions` where the model computes many positions at once; `close` and `memory` where there is
    more to free or to count than Python's own objects.
    """

    info: ModelInfo
    tokenizer: Tokenizer
    _claimed: threading.Lock
    _closed: bool

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Made here, not in `__init__`, so that no author has to call that."""
        model = super().__new__(cls)
        model._claimed = threading.Lock()
        model._closed = False
        return model

    @abc.abstractmethod
    def run(self, sequences: Iterable[Sequence | None]) -> Iterator[list[Token]]:
        """Generate for `sequences` until all are finished: the one primitive of generation.

        Each step: drop finished sequences, pull new ones while there is a free slot, compute, yield the step's
        tokens (several per sequence where the backend speculates). Writes nothing on a sequence but `error`, for a
        fault of that sequence alone, and `cached_tokens`; one with an error is dropped. `sequences` may be live: it
        blocks while nothing it gave out is unfinished, and yields None only when something still runs. A backend may
        run ahead; core discards tokens that come after `finished`, and they stop within two yields.

        Raises:
            ModelBusyError: another `run` or `score` is going on (raised at the first step).
            BackendError: the computation failed.
        """

    @abc.abstractmethod
    def score(self, batch: Seq[Seq[int]]) -> list[npt.NDArray[np.float32]]:
        """Natural-log probability of each next token: ids [T] → float32 [T-1], for each entry of `batch`.

        Raises:
            ModelBusyError: another `run` or `score` is going on.
            ContextLengthError: an entry is longer than the context.
        """

    @abc.abstractmethod
    def logits(self, ids: Seq[int]) -> npt.NDArray[np.float32]:
        """Logits [V] after the last of `ids` (at least one): for checks, not for speed."""

    def distributions(self, ids: Seq[int], start: int = 0) -> Iterator[npt.NDArray[np.float32]]:
        """Natural-log probability of every token after each of `ids[start:]`: float32 blocks [n, V], in order.

        The blocks have len(ids) - start rows together, and are the caller's own. Here each row is a call of `logits`; a
        backend that computes several positions at once overrides this, in blocks of bounded size.

        Raises:
            ModelBusyError: another `run` or `score` is going on (raised at the first block).
            ContextLengthError: `ids` are longer than the context.
        """
        from codellm.sampler import log_softmax

        for stop in range(start + 1, len(ids) + 1):
            yield log_softmax(self.logits(ids[:stop])[None])

    def memory(self) -> Memory:
        """Bytes of host and device memory in use, and at the peak; here those of the process in main memory."""
        from codellm.system.machine import peak_memory, resident_memory

        return Memory(host=resident_memory(), host_peak=peak_memory())

    def close(self) -> None:
        """Free everything. May be called twice; whoever overrides it calls this too, which shuts `claim`."""
        self._closed = True
        template = getattr(getattr(self, "tokenizer", None), "chat_template", None)
        if template is not None:
            template.close()

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the model for one `run`, `score` or `logits`; leaving the block, also by a dropped generator, frees it.

        Raises:
            ModelBusyError: it is held.
            ModelClosedError: it is closed.
        """
        if self._closed:
            raise ModelClosedError(f"the model {self.info.path or self.info.architecture} is closed; load it again")
        if not self._claimed.acquire(blocking=False):
            raise ModelBusyError(
                f"{self.info.backend} already generates or scores with this model; finish or close that stream first"
            )
        try:
            yield
        finally:
            self._claimed.release()

    def stream(self, prompt: str | Seq[int], params: SamplingParams | None = None) -> Stream:
        """Generate from `prompt` (text, or token ids as they are), piece by piece: an iterator of text.

        Raises:
            InvalidValueError: the prompt is neither text nor token ids of the vocabulary.
            ContextLengthError: the prompt leaves no room for output.
        """
        from codellm.generation import Stream

        return Stream(self, prompt, params or SamplingParams())

    def generate(self, prompt: str | Seq[int], params: SamplingParams | None = None) -> Result:
        """Generate from `prompt` to the end.

        Raises:
            InvalidValueError: the prompt is neither text nor token ids of the vocabulary.
            ContextLengthError: the prompt leaves no room for output.
        """
        return self.stream(prompt, params).read()

    def generate_batch(self, prompts: Seq[str | Seq[int]], params: SamplingParams | None = None) -> list[Result]:
        """Generate from every prompt, `batch_size` at a time; the results stand in the order of `prompts`.

        A prompt given n times is sampled n times. A prompt that fails alone (too long, say, or no text) gives a Result
        with the finish reason "error"; the others go on.

        Raises:
            InvalidValueError: `prompts` are no list of prompts.
        """
        from codellm.generation import generate_batch

        return generate_batch(self, prompts, params or SamplingParams())

    def stream_chat(
        self, messages: Iterable[Message | Mapping[str, Any]], params: SamplingParams | None = None
    ) -> Stream:
        """Answer a conversation, piece by piece: the model's chat template makes the prompt of `messages`.

        A message is a `Message`, or a mapping of `role` and `content`. The answer also ends at the token that the
        template writes after a turn.

        Raises:
            NoChatTemplateError: the model has no chat template.
            InvalidValueError: a message is none, or the template refuses them.
            ModelFileError: the template is broken, or takes more than its limits.
            ContextLengthError: the conversation leaves no room for output.
        """
        from codellm.chat import chat_request
        from codellm.plugins.guard import guarded

        name = self.info.path or self.info.architecture
        with guarded(self.info.backend, "to encode a conversation"):
            ids, params = chat_request(self.tokenizer, messages, params or SamplingParams(), name)
        return self.stream(ids, params)

    def chat(self, messages: Iterable[Message | Mapping[str, Any]], params: SamplingParams | None = None) -> Result:
        """Answer a conversation to the end: see `stream_chat`."""
        return self.stream_chat(messages, params).read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from codellm.plugins.guard import closing

        with closing(self.info.backend):
            self.close()

    def __repr__(self) -> str:
        info: Any = getattr(self, "info", None)
        return (
            f"<{type(self).__name__} {info.architecture} {info.scheme} on {info.device}>"
            if info
            else super().__repr__()
        )
