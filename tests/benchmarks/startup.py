"""Start-up of the command line: whole processes with and without 50 more plugins, beside an empty Python.

python tests/benchmarks/startup.py --output docs/results/startup.json
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

sys.path.append(str(Path(__file__).parents[1]))  # for `support`, which pytest finds by its configuration
from support.plugin_folder import install_plugin

MANY = 50
PLUGIN = """
from codellm import Availability, Backend, hookimpl

class Toy(Backend):
    name, formats = "{name}", frozenset({{"toy"}})
    def availability(self): return Availability(True)
    def schemes(self): return ()
    def load(self, spec, source): raise NotImplementedError

@hookimpl
def codellm_backends(): return [Toy()]
"""


def timed(*command: str, path: Path | None = None) -> float:
    environment = os.environ if path is None else {**os.environ, "PYTHONPATH": str(path)}
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def install_many(folder: Path) -> None:
    """Distributions that each bring a backend and a command."""
    for name in (f"toy{number}" for number in range(MANY)):
        entry = f"{name} = {name}\n[codellm.commands]\n{name} = {name}:command"
        install_plugin(folder, name, PLUGIN.format(name=name), entry=entry, requires=("codellm-core>=0.1",))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("startup.json"))
    options = parser.parse_args()
    script = str(Path(sys.executable).with_name("codellm"))
    with tempfile.TemporaryDirectory() as folder:
        install_many(Path(folder))
        values = common.rounds(
            options.repeats,
            {
                "codellm --help": lambda: timed(script, "--help"),
                f"codellm --help, {MANY} more plugins": lambda: timed(script, "--help", path=Path(folder)),
                "codellm backends": lambda: timed(script, "backends"),
                f"codellm backends, {MANY} more plugins": lambda: timed(script, "backends", path=Path(folder)),
                "python -c pass": lambda: timed(sys.executable, "-c", "pass"),
            },
        )
    common.write(
        options.output,
        protocol="seconds of a whole process, alternating rounds",
        seconds={name: common.summary(each) for name, each in values.items()},
    )


if __name__ == "__main__":
    main()
