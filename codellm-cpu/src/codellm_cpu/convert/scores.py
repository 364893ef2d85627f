"""Merges as scores: SentencePiece's form of BPE, which is what llama.cpp's tokenizer model `llama` computes with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf

from codellm.errors import ModelFileError


def merge_scores(tokens: list[str], kinds: list[int], merges: Sequence[Sequence[str]], path: Path) -> list[float]:
    """The score of each token: the earlier it is merged, the higher.

    llama.cpp joins any two neighbours that make a token together, the token of the highest score first; merges join
    listed pairs in their order. Both do the same where every pair that makes a token is listed, and the pairs of one
    token stand together, as in a tokenizer.json that was converted from SentencePiece.

    Raises:
        ModelFileError: they do not do the same, or a merge is of or makes something that is no token.
    """
    places = {token: id for id, token in enumerate(tokens)}
    rank: dict[str, int] = {}
    listed = set()
    previous = ""
    for left, right in merges:
        made = left + right
        if not {left, right, made} <= places.keys():
            raise ModelFileError(f"{path}: merge {f'{left} {right}'!r} is not of three tokens")
        if made != previous and made in rank:
            raise ModelFileError(f"{path}: merges of {made!r} stand apart, which scores cannot say: no GGUF form")
        previous = made
        rank.setdefault(made, len(rank))
        listed.add((left, right))
    for token, kind in zip(tokens, kinds, strict=True):
        if kind != gguf.TokenType.NORMAL:
            continue
        for cut in range(1, len(token)):
            pair = token[:cut], token[cut:]
            if pair not in listed and pair[0] in places and pair[1] in places:
                raise ModelFileError(
                    f"{path}: {pair[0]!r} and {pair[1]!r} make a token but are no merge, which scores cannot say: "
                    "no GGUF form"
                )
    return [-float(rank.get(token, len(rank))) for token in tokens]
