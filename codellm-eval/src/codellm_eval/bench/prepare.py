"""Everything that a row needs on disk, made before its process starts: neither its load time nor its peak counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codellm_eval.bench.job import Job

if TYPE_CHECKING:
    from codellm_eval.bench.report import Report


def prepare(job: Job, report: Report) -> None:
    """Fetch the model's files, and make the artifact of a file scheme where the cache does not hold it.

    Raises:
        CodellmError: it cannot be had, and why.
    """
    from codellm import artifacts
    from codellm.registry import registry
    from codellm.sources import find

    report.phase("fetch")
    spec = job.spec()
    reference = find(spec.model)
    backend = registry().choose(spec, reference.format)
    source = reference.fetch()
    name = spec.scheme or reference.scheme
    if name is None and reference.format not in backend.formats:
        name = backend.default_scheme
    scheme = next((scheme for scheme in backend.schemes() if scheme.name == name), None)
    if scheme is not None and scheme.applies == "file" and source.scheme != scheme.name:
        last = ""

        def progress(what: str, _done: int, _total: int) -> None:
            nonlocal last
            if what != last:
                last = what
                report.phase(what)

        artifacts.ensure(source, scheme, threads=spec.threads, progress=progress)
