"""pytest's way into the kit: the options. Every pytest run beside codellm-core loads this, so it imports nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from codellm.testing.subject import Subject

SUBJECT: pytest.StashKey[Subject] = pytest.StashKey()
"""The backend that this run checks."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options that say which backend is checked, and how it is loaded."""
    group = parser.getgroup("codellm", "conformance of a codellm backend")
    add = group.addoption
    add("--codellm-backend", metavar="NAME", help="run the conformance kit on this backend")
    add("--codellm-model", metavar="MODEL", default="codellm-demo", help="the model it loads (default: codellm-demo)")
    add(
        "--codellm-spec", metavar="FIELD=VALUE", action="append", default=[],
        help="a field of LoadSpec: scheme=q8_0, threads=1, device=cuda, … (repeatable)",
    )  # fmt: skip
    add(
        "--codellm-option", metavar="KEY=VALUE", action="append", default=[],
        help="an option of the backend's own (repeatable)",
    )  # fmt: skip
    add(
        "--codellm-tolerance", metavar="NATS", type=float, default=0.0,
        help="how far a token's log-probability may move between two ways of computing it (default: not at all "
        "between a batch and its sequences alone, 0.01 elsewhere)",
    )  # fmt: skip


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Run the kit, and only the kit, where no file is named."""
    given = early_config.known_args_namespace
    if given.codellm_backend is not None and not given.file_or_dir:
        args += ["--pyargs", "codellm.testing"]


def pytest_configure(config: pytest.Config) -> None:
    """Find the backend, before anything is collected.

    Raises:
        pytest.UsageError: it is unknown, broken or cannot run here, or an option is wrong.
    """
    if config.option.codellm_backend is not None:
        from codellm.testing.subject import subject

        config.stash[SUBJECT] = subject(config.option)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """See that the kit knows what to check.

    Raises:
        pytest.UsageError: it was collected without `--codellm-backend`.
    """
    if SUBJECT not in config.stash and any(item.path.parent == Path(__file__).parent for item in items):
        raise pytest.UsageError("codellm.testing checks a backend; say which one with --codellm-backend NAME")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was checked, and what was measured beside what was stated."""
    if SUBJECT in config.stash and (lines := config.stash[SUBJECT].summary()):
        terminalreporter.section("conformance")
        for line in lines:
            terminalreporter.line(line)
