"""How a tokenizer.json prepares text before it merges, in GGUF's words.

GGUF carries no rules for that but names them, so what has no name there is refused: its token ids would differ. The
names are told from the file's own rules, never from a model's name. Source: llama.cpp's src/llama-vocab.cpp for what
each name does.

Measured with vocabularies that show every cut: equal to the tokenizers library on all characters but those that one of
the two knows by an older Unicode, and in `deepseek-coder` the spaces U+1680, U+2000 to U+200A, U+2028, U+2029, U+202F,
U+205F and U+3000, which llama.cpp cuts off from the letter or punctuation that follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from codellm.errors import ModelFileError


@attrs.frozen(kw_only=True)
class Preparation:
    """Rules before any merge.

    `model` is GGUF's kind of tokenizer, `pre` its name of the rules, `normalizer` a Unicode normal form.

    A vocabulary of whole characters may put a space before every stretch of text (`space_prefix`, which llama.cpp does)
    or before the first alone and only where none stands there (`first_space`, which it does not, so we do).
    """

    model: str = "gpt2"
    pre: str
    normalizer: str | None = None
    space_prefix: bool = False
    first_space: bool = False


def _words(digits: str) -> str:
    """The expression of cl100k's children, which differ in how many digits stand together."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


GPT2_WORDS = ("ByteLevel", True)
BYTES_ONLY = ("ByteLevel", False)
SINGLE_DIGITS = ("Digits", True)

# Steps as `step` gives them, and whether whole words of the vocabulary are taken before any merge.
NAMES: dict[tuple[tuple[tuple[Any, ...], ...], bool], str] = {
    ((GPT2_WORDS,), False): "gpt-2",
    ((SINGLE_DIGITS, GPT2_WORDS), False): "starcoder",
    ((("Split", _words(r"\p{N}")), BYTES_ONLY), False): "qwen2",
    ((("Split", _words(r"\p{N}{1,3}")), BYTES_ONLY), True): "llama-bpe",
    (
        (
            ("Split", "[\r\n]"),
            ("Split", r"\s?\p{L}+"),
            ("Split", r"\s?\p{P}+"),
            ("Split", "[一-龥ࠀ-一가-\ud7ff]+"),
            SINGLE_DIGITS,
            BYTES_ONLY,
        ),
        False,
    ): "deepseek-coder",
}


def read_preparation(data: Mapping[str, Any], path: Path) -> Preparation:
    """The preparation of a tokenizer.json's object; `path` names it in messages.

    Raises:
        ModelFileError: GGUF has no name for it.
    """
    parts, before = listed(data.get("pre_tokenizer"), "pretokenizers"), listed(data.get("normalizer"), "normalizers")
    model = data["model"]
    if model.get("byte_fallback"):
        return _characters(before, parts, path)
    if [part.get("type") for part in before] not in ([], ["NFC"]):
        raise unknown("normalizer", before, path, "none, NFC")
    name = NAMES.get((tuple(map(shape, parts)), bool(model.get("ignore_merges"))))
    if name is None:
        raise unknown("pre-tokenizer", parts, path, "those of " + ", ".join(NAMES.values()))
    return Preparation(pre=name, normalizer="NFC" if before else None)


def _characters(before: list[Mapping[str, Any]], parts: list[Mapping[str, Any]], path: Path) -> Preparation:
    """How a vocabulary of whole characters writes spaces."""
    steps = [shape(part) for part in (*before, *parts)]
    if not parts and steps in (SPACES, SPACES[1:]):
        return Preparation(model="llama", pre="default", space_prefix=steps == SPACES)
    for scheme in ("first", "never"):
        if steps == [("Metaspace", "▁", scheme, False)]:
            return Preparation(model="llama", pre="default", first_space=scheme == "first")
    known = "Prepend(▁), Replace(' ', ▁), or the latter alone, or Metaspace(first or never, without a split)"
    raise unknown("normalizer and pre-tokenizer", [*before, *parts], path, known)


SPACES = [("Prepend", "▁"), ("Replace", " ", "▁")]
"""What llama.cpp does to text for its tokenizer model `llama`: a space first, then "▁" for every space."""


def listed(part: Any, members: str) -> list[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, a sequence's in their order."""
    if part is None:
        return []
    steps = part.get(members) if isinstance(part, Mapping) and part.get("type") == "Sequence" else [part]
    return [step if isinstance(step, Mapping) else {} for step in steps] if isinstance(steps, list) else [{}]


def shape(step: Mapping[str, Any]) -> tuple[Any, ...]:
    """A step as `NAMES` and `SPACES` write it; whatever they do not know becomes its type and "?"."""
    kind = step.get("type")
    pattern = step.get("pattern")
    if kind == "ByteLevel" and not step.get("add_prefix_space", True):
        return kind, bool(step.get("use_regex", True))
    if kind == "Digits":
        return kind, bool(step.get("individual_digits"))
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return kind, pattern.get("Regex") if isinstance(pattern, Mapping) else None
    if kind == "Metaspace":
        scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
        return kind, step.get("replacement"), scheme, bool(step.get("split", True))
    if kind == "Prepend":
        return kind, step.get("prepend")
    if kind == "Replace":
        return kind, pattern.get("String") if isinstance(pattern, Mapping) else None, step.get("content")
    return kind, "?"


def unknown(what: str, steps: list[Mapping[str, Any]], path: Path, known: str) -> ModelFileError:
    """Error of `steps` that GGUF has no name for."""
    names = ", ".join(str(step.get("type")) for step in steps) or "none"
    return ModelFileError(f"{path}: {what} ({names}) cannot be converted; supported: {known}")
