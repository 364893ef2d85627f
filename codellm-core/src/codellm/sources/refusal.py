"""What huggingface_hub raises, as one line that names the repository and says what to do."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from codellm.errors import CodellmError, DownloadError, ModelNotFoundError


@contextlib.contextmanager
def explained(id: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's client raises into our errors, and keep its own remarks off stderr.

    Raises:
        ModelNotFoundError: the hub has no such repository, revision or file.
        DownloadError: anything else that kept it from coming.
    """
    import huggingface_hub  # noqa: F401 - it sets its logger's level when imported

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except CodellmError:
        raise
    except Exception as error:
        raise _refusal(id, revision, error) from error
    finally:
        logger.setLevel(level)


def _refusal(id: str, revision: str | None, error: Exception) -> CodellmError:
    from huggingface_hub import constants, errors

    at = f"{id}@{revision}" if revision else id
    page = f"{constants.ENDPOINT}/{id}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        # huggingface_hub heeds both
        named = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)]
        which = " and ".join(named) or "HF_HUB_OFFLINE"
        return DownloadError(
            f"{at}: not in the local cache, or not all of it, and {which} is set; unset it, {_elsewhere(id)}"
        )
    if isinstance(error, errors.HFValidationError):
        return ModelNotFoundError(f"{at}: no hub id ({error}); give organisation/name")
    if isinstance(error, errors.GatedRepoError):
        return DownloadError(
            f"{at}: the repository is gated; accept its terms at {page}, then set HF_TOKEN to a token of that account"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFoundError(f"{at}: no such revision; name a branch, tag or commit of {page}/commits/main")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelNotFoundError(
            f"{at}: the hub has no such model, or it is private; check the name, and set HF_TOKEN if it is private"
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(at, page, error)
    if isinstance(error, OSError) and error.errno is not None:
        return DownloadError(
            f"{at}: {error.filename or constants.HF_HUB_CACHE} cannot be written or read ({error.strerror}); "
            "free some space, or set HF_HOME to another place"
        )
    if isinstance(error, LookupError | TypeError | ValueError):
        return DownloadError(
            f"{at}: {constants.ENDPOINT} gives no answer of a hub ({_told(error)}); "
            "see whether HF_ENDPOINT, a proxy or a login page stands between"
        )
    return DownloadError(
        f"{at}: the hub cannot be reached at {constants.ENDPOINT} ({_told(error)}); "
        f"try again when connected (what came is kept), {_elsewhere(id)}"
    )


def _refused(at: str, page: str, error: Exception) -> CodellmError:
    """An HTTP status that is no matter of the repository."""
    from huggingface_hub import errors

    assert isinstance(error, errors.HfHubHTTPError)
    status = error.response.status_code
    if status == 401:
        return DownloadError(f"{at}: needs a valid token (HTTP 401); set HF_TOKEN to one, or unset a bad one")
    if status == 403:
        return DownloadError(f"{at}: access is denied (HTTP 403); see {page}, and whether HF_TOKEN may read it")
    if status == 404:
        return ModelNotFoundError(f"{at}: {error.response.url} is not there (HTTP 404); see {page}")
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        after = f"in {wait} s" if wait.isdigit() else "later"
        return DownloadError(
            f"{at}: the hub has had too many requests from here (HTTP 429); try again {after} (what came is kept), "
            "or set HF_TOKEN, which allows more"
        )
    return DownloadError(f"{at}: the hub fails with HTTP {status}; try again later (what came is kept)")


def _elsewhere(id: str) -> str:
    return f"or fetch it elsewhere with `hf download {id}` and give the directory"


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
