"""Who may ask: those that bear the key, by a name of this server, and no page of another site."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from codellm.serve.refusal import Refusal

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp


class Gate:
    """Looks at the head of a request.

    With a `key` it must bear that. Where `local`, the name that it calls the server by (its Host) must be one of this
    machine itself or of `hosts`: a page of another site can make a browser take the site's own name for this machine.
    Pages of `origins` may ask, those of all sites where one of them is "*".
    """

    def __init__(
        self, key: str | None = None, hosts: Collection[str] = (), origins: Collection[str] = (), *, local: bool = False
    ) -> None:
        self._key = None if key is None else f"Bearer {key}".encode()
        self._hosts = frozenset(map(str.lower, hosts))
        self._origins = frozenset(origins)
        self._local = local

    def admit(self, request: Request) -> None:
        """Let a request pass.

        Raises:
            Refusal: it may not.
        """
        host = request.headers.get("host", "")
        if self._local and not (is_loopback(name := _hostname(f"//{host}")) or name in self._hosts):
            text = f"this server does not go by the name {name[:100]!a}: --allowed-host gives it one more"
            raise Refusal(HTTPStatus.FORBIDDEN, text, code="host_not_allowed")
        origin = request.headers.get("origin", "")
        if request.method == "POST" and origin.startswith(("http://", "https://")):
            same = origin.partition("//")[2].lower() == host.lower()
            if not same and _hostname(origin) not in self._hosts and not {"*", origin} & self._origins:
                text = "this server answers no page of another site: --cors-origin names those that it does"
                raise Refusal(HTTPStatus.FORBIDDEN, text, code="origin_not_allowed")
        given = request.headers.get("authorization", "").encode("utf-8", "replace")
        if self._key is not None and not hmac.compare_digest(given, self._key):
            raise Refusal(
                HTTPStatus.UNAUTHORIZED,
                "this server wants its API key: Authorization: Bearer KEY",
                code="invalid_api_key",
            )


def shared(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """An application whose answers pages of `origins` may read; a browser asks before it sends what it would not."""
    if not origins:
        return app
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(app, allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=["*"])


def is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's own."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _hostname(url: str) -> str:
    """The name or address in a URL, without its port; empty where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
