"""The conformance kit passes a sound backend, and fails each broken one for its own reason."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree as ET

import attrs
import pytest

from support.broken import FAILS
from support.plugin_folder import install_plugin

TESTS = Path(__file__).parents[1]


@attrs.frozen
class Report:
    """What a run of the kit said: each check's message by its name, None where it passed."""

    code: int
    output: str
    checks: dict[str, str | None]
    skipped: dict[str, str]

    @property
    def failed(self) -> dict[str, str]:
        return {name: message for name, message in self.checks.items() if message is not None}


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    """Run pytest with arguments, beside the sound backend and the broken ones."""
    folder = tmp_path_factory.mktemp("plugins")
    install_plugin(folder, "broken-backends", "from support.broken import codellm_backends\n")
    install_plugin(folder, "unusable-backends", UNUSABLE)
    install_plugin(folder, "crashed", "raise OSError('no such device')")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(TESTS)]), "COLUMNS": "200"}

    def run(*args: str, cwd: Path | None = None, **variables: str) -> Report:
        cwd = cwd or tmp_path_factory.mktemp("run")
        command = [sys.executable, "-m", "pytest", "-q", "--junitxml=report.xml", *args]
        done = subprocess.run(command, cwd=cwd, env=env | variables, capture_output=True, text=True, timeout=300)
        report = cwd / "report.xml"
        cases = ET.parse(report).iter("testcase") if report.exists() else []
        checks, skipped = {}, {}
        for case in cases:
            outcome = next(iter(case.findall("failure") + case.findall("error")), None)
            checks[case.get("name")] = None if outcome is None else outcome.get("message")
            if (skip := case.find("skipped")) is not None:
                skipped[case.get("name")] = skip.get("message")
        return Report(done.returncode, done.stdout + done.stderr, checks, skipped)

    return run


@pytest.fixture(scope="session")
def sound(kit):
    return kit("--codellm-backend", "sound")


@pytest.fixture(scope="session")
def reports(kit, request):
    """The kit's report on each broken backend that is asked for, two at a time."""
    names = [item.callspec.params["name"] for item in request.session.items if "reports" in item.fixturenames]

    def check(name: str) -> Report:
        # without the other plugins that happen to be installed it takes half the time
        arguments = ("-p", "codellm.testing.plugin", "-p", "no:cacheprovider", "--tb=short", "--codellm-backend", name)
        return kit(*arguments, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(check, name) for name in names}


def test_a_sound_backend_passes_every_check(sound):
    assert sound.code == 0, sound.output
    assert len(sound.checks) > 60
    assert sound.skipped == {}


@pytest.mark.parametrize("name", FAILS)
def test_a_broken_backend_fails_for_its_reason(name, sound, reports):
    reasons = {
        check: reason
        for check in sound.checks
        if (reason := FAILS[name].get(check, FAILS[name].get(check.partition("[")[0])))
    }
    report = reports[name].result()
    assert sorted(report.failed) == sorted(reasons), report.output[-8000:]
    for check, reason in reasons.items():
        assert reason in report.failed[check]


def test_every_check_has_a_broken_backend(sound):
    named = {name for checks in FAILS.values() for name in checks}
    assert [check for check in sound.checks if not named & {check, check.partition("[")[0]}] == []


def test_a_run_that_never_ends_does_not_hang_the_kit(kit):
    report = kit("--codellm-backend", "never-ends")
    assert len(report.failed) > 30
    assert all("run() does not end" in message for message in report.failed.values())


def test_what_was_stated_is_what_may_differ(kit):
    arguments = ("--codellm-backend", "mixes-rows", "-k", "batch_equals_singles and greedy")
    exact, near = kit(*arguments), kit(*arguments, "--codellm-tolerance", "0.5")
    assert "nats apart (stated: 0)" in exact.output
    assert "nats apart (stated: 0.5)" in near.output
    assert (exact.code, near.code) == (1, 0)


