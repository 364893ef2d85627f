"""Start-up of the command line: `codellm --help` as a whole process, beside an empty Python.

python tests/benchmarks/startup.py --output docs/results/startup.json
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import common


def timed(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("startup.json"))
    options = parser.parse_args()
    script = str(Path(sys.executable).with_name("codellm"))
    values = common.rounds(
        options.repeats,
        {
            "codellm --help": lambda: timed(script, "--help"),
            "codellm backends": lambda: timed(script, "backends"),
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
