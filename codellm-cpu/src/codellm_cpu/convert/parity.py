"""The check that every conversion passes: llama.cpp on the file against its source.

Token ids, special ids and what stays text must be equal; logits and greedy tokens as near as `logits` says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codellm.errors import QualityError
from codellm.sources.regular import read_json
from codellm.system.machine import default_threads
from codellm.tokenizer import HFTokenizer
from codellm_cpu.convert.logits import BITS, compare_logits, native_logits
from codellm_cpu.convert.numpy_model import EXACT, NumpyModel
from codellm_cpu.convert.probes import CODE, POSITIONS, TEXTS
from codellm_cpu.convert.writer import read_config
from codellm_cpu.llama.library import open_native
from codellm_cpu.llama.probe import vetted
from codellm_cpu.llama.tokenizer import LlamaTokenizer

if TYPE_CHECKING:
    from codellm.sources import ModelSource


def check_parity(
    source: ModelSource,
    scheme: str,
    path: Path,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Compare the GGUF file at `path` with the `source` it was converted from; the figures, for the manifest.

    Random weights have their tokenizer compared alone. The others cost one pass over the source and one over the file;
    of the source, a tensor is in memory at a time. `progress` is told of layers.

    Raises:
        QualityError: they differ; the message names the text, the token or the position.
        ModelFileError: llama.cpp does not load the file.
    """
    assert source.tokenizer is not None  # converted
    assert source.tensors is not None
    theirs = HFTokenizer.of(source)
    added = [str(token["content"]) for token in read_json(source.tokenizer).get("added_tokens") or []]
    with contextlib.ExitStack() as stack:
        ours = LlamaTokenizer(open_native(stack, path, repack=False, mmap=True, vocab_only=True))
        figures: dict[str, Any] = {
            "special_ids": compare_special_ids(source, theirs, ours, added),
            "token_ids": compare_token_ids(source, theirs, ours, added),
        }
    if source.dummy:
        return figures
    vetted(path)
    _, config = read_config(source)
    window = config.raw.get("sliding_window") or config.context_length
    ids = theirs.prompt_ids(CODE)[: min(POSITIONS, config.context_length, window)]
    expected, rounded = NumpyModel(source.tensors, config, (EXACT, BITS[scheme])).logits(ids, progress)
    with contextlib.ExitStack() as stack:  # after the reference: two models would crowd each other out of memory
        native = open_native(stack, path, repack=False, mmap=True)
        computed = native_logits(native, ids, threads or default_threads())
    figures["logits"], fault = compare_logits(computed, expected, rounded, scheme)
    if fault is not None:
        raise refusal(source, fault)
    return figures


def compare_special_ids(
    source: ModelSource, theirs: HFTokenizer, ours: LlamaTokenizer, added: list[str]
) -> dict[str, Any]:
    """The ids that begin, end and steer a text: those that the source names must be the file's."""
    roles: dict[str, tuple[Any, Any]] = {"add_bos": (theirs.add_bos, ours.add_bos)}
    roles["eos"] = theirs.eos, ours.eos
    roles["beginning"] = theirs.prompt_ids(""), ours.prompt_ids("")
    ends = {id for id in theirs.ends if id < ours.vocab_size}
    roles["ends"] = sorted(ends), sorted(ends & ours.ends)
    if theirs.fim is not None and max(theirs.fim.middle, theirs.fim.prefix, theirs.fim.suffix) < ours.vocab_size:
        roles["fim"] = theirs.fim, ours.fim
    for text in added:
        id = theirs.special_id(text)
        if id is not None and id < ours.vocab_size:
            roles[f"the special token {text!r}"] = [id], ours.encode(text, special=True)
    for role, (wanted, got) in roles.items():
        if wanted != got:
            raise refusal(source, f"{role} is {wanted} by tokenizer.json, {got} in the GGUF file")
    fim = ours.fim
    return {"bos": ours.bos, "eos": ours.eos} | ({} if fim is None else {"fim": [fim.prefix, fim.suffix, fim.middle]})


def compare_token_ids(
    source: ModelSource, theirs: HFTokenizer, ours: LlamaTokenizer, added: list[str]
) -> dict[str, int]:
    """Compare the ids of every probe, and of every added token's string inside a text, special or not.

    An id beyond the embedding is none that the model has: a text with such a one is no probe.
    """
    texts = [*TEXTS, *(text for token in added for text in (f"x = {token}y", f"{token} x {token}\n {token}"))]
    count = 0
    for text in texts:
        wanted, got = theirs.encode(text), ours.encode(text)
        if wanted != got and max(wanted, default=0) < ours.vocab_size:
            pairs = zip([*wanted, None], [*got, None], strict=False)
            index = next(index for index, (one, other) in enumerate(pairs) if one != other)
            raise refusal(
                source,
                f"{text[:60]!r} has other tokens in the GGUF file: from place {index} on {got[index : index + 3]}, "
                f"by tokenizer.json {wanted[index : index + 3]}",
            )
        count += len(wanted)
    return {"texts": len(texts), "tokens": count}


def refusal(source: ModelSource, what: str) -> QualityError:
    """Error of a conversion that is not kept."""
    return QualityError(f"{source.name}: the conversion is wrong and not kept: {what}; please report it")
