"""Checkpoints whose weights are quantized already, by AWQ, GPTQ or bitsandbytes: their scheme, and their tensors.

A projection's `weight` [out, in] stands there in parts. GPTQ (AutoGPTQ's qlinear modules): `qweight` [in · bits / 32,
out] and `qzeros` [groups, out · bits / 32] of int32, `scales` [groups, out], `g_idx` [in], the group of each column.
AWQ of 4 bits in the version `gemm` (AutoAWQ's modules/linear/gemm.py): `qweight` [in, out / 8] and `qzeros` [groups,
out / 8] of int32, `scales` [groups, out]; from its lowest bits on a word holds outputs 0, 2, 4, 6, 1, 3, 5 and 7 of 8.
bitsandbytes (its functional.py and nn/modules.py): 4 bits as bytes of two weights each, which may be stored as if they
were numbers of another type (`bnb_4bit_quant_storage`, for FSDP), beside `weight.absmax` and `weight.quant_map`; 8 bits
as int8, beside `SCB`, a row's scale.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from codellm.errors import ModelFileError
from codellm.sources.architecture import Architecture, Config, listed
from codellm.sources.source import STORED, TensorInfo, Tensors

GPTQ_BITS = (3, 4, 8)
_FIELDS = {"compression_config": "compressed-tensors", "quantization": "mlx"}
"""What some programs write into a config.json instead of a `quantization_config`, or beside one without a method."""

STORAGE = {"uint8": 1, "int8": 1, "float16": 2, "bfloat16": 2, "float32": 4}
"""Types that bitsandbytes stores its bytes of 4 bits in, with their own bytes."""

AWQ_FIELDS = {"w_bit": "bits", "q_group_size": "group_size"}
"""What AutoAWQ's own quant_config.json calls what config.json has under another name."""

GPTQ_FORMATS = ("gptq", "gptq_v2")
"""How zero points are stored: minus one, as AutoGPTQ did, or as they are."""


def packed_scheme(config: Mapping[str, Any], where: object) -> str | None:
    """The scheme that the `quantization_config` of a config.json means; None where there is none.

    Raises:
        ModelFileError: a method, or a form of it, that nothing here reads.
    """
    raw = config.get("quantization_config")
    elsewhere = next((name for field, name in _FIELDS.items() if config.get(field)), None)
    if raw in (None, {}) and elsewhere is None:
        return None
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ModelFileError(f"{where}: quantization_config is {reprlib.repr(raw)}, not an object")
    method = raw.get("quant_method", elsewhere)
    known = {"gptq": _gptq, "bitsandbytes": _bitsandbytes, "awq": _awq}
    if method not in known:
        raise ModelFileError(
            f"{where}: weights quantized by {reprlib.repr(method)} cannot be read; supported: {', '.join(known)}; "
            "take the model's original weights, or a GGUF file of it"
        )
    return known[method](raw, where)


def _gptq(raw: Mapping[str, Any], where: object) -> str:
    bits = raw.get("bits")
    if bits not in GPTQ_BITS:
        known = ", ".join(map(str, GPTQ_BITS))
        raise ModelFileError(f"{where}: gptq of {reprlib.repr(bits)} bits is not supported; supported: {known}")
    format = "marlin" if raw.get("is_marlin_format") else raw.get("checkpoint_format") or raw.get("format") or "gptq"
    if format not in GPTQ_FORMATS:
        raise ModelFileError(
            f"{where}: gptq in the format {reprlib.repr(format)} is not supported; supported: {', '.join(GPTQ_FORMATS)}"
        )
    _group_size("gptq", raw, where)
    for field, plain in {"lm_head": False, "dynamic": None, "pack_dtype": "int32"}.items():
        if raw.get(field) not in (None, plain, {}):
            raise ModelFileError(f"{where}: gptq with {field} {reprlib.repr(raw[field])} is not supported")
    return f"gptq-int{bits}"


def _awq(raw: Mapping[str, Any], where: object) -> str:
    raw = {AWQ_FIELDS.get(field, field): value for field, value in raw.items()}
    version = raw.get("version", "gemm")
    if raw.get("bits") != 4 or str(version).lower() != "gemm":
        raise ModelFileError(
            f"{where}: awq of {reprlib.repr(raw.get('bits'))} bits in the version {reprlib.repr(version)} is not "
            "supported; supported: 4 bits, gemm"
        )
    _group_size("awq", raw, where)
    return "awq-int4"


def _group_size(method: str, raw: Mapping[str, Any], where: object) -> int:
    size = raw.get("group_size")
    if type(size) is not int or not (size == -1 or 0 < size < 1 << 20):
        raise ModelFileError(
            f"{where}: {method}'s group_size is {reprlib.repr(size)}, not -1 or a positive whole number"
        )
    return size


