"""A repository of the hub at one commit: which files it has, and how they come into the hub's cache."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import attrs

from codellm.errors import CodellmError, DownloadError
from codellm.progress import Progress, quiet
from codellm.sources.download import Remote, download, remote
from codellm.sources.refusal import explained


@attrs.frozen(kw_only=True)
class Repository:
    """What a name of the hub stands for at this moment."""

    id: str
    revision: str | None
    """The branch, tag or commit that was asked for."""
    commit: str
    names: frozenset[str]
    """Its files at the top; what lies in folders is of no use here (onnx, original)."""
    nested: frozenset[str] = frozenset()
    """GGUF files that lie in folders: where a repository has no others, they are what its user looks for."""
    sizes: Mapping[str, int] = attrs.field(factory=dict, repr=False)
    """Bytes of files, as far as the hub says."""
    refusal: CodellmError | None = None
    """Why the hub did not say this, so that `names` are what the cache holds."""

    def __str__(self) -> str:
        return f"{self.id}@{self.revision}" if self.revision else self.id

    @classmethod
    def find(cls, id: str, revision: str | None) -> Self:
        """The repository as the hub has it; where the hub gives no answer, as the cache does.

        Raises:
            ModelNotFoundError: the hub has no such repository or revision.
            DownloadError: the hub cannot be reached or refuses, and the cache holds nothing of it.
        """
        from huggingface_hub import HfApi, constants

        try:
            with explained(id, revision):
                info = HfApi().model_info(
                    id, revision=revision, timeout=constants.DEFAULT_REQUEST_TIMEOUT, files_metadata=True
                )
        except CodellmError as error:
            snapshot = _snapshot(id, revision)
            if snapshot is None:
                raise _with_commits(id, revision, error) from error
            names = frozenset(path.name for path in snapshot.iterdir() if path.is_file())
            # also one whose content is gone: it tells where the repository has its files
            nested = frozenset(path.relative_to(snapshot).as_posix() for path in snapshot.glob("*/**/*.gguf"))
            return cls(id=id, revision=revision, commit=snapshot.name, names=names, nested=nested, refusal=error)
        files = {file.rfilename: file.size for file in info.siblings or ()}
        return cls(
            id=id,
            revision=revision,
            commit=str(info.sha),
            names=frozenset(name for name in files if "/" not in name),
            nested=frozenset(name for name in files if "/" in name and name.lower().endswith(".gguf")),
            sizes={name: size for name, size in files.items() if size is not None},
        )

    def fetch(self, names: Iterable[str], progress: Progress = quiet) -> Path:
        """Bring `names`, which are all its own, into the cache, and nothing else; the directory that they are in.

        Raises:
            DownloadError: a file cannot be had, or not be kept; what came of it is kept for the next time.
            ModelNotFoundError: a file is gone.
        """
        from huggingface_hub import hf_hub_download

        names = sorted(names)
        with explained(self.id, self.revision):
            missing = self.missing(names)
            self._receive([remote(self.id, name, self.commit) for name in missing], progress)
            for name in missing:  # what stood there was cut
                cut = self.cached(name)
                if cut is not None and not self._whole(name, cut):
                    cut.unlink()
            # their content is there by now: this puts them into the snapshot, whatever the file system can do
            paths = [Path(hf_hub_download(self.id, name, revision=self.commit)) for name in names]
        return paths[0].parent

    def missing(self, names: Iterable[str]) -> list[str]:
        """Files of `names` that the cache does not hold, or holds in another size than the hub says."""
        paths = {name: self.cached(name) for name in names}
        return [name for name, path in paths.items() if path is None or not self._whole(name, path)]

    def cached(self, name: str) -> Path | None:
        """Where the cache holds a file, whole or cut; None where it does not."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.id, name, revision=self.commit)
        return Path(found) if isinstance(found, str) else None

    def _whole(self, name: str, path: Path) -> bool:
        return self.sizes.get(name) in {None, path.stat().st_size}

    def remember(self) -> None:
        """Let the cache know which commit the revision is, once all that is wanted of it is there.

        As huggingface_hub does, which however does so before anything has come, so that a download that is cut takes
        the older commit away from whoever is offline.
        """
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        revision = self.revision or constants.DEFAULT_REVISION
        if self.refusal is not None or revision == self.commit:
            return
        folder = Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=self.id, repo_type="model")
        with explained(self.id, self.revision):
            ref = folder / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(self.commit)

    def _receive(self, files: list[Remote], progress: Progress) -> None:
        total = sum(file.size or 0 for file in files)
        self._require_room(files, total)
        what, done = f"fetching {self}, {total / 1e6:.0f} MB", 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(what, done, max(total, done))

        for file in files:
            download(file, advance)

    def _require_room(self, files: list[Remote], total: int) -> None:
        """Say at once what would be said after an hour: that the disk is too small."""
        folder = next((folder for file in files for folder in file.blob.parents if folder.is_dir()), None)
        if folder is None:
            return
        have = sum(path.stat().st_size for file in files for path in (file.blob, file.partial) if path.is_file())
        free = shutil.disk_usage(folder).free
        if total - have > free:
            raise DownloadError(
                f"{self}: {(total - have) / 1e6:.0f} MB are to come, and {folder} has {free / 1e6:.0f} MB free; "
                "free some space, or set HF_HOME to another place"
            )


def _with_commits(id: str, revision: str | None, error: CodellmError) -> CodellmError:
    """Error of a hub that gave no answer, with a commit that the cache holds without knowing its revision."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if revision is not None or not isinstance(error, DownloadError):
        return error
    folder = Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=id, repo_type="model") / "snapshots"
    commits = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return type(error)(f"{error}; or name what the cache holds: --revision {commits[0]}") if commits else error


def _snapshot(id: str, revision: str | None) -> Path | None:
    """Where the cache keeps a revision, whole or not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        # no file is asked for: which ones are needed is decided by what is there
        return Path(snapshot_download(id, revision=revision, local_files_only=True, allow_patterns=[]))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
