"""A tokenizer.json as GGUF's vocabulary.

Two kinds of BPE: byte-level (llama.cpp's tokenizer model `gpt2`, merged by rank) and whole characters with single bytes
for the rest (`llama`, merged by the score of what comes out). Sources: the GGUF specification (docs/gguf.md) for the
keys, llama.cpp's src/llama-vocab.cpp for what it does with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import gguf

from codellm.errors import ModelFileError
from codellm.fim import find_fim
from codellm.sources import special_tokens
from codellm.sources.regular import read_json
from codellm.tokenizer import HFTokenizer, byte_of
from codellm_cpu.convert.pretokenizer import Preparation, read_preparation
from codellm_cpu.convert.scores import hide_unmerged, merge_scores, unused
from codellm_cpu.llama.tokenizer import ENDS_KEY, FIRST_SPACE_KEY, NORMALIZER_KEY, STRIPS

# What ends a generation or stands between the files of a repository, by the strings of StarCoder2 and Qwen2.5-Coder.
FIM_ROLES = {
    "fim_pad": ("<fim_pad>", "<|fim_pad|>"),
    "fim_rep": ("<repo_name>", "<|repo_name|>"),
    "fim_sep": ("<file_sep>", "<|file_sep|>"),
}


@attrs.frozen(kw_only=True)
class Vocabulary:
    """Tokens by id with their kinds, the merges in order of rank, and the special ids by GGUF's role names.

    `scores` stand for the merges where the tokenizer model has none; else they are empty.
    """

    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    scores: list[float]
    preparation: Preparation
    special: dict[str, int]
    ends: frozenset[int]
    strips: Mapping[str, frozenset[int]]
    """Added tokens that take the space before ("lstrip") or behind them ("rstrip")."""
    add_bos: bool

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """Write the keys of the tokenizer, GGUF's and our own."""
        writer.add_tokenizer_model(self.preparation.model)
        writer.add_tokenizer_pre(self.preparation.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.kinds)
        if self.scores:
            writer.add_token_scores(self.scores)
        else:
            writer.add_token_merges(self.merges)
        for role, id in self.special.items():
            writer.add_uint32(f"tokenizer.ggml.{role}_token_id", id)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(self.preparation.space_prefix)
        writer.add_string(ENDS_KEY, " ".join(map(str, sorted(self.ends))))
        for side, ids in self.strips.items():
            if ids:
                writer.add_string(STRIPS[side], " ".join(map(str, sorted(ids))))
        if self.preparation.first_space:
            writer.add_string(FIRST_SPACE_KEY, "first")
        if self.preparation.normalizer is not None:
            writer.add_string(NORMALIZER_KEY, self.preparation.normalizer)


def read_vocabulary(
    path: Path,
    tokenizer_config: Mapping[str, Any],
    config: Mapping[str, Any],
    size: int,
    ends: Iterable[str | int] = (),
) -> Vocabulary:
    """The vocabulary of a tokenizer.json, padded with unused tokens to `size`, the rows of the embedding, or cut there.

    `ends` are the tokens that end a text, as `ModelSource.ends` has them.

    Raises:
        ModelFileError: the file is missing or damaged, of another kind than BPE, prepares text in a way that GGUF has
            no name for, or has no end-of-text token.
    """
    data = read_json(path)
    model = data.get("model")
    if not isinstance(model, Mapping) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, Mapping) else None
        raise ModelFileError(f"{path}: a tokenizer of type {kind!r} cannot be converted; supported: BPE")
    for field in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(field):
            raise ModelFileError(f"{path}: {field} {model[field]!r} has no GGUF form")
    preparation = read_preparation(data, path)
    listed = data.get("added_tokens") or []
    ids, added = token_ids(model.get("vocab"), listed, path)
    merges = merge_strings(model.get("merges"), path)
    ids, added, merges = within(ids, added, merges, size, preparation, path)
    known = set(ids.values())
    for merge in merges:
        if not known.issuperset((*merge.split(" "), merge.replace(" ", "", 1))):
            raise ModelFileError(f"{path}: merge {merge!r} is not of three tokens")
    tokenizer = HFTokenizer(path, tokenizer_config, (*special_tokens.token_ids(config, "eos"), *ends))
    controls = {token: id for id in added if tokenizer.special_id(token := ids[id]) is not None}
    tokens, kinds = pad(ids, {id: ids[id] in controls for id in added}, size)
    scores: list[float] = []
    if preparation.model == "llama":
        mark_characters(tokens, kinds, model.get("unk_token"), path)
        pairs = hide_unmerged(tokens, kinds, [merge.split(" ") for merge in merges])
        scores = merge_scores(tokens, kinds, pairs, path)
    return Vocabulary(
        tokens=tokens,
        kinds=kinds,
        merges=merges,
        scores=scores,
        preparation=preparation,
        special=special_ids(controls, tokenizer, tokenizer_config, config, path),
        ends=frozenset(id for id in tokenizer.ends if id < size),
        strips={side: frozenset(token["id"] for token in listed if token.get(side)) & added for side in STRIPS},
        add_bos=tokenizer.add_bos,
    )


