"""What the benchmark scripts share: alternating rounds, and a record with its manifest."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from codellm_eval.files import manifest


def rounds(repeats: int, contestants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure each contestant once a round, in an order that turns, so that a slow minute falls on all of them."""
    values: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for repeat in range(repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            values[name].append(contestants[name]())
            print(f"round {repeat + 1}/{repeats}  {name}: {values[name][-1]:.4g}", flush=True)
    return values


def summary(values: list[float]) -> dict[str, Any]:
    """Median, and the least and greatest value."""
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values), "values": values}


def ratios(values: Mapping[str, list[float]], peer: str) -> dict[str, dict[str, Any]]:
    """Each contestant over `peer`, paired round by round."""
    return {
        name: summary([mine / its for mine, its in zip(ours, values[peer], strict=True)])
        for name, ours in values.items()
        if name != peer
    }


def write(path: Path, **fields: Any) -> None:
    """Write the record, with the machine and the versions it was made with."""
    made = {"manifest": json.loads(manifest.collect().to_json()), **fields}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made, indent=2) + "\n")
    print(f"record: {path}")
