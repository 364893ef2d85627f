"""huggingface_hub as it would be with another environment: it reads that when it is imported, into constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NOBODY = "http://127.0.0.1:9"
"""An address at which nobody listens."""


class Client:
    """The client of this process, with a cache below `folder` and no token, until the test ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = monkeypatch
        self.cache = folder / "hub"
        self._set(HF_HUB_CACHE=str(self.cache), HF_TOKEN_PATH=str(folder / "token"), HF_HUB_OFFLINE=False)
        self._set(AGENT_HARNESSES_PATH=str(folder / "agents"))
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("codellm.sources.download.PAUSE", 0.01)

    def point_to(self, url: str) -> None:
        """Ask the hub at `url`."""
        self._set(ENDPOINT=url, HUGGINGFACE_CO_URL_TEMPLATE=url + "/{repo_id}/resolve/{revision}/{filename}")

    def offline(self) -> None:
        """Ask no hub, as with HF_HUB_OFFLINE=1."""
        self._set(HF_HUB_OFFLINE=True)

    def _set(self, **constants: object) -> None:
        from huggingface_hub import constants as module

        for name, value in constants.items():
            self._patch.setattr(module, name, value, raising=False)
