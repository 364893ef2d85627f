"""`codellm serve`."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codellm.cli.ending import say
from codellm.cli.options import load_specs, several_load_options
from codellm.cli.output import note, progress
from codellm.errors import DownloadError, InvalidValueError, MissingPackageError

if TYPE_CHECKING:
    from codellm.spec import LoadSpec

_LOOPBACK = ("127.", "localhost", "::1")


@click.command(context_settings={"default_map": {"batch_size": 4}})
@several_load_options
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8012,
    show_default=True,
    metavar="N",
    help="Port to listen at; 0 takes a free one.",
)
@click.option(
    "--api-key",
    envvar="CODELLM_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="Answer those alone that bear this key.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Name that clients may call a server at this machine's own address by, as a proxy's; repeatable.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Pages that may ask and read the answers, as http://localhost:3000, or * for all; repeatable.",
)
@click.option("--log-prompts", is_flag=True, help="Log what each request asks, the text of its prompt too.")
@click.option(
    "--queue-size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    metavar="N",
    help="Sequences that may wait for a slot; more are told to come again.",
)
@click.option(
    "--keep-alive",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Unload a model that nobody asked for so long.  [default: when another needs its memory]",
)
@click.option(
    "--shutdown-timeout",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that requests have to finish in once the server is told to stop.",
)
def serve(
    host: str, port: int, api_key: str | None, allowed_hosts: tuple[str, ...], cors_origins: tuple[str, ...],
    log_prompts: bool, queue_size: int, keep_alive: float | None, shutdown_timeout: float,
    **arguments: Any,
) -> None:  # fmt: skip
    """Answer requests over HTTP with one model or several, as OpenAI's API and llama.cpp's infill have them.

    The first -m is loaded before anything is answered, and meant where a request names no model; each other one is
    loaded when a request names it, under its hub id or the name of its file or directory. Requests run together, up to
    --batch-size; more wait. Ctrl-C or SIGTERM stops: what was taken is finished, nothing new is. Every address but this
    machine's own wants an --api-key.
    """
    _require_extra()
    origins = [_origin(text) for text in cors_origins]
    specs = _named(load_specs(arguments))
    import asyncio

    from codellm.loading import open_spec
    from codellm.prefix_cache import CONVERSING
    from codellm.serve.app import App
    from codellm.serve.gate import Gate, is_loopback, shared
    from codellm.serve.pool import Pool, described
    from codellm.serve.server import address, bind
    from codellm.serve.server import serve as listen

    with bind(host, port) as listener:
        url = address(listener)
        name, *others = specs
        _find(specs[other] for other in others)
        loads = {each: functools.partial(open_spec, spec, defaults=CONVERSING) for each, spec in specs.items()}
        pool = Pool(loads, queue_size, say, keep_alive)
        with progress() as update:
            model = open_spec(specs[name], update, CONVERSING)
        pool.hold(name, model)
        gate = Gate(api_key, allowed_hosts, origins, local=is_loopback(listener.getsockname()[0]))

        def ready() -> None:
            if api_key is None and not host.startswith(_LOOPBACK):
                note("whoever reaches this machine can ask: --api-key lets in those alone that bear it")
            more = f"; {', '.join(others)} on demand" if others else ""
            say(f"codellm: {name} at {url} ({described(model)}){more}; Ctrl-C stops")

        app = App(pool, gate, say, log_prompts=log_prompts)
        try:
            asyncio.run(listen(shared(app, origins), pool, listener, shutdown_timeout, ready))
        finally:
            pool.close()


def _origin(text: str) -> str:
    """An origin as browsers write it: in small letters, without a slash at its end; or "*".

    Raises:
        BadParameter: it is none.
    """
    origin = text.lower().removesuffix("/")
    if origin != "*" and not re.fullmatch(r"https?://([\w.-]+|\[[\da-f:.]+\])(:\d{1,5})?", origin, re.ASCII):
        what = f"{text!r} is no origin, as https://example.org or http://localhost:3000 are"
        raise click.BadParameter(what, param_hint="--cors-origin")
    return origin


def _named(specs: Iterable[LoadSpec]) -> dict[str, LoadSpec]:
    """Models by what clients call them: the name of a file or directory, without the way there, or what was said.

    Raises:
        InvalidValueError: two have one name.
    """
    found: dict[str, LoadSpec] = {}
    for spec in specs:
        path = os.path.expanduser(spec.model)  # noqa: PTH111 - as codellm.sources.model_string has it
        name = Path(os.path.abspath(path)).name if os.path.exists(path) else spec.model  # noqa: PTH100, PTH110
        if name in found:
            raise InvalidValueError(f"clients could not tell two models called {name!r} apart; rename one of them")
        found[name] = spec
    return found


def _find(specs: Iterable[LoadSpec]) -> None:
    """See that models are there, as far as can be told before they are wanted.

    Raises:
        CodellmError: one is not.
    """
    from codellm.loading import find

    for spec in specs:
        try:
            find(spec.model, spec.revision)
        except DownloadError as error:  # the network may come back
            note(f"{error}")


def _require_extra() -> None:
    needed = ("prometheus-client", "starlette", "uvicorn")
    missing = [name for name in needed if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        raise MissingPackageError(f'codellm serve needs {" and ".join(missing)}: pip install "codellm-core[serve]"')
