import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """One cache for the whole session: artifacts are made once, and the user's own are left alone."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("cache")
        patch.setenv("CODELLM_CACHE", str(path))
        yield path
