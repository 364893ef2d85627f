"""The run behind `codellm eval humaneval` and `codellm eval infilling`: a model, its samples on disk, their verdicts.

What a run that was killed has left is taken as it is, and only what is missing is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from codellm.cli.output import note, progress
from codellm.errors import NoFimError
from codellm.progress import Progress
from codellm.sampling import SamplingParams
from codellm.spec import LoadSpec
from codellm.system.packages import installed_versions
from codellm_eval.commands.judge_run import note_outcomes, score_columns, score_row
from codellm_eval.errors import SamplesError, refuse_dummy
from codellm_eval.files.manifest import PACKAGES, Manifest, collect, record
from codellm_eval.files.run_folder import Begun, RunFolder, Settings, refuse_other
from codellm_eval.files.tables import Column, render
from codellm_eval.files.writing import refuse_unwritable
from codellm_eval.humaneval.answers import Answers
from codellm_eval.humaneval.judging import JudgeSetup, Judging
from codellm_eval.humaneval.samples import Sample
from codellm_eval.humaneval.sampling import Form, generate
from codellm_eval.humaneval.scoring import judge_canonical, score
from codellm_eval.judge.judge import Verdict
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.problem import Problem
from codellm_eval.judge.sandbox import PERMISSION, code_allowed, sandbox_status

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.sources import ModelSource

MODEL_COLUMNS = [Column("model", "Model"), Column("backend", "Backend"), Column("scheme", "Scheme")]
_LOADED = ("model", "revision", "backend", "scheme", "dtype", "device", "attn_implementation", "context_length")
_SAMPLED = ("max_tokens", "temperature", "top_p", "seed")


@attrs.frozen(kw_only=True)
class HumanEvalRun:
    """One run, checked before anything is loaded.

    `canonical` are the problems whose canonical solutions must pass before anything is judged; `settings` say what
    else the samples and verdicts depend on; `cells` go into the table. `judge` is None where `unjudged` says why.
    """

    name: str
    spec: LoadSpec
    form: Form
    params: SamplingParams
    n_samples: int
    problems: Mapping[str, Problem]
    canonical: Mapping[str, Problem]
    settings: Settings
    cells: Mapping[str, str]
    judge: JudgeSetup | None
    unjudged: str
    output: Path | None

    def run(self, format_: str) -> str:
        """Do what is not done yet; the table is returned.

        Raises:
            CodellmError: the folder holds another run, or the model, the backend or the sandbox failed; finished
                samples are kept.
        """
        from codellm.loading import prepare

        refuse_unwritable(self.output or Path())
        with progress() as update:
            settings = self._held(*prepare(self.spec, update))
        folder = RunFolder(self.output or self._default_output(settings))
        begun = folder.begun()
        params = attrs.evolve(self.params, seed=self._seed(begun))
        settings = {**settings, "seed": params.seed}
        if begun is not None:
            refuse_other(folder, begun.settings, settings)
        with Answers(folder, self.problems, self.n_samples) as answers:
            work = _Work(self, folder, settings, params, answers, begun.manifest if begun is not None else None)
            if answers.samples:
                note(f"{folder.path} has {len(answers.samples)} of {answers.total} samples already")
            try:
                with progress() as update:
                    work.finish(update)
            except BaseException:
                if answers.samples:
                    note(f"what had finished is kept in {folder.path}; the same command goes on from there")
                raise
            return work.report(format_)

    def _held(self, spec: LoadSpec, source: ModelSource) -> Settings:
        """Settings that the samples and verdicts depend on. How many are computed together is no part of it."""
        return {
            "benchmark": self.name,
            **self.settings,
            **{name: getattr(spec, name) for name in _LOADED},
            "weights": source.digest,
            **{f"-o {key}": value for key, value in spec.options.items()},
            "n_samples": self.n_samples,
            **{name: getattr(self.params, name) for name in _SAMPLED},
            **{f"version of {name}": version for name, version in installed_versions(PACKAGES).items()},
        }

    def _seed(self, begun: Begun | None) -> int | None:
        """Choose the seed: as asked, as in the run that goes on, or fresh; here, so that the manifest names it."""
        if self.params.seed is not None or self.params.temperature == 0:
            return self.params.seed
        return begun.settings.get("seed") if begun is not None else secrets.randbelow(2**31)

    def _default_output(self, settings: Settings) -> Path:
        """A folder for each set of settings, so that the same command finds what it left."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.spec.model.rstrip("/").rpartition("/")[2]).strip("-") or "model"
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return Path(f"{self.name}-{name}-{digest[:8]}")


