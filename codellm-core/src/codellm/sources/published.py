"""GGUF files as people publish them: the scheme stands in the name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Self

import attrs

_SCHEME = re.compile(r"(?<![a-z0-9])(?:[it]?q\d(?:_[a-z0-9]+)*|mxfp4|bf16|fp?16|fp?32)(?![a-z0-9])")
_PART = re.compile(r"-\d{5}-of-\d{5}$")
"""llama.cpp's gguf-split names the parts of a file so."""
_OTHER = re.compile(r"mmproj|imatrix")
"""Files beside a model: the eyes of a multimodal one, and what was measured for quantizing."""

IN_PARTS = "in parts, which are not supported"
"""Why a scheme has no file that can be loaded: it has several, each a part."""


@attrs.frozen
class Published:
    """The GGUF files of a repository, by the scheme in their names ("" where there is none).

    `model-Q4_K_M.gguf`, `starcoder2-7b.q4_k_m.gguf` and `qwen-fp16.gguf` are usual forms.
    """

    whole: dict[str, str]
    """The file of a scheme that one file has."""
    others: dict[str, str]
    """Why a scheme has no such file, as messages tell it."""

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """What `names`, of all files, amount to."""
        whole, pieces = model_files(names)
        files: dict[str, list[str]] = {}
        for name in whole:
            files.setdefault(scheme_of(_stem(name)), []).append(name)
        parts = {scheme_of(_PART.sub("", _stem(name))) for name in pieces}
        others = dict.fromkeys(parts - files.keys(), IN_PARTS)
        others |= {scheme: f"in several files: {', '.join(named)}" for scheme, named in files.items() if len(named) > 1}
        return cls({scheme: named[0] for scheme, named in files.items() if len(named) == 1}, others)


def model_files(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """GGUF files among `names` that hold a model, in order: those that are whole, and those that are parts."""
    found = [name for name in sorted(names) if name.lower().endswith(".gguf") and not _OTHER.search(_stem(name))]
    parts = [name for name in found if _PART.search(_stem(name))]
    return [name for name in found if name not in parts], parts


def _stem(name: str) -> str:
    return name.lower().removesuffix(".gguf")


def scheme_of(stem: str) -> str:
    """The scheme in a GGUF file's name, which is given in lower case without the suffix; "" where it has none."""
    found: list[str] = _SCHEME.findall(stem)
    return re.sub("^fp", "f", found[-1]) if found else ""
