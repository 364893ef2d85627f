"""A tokenizer.json with more tokens than its model's embedding has rows, as CodeLlama-34B's.

What has no row was never trained: a text that holds such a token's string is made of other tokens instead, where
transformers fails on an id without a row.
"""

from __future__ import annotations

from typing import Any


def leave_out(data: dict[str, Any], rows: int, single: frozenset[str]) -> bool:
    """Take the tokens from id `rows` on, and the merges that need them, out of a tokenizer.json's object.

    `single` are the tokens that bytes are written with. True where there were any to take.

    Raises:
        ValueError: one of `single` is among them, so that the tokenizer is another model's.
    """
    model: dict[str, Any] = data.get("model") or {}
    listed = model.get("vocab")
    vocab: dict[str, int] = listed if isinstance(listed, dict) else {}  # a list is that of another kind of model
    added = data.get("added_tokens") or []
    kept = [token for token in added if token["id"] < rows]
    beyond = {token for token, id in vocab.items() if id >= rows}
    if not beyond and len(kept) == len(added):
        return False
    lost = sorted(beyond & single)
    if lost:
        raise ValueError(f"the token {lost[0]!r} of a byte is beyond the {rows} rows of the embedding")
    data["added_tokens"] = kept
    if beyond:
        model["vocab"] = {token: id for token, id in vocab.items() if id < rows}
        model["merges"] = [merge for merge in model.get("merges") or [] if beyond.isdisjoint(_tokens(merge))]
    return True


def _tokens(merge: Any) -> tuple[str, ...]:
    """Both parts of a merge, a pair or "left right", and what they make."""
    left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
    return left, right, left + right
