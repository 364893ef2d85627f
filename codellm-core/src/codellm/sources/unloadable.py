"""What is taken for a model and is none that can be loaded: what it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from codellm.errors import ModelFileError
from codellm.sources.published import model_files
from codellm.sources.regular import quoted, read_json, shown

ADAPTER = "adapter_config.json"
"""The configuration of an adapter, as peft writes it."""

MERGE = "merge it into its base model first (peft's merge_and_unload), save that, and give the directory"


def is_adapter(name: str) -> bool:
    """Whether a file of this name holds the weights of an adapter."""
    return name.startswith("adapter_model")


def adapter_fault(path: Path) -> str:
    """A directory that holds an adapter, in one line; its file is read as far as it can be."""
    try:
        config = read_json(path / ADAPTER)
    except ModelFileError:
        config = {}
    base = config.get("base_model_name_or_path")
    of = f" for {quoted(base)}" if isinstance(base, str) and base else ""
    return f"{shown(path)}: is {adapter_kind(config.get('peft_type'))}{of}, not a whole model; {MERGE}"


def adapter_kind(kind: Any = None) -> str:
    """Words for an adapter; `kind` is what peft calls it, "LORA" where it does not say."""
    return "a LoRA adapter" if not isinstance(kind, str) or kind == "LORA" else f"an adapter of peft ({quoted(kind)})"


def directory_fault(path: Path, lacks: str) -> str:
    """A directory that is no model, as it `lacks` something: which file or step leads to one.

    GGUF files are looked for in it and in the folders that it holds, as LM Studio's folder of a publisher.
    """
    if (path / ADAPTER).is_file():
        return adapter_fault(path)
    files = [*path.glob("*.gguf")] or [*path.glob("*/*.gguf")]
    return f"{shown(path)}: {lacks}{gguf_hint(path, (str(file.relative_to(path)) for file in files))}"


def gguf_hint(path: Path, names: Iterable[str]) -> str:
    """What to do with the GGUF files `names` under `path`; empty where there are none."""
    names = sorted(names)
    whole, parts = model_files(names)
    if whole:
        named = " or ".join(shown(path / name) for name in whole[:3])
        more = f" (or one of {len(whole) - 3} more)" if len(whole) > 3 else ""
        return f"; name the file itself: {named}{more}"
    if parts:
        return (
            f"; its GGUF file is in parts: merge them with `llama-gguf-split --merge {shown(path / parts[0])} "
            "MODEL.gguf`, and name MODEL.gguf"
        )
    return f"; {quoted(names[0])} is no model but goes with one: fetch the model's own file" if names else ""
