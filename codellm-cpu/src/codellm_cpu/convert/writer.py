"""The conversion: a checked plan of tensors, the header, then every tensor in its turn."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import attrs
import numpy as np

from codellm.errors import InvalidValueError, ModelFileError
from codellm.scheme import PRECISIONS
from codellm.sources import TensorInfo
from codellm.sources.architecture import Config
from codellm_cpu.convert import storage
from codellm_cpu.convert.architecture import GgufArchitecture
from codellm_cpu.convert.llama import Llama
from codellm_cpu.convert.qwen2 import Qwen2
from codellm_cpu.convert.qwen3 import Qwen3
from codellm_cpu.convert.starcoder2 import Starcoder2
from codellm_cpu.convert.vocabulary import Vocabulary, read_vocabulary
from codellm_cpu.files import writing

if TYPE_CHECKING:
    import numpy.typing as npt
    from gguf import GGUFWriter

    from codellm.sources import ModelSource, Tensors

ARCHITECTURES: dict[str, GgufArchitecture] = {table.name: table for table in (Starcoder2(), Llama(), Qwen2(), Qwen3())}
"""Architecture tables by config.json's `model_type`."""

TARGETS = {scheme: dtype for dtype, scheme in PRECISIONS.items()}
"""The type that each scheme writes matrices in."""


@attrs.frozen(eq=False)
class Planned:
    """A tensor to write: its name there, the type it gets, and where its values come from."""

    source: TensorInfo
    name: str
    dtype: str
    heads: int | None = None
    """Heads whose rows are permuted."""
    values: npt.NDArray[np.float32] | None = None
    """Values that the checkpoint does not hold."""

    @property
    def size(self) -> int:
        """Bytes of its data in the file."""
        return math.prod(self.source.shape) * storage.SIZES[self.dtype]

    def read(self, tensors: Tensors) -> npt.NDArray[np.generic]:
        """The values in their stored type, as they go into the file."""
        if self.values is not None:
            return self.values
        values = tensors.read(self.source.name)
        return values if self.heads is None else permute(values, self.heads)


