"""Installed-like plugins: a module and its dist-info in a folder that goes on PYTHONPATH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def install_plugin(
    folder: Path,
    name: str,
    code: str,
    *,
    group: str = "codellm",
    entry: str | None = None,
    version: str = "1.0",
    requires: tuple[str, ...] = (),
) -> None:
    """Put the distribution `name` with one module of the same name into `folder`."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry or f'{name} = {module}'}\n")


def codellm(*args: str, path: Path | None = None, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, with `path` on PYTHONPATH."""
    return python("-m", "codellm", *args, path=path, stdin=stdin, **env)


def python(*args: str, path: Path | None = None, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with `path` on PYTHONPATH."""
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **env}
    if path is not None:
        variables["PYTHONPATH"] = os.pathsep.join([str(path), variables.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, *args], input=stdin, capture_output=True, env=variables, timeout=300)
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
