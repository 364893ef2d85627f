"""Making a checkpoint directory in a scheme of bitsandbytes or GPTQ, which any user of transformers can load."""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING

from codellm.artifacts.request import Artifact
from codellm.errors import InvalidValueError, ModelFileError
from codellm.sources.chat_template import JINJA
from codellm.sources.local import NAMING, read_directory
from codellm.torch import bitsandbytes, gptq

if TYPE_CHECKING:
    from pathlib import Path

    from codellm.artifacts.request import QuantizeRequest
    from codellm.sources import ModelSource


def quantize(request: QuantizeRequest) -> Artifact | None:
    """Write `request.source` to the directory `request.destination`; None for a scheme of another plugin.

    Raises:
        BackendUnavailableError: the scheme needs what is not installed.
        InvalidValueError: the model or the calibration text does not suit the scheme.
        ModelFileError: the source is damaged or not supported.
        ArtifactError: it failed.
    """
    if request.scheme.name in {scheme.name for scheme in bitsandbytes.SCHEMES}:
        from codellm_gpu.save_bitsandbytes import write
    elif request.scheme.name in {scheme.name for scheme in gptq.SCHEMES}:
        from codellm_gpu.save_gptq import write
    else:
        return None
    if request.source.format != "safetensors":
        raise InvalidValueError(f"{request.source.name}: scheme {request.scheme.name} starts from safetensors")
    write(request)
    add_tokenizer(request.source, request.destination)
    facts = weights(read_directory(request.destination, request.source.name))
    return Artifact(path=request.destination, scheme=request.scheme.name, format="safetensors", facts=facts)


def add_tokenizer(source: ModelSource, destination: Path) -> None:
    """Put the tokenizer beside the weights, as it is, with what says where texts begin and end, and the chat template.

    Raises:
        ModelFileError: the source has none.
    """
    if source.tokenizer is None:
        raise ModelFileError(f"{source.path or source.name}: no tokenizer.json")
    shutil.copyfile(source.tokenizer, destination / "tokenizer.json")
    named = dict(zip(NAMING, (source.tokenizer_config, source.special_tokens, source.generation_config), strict=True))
    for name, config in named.items():
        if config:
            (destination / name).write_text(json.dumps(dict(config), indent=2) + "\n")
    if source.chat_template is not None:
        (destination / JINJA).write_text(source.chat_template, encoding="utf-8")


def weights(made: ModelSource) -> dict[str, int]:
    """What a checkpoint holds, for the manifest: how many weights, and the bytes of its tensors."""
    from codellm.sources.architectures import read_config

    architecture, config = read_config(made)
    return {
        "parameters": sum(map(math.prod, architecture.shapes(config).values())),
        "weight_bytes": sum(file.stat().st_size for file in made.files if file.suffix == ".safetensors"),
    }
