"""`codellm serve`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click

from codellm.cli.ending import say
from codellm.cli.options import load_options, load_spec
from codellm.cli.output import note, progress
from codellm.errors import MissingPackageError

_LOOPBACK = ("127.", "localhost", "::1")


@click.command(context_settings={"default_map": {"batch_size": 4}})
@load_options
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
    "--queue-size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    metavar="N",
    help="Sequences that may wait for a slot; more are told to come again.",
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
    host: str, port: int, api_key: str | None, queue_size: int, shutdown_timeout: float, **arguments: Any
) -> None:  # fmt: skip
    """Answer requests over HTTP with one model, as OpenAI's API and llama.cpp's infill have them.

    Requests run together, up to --batch-size; more wait. Ctrl-C or SIGTERM stops: what was taken is finished, nothing
    new is. Every address but this machine's own wants an --api-key.
    """
    _require_extra()
    spec = load_spec(arguments)
    import asyncio
    import time

    from codellm.loading import open_spec
    from codellm.prefix_cache import CONVERSING
    from codellm.serve.app import App
    from codellm.serve.engine import Engine
    from codellm.serve.server import address, bind
    from codellm.serve.server import serve as listen
    from codellm.serve.service import Service

    with bind(host, port) as listener:
        url = address(listener)
        with progress() as update:
            model = open_spec(spec, update, CONVERSING)
        engine = Engine(model, queue_size)
        name = Path(spec.model).name if Path(spec.model).exists() else spec.model
        service = Service(name, engine, created=int(time.time()))
        info = model.info
        kept = "" if info.prefix_cache is None else f", prefixes kept there and in {info.prefix_cache >> 20} MiB more"

        def ready() -> None:
            if api_key is None and not host.startswith(_LOOPBACK):
                note("whoever reaches this machine can ask: --api-key lets in those alone that bear it")
            say(
                f"codellm: {name} at {url} ({info.backend}, {info.scheme}, {info.context_length} tokens, "
                f"{info.batch_size} sequences together{kept}); Ctrl-C stops"
            )

        try:
            asyncio.run(listen(App(service, api_key, say), engine, listener, shutdown_timeout, ready))
        finally:
            service.close()
            if engine.join(timeout=10):
                model.close()


def _require_extra() -> None:
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackageError(f'codellm serve needs {" and ".join(missing)}: pip install "codellm-core[serve]"')
