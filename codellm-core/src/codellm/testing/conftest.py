"""The fixtures of the checks: nearer than any of a backend author's own, so that no name can clash."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from codellm.errors import CodellmError
from codellm.model import Model
from codellm.plugins.manager import manager
from codellm.testing import running
from codellm.testing.plugin import SUBJECT
from codellm.testing.subject import Subject


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config) -> Iterator[Subject]:
    """The backend that is checked; a model that does not load ends the run."""
    subject = pytestconfig.stash[SUBJECT]
    manager().register(running, name="codellm-testing")
    try:
        subject.shared(subject.spec.batch_size)
    except CodellmError as error:
        pytest.exit(f"backend {subject.backend.name!r} has nothing to check: {error}", returncode=1)
    yield subject
    subject.close()
    manager().unregister(name="codellm-testing")


@pytest.fixture
def model(subject: Subject, request: pytest.FixtureRequest) -> Iterator[Model]:
    """A shared model that runs several sequences together."""
    yield from _shared(subject, request.session, subject.spec.batch_size)


@pytest.fixture
def single(subject: Subject, request: pytest.FixtureRequest) -> Iterator[Model]:
    """A shared model that runs one sequence after the other."""
    yield from _shared(subject, request.session, 1)


def _shared(subject: Subject, session: pytest.Session, batch_size: int) -> Iterator[Model]:
    failed = session.testsfailed
    yield subject.shared(batch_size)
    if session.testsfailed > failed:
        subject.close()  # whatever went wrong may have left the models busy


@pytest.fixture
def fresh(subject: Subject) -> Iterator[Model]:
    """A model of this check's own, which it may close or leave in any state."""
    model = subject.load()
    yield model
    with contextlib.suppress(Exception):  # a faulty `close` is told by the checks of `close`
        model.close()
