"""Merges as scores: SentencePiece's form of BPE, which is what llama.cpp's tokenizer model `llama` computes with."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

import gguf

from codellm.errors import ModelFileError


def hide_unmerged(tokens: list[str], kinds: list[int], merges: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Rename the tokens that no merge makes, so that llama.cpp does not make them of others; the merges of the rest.

    No text has them in tokenizer.json either: CodeLlama's `▁<SU`, say, which lead to a token that was added later.
    """
    kept = list(merges)
    while True:
        known, made = set(tokens), {"".join(pair) for pair in kept}
        hidden = [
            id
            for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == gguf.TokenType.NORMAL
            and token not in made
            and any(joined(token[:cut], token[cut:], known) for cut in range(1, len(token)))
        ]
        if not hidden:
            return kept
        lost = {tokens[id] for id in hidden}
        kept = [pair for pair in kept if lost.isdisjoint(pair)]
        for id in hidden:
            tokens[id], kinds[id] = unused(id, known), int(gguf.TokenType.UNUSED)


def joined(left: str, right: str, tokens: Container[str]) -> bool:
    """Whether llama.cpp would try to join two neighbours: it begins with characters, be they tokens or not."""
    return (left in tokens or len(left) == 1) and (right in tokens or len(right) == 1)


def unused(id: int, taken: Container[str]) -> str:
    """A text for a token that no text has; llama.cpp looks tokens up by text, so that two of one text would be one."""
    token = f"[PAD{id}]"
    while token in taken:
        token += "]"
    return token


def merge_scores(tokens: list[str], kinds: list[int], merges: Sequence[Sequence[str]], path: Path) -> list[float]:
    """The score of each token: the earlier it is merged, the higher.

    llama.cpp joins any two neighbours that make a token together, the token of the highest score first; merges join
    listed pairs in their order. Both do the same where every pair that makes a token is listed, and the pairs of one
    token stand together, as in a tokenizer.json that was converted from SentencePiece.

    Raises:
        ModelFileError: they do not do the same, or a merge is of or makes something that is no token.
    """
    ids = {token: id for id, token in enumerate(tokens)}
    rank: dict[str, int] = {}
    listed = set()
    previous = ""
    for left, right in merges:
        made = left + right
        if not {left, right, made} <= ids.keys():
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
            if pair not in listed and joined(*pair, ids):
                raise ModelFileError(
                    f"{path}: {pair[0]!r} and {pair[1]!r} make a token but are no merge, which scores cannot say: "
                    "no GGUF form"
                )
    return [-float(rank.get(token, len(rank))) for token in tokens]
