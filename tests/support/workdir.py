"""A directory to run `codellm` in."""

from __future__ import annotations

from pathlib import Path

from support.plugin_folder import install_plugin
from support.safetensors_bytes import packed


def make_workdir(folder: Path, plugin: str, code: str, *, entry: str | None = None) -> Path:
    """Put the model `model`, whose files are empty, into `folder`, and the distribution `plugin` into its `site`."""
    site, model = folder / "site", folder / "model"
    site.mkdir()
    install_plugin(site, plugin, code, entry=entry)
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes(packed(b"{}"))
    return folder