def within(
    ids: dict[int, str], added: set[int], merges: list[str], size: int, preparation: Preparation, path: Path
) -> tuple[dict[int, str], set[int], list[str]]:
    """Ids, added tokens and merges without the tokens beyond the `size` rows of the embedding: nothing has them.

    Raises:
        ModelFileError: a byte is among these, so that the tokenizer is another model's.
    """
    beyond = {token for id, token in ids.items() if id >= size}
    if not beyond:
        return ids, added, merges
    kept = {id: token for id, token in ids.items() if id < size}
    if preparation.model == "gpt2" and not byte_of().keys() <= set(kept.values()):
        raise ModelFileError(f"{path}: token id {max(ids)}, but the embedding has {size} rows")
    merges = [merge for merge in merges if beyond.isdisjoint((*merge.split(" "), merge.replace(" ", "", 1)))]
    return kept, {id for id in added if id < size}, merges


def mark_characters(tokens: list[str], kinds: list[int], unknown: Any, path: Path) -> None:
    """Set the kinds that a vocabulary of whole characters has: single bytes, and the unknown token.

    Raises:
        ModelFileError: a byte has no token, without which llama.cpp ends the process.
    """
    ids = {token: id for id, token in enumerate(tokens)}
    for byte in range(256):
        name = f"<0x{byte:02X}>"
        if name not in ids:
            raise ModelFileError(f"{path}: byte_fallback without a token {name}")
        kinds[ids[name]] = int(gguf.TokenType.BYTE)
    if unknown in ids:
        kinds[ids[unknown]] = int(gguf.TokenType.UNKNOWN)


def token_ids(vocab: Any, added: Any, path: Path) -> tuple[dict[int, str], set[int]]:
    """Tokens by id, and which ids are added tokens.

    Raises:
        ModelFileError: an id is no whole number or stands for two tokens; an added token is a word by what is around
            it.
    """
    if not isinstance(vocab, Mapping) or not isinstance(added, list):
        raise ModelFileError(f"{path}: no vocabulary")
    ids: dict[int, str] = {}
    entries = [(token, id) for token, id in vocab.items()]
    for token in added:
        if not isinstance(token, Mapping) or not isinstance(token.get("content"), str):
            raise ModelFileError(f"{path}: added token {token!r} has no content")
        if token.get("single_word"):
            raise ModelFileError(f"{path}: added token {token['content']!r} is a single word: no GGUF form")
        entries.append((token["content"], token.get("id")))
    for token, id in entries:
        if type(id) is not int or id < 0:
            raise ModelFileError(f"{path}: token {token!r} has id {id!r}")
        if ids.setdefault(id, token) != token:
            raise ModelFileError(f"{path}: id {id} stands for {ids[id]!r} and {token!r}")
    if len(set(ids.values())) != len(ids):
        raise ModelFileError(f"{path}: two ids stand for one token")
    return ids, {token["id"] for token in added}


def merge_strings(merges: Any, path: Path) -> list[str]:
    """The merges as GGUF has them, "left right"; tokenizer.json has that or pairs.

    Raises:
        ModelFileError: there are none, or one is not a pair of strings without a space.
    """
    if not isinstance(merges, list) or not merges:
        raise ModelFileError(f"{path}: no merges")
    result = []
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        parts = pair if isinstance(pair, list) and len(pair) == 2 else [None]
        if not all(isinstance(part, str) and part and " " not in part for part in parts):
            raise ModelFileError(f"{path}: merge {merge!r} is no pair of strings without a space")
        result.append(f"{parts[0]} {parts[1]}")
    return result


def pad(ids: Mapping[int, str], special: Mapping[int, bool], size: int) -> tuple[list[str], list[int]]:
    """Tokens and kinds for every row of the embedding; ids that the tokenizer leaves out are unused tokens."""
    taken = set(ids.values())
    tokens, kinds = [], []
    for id in range(size):
        if id in ids:
            token = ids[id]
            normal = gguf.TokenType.NORMAL
            kind = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.USER_DEFINED, None: normal}[special.get(id)]
        else:
            token, kind = unused(id, taken), gguf.TokenType.UNUSED
        tokens.append(token)
        kinds.append(int(kind))
    return tokens, kinds


def special_ids(
    controls: Mapping[str, int],
    tokenizer: HFTokenizer,
    tokenizer_config: Mapping[str, Any],
    config: Mapping[str, Any],
    path: Path,
) -> dict[str, int]:
    """Ids by GGUF's role names: what begins and ends a text, the fill-in-the-middle tokens where the model has them.

    All are written: llama.cpp guesses where a key is missing, and takes id 11 for a missing bos or eos. The ends beside
    eos stand as eot and eom, so that other users of the file end there too; a third is in our own key alone.

    Raises:
        ModelFileError: there is no end-of-text token.
    """
    eos = tokenizer.eos
    if eos is None:
        raise ModelFileError(f"{path}: no end-of-text token: neither tokenizer_config.json nor config.json names one")
    others = sorted(tokenizer.ends - {eos})
    roles = {"bos": eos if tokenizer.bos is None else tokenizer.bos, "eos": eos}
    roles |= dict(zip(("eot", "eom"), others or [eos], strict=False))
    for role in ("unk", "pad"):
        known = [id for id in special_tokens.token_ids(config, role) if id in controls.values()]
        id = controls.get(special_tokens.token_string(tokenizer_config, role) or "", known[0] if known else None)
        if id is not None:
            roles["unknown" if role == "unk" else "padding"] = id
    fim = find_fim(controls.get)
    if fim is not None:
        roles |= {"fim_pre": fim.prefix, "fim_suf": fim.suffix, "fim_mid": fim.middle}
    roles |= {role: controls[text] for role, texts in FIM_ROLES.items() for text in texts if text in controls}
    return roles
