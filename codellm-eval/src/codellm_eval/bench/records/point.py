"""The speed of one workload."""

from __future__ import annotations

import attrs

from codellm_eval.bench.ask.workload import Workload
from codellm_eval.stats.repeats import Repeats


@attrs.frozen
class Point:
    """A point of a growth curve, or another size that was asked for."""

    workload: Workload
    rate: Repeats
    """Tokens per second, of all sequences together; over `workload.batch_size` it is that of each."""
