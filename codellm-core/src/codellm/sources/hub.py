"""Models on the Hugging Face hub: only the files that are needed, in the hub's own cache, never a pickle."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from codellm.errors import CodellmError, ModelFileError, ModelNotFoundError
from codellm.progress import Progress, quiet, tell_licence
from codellm.sources.chat_template import CHAT_TEMPLATES
from codellm.sources.local import INDEX, NAMING, QUANTIZE_CONFIGS, WEIGHTS, read_config, read_directory, shard_names
from codellm.sources.packed import packed_scheme
from codellm.sources.published import IN_PARTS, Published, model_files
from codellm.sources.reference import Known, Reference
from codellm.sources.regular import read_json
from codellm.sources.repository import Repository
from codellm.sources.source import ModelSource
from codellm.sources.unloadable import ADAPTER, MERGE, adapter_kind

CONFIG, TOKENIZER, CARD = "config.json", "tokenizer.json", "README.md"
SMALL = {CONFIG, TOKENIZER, *NAMING, *CHAT_TEMPLATES, *QUANTIZE_CONFIGS, INDEX, CARD}
_AUTOGPTQ = re.compile(r"gptq_model-\d+bit-.+\.safetensors")
_PICKLED = re.compile(r"(?!training_args|optimizer|scheduler|rng_state).*\.(bin|pt|pth|ckpt|pkl)")


def hub(model: str, known: Callable[[], Known], revision: str | None, progress: Progress = quiet) -> Reference:
    """A hub id, with `:SCHEME` perhaps: a GGUF file of that scheme in the repository is preferred to making one.

    Raises:
        UnknownNameError: nobody has the scheme.
        ModelNotFoundError: the hub has no such repository or revision, or it holds nothing that can be read.
        DownloadError: the hub cannot be reached or refuses, and the cache does not hold the model.
    """
    id, _, scheme = model.partition(":")
    if scheme:
        known().scheme(scheme)
    repository = Repository.find(id, revision)
    published = Published.of(repository.names)
    ready = {
        name: _gguf(repository, file, name, progress)
        for name, file in published.whole.items()
        if name in known().schemes
    }
    if scheme in ready:
        return ready[scheme]
    if CONFIG in repository.names and _weights(repository):
        if TOKENIZER not in repository.names:
            raise repository.refusal or ModelNotFoundError(
                f"{repository}: has no {TOKENIZER}; only models with one can be read"
            )
        fetch = partial(_fetch_safetensors, repository, progress)
        scheme = scheme or _packed(repository) or ""
        return Reference(name=id, format="safetensors", scheme=scheme or None, fetch=fetch, ready=ready)
    if not published.whole and not published.others:
        raise _other_model(repository) or repository.refusal or _no_model(repository)
    if len(published.whole) == 1 and not published.others and not scheme:
        only, file = next(iter(published.whole.items()))
        return ready.get(only) or _gguf(repository, file, None, progress)
    fault = _undecided(repository, published, ready)
    if scheme:
        # without an answer of the hub, it may have what the cache does not hold
        raise fault if repository.refusal is None or scheme in published.others else _uncached(repository, ready)
    return Reference(name=id, format="gguf", scheme=None, fetch=_raising(fault), ready=ready)


def _gguf(repository: Repository, file: str, scheme: str | None, progress: Progress) -> Reference:
    fetch = partial(_fetch_gguf, repository, file, scheme, progress)
    return Reference(name=repository.id, format="gguf", scheme=scheme, fetch=fetch)


def _fetch_safetensors(repository: Repository, progress: Progress) -> ModelSource:
    directory = repository.fetch((SMALL & repository.names) - ({INDEX} if WEIGHTS in repository.names else set()))
    licence = _licence(directory / CARD)
    _fetch_weights(repository, _shards(repository, directory), licence, progress)
    return read_directory(directory, repository.id, revision=repository.commit, licence=licence)


def _fetch_gguf(repository: Repository, file: str, scheme: str | None, progress: Progress) -> ModelSource:
    licence = _licence(repository.fetch({CARD}) / CARD) if CARD in repository.names else None
    path = _fetch_weights(repository, {file}, licence, progress) / file
    return ModelSource(
        name=repository.id,
        format="gguf",
        path=path,
        files=(path,),
        revision=repository.commit,
        scheme=scheme,
        licence=licence,
    )


def _fetch_weights(repository: Repository, names: set[str], licence: str | None, progress: Progress) -> Path:
    if repository.missing(names):
        tell_licence(repository.id, licence, progress)
    directory = repository.fetch(names, progress)
    repository.remember()
    return directory


def _weights(repository: Repository) -> set[str]:
    """The file of the weights, else their index: AutoGPTQ named its file by the bits and the size of a group."""
    usual = next((name for name in (WEIGHTS, INDEX) if name in repository.names), None)
    return {usual} if usual else set(filter(_AUTOGPTQ.fullmatch, repository.names))


def _packed(repository: Repository) -> str | None:
    """The scheme that the weights are in already, which decides who can load them."""
    return packed_scheme(
        read_config(repository.fetch({CONFIG, *QUANTIZE_CONFIGS} & repository.names)), f"{repository}: {CONFIG}"
    )


def _shards(repository: Repository, directory: Path) -> set[str]:
    """The weights' files: one that is whole, else those that the index names."""
    found = _weights(repository)
    if found != {INDEX}:
        return found
    shards = set(shard_names(read_json(directory / INDEX), f"{repository}: its {INDEX}"))
    absent = sorted(shards - repository.names)
    if absent:
        raise repository.refusal or ModelFileError(
            f"{repository}: its {INDEX} names {absent[0]}, which the repository does not hold"
        )
    return shards


