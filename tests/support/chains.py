"""A checkpoint whose next token depends on the last alone, by a table that stands in its weights: any backend loads it,
and which token comes is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from codellm.sources.bundled import bundled_directory
from codellm.sources.starcoder2 import starcoder2_shapes
from support.checkpoints import Arrays, config_of, save_safetensors

DEMO = bundled_directory("codellm-demo")
ROWS, WIDTH = 3584, 32
TURN = 4
"""The id of the token that ends a turn in the models below; its string is one that no library knows."""
TURN_OVER = "<|turn_over|>"
A, B, C = 70, 71, 72
"""Ids of three tokens with text of their own."""


def write_chain(
    folder: Path,
    chain: Mapping[int, int],
    *,
    files: Mapping[str, Mapping[str, Any] | None] = {},
    tokenizer: Callable[[dict[str, Any]], None] = lambda data: None,
) -> Path:
    """A StarCoder2 of one layer with the bundled vocabulary, in which `chain[t]` follows t; any other is followed by B.

    Its config.json and tokenizer_config.json name token 0 as the end of a text. `files` are JSON files beside the
    weights, None takes one away; `tokenizer` changes the object of tokenizer.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of("starcoder2", ROWS, hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1)
    config["max_position_embeddings"] = 1024  # the gate scores a text of 512 tokens
    config |= {"num_attention_heads": 2, "num_key_value_heads": 1, "architectures": ["Starcoder2ForCausalLM"]}
    weights = {name: np.zeros(shape, np.float32) for name, shape in starcoder2_shapes(config).items()}
    for name, array in weights.items():
        if "norm" in name and name.endswith("weight"):
            array[:] = 1
    embedding, output = weights["model.embed_tokens.weight"], weights["lm_head.weight"]
    embedding[:, WIDTH - 1], output[B, WIDTH - 1] = 1, 10
    for place, (last, following) in enumerate(chain.items()):
        embedding[last], output[following, place] = np.eye(WIDTH)[place], 10
    save_safetensors(folder / "model.safetensors", Arrays(weights), list(weights))
    data = json.loads((DEMO / "tokenizer.json").read_text())
    data["added_tokens"][TURN]["content"] = TURN_OVER
    data["model"]["vocab"] = {TURN_OVER if id == TURN else token: id for token, id in data["model"]["vocab"].items()}
    tokenizer(data)
    written = {
        "config.json": config,
        "tokenizer_config.json": {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"},
        "tokenizer.json": data,
    }
    for name, content in (written | dict(files)).items():
        if content is not None:
            changed = written["config.json"] | dict(content) if name == "config.json" else content
            (folder / name).write_text(json.dumps(changed))
    return folder


def ordinary(data: dict[str, Any]) -> None:
    """List the end of a turn as DeepSeek-Coder's instructed models do: as an added token that is not special."""
    data["added_tokens"][TURN]["special"] = False


NONE = {"eos_token_id": None, "bos_token_id": None}
TURN_ENDS: dict[str, dict[str, Any]] = {
    "generation_config lists it": {"files": {"generation_config.json": {"eos_token_id": [TURN, 0]}}},
    "generation_config names it": {"files": {"generation_config.json": {"eos_token_id": TURN}}},
    "config lists it": {"files": {"config.json": {"eos_token_id": [0, TURN]}}},
    "config alone": {"files": {"config.json": NONE | {"eos_token_id": TURN}, "tokenizer_config.json": None}},
    "special_tokens_map alone": {
        "files": {
            "config.json": NONE,
            "tokenizer_config.json": None,
            "special_tokens_map.json": {"eos_token": TURN_OVER},
        }
    },
    "special_tokens_map beside another": {
        "files": {"special_tokens_map.json": {"eos_token": {"content": TURN_OVER, "lstrip": False}}}
    },
    "generation_config alone": {
        "files": {
            "config.json": NONE,
            "tokenizer_config.json": None,
            "generation_config.json": {"eos_token_id": [TURN]},
        }
    },
    "tokenizer_config, not special": {
        "files": {"tokenizer_config.json": {"eos_token": TURN_OVER}},
        "tokenizer": ordinary,
    },
    "listed by id, not special": {
        "files": {"generation_config.json": {"eos_token_id": [0, TURN]}},
        "tokenizer": ordinary,
    },
}
"""Every way in which a model's files say that a text ends at `TURN`."""
