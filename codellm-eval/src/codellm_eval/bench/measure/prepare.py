"""Everything that a row needs on disk, made before its process starts: neither its load time nor its peak counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codellm.spec import LoadSpec
    from codellm_eval.bench.process.pipe import Report


def prepare(spec: LoadSpec, report: Report) -> None:
    """Fetch the model's files, and make the artifact of a file scheme where the cache does not hold it.

    Raises:
        CodellmError: it cannot be had, and why.
    """
    from codellm import loading

    last = ""

    def progress(what: str, _done: int, total: int) -> None:
        nonlocal last
        if total and what != last:  # else it is a remark
            last = what
            report.phase(what)

    report.phase("fetch")
    loading.prepare(spec, progress)
