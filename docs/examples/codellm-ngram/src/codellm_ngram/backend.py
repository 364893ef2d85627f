"""The backend: what it loads, and with which options. numpy waits until a model is loaded."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from codellm import Backend, LoadSpec, ModelInfo, ModelSource, Scheme
from codellm.errors import ModelFileError
from codellm.options import count, read

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
    options = MappingProxyType({"order": count(8, "bytes", 1, 8, help="How many bytes it looks back.")})

    def schemes(self) -> tuple[Scheme, ...]:
        return (SCHEME,)

    def load(self, spec: LoadSpec, source: ModelSource) -> NgramModel:
        from codellm_ngram.file import read_table
        from codellm_ngram.model import NgramModel
        from codellm_ngram.table import read_folder

        order = read(spec.options, self.options)["order"]
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
