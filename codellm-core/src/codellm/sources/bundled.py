"""What needs no download: the bundled model, and dummy weights, which borrow its tokenizer."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

from codellm._version import __version__
from codellm.sources.local import directory
from codellm.sources.reference import BUNDLED, Reference
from codellm.sources.source import ModelSource


def bundled_directory(name: str) -> Path:
    """Directory of a bundled model inside the installed package."""
    return Path(str(files("codellm") / "data" / name))


def bundled(name: str) -> Reference:
    """Reference to a model of `BUNDLED`, under its name."""
    return directory(bundled_directory(name), name=name)


def dummy(model: str) -> Reference:
    """Random weights of an architecture: "dummy:starcoder2-7b".

    Raises:
        UnknownNameError: no such architecture.
    """
    from codellm.sources.dummy import DummyTensors, dummy_config

    config = dummy_config(model.removeprefix("dummy:"))
    tokenizer = bundled_directory(BUNDLED[0]) / "tokenizer.json"
    source = ModelSource(
        name=model,
        format="safetensors",
        config=config,
        tokenizer=tokenizer,
        dummy=True,
        tensors=DummyTensors(config),
        digest=hashlib.sha256(f"{model} {__version__}".encode()).hexdigest(),
    )
    return Reference(name=model, format="safetensors", scheme=None, fetch=lambda: source)
