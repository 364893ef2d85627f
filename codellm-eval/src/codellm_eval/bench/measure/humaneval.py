"""pass@1 of a row: HumanEval, generated on a load of its own and judged in a sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from codellm_eval.bench.ask.job import QualityPlan

if TYPE_CHECKING:
    from codellm.model import Model
    from codellm.spec import LoadSpec
    from codellm_eval.bench.process.pipe import Report
    from codellm_eval.humaneval.samples import Sample
    from codellm_eval.judge.isolation import Sandbox
    from codellm_eval.judge.judge import Verdict
    from codellm_eval.judge.problem import Problem

NOT_ALLOWED = "add --allow-code-execution to run what the model writes, in a sandbox"


@attrs.frozen
class HumanEval:
    """pass@1 with one greedy sample of each problem: the problems, and where their completions are judged."""

    plan: QualityPlan
    problems: dict[str, Problem]
    sandbox: Sandbox

    @classmethod
    def prepare(cls, plan: QualityPlan, report: Report) -> HumanEval | None:
        """Get ready to judge; None where code may not or cannot run here, and the cell says which command mends it.

        Raises:
            ProblemsError: HumanEval's problems are not installed.
        """
        from codellm_eval.humaneval.problems import load_problems
        from codellm_eval.judge.sandbox import code_allowed, sandbox_status

        if not code_allowed(plan.allow_code_execution):
            report.gap("pass_at_1", "not run", NOT_ALLOWED)
            return None
        status = sandbox_status()
        if status.sandbox is None:
            cell = status.remedy if len(status.remedy) <= 40 else "no sandbox"
            report.gap("pass_at_1", cell, f"{status.reason}; mend it with: {status.remedy}")
            return None
        problems = list(load_problems().items())[: plan.limit]
        return cls(plan, dict(problems), status.sandbox)

    def spec(self, spec: LoadSpec, model: Model) -> LoadSpec:
        """What to load for the generation: many slots, each just long enough for the longest problem.

        At a model's whole context the keys and values of many slots would not fit into a laptop's memory.
        """
        from codellm_eval.humaneval.completion import model_prompt

        prompts = (model_prompt(problem.prompt) for problem in self.problems.values())
        longest = max(len(model.tokenizer.prompt_ids(prompt)) for prompt in prompts)
        return attrs.evolve(
            spec,
            batch_size=max(spec.batch_size, self.plan.batch_size),
            context_length=min(model.info.context_length, longest + self.plan.max_tokens),
        )

    def measure(self, spec: LoadSpec, report: Report, samples: Path | None) -> None:
        """Generate for every problem, then judge; the completions and verdicts go to the file `samples`.

        The canonical solutions are judged first, which have to pass. Judging waits until generating is done: on a
        laptop they would take each other's processors.

        Raises:
            CodellmError: a canonical solution fails, the model cannot generate, or the sandbox broke.
        """
        from codellm.system.machine import usable_threads
        from codellm_eval.errors import SamplesError
        from codellm_eval.humaneval import scoring
        from codellm_eval.judge.limits import Limits

        judge: dict[str, Any] = {"sandbox": self.sandbox, "limits": Limits(), "workers": usable_threads()}
        report.phase("judge the canonical solutions")
        scoring.judge_canonical(self.problems, **judge)
        drawn = self._generate(spec, report)
        verdicts = []
        judged = scoring.judge_samples(drawn, self.problems, **judge)
        for sample, verdict in judged:
            verdicts.append((sample, verdict))
            report.phase(f"judge {len(verdicts)}/{len(drawn)}")
        if samples is not None:
            self._write(samples, verdicts)
        score = scoring.score(verdicts)
        if not score.problems == score.samples == len(self.problems):
            raise SamplesError(f"{len(self.problems)} problems were asked and {score.samples} samples were judged")
        passed = score.outcomes.get("passed", 0)
        report.fields(
            pass_at_1=score.pass_at[1],
            passed=passed,
            tasks=score.problems,
            isolation=self.sandbox.level,
            verdicts={sample.task_id: verdict.passed for sample, verdict in verdicts},
        )

    def _generate(self, spec: LoadSpec, report: Report) -> list[Sample]:
        from codellm.loading import open_spec
        from codellm_eval.humaneval.sampling import generate, sampling

        drawn: list[Sample] = []
        report.phase("load for HumanEval")
        with open_spec(spec) as model:
            params = sampling(max_tokens=self.plan.max_tokens)
            for sample in generate(model, self.problems.values(), params):
                drawn.append(sample)
                report.phase(f"HumanEval {len(drawn)}/{len(self.problems)}")
        return drawn

    @staticmethod
    def _write(path: Path, verdicts: Sequence[tuple[Sample, Verdict]]) -> None:
        import json

        from codellm_eval.files.writing import write_whole
        from codellm_eval.humaneval.samples import judged_line

        ordered = sorted(verdicts, key=lambda pair: int(pair[0].task_id.rpartition("/")[2]))
        write_whole(path, "".join(json.dumps(judged_line(*pair)) + "\n" for pair in ordered))
