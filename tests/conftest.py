import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Its deadline and its check for slow drawing hold a time, which a busy machine does not keep.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's `&` has what it starts ignore Ctrl-C, and so would all that the tests start and then interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """Of several processes of pytest-xdist, give each cores of its own, which its own processes inherit.

    llama.cpp's threads spin while they wait for each other: where two models want the same cores, both take ten times
    as long.
    """
    worker = getattr(config, "workerinput", None)
    if worker is not None and hasattr(os, "sched_setaffinity"):
        number, cores = int(worker["workerid"].removeprefix("gw")), sorted(os.sched_getaffinity(0))
        if own := cores[number :: worker["workercount"]]:
            os.sched_setaffinity(0, own)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """One cache for the whole session: artifacts are made once, and the user's own are left alone."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("cache")
        patch.setenv("CODELLM_CACHE", str(path))
        yield path
