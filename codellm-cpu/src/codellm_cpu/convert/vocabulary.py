"""A tokenizer.json as GGUF's vocabulary.

Byte-level BPE only: what llama.cpp calls tokenizer model `gpt2`. How text is cut before merging is not carried in GGUF
but named (`tokenizer.ggml.pre`), so a pre-tokenizer without a name there is refused: its token ids would differ.
Sources: the GGUF specification (docs/gguf.md) for the keys, llama.cpp's src/llama-vocab.cpp for the names and for what
each does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import gguf

from codellm.errors import ModelFileError
from codellm.fim import find_fim
from codellm.sources.local import read_json

# The pieces that end a generation or mark a place in a repository, by the strings that StarCoder2 gives them.
PLACES = {"fim_pad": "<fim_pad>", "fim_rep": "<repo_name>", "fim_sep": "<file_sep>"}


@attrs.frozen(kw_only=True)
class Vocabulary:
    """Tokens by id with their kinds, the merges in order of rank, and the special ids by GGUF's role names."""

    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    pre: str
    special: dict[str, int]
    add_bos: bool

    def add_keys(self, writer: gguf.GGUFWriter) -> None:
        """Write the tokenizer's keys."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.kinds)
        writer.add_token_merges(self.merges)
        for role, id in self.special.items():
            writer.add_uint32(f"tokenizer.ggml.{role}_token_id", id)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(False)


def read_vocabulary(
    path: Path, tokenizer_config: Mapping[str, Any], config: Mapping[str, Any], size: int
) -> Vocabulary:
    """The vocabulary of a tokenizer.json, padded with unused tokens to `size`, the rows of the embedding.

    Raises:
        ModelFileError: the file is missing or damaged, of another kind than byte-level BPE, cut in a way that GGUF has
            no name for, larger than `size`, or has no end-of-text token.
    """
    data = read_json(path)
    model = data.get("model")
    if not isinstance(model, Mapping) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, Mapping) else None
        raise ModelFileError(f"{path}: a tokenizer of type {kind!r} cannot be converted; supported: byte-level BPE")
    for field in (
        "dropout",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "byte_fallback",
        "ignore_merges",
    ):
        if model.get(field):
            raise ModelFileError(f"{path}: {field} {model[field]!r} has no GGUF form")
    if data.get("normalizer") is not None:
        raise ModelFileError(f"{path}: a normalizer has no GGUF form")
    pre = pre_tokenizer_name(data.get("pre_tokenizer"), path)
    ids, added = token_ids(model.get("vocab"), data.get("added_tokens") or [], path)
    if ids and max(ids) >= size:
        raise ModelFileError(f"{path}: token id {max(ids)}, but the embedding has {size} rows")
    tokens, kinds = pad(ids, added, size)
    controls = {token: id for id, token in ids.items() if added.get(id)}
    return Vocabulary(
        tokens=tokens,
        kinds=kinds,
        merges=merge_strings(model.get("merges"), path),
        pre=pre,
        special=special_ids(controls, tokenizer_config, config, path),
        add_bos=bool(tokenizer_config.get("add_bos_token", False)),
    )


def pre_tokenizer_name(part: Any, path: Path) -> str:
    """GGUF's name of a pre-tokenizer: `starcoder` (single digits, then GPT-2's words) or `gpt-2` (words alone).

    Raises:
        ModelFileError: it is neither.
    """
    steps = part.get("pretokenizers") if isinstance(part, Mapping) and part.get("type") == "Sequence" else [part]
    steps = [step if isinstance(step, Mapping) else {} for step in steps] if isinstance(steps, list) else []
    if steps and steps[-1].get("type") == "ByteLevel":
        words = steps[-1]
        plain = not words.get("add_prefix_space", True) and words.get("use_regex", True)
        if plain and len(steps) == 1:
            return "gpt-2"
        if plain and len(steps) == 2 and steps[0].get("type") == "Digits" and steps[0].get("individual_digits"):
            return "starcoder"
    names = ", ".join(str(step.get("type")) for step in steps) or "none"
    raise ModelFileError(
        f"{path}: pre-tokenizer ({names}) cannot be converted; "
        "supported: ByteLevel without prefix space, alone or after Digits(individual_digits)"
    )


def token_ids(vocab: Any, added: Any, path: Path) -> tuple[dict[int, str], dict[int, bool]]:
    """Token by id, and of the added tokens whether each is special.

    Raises:
        ModelFileError: an id is no whole number or stands for two tokens; an added token strips or needs what is
            around it.
    """
    if not isinstance(vocab, Mapping) or not isinstance(added, list):
        raise ModelFileError(f"{path}: no vocabulary")
    ids: dict[int, str] = {}
    special: dict[int, bool] = {}
    entries = [(token, id) for token, id in vocab.items()]
    for token in added:
        if not isinstance(token, Mapping) or not isinstance(token.get("content"), str):
            raise ModelFileError(f"{path}: added token {token!r} has no content")
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
            raise ModelFileError(f"{path}: added token {token['content']!r} strips its surroundings: no GGUF form")
        entries.append((token["content"], token.get("id")))
    for token, id in entries:
        if type(id) is not int or id < 0:
            raise ModelFileError(f"{path}: token {token!r} has id {id!r}")
        if ids.setdefault(id, token) != token:
            raise ModelFileError(f"{path}: id {id} stands for {ids[id]!r} and {token!r}")
    for token in added:
        special[token["id"]] = bool(token.get("special"))
    if len(set(ids.values())) != len(ids):
        raise ModelFileError(f"{path}: two ids stand for one token")
    return ids, special


def merge_strings(merges: Any, path: Path) -> list[str]:
    """The merges as GGUF has them, "left right"; tokenizer.json has that or pairs.

    Raises:
        ModelFileError: there are none, or one is not a pair of byte-level strings.
    """
    if not isinstance(merges, list) or not merges:
        raise ModelFileError(f"{path}: no merges")
    result = []
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        parts = pair if isinstance(pair, list) and len(pair) == 2 else [None]
        if not all(isinstance(part, str) and part and " " not in part for part in parts):
            raise ModelFileError(f"{path}: merge {merge!r} is no pair of byte-level strings")
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
            token, kind = f"[PAD{id}]", gguf.TokenType.UNUSED
            while token in taken:  # llama.cpp looks tokens up by text: two of one text would be one
                token += "]"
        tokens.append(token)
        kinds.append(int(kind))
    return tokens, kinds


def special_ids(
    controls: Mapping[str, int], tokenizer_config: Mapping[str, Any], config: Mapping[str, Any], path: Path
) -> dict[str, int]:
    """Ids by GGUF's role names: bos, eos, eot, the fill-in-the-middle tokens where the model has them.

    All are written: llama.cpp guesses where a key is missing, and takes id 11 for a missing bos or eos.

    Raises:
        ModelFileError: there is no end-of-text token.
    """

    def named(role: str) -> int | None:
        token = tokenizer_config.get(f"{role}_token")
        content = token.get("content") if isinstance(token, Mapping) else token
        id = config.get(f"{role}_token_id")
        known = id if type(id) is int and id in controls.values() else None
        return controls.get(content, known) if isinstance(content, str) else known

    eos = named("eos")
    if eos is None:
        raise ModelFileError(f"{path}: no end-of-text token: neither tokenizer_config.json nor config.json names one")
    bos = named("bos")
    roles = {"bos": eos if bos is None else bos, "eos": eos, "eot": eos}
    for role in ("unk", "pad"):
        id = named(role)
        if id is not None:
            roles["unknown" if role == "unk" else "padding"] = id
    fim = find_fim(controls.get)
    if fim is not None:
        roles |= {"fim_pre": fim.prefix, "fim_suf": fim.suffix, "fim_mid": fim.middle}
    roles |= {role: controls[text] for role, text in PLACES.items() if text in controls}
    return roles
