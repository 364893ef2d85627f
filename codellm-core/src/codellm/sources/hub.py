"""Models on the Hugging Face hub: only the files that are needed, in the hub's own cache, never a pickle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from codellm.errors import DownloadError, ModelNotFoundError
from codellm.sources.local import read_directory, read_licence
from codellm.sources.reference import Reference
from codellm.sources.source import ModelSource

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

SMALL = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
    "README.md",
)
WEIGHTS = ("model*.safetensors",)


def hub(model: str, revision: str | None) -> Reference:
    """A hub id, with `:SCHEME` perhaps: a GGUF file of that type in the repository is preferred to converting.

    Raises:
        ModelNotFoundError: the hub has no such repository or revision.
        DownloadError: the hub cannot be reached and the cache does not hold the model.
    """
    id, _, scheme = model.partition(":")
    if scheme:
        from codellm.registry import registry

        registry().scheme(scheme)
        listed = _listing(id, revision)
        ready = [name for name in listed if name.endswith(".gguf") and _names(name, scheme)]
        if ready:
            return Reference(
                name=id,
                format="gguf",
                scheme=scheme,
                fetch=lambda: _fetch_gguf(id, min(ready), scheme, revision),
            )
    return Reference(name=id, format="safetensors", scheme=scheme or None, fetch=lambda: _fetch_directory(id, revision))


def _names(file: str, scheme: str) -> bool:
    """Whether a GGUF's file name carries the scheme, as `model-Q4_K_M.gguf` does."""
    words = file.removesuffix(".gguf").lower().replace("-", ".").split(".")
    return scheme.lower() in words


def _fetch_directory(id: str, revision: str | None) -> ModelSource:
    from huggingface_hub import snapshot_download

    with _Explained(id, revision):
        path = Path(snapshot_download(id, revision=revision, allow_patterns=[*SMALL, *WEIGHTS]))
    return read_directory(path, id, revision=path.name)


def _fetch_gguf(id: str, file: str, scheme: str, revision: str | None) -> ModelSource:
    from huggingface_hub import hf_hub_download, snapshot_download

    with _Explained(id, revision):
        path = Path(hf_hub_download(id, file, revision=revision))
        card = Path(snapshot_download(id, revision=revision, allow_patterns=["README.md"]))
    return ModelSource(
        name=id,
        format="gguf",
        path=path,
        files=(path,),
        revision=card.name,
        scheme=scheme,
        licence=read_licence(card / "README.md"),
    )


def _listing(id: str, revision: str | None) -> Iterable[str]:
    """Names of the repository's files; where the hub cannot be reached, those that the cache holds.

    Raises:
        DownloadError: it cannot be reached, and the cache holds nothing of it.
    """
    from huggingface_hub import HfApi

    try:
        with _Explained(id, revision):
            info: ModelInfo = HfApi().model_info(id, revision=revision)
    except DownloadError:
        cached = _cached(id)
        if not cached:
            raise
        return cached
    return [sibling.rfilename for sibling in info.siblings or ()]


def _cached(id: str) -> set[str]:
    """Names of the files that the cache holds of a repository."""
    from huggingface_hub import constants, errors, scan_cache_dir

    try:
        repos = [repo for repo in scan_cache_dir(constants.HF_HUB_CACHE).repos if repo.repo_id == id]
    except errors.CacheNotFound:
        return set()
    return {file.file_name for repo in repos for snapshot in repo.revisions for file in snapshot.files}


class _Explained:
    """Turns what huggingface_hub raises into one line that says what to do."""

    def __init__(self, id: str, revision: str | None) -> None:
        self._id, self._revision = id, revision

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception):
            return
        from huggingface_hub import errors

        at = f"{self._id}@{self._revision}" if self._revision else self._id
        if isinstance(error, errors.GatedRepoError):
            raise DownloadError(
                f"{at}: the repository is gated; accept its terms on the hub, then set HF_TOKEN"
            ) from error
        if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
            raise DownloadError(
                f"{at}: not in the local cache, and the hub cannot be reached; connect, unset HF_HUB_OFFLINE, "
                f"or fetch it elsewhere with `hf download {self._id}` and name the directory"
            ) from error
        if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.EntryNotFoundError):
            raise ModelNotFoundError(
                f"{at}: the hub has no such model or file; check the name, and set HF_TOKEN if it is private"
            ) from error
        raise DownloadError(
            f"{at}: the hub cannot be reached or gave up ({type(error).__name__}: {error}); try again when connected, "
            f"or fetch it elsewhere with `hf download {self._id}` and name the directory"
        ) from error