def convert(
    source: ModelSource,
    scheme: str,
    destination: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write `source`'s safetensors (or dummy) weights to `destination` as GGUF in `f32`, `f16` or `bf16`.

    Vectors stay float32, as llama.cpp's kernels want them. Needs the memory of a few megabytes beside the largest
    tensor. `progress` is told of bytes of weights written. Whatever goes wrong, no partial file stays.

    Raises:
        InvalidValueError: the scheme is none of the three.
        ModelFileError: the architecture, configuration, tokenizer or a tensor cannot be converted; a tensor is missing.
        ArtifactError: the disk is too full, or the file cannot be written.
    """
    if scheme not in TARGETS:
        raise InvalidValueError(f"conversion to {scheme!r}; known: {', '.join(TARGETS)}")
    table, config = read_config(source)
    if source.tensors is None or source.tokenizer is None:
        missing = "weights" if source.tensors is None else "tokenizer.json"
        raise ModelFileError(f"{source.path or source.name}: no {missing} to convert")
    plan = planned(source, source.tensors, table, config, scheme)
    vocabulary = read_vocabulary(
        source.tokenizer, source.tokenizer_config, source.config, config.vocab_size, source.ends
    )
    total = sum(tensor.size for tensor in plan)
    # The header is mostly the vocabulary; 64 bytes a token or merge is more than either takes.
    header = 64 * (len(vocabulary.tokens) + len(vocabulary.merges)) + 128 * len(plan)
    with writing(destination, total + header):
        write(source, source.tensors, table, config, vocabulary, plan, scheme, destination, progress)


def outline(source: ModelSource, scheme: str, destination: Path) -> None:
    """Write what `convert` would, without vocabulary and with a hole for the weights: for what reads neither.

    Raises:
        ModelFileError: the architecture, configuration or a tensor cannot be converted; a tensor is missing.
    """
    import gguf

    table, config = read_config(source)
    if source.tensors is None:
        raise ModelFileError(f"{source.path or source.name}: no weights to convert")
    plan = planned(source, source.tensors, table, config, scheme)
    writer = gguf.GGUFWriter(destination, table.name)
    try:
        table.add_keys(writer, config)
        stream = write_header(writer, plan)
        writer.write_padding(stream, stream.tell())
        stream.truncate(stream.tell() + sum(writer.ggml_pad(tensor.size, writer.data_alignment) for tensor in plan))
    finally:
        writer.close()


def read_config(source: ModelSource) -> tuple[GgufArchitecture, Config]:
    """The table of the source's architecture, and its configuration as that reads it.

    Raises:
        ModelFileError: there is no table, or the configuration cannot be converted.
    """
    where = str(source.path / "config.json") if source.path is not None else f"configuration of {source.name}"
    kind = source.config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ModelFileError(
            f"{where}: architecture {kind!r} cannot be converted to GGUF; supported: {', '.join(ARCHITECTURES)}"
        )
    table = ARCHITECTURES[kind]
    return table, table.read(source.config, where)


def planned(
    source: ModelSource, tensors: Tensors, table: GgufArchitecture, config: Config, scheme: str
) -> list[Planned]:
    """What to write, in the order of the forward pass.

    Raises:
        ModelFileError: tensors are missing, unknown, of another shape than the configuration says, or not floating.
    """
    plan = []
    for name, info in table.infos(tensors, config, source.path or source.name).items():
        dtype = TARGETS[scheme] if len(info.shape) > 1 else "float32"
        plan.append(Planned(info, table.gguf_name(name), dtype, heads=table.permuted_heads(name, config)))
    for name, values in table.constants(config).items():
        plan.append(Planned(TensorInfo(name, values.shape, "float32"), name, "float32", values=values))
    return plan


def permute(values: npt.NDArray[np.generic], heads: int) -> npt.NDArray[np.generic]:
    """Rows [heads * head_dim, ...] of a rope that pairs i with i + head_dim / 2 → of one that pairs 2i with 2i + 1."""
    halves = values.reshape(heads, 2, -1, *values.shape[1:])  # [heads, 2, head_dim / 2, ...]
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def write(
    source: ModelSource,
    tensors: Tensors,
    table: GgufArchitecture,
    config: Config,
    vocabulary: Vocabulary,
    plan: list[Planned],
    scheme: str,
    destination: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Write header, then data. The writer's own calls keep every tensor until the end: here only its header is used."""
    import gguf

    writer = gguf.GGUFWriter(destination, table.name)
    try:
        add_general_keys(writer, source, scheme)
        table.add_keys(writer, config)
        vocabulary.add_keys(writer)
        if source.chat_template is not None:
            writer.add_chat_template(source.chat_template)
        write_data(writer, write_header(writer, plan), tensors, plan, progress)
    finally:
        writer.close()


def write_header(writer: GGUFWriter, plan: list[Planned]) -> BinaryIO:
    """Write the keys and the list of tensors → the stream, at its end."""
    import gguf

    kinds = {
        "float32": gguf.GGMLQuantizationType.F32,
        "float16": gguf.GGMLQuantizationType.F16,
        "bfloat16": gguf.GGMLQuantizationType.BF16,
    }
    for tensor in plan:
        shape = tensor.source.shape
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), tensor.size, kinds[tensor.dtype])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None  # opened with the header, one file as no split was asked for
    stream: BinaryIO = writer.fout[0]
    return stream


def add_general_keys(writer: GGUFWriter, source: ModelSource, scheme: str) -> None:
    """Write what the file is and what it was made from."""
    import gguf

    types = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    }
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(source.name)
    writer.add_file_type(types[scheme])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if source.licence:
        writer.add_license(source.licence)
    writer.add_string("codellm.source.digest", source.digest)
    if source.revision:
        writer.add_string("codellm.source.revision", source.revision)
    if source.dummy:
        writer.add_bool("codellm.source.dummy", True)


def write_data(
    writer: GGUFWriter,
    stream: BinaryIO,
    tensors: Tensors,
    plan: list[Planned],
    progress: Callable[[int, int], None],
) -> None:
    """Write every tensor, aligned, slab by slab.

    Raises:
        ModelFileError: a value cannot be stored in its target type.
    """
    total, done = sum(tensor.size for tensor in plan), 0
    progress(0, total)
    for tensor in plan:
        writer.write_padding(stream, stream.tell())
        values = tensor.read(tensors)
        for slab in storage.slabs(values, tensor.source.dtype, tensor.dtype, tensor.source.name):
            stream.write(np.ascontiguousarray(slab).data)
            done += slab.nbytes
            progress(done, total)
        del values  # before the next is read, or two tensors stand in memory
    writer.write_padding(stream, stream.tell())
