"""`GET /metrics` as a monitor reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from support.serving import Served


class Read(Counter[tuple[str, ...]]):
    """The samples of one reading, by name and values of labels in the order of the labels' names."""

    def __init__(self, server: Served) -> None:
        super().__init__()
        answer = server.ask("/metrics")
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        for family in text_string_to_metric_families(answer.body.decode()):
            assert family.documentation
            for sample in family.samples:
                key = (sample.name, *(sample.labels[name] for name in sorted(sample.labels)))
                assert key not in self
                self[key] = sample.value

    def of(self, name: str, *labels: str, model: str = "codellm-demo") -> float:
        """A sample of a model, by its name after `codellm_` and its other labels."""
        return self[f"codellm_{name}", *labels, model]


def until(server: Served, condition: Callable[[Read], object]) -> Read:
    """The first reading of which it is true: a request is counted once all of its answer is sent."""
    while not condition(read := Read(server)):
        pass
    return read