@attrs.define
class _Work:
    """A run under way: what its folder has, and what is to come. `manifest` is None until its model was loaded."""

    run: HumanEvalRun
    folder: RunFolder
    settings: Settings
    params: SamplingParams
    answers: Answers
    manifest: Manifest | None

    def finish(self, update: Progress) -> None:
        """Generate what is missing and judge what has no verdict, at the same time."""
        answers = self.answers
        with contextlib.ExitStack() as stack:
            judging = self._judging(update)
            if judging is not None:
                stack.enter_context(judging)
                for sample in answers.unjudged:
                    judging.hand(sample)
            if answers.missing:
                self._generate(judging, update)
            if judging is not None:
                judging.finish()

    def _judging(self, update: Progress) -> Judging | None:
        """The judge, once it has shown that right programs pass here; None where nothing is to be judged."""
        setup, answers = self.run.judge, self.answers
        if setup is None or len(answers.verdicts) == answers.total:
            return None
        update("checking that the canonical solutions pass", 0, 0)
        workers = setup.workers(beside_model=False)
        judge_canonical(self.run.canonical, sandbox=setup.sandbox, limits=setup.limits, workers=workers)

        def keep(sample: Sample, verdict: Verdict) -> None:
            answers.keep_verdict(sample, verdict)
            update("judged", len(answers.verdicts), answers.total)

        return Judging(self.run.problems, setup, setup.workers(beside_model=answers.missing > 0), keep)

    def _generate(self, judging: Judging | None, update: Progress) -> None:
        from codellm.loading import open_spec

        run, answers = self.run, self.answers
        with open_spec(run.spec, update) as model:
            refuse_dummy(model.info.dummy, "pass@k")
            self._try_form(model)
            if self.manifest is None:
                seeds = () if self.params.seed is None else (self.params.seed,)
                self.manifest = collect(seeds=seeds, models=[record(run.spec.model, model.info)])
                self.folder.begin(self.manifest, self.settings)
            problems, known = run.problems.values(), set(answers.samples)
            stream = generate(model, problems, self.params, run.n_samples, form=run.form, known=known)
            with contextlib.closing(stream) as samples:
                for sample in samples:
                    answers.keep(sample)
                    update("sampled", len(answers.samples), answers.total)
                    if judging is not None:
                        judging.hand(sample)

    def _try_form(self, model: Model) -> None:
        """See that the model can be asked at all, before a folder is begun.

        Raises:
            NoFimError: it cannot fill in.
        """
        try:
            self.run.form.prompt(next(iter(self.run.problems.values())), model.tokenizer)
        except NoFimError as error:
            raise NoFimError(f"{self.run.spec.model}: {error}") from error

    def _origins(self) -> dict[str, str]:
        """What each task was made from: itself, where it is no infilling task."""
        return {task: problem.origin or task for task, problem in self.run.problems.items()}

    def report(self, format_: str) -> str:
        """The table of the finished run, which is written beside the samples as well.

        Raises:
            SamplesError: a sample or a verdict is missing after all.
        """
        run, answers, manifest = self.run, self.answers, self.manifest
        if answers.missing or manifest is None:
            raise SamplesError(f"{self.folder.path}: {answers.missing} of {answers.total} samples are missing")
        [model] = manifest.models
        unfit = sum(sample.error is not None for sample in answers.samples.values())
        if unfit:
            note(f"{unfit} prompts do not fit the context of {model.info.context_length} tokens; they count as failed")
        row = {**model_cells(manifest), **run.cells}
        judged = answers.judged()
        found = None if judged is None else score(judged, self._origins())
        if found is None:
            if run.judge is not None:
                raise SamplesError(
                    f"{self.folder.path}: {len(answers.unjudged)} of {answers.total} verdicts are missing"
                )
            row |= {"problems": len(run.problems), "samples": answers.total, "pass@1": run.unjudged}
        else:
            row |= score_row(found)
            note_outcomes(found)

        def table(format_: str) -> str:
            named = [Column(name, name.capitalize()) for name in run.cells]
            return render([*MODEL_COLUMNS, *named, *score_columns(found, format_)], [row], format_)

        self.folder.write("summary.json", table("json"))
        note(f"samples and verdicts: {self.folder.path}")
        return table(format_)


def model_cells(manifest: Manifest) -> dict[str, Any]:
    """The cells of `MODEL_COLUMNS`."""
    [model] = manifest.models
    return {"model": model.name, "backend": model.info.backend, "scheme": model.info.scheme}


def judge_setup(arguments: Mapping[str, Any]) -> tuple[JudgeSetup | None, str]:
    """Where to judge, or what the pass@1 cell says instead: which command mends it.

    Raises:
        InvalidValueError: a limit is out of range.
    """
    limits = Limits.of(arguments["timeout"], arguments["memory"])
    if not code_allowed(arguments["allow"]):
        return None, f"not judged: {PERMISSION}"
    status = sandbox_status()
    if status.sandbox is None:
        return None, f"not judged: {status.reason}; {status.remedy}"
    return JudgeSetup(status.sandbox, limits, arguments["workers"]), ""


def problems_digest(problems: Mapping[str, Problem]) -> str:
    """SHA-256 of the problems, as a setting that no other problems have."""
    text = json.dumps([attrs.asdict(problem) for problem in problems.values()])
    return hashlib.sha256(text.encode()).hexdigest()