def _licence(card: Path) -> str | None:
    """What a model card says in its metadata: the name where `license` says no more than "other"."""
    from huggingface_hub import metadata_load

    try:
        told = metadata_load(card) or {}
    except Exception:  # a card is for people; nothing that is wrong with it keeps the model from running
        return None
    found = told.get("license")
    if found == "other":
        found = told.get("license_name") or found
    text = ", ".join(map(str, found if isinstance(found, list) else [found])) if found else ""
    return "".join(filter(str.isprintable, text)) or None  # it is shown in a terminal


def _undecided(repository: Repository, published: Published, ready: dict[str, Reference]) -> CodellmError:
    said = [f"name one: {', '.join(f'{repository.id}:{name}' for name in sorted(ready))}"] if ready else []
    said += [f"it has {name or 'one without a scheme'} {why}" for name, why in sorted(published.others.items())]
    foreign = sorted(set(published.whole.values()) - {published.whole[name] for name in ready})
    if foreign:
        said.append(f"to use {foreign[0]}, {_by_hand(repository, foreign[0])}")
    if IN_PARTS in published.others.values():
        said.append("merge the parts with `llama-gguf-split --merge`, and give the file that comes of it")
    holds = "holds only GGUF files" if repository.refusal is None else "the cache holds only GGUF files of it"
    return ModelNotFoundError(f"{repository}: {holds}; {'; '.join(said)}")


def _uncached(repository: Repository, ready: dict[str, Reference]) -> CodellmError:
    """The hub's refusal, with the schemes that the cache holds."""
    assert repository.refusal is not None
    held = f"; the cache holds {', '.join(f'{repository.id}:{name}' for name in sorted(ready))}" if ready else ""
    return type(repository.refusal)(f"{repository.refusal}{held}")


def _by_hand(repository: Repository, file: str) -> str:
    """How to load a file that its repository's name does not lead to."""
    cached = repository.cached(file)
    if cached is not None:
        return f"give its file: {cached}"
    return f"fetch it with `hf download {repository.id} {file}` and give the file"


def _other_model(repository: Repository) -> CodellmError | None:
    """What a repository without files that can be loaded holds instead, as far as that can be told."""
    if ADAPTER in repository.names:
        return ModelNotFoundError(f"{repository}: is {adapter_kind()}, not a whole model; {MERGE}")
    whole, parts = model_files(repository.nested)
    if whole:
        return ModelNotFoundError(
            f"{repository}: holds its GGUF files in a folder, as {whole[0]}; {_by_hand(repository, whole[0])}"
        )
    if parts:
        return ModelNotFoundError(
            f"{repository}: holds its GGUF files in a folder and in parts, as {parts[0]}; fetch them with "
            f"`hf download {repository.id} --include '{parts[0].rpartition('/')[0]}/*'`, merge them with "
            "`llama-gguf-split --merge`, and give the file"
        )
    pickled = sorted(filter(_PICKLED.fullmatch, repository.names))
    if pickled:
        return ModelNotFoundError(
            f"{repository}: holds its weights pickled ({pickled[0]}), which is never loaded; "
            "name a repository or --revision with safetensors"
        )
    return None


def _no_model(repository: Repository) -> CodellmError:
    return ModelNotFoundError(
        f"{repository}: holds no {WEIGHTS} with a {CONFIG} and no .gguf file, so it is no model that can be read"
    )


def _raising(fault: CodellmError) -> Callable[[], ModelSource]:
    def fetch() -> ModelSource:
        raise fault

    return fetch
