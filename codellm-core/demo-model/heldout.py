"""Bits per byte on the held-out corpus.

Protocol: each document alone, an end-of-text token before it as the start; windows of the context length that advance
by half of it, each token scored once, in the first window that reaches it; the sum of -log2 p over the UTF-8 bytes of
all documents. Weights are rounded to bfloat16, arithmetic is float32.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import Starcoder2ForCausalLM

END = 0


def texts(path: Path) -> list[str]:
    """The documents of a held-out JSON-lines file."""
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line)["text"] for line in file]


@torch.inference_mode()
def nats(model: Starcoder2ForCausalLM, ids: Sequence[int], context: int) -> float:
    """The sum of -ln p of every id after the first, with at least half a context before it where there is one."""
    total, scored = 0.0, 1
    for start in range(0, len(ids), context // 2):
        window = ids[start : start + context]
        if start + len(window) <= scored:
            break
        row = torch.tensor([window], device=model.device)  # [1, S]
        logits = model(input_ids=row, use_cache=False).logits[0, scored - start - 1 : -1].float()  # [new, V]
        total += cross_entropy(logits, row[0, scored - start :], reduction="sum").item()
        scored = start + len(window)
    return total


def bits_per_byte(model: Starcoder2ForCausalLM, tokenizer: Tokenizer, documents: Sequence[str], context: int) -> float:
    """Bits that the model needs for a byte of `documents`, by the protocol above."""
    spent = sum(nats(model, [END, *tokenizer.encode(t, add_special_tokens=False).ids], context) for t in documents)
    return spent / math.log(2) / sum(len(text.encode()) for text in documents)