def _bitsandbytes(raw: Mapping[str, Any], where: object) -> str:
    if raw.get("load_in_8bit"):
        return "bnb-int8"
    kind = raw.get("bnb_4bit_quant_type", "fp4")  # transformers' own default
    if not raw.get("load_in_4bit") or kind not in {"nf4", "fp4"}:
        raise ModelFileError(f"{where}: bitsandbytes in neither 8 bits nor nf4 nor fp4 is not supported")
    return f"bnb-{kind}"


def packed_infos(architecture: Architecture, tensors: Tensors, config: Config, where: object) -> dict[str, TensorInfo]:
    """The tensors that the computation needs, as `Architecture.infos` names them, or in parts.

    Raises:
        ModelFileError: tensors are missing, unknown, or of another shape or type than the configuration says.
    """
    found = {info.name: info for info in tensors}
    raw: Mapping[str, Any] = config.raw["quantization_config"]
    kept: dict[str, TensorInfo] = {}
    for name, shape in architecture.shapes(config).items():
        info = found.get(name)
        if info is not None and info.shape == shape and info.dtype in STORED:
            kept[name] = info
        else:
            parts = _PARTS[raw["quant_method"]]
            kept |= {part.name: part for part in parts(name, shape, found, raw, where)}
    extra = [name for name, info in found.items() if name not in kept and not architecture.ignorable(info, config)]
    unknown = [name for name in extra if not _nothing(name, tensors)]
    if unknown:
        raise ModelFileError(f"{where}: {listed(unknown)} not known in {architecture.name}")
    return kept


def _gptq_parts(
    name: str, shape: tuple[int, ...], found: Mapping[str, TensorInfo], raw: Mapping[str, Any], where: object
) -> Iterator[TensorInfo]:
    if not name.endswith(".weight") or len(shape) != 2:
        raise _fault(name, shape, found, where)
    (rows, columns), bits = shape, raw["bits"]
    groups = _groups(columns, raw)
    wanted = {
        "qweight": (columns * bits // 32, rows),
        "qzeros": (groups, rows * bits // 32),
        "scales": (groups, rows),
        "g_idx": (columns,),
    }
    yield from _words(name, wanted, found, where)


def _awq_parts(
    name: str, shape: tuple[int, ...], found: Mapping[str, TensorInfo], raw: Mapping[str, Any], where: object
) -> Iterator[TensorInfo]:
    if not name.endswith(".weight") or len(shape) != 2:
        raise _fault(name, shape, found, where)
    rows, columns = shape
    groups = _groups(columns, raw)
    wanted = {"qweight": (columns, rows // 8), "qzeros": (groups, rows // 8), "scales": (groups, rows)}
    yield from _words(name, wanted, found, where)


def _groups(columns: int, raw: Mapping[str, Any]) -> int:
    """Groups of a row."""
    size = raw.get("group_size", raw.get("q_group_size"))
    return 1 if size == -1 else math.ceil(columns / size)


def _words(
    name: str, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, TensorInfo], where: object
) -> Iterator[TensorInfo]:
    """The parts of a weight with their extents: scales are floats, all else is int32."""
    stem = name.removesuffix(".weight")
    for part, extents in wanted.items():
        info = found.get(f"{stem}.{part}")
        if info is None or info.shape != extents or info.dtype not in (STORED if part == "scales" else ("int32",)):
            raise _fault(f"{stem}.{part}", extents, found, where)
        yield info


def _bitsandbytes_parts(
    name: str, shape: tuple[int, ...], found: Mapping[str, TensorInfo], raw: Mapping[str, Any], where: object
) -> Iterator[TensorInfo]:
    info = found.get(name)
    eight = bool(raw.get("load_in_8bit"))
    scales = f"{name.removesuffix('weight')}SCB" if eight else f"{name}.absmax"
    if info is None or len(getattr(found.get(scales), "shape", ())) != 1:
        raise _fault(name, shape, found, where)
    size = {"int8": 1} if eight else STORAGE
    extents = shape if eight else (math.ceil(math.prod(shape) / 2 / size.get(info.dtype, 1)), 1)
    if info.dtype not in size or info.shape != extents:
        raise _fault(name, shape, found, where)
    yield info
    beside = (scales, f"{name}_format") if eight else [other for other in found if other.startswith(f"{name}.")]
    yield from (found[other] for other in beside if other in found)


_PARTS = {"gptq": _gptq_parts, "bitsandbytes": _bitsandbytes_parts, "awq": _awq_parts}


def _nothing(name: str, tensors: Tensors) -> bool:
    """Whether a tensor adds nothing: AutoGPTQ once wrote a bias of zeros to projections that have none."""
    return name.endswith(".bias") and not tensors.read(name).any()


def _fault(name: str, shape: tuple[int, ...], found: Mapping[str, TensorInfo], where: object) -> ModelFileError:
    info = found.get(name)
    if info is None:
        return ModelFileError(f"{where}: {listed([name])} missing; fetch the checkpoint again")
    return ModelFileError(
        f"{where}: tensor {name!r} is {info.dtype} {list(info.shape)}, which the configuration does not make of "
        f"{list(shape)}"
    )
