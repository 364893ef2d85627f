"""How long the tests take, by session and by file, and which lines they reach.

.ci/run
nox -s coverage
python tests/benchmarks/suite.py --output docs/results/tests.json

The first two leave what is read here in build/tests, and are run with nothing beside them.
"""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import common

BUILD = Path("build/tests")


def file_of(case: ET.Element) -> str:
    """The file of a test case: `tests/core/test_cli.py` of `tests.core.test_cli`, or of a class in there."""
    parts = case.get("classname", "").split(".")
    number = next((number for number, part in enumerate(parts) if part.startswith("test_")), len(parts) - 1)
    return f"{'/'.join(parts[: number + 1])}.py"


def cases(report: Path) -> Iterator[ET.Element]:
    """The tests of one pytest."""
    return ET.parse(report).iter("testcase")


def by_file(reports: list[Path]) -> dict[str, dict[str, float]]:
    """Tests and their seconds by file, those first that take the longest; set-up and tear-down count."""
    files: dict[str, dict[str, float]] = defaultdict(lambda: {"tests": 0, "seconds": 0.0})
    for case in (case for report in reports for case in cases(report)):
        entry = files[file_of(case)]
        entry["tests"] += 1
        entry["seconds"] = round(entry["seconds"] + float(case.get("time", 0)), 3)
    return dict(sorted(files.items(), key=lambda item: -item[1]["seconds"]))


def outcomes(reports: list[Path]) -> dict[str, int]:
    """How many tests passed, were skipped and failed."""
    count = {"passed": 0, "skipped": 0, "failed": 0}
    for case in (case for report in reports for case in cases(report)):
        kinds = {child.tag for child in case}
        count["failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"] += 1
    return count


def sessions(build: Path) -> dict[str, dict[str, Any]]:
    """Each session of nox with its seconds, installing included; those of tests with what pytest tells of them."""
    found: dict[str, dict[str, Any]] = {}
    for session in json.loads((build / "nox.json").read_text())["sessions"]:
        name = session["name"]
        entry = found[name] = {"seconds": round(session["duration"], 1), "result": session["result"]}
        reports = {part: build / f"{name}-{part}.xml" for part in ("together", "alone")}
        made = {part: report for part, report in reports.items() if report.exists()}
        if made:
            spent = {
                part: float(next(ET.parse(report).iter("testsuite")).get("time", 0)) for part, report in made.items()
            }
            entry |= {"pytest_seconds": spent, **outcomes([*made.values()]), "files": by_file([*made.values()])}
    return found


def coverage(report: Path) -> dict[str, dict[str, float]]:
    """Lines of each package, those that tests reach, and their share."""
    lines: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for file, entry in json.loads(report.read_text())["files"].items():
        package = next(part for part in reversed(PurePosixPath(file).parts) if part.partition("_")[0] == "codellm")
        for name in (package, "all"):
            lines[name][0] += entry["summary"]["num_statements"]
            lines[name][1] += entry["summary"]["covered_lines"]
    return {name: {"lines": all_, "reached": hit, "share": hit / all_} for name, (all_, hit) in sorted(lines.items())}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, default=BUILD)
    parser.add_argument("--coverage-before", type=Path, help="coverage.json of an earlier state, to stand beside this")
    parser.add_argument("--output", type=Path, default=Path("tests.json"))
    options = parser.parse_args()
    measured = sessions(options.build)
    reports = {"before": options.coverage_before, "now": options.build / "coverage.json"}
    common.write(
        options.output,
        protocol="seconds of .ci/run with nothing beside it; lines reached by all tests in one environment with torch",
        seconds=round(sum(session["seconds"] for session in measured.values()), 1),
        sessions=measured,
        coverage={name: coverage(report) for name, report in reports.items() if report is not None and report.exists()},
    )


if __name__ == "__main__":
    main()
