"""A hub on this machine: it speaks what huggingface_hub asks for, and fails as it is told to.

Sources: the client's own requests (`HfApi.model_info`, `get_hf_file_metadata`, `hf_raise_for_status`, which reads
X-Error-Code), and the headers that huggingface.co answers with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

import attrs

from codellm.sources.bundled import bundled_directory

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DEMO = {path.name: path.read_bytes() for path in bundled_directory("codellm-demo").iterdir()}
"""The bundled model's files, which a repository may hold."""
LFS = (".safetensors", ".gguf", ".bin")
"""Files that the hub keeps in LFS: their ETag is a SHA-256, and they are had elsewhere, by a redirect."""


@attrs.define
class Repo:
    """A repository: revisions by name, each a commit; files by commit."""

    files: dict[str, bytes]
    refs: dict[str, str] = attrs.field(factory=lambda: {"main": COMMIT})
    commits: dict[str, dict[str, bytes]] = attrs.field(factory=dict)
    token: str | None = None
    """Who sends another one is told that there is nothing."""
    gated: bool = False

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and files of a revision."""
        commit = self.refs.get(revision, revision)
        if commit in self.commits:
            return commit, self.commits[commit]
        return (commit, self.files) if commit == self.refs.get("main") else None


@attrs.define
class Fault:
    """What goes wrong with a request whose method and path hold `where`."""

    where: str
    status: int | None = None
    headers: dict[str, str] = attrs.field(factory=dict)
    cut: int | None = None
    """Bytes of the body after which the connection breaks."""
    short: int | None = None
    """Bytes that are announced and sent, as if that were all."""
    garbage: bool = False
    """The right number of wrong bytes."""
    whole: bool = False
    """All of it, whatever range is asked for."""
    delay: float = 0.0
    """Seconds between pieces of the body."""
    times: int = 1_000_000

    def take(self, line: str) -> bool:
        """Whether it is the turn of this one."""
        if self.where not in line or not self.times:
            return False
        self.times -= 1
        return True


@attrs.frozen
class Request:
    line: str
    token: str | None
    host: str


@attrs.define
class Hub:
    """The server and what it was asked; a context manager."""

    repos: dict[str, Repo] = attrs.field(factory=dict)
    faults: list[Fault] = attrs.field(factory=list)
    requests: list[Request] = attrs.field(factory=list)
    served: dict[str, int] = attrs.field(factory=dict)
    """Bytes of bodies by file name."""
    headers: dict[str, str] = attrs.field(factory=dict)
    """What every answer carries."""
    cdn: Hub | None = None
    """Where files in LFS are redirected to; another server, so another host."""
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def lines(self, *words: str) -> list[str]:
        """The requests that hold all `words`."""
        return [one.line for one in self.requests if all(word in one.line for word in words)]

    def fault(self, line: str) -> Fault | None:
        return next((fault for fault in self.faults if fault.take(line)), None)


@contextlib.contextmanager
def hubs(repos: dict[str, Repo]) -> Iterator[Hub]:
    """A hub and its CDN, another host, which share repositories, faults and the count of what was served."""
    with Hub(repos) as cdn, Hub(repos, cdn.faults, served=cdn.served, cdn=cdn) as hub:
        yield hub


def etag(name: str, content: bytes) -> str:
    """As the hub makes it: SHA-256 of a file in LFS, git's SHA-1 of another one."""
    if name.endswith(LFS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _RefusedError(Exception):
    def __init__(self, status: int, **headers: str) -> None:
        self.status, self.headers = status, headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        line = f"{self.command} {path}"
        self.hub.requests.append(Request(line, token, self.headers["Host"]))
        try:
            self._dispatch(path.strip("/").split("/"), token, self.hub.fault(line))
        except _RefusedError as refused:
            self._send(refused.status, b'{"error": "no"}', {"Content-Type": "application/json", **refused.headers})

    def _dispatch(self, parts: list[str], token: str | None, fault: Fault | None) -> None:
        if fault is not None and fault.status is not None:
            raise _RefusedError(fault.status, **fault.headers)
        if parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), "/".join(parts[5:]) or "main", token, fault)
        elif parts[0] == "cdn":
            self._cdn(parts[1], parts[-1], fault)
        elif parts[2:3] != ["resolve"]:
            raise _RefusedError(
                404
            )  # the client asks for more than models: which coding agents there are, for instance
        else:
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), token, fault)

    def _api(self, id: str, revision: str, token: str | None, fault: Fault | None) -> None:
        repo = self._repo(id, token)
        commit, files = self._files(repo, revision)
        siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
        info = {"id": id, "sha": commit, "siblings": siblings, "gated": repo.gated}
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, fault=fault)

    def _resolve(self, id: str, revision: str, name: str, token: str | None, fault: Fault | None) -> None:
        repo = self._repo(id, token)
        if repo.gated and token != repo.token:
            raise _RefusedError(403 if token else 401, **{"X-Error-Code": "GatedRepo"})
        commit, files = self._files(repo, revision)
        common = {"X-Repo-Commit": commit}
        if name not in files:
            raise _RefusedError(404, **{"X-Error-Code": "EntryNotFound"}, **common)
        content, tag = files[name], etag(name, files[name])
        if not name.endswith(LFS):
            self._body(name, content, fault, {**common, "ETag": f'"{tag}"'})
            return
        place = f"{(self.hub.cdn or self.hub).url}/cdn/{tag}/{name}"
        linked = {"X-Linked-Etag": f'"{tag}"', "X-Linked-Size": str(len(content)), "Location": place}
        self._send(302, b"", {**common, **linked})

    def _cdn(self, tag: str, name: str, fault: Fault | None) -> None:
        held = [files for repo in self.hub.repos.values() for files in (repo.files, *repo.commits.values())]
        content = next(files[name] for files in held if name in files and etag(name, files[name]) == tag)
        self._body(name, content, fault, {"ETag": '"something of the CDN"'})

    def _repo(self, id: str, token: str | None) -> Repo:
        repo = self.hub.repos.get(id)
        if repo is None or (repo.token is not None and token != repo.token and not repo.gated):
            # one that is private is not told from one that is not there; 401 asks who has no token to bring one
            raise _RefusedError(404 if token else 401, **{"X-Error-Code": "RepoNotFound"})
        return repo

    def _files(self, repo: Repo, revision: str) -> tuple[str, dict[str, bytes]]:
        found = repo.at(revision)
        if found is None:
            raise _RefusedError(404, **{"X-Error-Code": "RevisionNotFound"})
        return found

    def _body(self, name: str, content: bytes, fault: Fault | None, headers: dict[str, str]) -> None:
        asked = self.headers.get("Range")
        begin = int(asked.removeprefix("bytes=").partition("-")[0]) if asked and not (fault and fault.whole) else 0
        part = content[begin:]
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        if fault is not None and fault.garbage:
            part = bytes(len(part))
        if fault is not None and fault.short is not None:
            part = part[: fault.short]
        self._send(206 if begin else 200, part, {"Accept-Ranges": "bytes", **headers}, name, fault)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], name: str = "", fault: Fault | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {**self.hub.headers, **headers}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = fault.cut if fault is not None else None
        for place in range(0, len(body) if cut is None else cut, 1 << 18):
            piece = body[place : min(place + (1 << 18), len(body) if cut is None else cut)]
            self.wfile.write(piece)
            if name:
                self.hub.served[name] = self.hub.served.get(name, 0) + len(piece)
            if fault is not None and fault.delay:
                time.sleep(fault.delay)
        if cut is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
