"""Fault of a row's process, and what it leaves of the row."""

from __future__ import annotations

import attrs

from codellm_eval.bench.records import figures
from codellm_eval.bench.records.record import FAILED, Gap, Record


def failed(record: Record, reason: str) -> Record:
    """Give `record` as it is after its process failed: what was measured stays, and what is missing says why."""
    if record.tpot is None:
        return attrs.evolve(record, error=reason)
    for figure in figures.FIGURES:
        if figure.missing is not None and figure.value(record) in (None, ()) and figure.gap(record) is None:
            record = record.with_gap(figure.field, Gap(FAILED, reason))
    return record
