"""Models on this machine: a directory of safetensors, a GGUF file, or what a plugin's backend reads."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codellm.errors import ModelFileError, ModelNotFoundError
from codellm.sources.architectures import as_usual
from codellm.sources.chat_template import CHAT_TEMPLATES, read_chat_template
from codellm.sources.packed import packed_scheme
from codellm.sources.reference import Reference
from codellm.sources.regular import quoted, read_json, read_regular, shown
from codellm.sources.safetensors import SafetensorsFiles
from codellm.sources.source import ModelSource
from codellm.sources.unloadable import directory_fault, is_adapter

_GGUF_MAGIC = b"GGUF"

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""A checkpoint in one file; in several, which file each tensor is in."""

TOKENIZER_CONFIG, SPECIAL, GENERATION = "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"
NAMING = (TOKENIZER_CONFIG, SPECIAL, GENERATION)
"""Files that a model may have, and that say which tokens begin and end its texts."""

QUANTIZE_CONFIG = "quantize_config.json"
"""How AutoGPTQ quantized, before transformers had config.json say so."""

OTHER_QUANTIZE_CONFIGS = {"quant_config.json": "awq", "hf_quant_config.json": "modelopt"}
"""What others wrote beside config.json, and what config.json would call it."""

QUANTIZE_CONFIGS = (QUANTIZE_CONFIG, *OTHER_QUANTIZE_CONFIGS)

_CARD = 1 << 16
"""Bytes of a model card that may hold its front matter."""


def directory(path: Path, name: str | None = None) -> Reference:
    """A directory with config.json, tokenizer.json and safetensors files; any other one has the format "folder"."""
    label = name or str(path)
    if (path / "config.json").is_file():
        scheme = packed_scheme(read_config(path), path / "config.json")
        return Reference(name=label, format="safetensors", scheme=scheme, fetch=lambda: read_directory(path, label))
    return Reference(
        name=label,
        format="folder",
        scheme=None,
        fetch=lambda: ModelSource(name=label, format="folder", path=path, files=_visible(path)),
        fault=directory_fault(path, "holds no config.json, so it is no model directory"),
    )


def read_directory(path: Path, name: str, *, revision: str | None = None, licence: str | None = None) -> ModelSource:
    """Read all of a model directory but its weights.

    Raises:
        ModelFileError: a file is missing or broken; the message names it.
    """
    config = read_config(path)
    weights = _weights(path)
    tokenizer = path / "tokenizer.json"
    if not tokenizer.is_file():
        raise ModelFileError(f"{tokenizer}: missing; only models with a tokenizer.json can be read")
    tensors, config = as_usual(SafetensorsFiles(weights), config, path)
    named = {name: read_json(path / name) for name in NAMING if (path / name).is_file()}
    beside = [path / name for name in (*named, QUANTIZE_CONFIG, *CHAT_TEMPLATES) if (path / name).is_file()]
    tokenizer_config = {**named.get(SPECIAL, {}), **named.get(TOKENIZER_CONFIG, {})}
    return ModelSource(
        name=name,
        format="safetensors",
        path=path,
        files=(path / "config.json", tokenizer, *beside, *weights),
        config=config,
        tokenizer=tokenizer,
        tokenizer_config=tokenizer_config,
        special_tokens=named.get(SPECIAL, {}),
        generation_config=named.get(GENERATION, {}),
        chat_template=read_chat_template(path, tokenizer_config),
        revision=revision,
        licence=licence or read_licence(path / "README.md"),
        scheme=packed_scheme(config, path / "config.json"),
        tensors=tensors,
    )


def read_config(path: Path) -> Mapping[str, Any]:
    """The config.json of a directory, with what stands beside it of a quantization as the `quantization_config`.

    Raises:
        ModelFileError: a file cannot be read, or is no JSON object.
    """
    config = read_json(path / "config.json")
    if config.get("quantization_config") is not None:
        return config
    for name, method in {QUANTIZE_CONFIG: "gptq", **OTHER_QUANTIZE_CONFIGS}.items():
        if (path / name).is_file():
            return {**config, "quantization_config": {"quant_method": method, **read_json(path / name)}}
    return config


def file(path: Path) -> Reference:
    """A GGUF file, or one of the format that its suffix names; the backend that loads it reads what is in it.

    Raises:
        ModelFileError: it cannot be read or is empty, or it is named .gguf and is none.
    """
    magic = read_regular(path, len(_GGUF_MAGIC))
    if not magic:
        raise ModelFileError(f"{shown(path)}: the file is empty")
    fault = f"{shown(path)}: not a GGUF file (it begins with {magic!r}); give a .gguf file or a directory"
    format = "gguf" if magic == _GGUF_MAGIC else path.suffix.removeprefix(".").lower()
    if magic != _GGUF_MAGIC and format in {"", "gguf"}:
        raise ModelFileError(fault)
    source = ModelSource(name=str(path), format=format, path=path, files=(path,))
    return Reference(name=str(path), format=format, scheme=None, fetch=lambda: source, fault=fault)


def read_licence(card: Path) -> str | None:
    """The `license:` of a model card's front matter (Hugging Face's model cards), None where it says nothing."""
    try:
        text = read_regular(card, _CARD).decode("utf-8-sig", "replace")
    except (ModelFileError, ModelNotFoundError):
        return None
    front = re.match(r"---\r?\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*(\S+)", front[1], re.MULTILINE) if front else None
    return found[1] if found else None


def _weights(path: Path) -> tuple[Path, ...]:
    """The files of the weights, chosen as transformers does: one that is whole, else the shards that the index names.

    Beside either, some repositories hold the same weights once more (consolidated.safetensors), and where a model was
    merged or saved anew, the index of its former shards stays.
    """
    single, index = path / WEIGHTS, path / INDEX
    if single.is_file():
        return (single,)
    if not index.is_file():
        found = tuple(file for file in sorted(path.glob("*.safetensors")) if not is_adapter(file.name))
        if not found:
            raise ModelFileError(directory_fault(path, "holds no .safetensors file (pickled weights are never loaded)"))
        return found
    names = shard_names(read_json(index), index)
    missing = next((name for name in names if not (path / name).exists()), None)
    if missing is not None:
        raise ModelFileError(f"{shown(path / missing)}: missing, though {index.name} names it")
    return tuple(path / name for name in names)


def shard_names(index: Mapping[str, Any], where: object) -> list[str]:
    """The files that an index (`model.safetensors.index.json`) names, without a `./` in front.

    Raises:
        ModelFileError: it names none, or one outside the directory.
    """
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        raise ModelFileError(f"{where}: has no weight_map of file names")
    names = sorted({posixpath.normpath(shard) for shard in shards.values()})
    outside = next((name for name in names if name.startswith(("/", "../")) or name in {".", ".."}), None)
    if outside is not None:
        raise ModelFileError(f"{where}: names {quoted(outside)}, a file outside the directory")
    return names


def _visible(path: Path) -> tuple[Path, ...]:
    """The files under `path`, those in hidden directories left out."""
    found: list[Path] = []
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith("."))
        found.extend(Path(folder, name) for name in sorted(names))
    return tuple(found)
