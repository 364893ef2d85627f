"""Download of one file of the hub into the hub's cache, going on where an earlier download was cut.

huggingface_hub itself throws away what came of a file that was cut (its pull request 4228), so this
receives the bytes and leaves the rest to it. A file lies under its ETag in the cache's `blobs`; what has come of it, in
`ETAG.incomplete` beside it, the name that earlier versions used. Sources: the guide "Understand caching" of
huggingface_hub; RFC 9110, section 14, for ranges.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import attrs

from codellm.errors import DownloadError

CHUNK = 1 << 18
"""Bytes that are written at once; what has come of a chunk is lost when the connection breaks."""
TRIES = 4
"""Times in a row that a connection may break without a new byte."""
PAUSE = 1.0
"""Seconds before the next try."""


@attrs.frozen(kw_only=True)
class Remote:
    """A file of a repository at one commit: where it is had, how many bytes it is, and where they go."""

    name: str
    url: str
    etag: str
    size: int | None
    blob: Path
    lock: Path

    @property
    def partial(self) -> Path:
        """Where the file lies until it is whole."""
        return self.blob.with_name(f"{self.etag}.incomplete")


def remote(id: str, name: str, commit: str) -> Remote:
    """Ask the hub about a file.

    Raises:
        DownloadError: it does not say which content the file has.
        Exception: what huggingface_hub raises where it refuses or cannot be reached.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name

    url = hf_hub_url(id, name, revision=commit)
    told = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if told.etag is None or not re.fullmatch(r"[\w.-]+", told.etag):  # it becomes a file's name
        raise DownloadError(f"{id}: {url} has no ETag; see whether HF_ENDPOINT or a proxy leads to a hub")
    cache, folder = Path(constants.HF_HUB_CACHE).expanduser(), repo_folder_name(repo_id=id, repo_type="model")
    return Remote(
        name=name,
        url=url,
        etag=told.etag,
        size=told.size,
        blob=cache / folder / "blobs" / told.etag,
        lock=cache / ".locks" / folder / f"{told.etag}.lock",  # the one that huggingface_hub takes
    )


def download(file: Remote, advance: Callable[[int], None]) -> None:
    """Bring a file into the cache; `advance` is told how many bytes more are there.

    Raises:
        DownloadError: what came is not what the hub announced.
        Exception: what huggingface_hub raises where the hub refuses, its transport where the connection breaks for
            good, OSError where the cache cannot be written.
    """
    import filelock

    for path in (file.blob, file.lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(file.lock):
        if file.blob.exists():
            have = file.blob.stat().st_size
            if file.size in {None, have}:
                advance(file.size or 0)
                return
            # it was cut after it had come, by a crash or a full disk: what is there of it is gone on from
            file.blob.replace(file.partial)
            if have > (file.size or 0):
                file.partial.unlink()
        with file.partial.open("ab") as partial:
            advance(partial.tell())
            _receive(file, partial, advance)
        if not _sound(file):
            file.partial.unlink()
            raise DownloadError(
                f"{file.url}: what came is not what the hub announced (its checksum is wrong); run the same again"
            )
        file.partial.rename(file.blob)


def _receive(file: Remote, partial: BinaryIO, advance: Callable[[int], None]) -> None:
    """Append what is missing, over as many connections as it takes."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # httpx's or httpx2's

    tries = TRIES
    while True:
        have = partial.tell()
        fault: Exception | None = None
        try:
            _receive_once(file, partial, advance)
        except HfHubHTTPError:
            raise
        except TransportError as error:
            fault = error
        partial.flush()
        if fault is None and file.size in {None, partial.tell()}:
            return
        tries = TRIES if partial.tell() > have else tries - 1
        if tries == 0 or partial.tell() > (file.size or partial.tell()):
            raise fault or DownloadError(
                f"{file.url}: {partial.tell()} of {file.size} bytes came; run the same again, it goes on from there"
            )
        time.sleep(PAUSE)


def _receive_once(file: Remote, partial: BinaryIO, advance: Callable[[int], None]) -> None:
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    have = partial.tell()
    if file.size is not None and have == file.size:
        return
    # compressed on the way, a part of it could not be asked for
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    # the client drops the token where it is sent to another host
    with get_session().stream("GET", file.url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        if have and response.status_code != 206:  # it sends all of it, whatever was asked
            partial.truncate(0)
            partial.seek(0)
            advance(-have)
        for chunk in response.iter_bytes(CHUNK):
            partial.write(chunk)
            advance(len(chunk))


def _sound(file: Remote) -> bool:
    """Whether the content is that of the ETag: the SHA-256 of a file in LFS, git's SHA-1 of another one."""
    if re.fullmatch(r"[0-9a-f]{64}", file.etag):
        digest = hashlib.sha256()
    elif re.fullmatch(r"[0-9a-f]{40}", file.etag):
        digest = hashlib.sha1(b"blob %d\0" % file.partial.stat().st_size, usedforsecurity=False)
    else:
        return True
    with file.partial.open("rb") as whole:
        while chunk := whole.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == file.etag
