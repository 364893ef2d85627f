"""What of a row's quality needs no code to run: bits per byte, canonical solutions, divergence from the reference row.

What fails here leaves the row its speed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from codellm_eval.bench.records.record import make_converter
from codellm_eval.files.writing import write_whole

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm_eval.bench.ask.job import Job, QualityPlan
    from codellm_eval.bench.process.pipe import Report
    from codellm_eval.perplexity.canonical import Greedy
    from codellm_eval.perplexity.documents import Document

DUMMY = "dummy weights are random: they have a speed and no quality"


def measure_quality(model: Model, job: Job, plan: QualityPlan, report: Report) -> None:
    """Measure everything of `plan` that needs no code to run; a fault of one column is a gap of that column."""
    with report.gap_on_error("bits_per_byte"):
        _measure_bits(model, plan, report)
    with report.gap_on_error("canonical"):
        _measure_solutions(model, job, plan, report)
    if job.reference_folder is not None:
        with report.gap_on_error("divergence"):
            _measure_divergence(model, job, plan, report)


def _measure_bits(model: Model, plan: QualityPlan, report: Report) -> None:
    """Bits per byte, each document by itself.

    Raises:
        CodellmError: the corpus is missing, or the model cannot score.
    """
    from codellm_eval.perplexity import perplexity
    from codellm_eval.perplexity.documents import heldout_documents

    documents = first_bytes(heldout_documents(), plan.text_bytes)
    measured = perplexity.measure(model, documents, progress=_percent("bits per byte", report))
    report.fields(
        bits_per_byte=measured.bits_per_byte,
        reading=str(measured.reading),
        scored_bytes=measured.bytes,
        scored_documents=measured.documents,
        documents=make_converter().unstructure(measured.each),
    )


def _measure_solutions(model: Model, job: Job, plan: QualityPlan, report: Report) -> None:
    """The probability of the canonical solutions, and agreement with what the reference row left.

    Raises:
        CodellmError: the problems are missing, or the model cannot score.
    """
    from codellm_eval.humaneval.problems import load_problems
    from codellm_eval.perplexity.canonical import score_solutions

    problems = list(load_problems().values())[: plan.limit]
    kept = Path(job.reference_folder, "greedy.json") if job.reference_folder is not None else None
    reference: Greedy | None = None
    if kept is not None and not job.is_reference and kept.exists():
        reference = json.loads(kept.read_bytes())
    found = score_solutions(model, problems, reference, _percent("canonical solutions", report))
    if kept is not None and job.is_reference:
        write_whole(kept, json.dumps(found.greedy))
    report.fields(canonical=make_converter().unstructure(found.each), canonical_asked=len(problems))


def _measure_divergence(model: Model, job: Job, plan: QualityPlan, report: Report) -> None:
    """Leave the distributions of the reference row, or compare with them.

    Raises:
        CodellmError: the corpus is missing, the reference row left nothing that this row could be compared with, or
            the model cannot score.
        OSError: the distributions cannot be written.
    """
    from codellm_eval.perplexity.divergence import ReferenceFile, first_tokens
    from codellm_eval.perplexity.documents import heldout_documents
    from codellm_eval.perplexity.reading import Reading

    assert job.reference_folder is not None
    documents = first_bytes(heldout_documents(), plan.text_bytes)
    whole = Reading.of("document", model.info.context_length).passages(model.tokenizer, documents)
    passages = first_tokens(whole, plan.divergence_tokens)
    file = ReferenceFile(Path(job.reference_folder, "distributions"))
    if job.is_reference:
        file.write(model, passages, _percent("distributions", report))
    else:
        found = file.compare(model, passages, _percent("divergence", report))
        report.fields(divergence=make_converter().unstructure(found))


def first_bytes(documents: Sequence[Document], budget: int) -> list[Document]:
    """Documents until they hold `budget` bytes; the last is cut, at a character."""
    kept: list[Document] = []
    for document in documents:
        if budget <= 0:
            break
        text = document.text.encode()[:budget].decode(errors="ignore")
        if text:
            kept.append(attrs.evolve(document, text=text))
        budget -= document.size
    return kept


def _percent(what: str, report: Report) -> Callable[[int, int], None]:
    """Tell progress in percent."""

    def progress(done: int, total: int) -> None:
        report.phase(f"{what} {100 * done // total} %")

    return progress
