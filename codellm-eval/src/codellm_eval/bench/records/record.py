"""What is known of one row: filled as its process reports, kept also when the process dies half way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import cattrs

from codellm.model import ModelInfo
from codellm_eval.bench.ask.plan import Plan
from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.ask.workload import Workload
from codellm_eval.bench.records.against import Against
from codellm_eval.bench.records.point import Point
from codellm_eval.bench.records.resident import Resident
from codellm_eval.perplexity.divergence import Divergence
from codellm_eval.perplexity.scored import Scored, bits_per_byte
from codellm_eval.stats.differences import difference, solved
from codellm_eval.stats.repeats import Repeats

FAILED = "failed"
"""The cell of what was tried and failed."""


@attrs.frozen
class Gap:
    """Why a cell has no figure: `cell` fits into a table, `note` is the whole reason and what mends it."""

    cell: str
    note: str


@attrs.frozen(kw_only=True)
class Record:
    """One row's figures. A field is None while it is not known; `gaps` says why, by the field's name."""

    row: Row
    model: str
    plan: Plan | None = None
    """The plan as it was fitted to this model's context."""
    info: ModelInfo | None = None
    load_seconds: float | None = None
    prefill: Repeats | None = None
    """Tokens per second."""
    decode: Repeats | None = None
    """Tokens per second."""
    ttft: Repeats | None = None
    """Seconds."""
    tpot: Repeats | None = None
    """Seconds."""
    request: Repeats | None = None
    """Seconds from the start to the last token of the request that `ttft` and `tpot` are told of."""
    itl_p50: Repeats | None = None
    """Seconds: of each repeat the median gap between two tokens."""
    itl_p95: Repeats | None = None
    """Seconds: of each repeat the gap that 95 % of its gaps stay below."""
    repeated_prompt: Repeats | None = None
    """TTFT of a prompt of pp given again at once, over that of its first time. `checks` judges it and the next."""
    first_share: Repeats | None = None
    """The share of a tg request's time that passed before its first token."""
    clock_resolution: float | None = None
    """Seconds of the smallest step of the clock that times were told of."""
    points: tuple[Point, ...] = ()
    """The plan's further workloads, as they were measured: first those of one sequence, then the batches, on a load of
    their own. The latter hold one of batch size 1, which they are to be compared with rather than `decode`."""
    host_peak: int | None = None
    """Bytes, of the row's own process from its start to the end of the speed runs, the load included."""
    anonymous_peak: int | None = None
    """Bytes: the most private memory that it held in that time, looked at every 50 ms and at the end."""
    file_peak: int | None = None
    """Bytes: the most of mapped files that it held, likewise. The two need not be of one moment."""
    device_peak: int | None = None
    """Bytes; 0 where there is no device memory."""
    joules_per_token: Repeats | None = None
    """Joules of each token of tg, of all that `energy_source` counts: the idle share and other users are in it."""
    energy_source: str | None = None
    """The counter, as `RAPL package-0 + dram` or `NVML NVIDIA H100 80GB HBM3`."""
    bandwidth: float | None = None
    """Bytes per second that a read of memory achieves on the row's device, measured by its backend."""
    bits_per_byte: float | None = None
    scored_bytes: int | None = None
    """Bytes of text that `bits_per_byte` is told of."""
    scored_documents: int | None = None
    reading: str | None = None
    """The protocol of `bits_per_byte` with its sizes."""
    documents: tuple[Scored, ...] = ()
    """What `bits_per_byte` adds up."""
    canonical: tuple[Scored, ...] = ()
    """HumanEval's canonical solutions, of the tasks that fit the context."""
    canonical_asked: int | None = None
    """Tasks, those included that do not fit."""
    divergence: Divergence | None = None
    """From the reference row."""
    pass_at_1: float | None = None
    """Share of tasks solved, 0 to 1."""
    passed: int | None = None
    tasks: int | None = None
    isolation: str | None = None
    """The level at which programs were judged: see docs/sandbox.md."""
    verdicts: Mapping[str, bool] = attrs.field(factory=dict)
    """By task, whether it was solved."""
    against: Against | None = None
    """Differences from the reference row; None for that row itself."""
    seconds: float | None = None
    """Wall time of the whole row."""
    gaps: Mapping[str, Gap] = attrs.field(factory=dict)
    error: str | None = None
    """Why the row has no speed; None for a row that worked."""

    @property
    def limit_share(self) -> float | None:
        """Bytes of weights per second that decoding read, as a share of the bandwidth.

        Every decoded token reads all weights once; keys and values are left out. A share above 1 means that the
        weights fit into a cache nearer than the memory.
        """
        if self.info is None or self.decode is None or self.bandwidth is None:
            return None
        return self.info.weight_bytes * self.decode.median / self.bandwidth

    @property
    def perplexity(self) -> float | None:
        """The exponential of the mean -ln p of the tokens that `bits_per_byte` is told of."""
        if not self.documents:
            return None
        return math.exp(math.fsum(text.nll for text in self.documents) / sum(text.tokens for text in self.documents))

    @property
    def canonical_bits_per_byte(self) -> float | None:
        """Bits, -log2, of the canonical solutions' probability over their bytes."""
        return bits_per_byte(self.canonical) if self.canonical else None

    @property
    def greedy_agreement(self) -> float | None:
        """Share of the canonical solutions' tokens before which this row and the reference hold one token likeliest."""
        known = [task for task in self.canonical if task.agreed is not None]
        agreed = sum(task.agreed or 0 for task in known)
        return agreed / sum(task.tokens for task in known) if known else None

    def compared_with(self, reference: Record) -> Record:
        """This record beside the reference row's, over what both have; unchanged where that is nothing."""
        against = Against(
            reference=reference.row,
            bits=difference(self.documents, reference.documents),
            canonical=difference(self.canonical, reference.canonical),
            solved=solved(self.verdicts, reference.verdicts),
        )
        return attrs.evolve(self, against=against) if against.says_something else self

    def with_gap(self, column: str, gap: Gap) -> Record:
        """This record with a reason for an empty cell."""
        return attrs.evolve(self, gaps={**self.gaps, column: gap})

    def at_least(self, held: Resident | None) -> Record:
        """This record after its parent saw the process hold `held`; nothing changes where the process told nothing."""
        if held is None or self.anonymous_peak is None or self.file_peak is None:
            return self
        most = held.most(Resident(anonymous=self.anonymous_peak, file=self.file_peak))
        return attrs.evolve(self, anonymous_peak=most.anonymous, file_peak=most.file)

    @property
    def whole(self) -> bool:
        """Whether nothing of it failed; what does not exist here, or may not run, is no failure."""
        return self.error is None and all(gap.cell != FAILED for gap in self.gaps.values())

    def after(self, earlier: Record | None) -> Record:
        """This record of a row that was measured again; the earlier one where only that has a speed."""
        return earlier if earlier is not None and earlier.error is None and self.error is not None else self

    @property
    def missing_workloads(self) -> list[Workload]:
        """Workloads of the plan that have no point."""
        measured = {point.workload for point in self.points}
        return [each for each in self.plan.workloads if each not in measured] if self.plan else []


def make_converter() -> cattrs.Converter:
    """Converter between the classes of a benchmark and JSON; a row is its text."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_unstructure_hook(Row, str)
    converter.register_structure_hook(Row, lambda value, _: Row.parse(value))
    converter.register_unstructure_hook(Repeats, lambda repeats: list(repeats.values))
    converter.register_structure_hook(Repeats, lambda value, _: Repeats(tuple(float(each) for each in value)))
    return converter


def merge(record: Record, fields: Mapping[str, Any], converter: cattrs.Converter) -> Record:
    """Add to `record` the `fields` that its process reported as JSON.

    Raises:
        ValueError: a field that no Record has, or a value that is none of its type.
    """
    known = attrs.fields_dict(attrs.resolve_types(Record))
    unknown = fields.keys() - known.keys()
    if unknown:
        raise ValueError(f"a row has no field {', '.join(sorted(unknown))}")
    kinds: dict[str, Any] = {name: known[name].type for name in fields}
    return attrs.evolve(record, **{name: converter.structure(fields[name], kinds[name]) for name in fields})