@pytest.fixture
def project(tmp_path):
    """A backend author's own, strict and with fixtures of the same names."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "conftest.py").write_text(FIXTURES)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_mine.py").write_text(MINE)
    return tmp_path


MINE = """
import sys

def test_mine(model, single):
    assert model == single == 1

def test_the_kit_costs_nothing_where_it_does_not_run(pytestconfig):
    loaded = {name for name in sys.modules if name.startswith("codellm.")}
    if pytestconfig.option.codellm_backend is None:
        assert loaded == {"codellm._version", "codellm.testing", "codellm.testing.plugin"}
"""
PROJECT = """
[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = ["--strict-markers", "--strict-config", "--import-mode=importlib"]
filterwarnings = ["error"]
"""
FIXTURES = """
import pytest

@pytest.fixture
def model(): return 1

@pytest.fixture
def single(): return 1
"""


def test_the_kit_runs_alone_in_an_authors_project(kit, project):
    report = kit("--codellm-backend", "sound", "-k", "greedy or mine", cwd=project)
    assert report.code == 0, report.output
    assert len(report.checks) == 3
    assert "test_mine" not in report.checks


def test_the_kit_runs_beside_an_authors_tests(kit, project):
    report = kit("tests", "--pyargs", "codellm.testing", "--codellm-backend=sound", "-k", "greedy or mine", cwd=project)
    assert report.code == 0, report.output
    assert len(report.checks) == 5
    assert "test_mine" in report.checks


def test_an_authors_own_run_is_as_it_was(kit, project):
    report = kit(cwd=project)
    assert report.code == 0, report.output
    assert len(report.checks) == 2
    assert "conformance" not in report.output


UNUSABLE = """
from codellm import Availability, hookimpl
from support.sound_backend import SoundBackend

class Absent(SoundBackend):
    name = "absent"
    def availability(self): return Availability(False, "no table is plugged in", "pip install table")

class Vague(SoundBackend):
    name = "vague"
    def availability(self): return True

class Unloadable(SoundBackend):
    name = "unloadable"
    def load(self, spec, source): raise OSError("the table is gone")

@hookimpl
def codellm_backends(): return [Absent(), Vague(), Unloadable()]
"""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--codellm-backend", "soud"], "unknown backend 'soud'; did you mean 'sound'?"),
        (["--codellm-backend", "absent"], "'absent' cannot run here: no table is plugged in; pip install table"),
        (["--codellm-backend", "vague"], "backend 'vague' cannot run here: availability() failed"),
        (["--codellm-backend", "crashed"], "plugin 'crashed' of crashed 1.0 is broken (OSError: no such device)"),
        (["--codellm-backend", "unloadable"], "failed to load codellm-demo: OSError: the table is gone"),
        (["--codellm-backend", "sound", "--codellm-model", "./nowhere"], "nowhere"),
        (["--codellm-backend", "sound", "--codellm-option", "speed=9"], "unknown option 'speed'"),
        (["--codellm-backend", "sound", "--codellm-spec", "sheme=q8_0"], "takes one of scheme, dtype, device,"),
        (["--codellm-backend", "sound", "--codellm-spec", "threads=many"], "threads must be a whole number"),
        (["--codellm-backend", "sound", "--codellm-spec", "threads"], "takes NAME=VALUE, not 'threads'"),
        (["--codellm-backend", "sound", "--codellm-tolerance", "-1"], "at least 0 nats, not -1.0"),
        (["--pyargs", "codellm.testing"], "say which one with --codellm-backend NAME"),
    ],
)
def test_what_cannot_be_checked_ends_in_one_line(kit, arguments, says):
    report = kit(*arguments)
    assert report.code not in (0, 5)
    assert [line for line in report.output.splitlines() if says in line], report.output
    assert "Traceback" not in report.output
    assert not any(message is None for message in report.checks.values())
