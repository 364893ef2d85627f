"""The backend: what it loads, and with which options. numpy waits until a model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codellm import Backend, LoadSpec, ModelInfo, ModelSource, Scheme
from codellm.errors import InvalidValueError, ModelFileError, UnknownNameError

if TYPE_CHECKING:
    from codellm_ngram.model import NgramModel

SCHEME = Scheme(
    name="ngram4",
    bits=48,
    applies="file",
    format="ngram",
    takes=frozenset({"folder"}),
    bound=0.5,
    description="contexts of four bytes instead of eight",
)


class NgramBackend(Backend):
    """Takes a folder of Python files, or the file that the scheme `ngram4` makes of one."""

    name = "ngram"
    formats = frozenset({"folder", "ngram"})

    def schemes(self) -> tuple[Scheme, ...]:
        return (SCHEME,)

    def load(self, spec: LoadSpec, source: ModelSource) -> NgramModel:
        from codellm_ngram.file import read_table
        from codellm_ngram.model import NgramModel
        from codellm_ngram.table import read_folder

        order = _order(spec)
        assert source.path is not None
        table = read_folder(source.files) if source.format == "folder" else read_table(source.path)
        if not len(table.following):
            raise ModelFileError(f"{source.path}: holds no Python file")
        info = ModelInfo(
            backend=self.name,
            architecture="n-gram",
            parameters=len(table.following),
            weight_bytes=table.contexts.nbytes + table.following.nbytes,
            context_length=spec.context_length or 4096,
            batch_size=spec.batch_size,
            scheme=spec.scheme or "none",
            path=str(source.path),
        )
        return NgramModel(info, table, order)


def _order(spec: LoadSpec) -> int:
    """The option `-o order=N`: how many bytes to look back."""
    for key in spec.options:
        if key != "order":
            raise UnknownNameError("option", key, ["order"])
    order = spec.options.get("order", "8")
    if order not in set("12345678"):
        raise InvalidValueError(f"option order is a number from 1 to 8, not {order!r}")
    return int(order)
