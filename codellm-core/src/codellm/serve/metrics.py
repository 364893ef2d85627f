"""What a monitor reads at `/metrics`, in the text format of Prometheus."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from codellm.result import FinishReason
from codellm.serve.pool import Entry, Pool
from codellm.serve.tally import Counts, Histogram

TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""What every monitor reads, and all that these names and labels need."""

ELSEWHERE = "other"
"""The endpoint of a request for a path at which there is none: clients could name any number of these."""


class Metrics(Collector):
    """The numbers of one server: of its requests, which `count` is told of, and of the models of `pool`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._requests: Counter[tuple[str, int]] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def count(self, endpoint: str, status: int) -> None:
        """Count a request that was answered, or whose client has gone."""
        self._requests[endpoint, status] += 1

    def answer(self) -> Response:
        """All of them as text."""
        return Response(generate_latest(self._registry), headers={"content-type": TEXT})

    def collect(self) -> Iterator[Metric]:
        """Every metric, with a sample for each model."""
        requests = CounterMetricFamily(
            "codellm_requests", "Requests, by endpoint and status.", labels=("endpoint", "status")
        )
        for (endpoint, status), number in sorted(self._requests.items()):
            requests.add_metric((endpoint, str(status)), number)
        yield requests
        yield from self._models()
        yield from self._sequences()

    def _models(self) -> Iterator[Metric]:
        entries = list(self._pool.entries)
        counts = [entry.counts for entry in entries]
        for name, text, values in (
            ("codellm_model_loaded", "Whether the model is loaded.", [one.service is not None for one in entries]),
            ("codellm_sequences_running", "Sequences that the model works on.", [running for running, _ in counts]),
            ("codellm_sequences_waiting", "Sequences that wait for a slot.", [waiting for _, waiting in counts]),
        ):
            gauge = GaugeMetricFamily(name, text, labels=("model",))
            for entry, value in zip(entries, values, strict=True):
                gauge.add_metric((entry.name,), value)
            yield gauge
        for name, text, count in _LOADS:
            yield _counter(name, text, [(entry.name, count(entry)) for entry in entries])

    def _sequences(self) -> Iterator[Metric]:
        read = [(entry.name, entry.tally.read()) for entry in self._pool.entries]
        finished = CounterMetricFamily(
            "codellm_sequences", "Sequences that left the model, by why.", labels=("model", "finish_reason")
        )
        for (model, counts), reason in itertools.product(read, get_args(FinishReason)):
            finished.add_metric((model, reason), counts.finished[reason])
        yield finished
        for name, text, count in _TOKENS:
            yield _counter(name, text, [(model, count(counts)) for model, counts in read])
        for name, text, histogram in _LATENCIES:
            family = HistogramMetricFamily(name, text, labels=("model",))
            for model, counts in read:
                family.add_metric((model,), _buckets(histogram(counts)), histogram(counts).sum)
            yield family


_LOADS: tuple[tuple[str, str, Callable[[Entry], int]], ...] = (
    ("codellm_model_loads", "Times that the model was loaded.", lambda entry: entry.loads),
    ("codellm_model_load_failures", "Times that it could not be loaded.", lambda entry: entry.load_failures),
    ("codellm_model_unloads", "Times that it was unloaded.", lambda entry: entry.unloads),
)

_TOKENS: tuple[tuple[str, str, Callable[[Counts], int]], ...] = (
    ("codellm_prompt_tokens", "Tokens of prompts, cached ones included.", lambda counts: counts.prompt_tokens),
    ("codellm_cached_tokens", "Tokens of prompts that were not computed again.", lambda counts: counts.cached_tokens),
    ("codellm_prefix_cache_hits", "Sequences with cached tokens.", lambda counts: counts.prefix_hits),
    ("codellm_generated_tokens", "Tokens generated.", lambda counts: counts.generated_tokens),
)

_LATENCIES: tuple[tuple[str, str, Callable[[Counts], Histogram]], ...] = (
    (
        "codellm_time_to_first_token_seconds",
        "Time from a request's arrival in the queue to the first token of each of its sequences.",
        lambda counts: counts.first_token,
    ),
    (
        "codellm_inter_token_latency_seconds",
        "Time between the tokens of a sequence.",
        lambda counts: counts.inter_token,
    ),
)


def _counter(name: str, text: str, values: list[tuple[str, int]]) -> Metric:
    counter = CounterMetricFamily(name, text, labels=("model",))
    for model, value in values:
        counter.add_metric((model,), value)
    return counter


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them: each counts what lies in those before it too."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))
