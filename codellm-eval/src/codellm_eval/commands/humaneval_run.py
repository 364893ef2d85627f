"""The run behind `codellm eval humaneval`: model, samples on disk, verdicts, summary."""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from codellm.cli.output import note, progress
from codellm.errors import InputError
from codellm.sampling import SamplingParams
from codellm.spec import LoadSpec
from codellm_eval.bubblewrap import Limits, Sandbox
from codellm_eval.commands.judge_run import Update, judge_into, score_columns, score_row
from codellm_eval.errors import refuse_dummy
from codellm_eval.humaneval import Score, generate, sampling
from codellm_eval.manifest import collect, record
from codellm_eval.problems import Problem, load_problems
from codellm_eval.samples import JsonlWriter, Sample
from codellm_eval.sandbox import PERMISSION, code_allowed, sandbox_status
from codellm_eval.tables import Column, render

if TYPE_CHECKING:
    from codellm.model import Model

SAMPLES, RESULTS, MANIFEST, SUMMARY = "samples.jsonl", "results.jsonl", "manifest.json", "summary.json"


@attrs.frozen(kw_only=True)
class HumanEvalRun:
    """One run, checked before anything is loaded. `sandbox` is None where `unjudged` says why."""

    spec: LoadSpec
    params: SamplingParams
    n_samples: int
    problems: Mapping[str, Problem]
    limits: Limits
    workers: int | None
    sandbox: Sandbox | None
    unjudged: str
    output: Path

    @classmethod
    def of(cls, spec: LoadSpec, arguments: dict[str, Any]) -> Self:
        """The run that the command's arguments ask for.

        Raises:
            InvalidValueError, ProblemsError, DummyModelError, InputError: it cannot be done; nothing was loaded.
        """
        seed = arguments["seed"]
        if seed is None and arguments["temperature"] > 0:
            seed = secrets.randbelow(2**31)  # drawn here, so that the manifest names it
        refuse_dummy(spec.model.startswith("dummy:"), "pass@k")
        output = arguments["output"] or _default_output(spec.model)
        for name in (SAMPLES, RESULTS):
            if (output / name).exists():
                raise InputError(f"{output / name} exists and is kept; give another --output, or remove it")
        sandbox, unjudged = _sandbox(arguments["allow"])
        return cls(
            spec=spec,
            params=sampling(
                n_samples=arguments["n_samples"],
                temperature=arguments["temperature"],
                top_p=arguments["top_p"],
                seed=seed,
                max_tokens=arguments["max_tokens"],
            ),
            n_samples=arguments["n_samples"],
            problems=dict(itertools.islice(load_problems().items(), arguments["limit"])),
            limits=Limits.of(arguments["timeout"]),
            workers=arguments["workers"],
            sandbox=sandbox,
            unjudged=unjudged,
            output=output,
        )

    def run(self, format_: str) -> str:
        """Do it; the table is returned.

        Raises:
            CodellmError: the model, the backend or the sandbox failed; finished samples are kept.
        """
        from codellm.loading import open_spec

        with progress() as update, open_spec(self.spec, update) as model:
            refuse_dummy(model.info.dummy, "pass@k")
            self._prepare(model)
            try:
                score = self._samples_to_score(model, update)
            except BaseException:
                note(f"the samples that had finished are kept: {self.output / SAMPLES}")
                raise
            row, columns = self._row(model, score), [*_MODEL_COLUMNS, *score_columns(score)]
        (self.output / SUMMARY).write_text(render(columns, [row], "json"), "utf-8")
        note(f"samples and verdicts: {self.output}")
        return render(columns, [row], format_)

    def _prepare(self, model: Model) -> None:
        seeds = () if self.params.seed is None else (self.params.seed,)
        manifest = collect(seeds=seeds, models=[record(self.spec.model, model.info)])
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            (self.output / MANIFEST).write_text(manifest.to_json(), "utf-8")
        except OSError as error:
            raise InputError(f"{self.output}: cannot be written ({error.strerror}); give another --output") from error

    def _samples_to_score(self, model: Model, update: Update) -> Score | None:
        total = len(self.problems) * self.n_samples
        with (
            JsonlWriter(self.output / SAMPLES) as writer,
            contextlib.closing(self._written(model, writer, total, update)) as samples,
        ):
            if self.sandbox is None:
                for _ in samples:
                    pass
                return None
            with JsonlWriter(self.output / RESULTS) as results:
                return judge_into(
                    results, samples, self.problems, self.sandbox, self.limits, self.workers, total, update
                )

    def _written(self, model: Model, writer: JsonlWriter, total: int, update: Update) -> Generator[Sample, None, None]:
        """Generate, and keep each sample before it is judged."""
        unfit = 0
        with contextlib.closing(generate(model, self.problems.values(), self.params, self.n_samples)) as samples:
            for sample in samples:
                writer.write(sample.line())
                unfit += sample.error is not None
                update("sampled", writer.lines, total)
                yield sample
        if unfit:
            note(f"{unfit} prompts do not fit the context of {model.info.context_length} tokens; they count as failed")

    def _row(self, model: Model, score: Score | None) -> dict[str, Any]:
        info = model.info
        row = {"model": self.spec.model, "backend": info.backend, "scheme": info.scheme}
        if score is not None:
            return {**row, **score_row(score)}
        total = len(self.problems) * self.n_samples
        return {**row, "problems": len(self.problems), "samples": total, "pass@1": self.unjudged}


_MODEL_COLUMNS = [Column("model", "Model"), Column("backend", "Backend"), Column("scheme", "Scheme")]


def _sandbox(allow: bool) -> tuple[Sandbox | None, str]:
    """The sandbox to judge in, or what the pass@1 cell says instead: which command mends it."""
    if not code_allowed(allow):
        return None, f"not judged: {PERMISSION}"
    status = sandbox_status()
    return status.sandbox, "" if status.ok else f"not judged: {status.reason}; {status.remedy}"


def _default_output(model: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-") or "model"
    return Path(f"humaneval-{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
