"""Tiny checkpoints of every architecture that is known, and tokenizers of every family, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from codellm.sources import ModelSource, TensorInfo, Tensors
from codellm.sources.architectures import ARCHITECTURES
from codellm.sources.safetensors import TYPES
from support.safetensors_bytes import packed

CORPUS = [Path(json.__file__).read_text("utf-8")] * 2
CORPUS += ["naïve café Ångström über 你好世界 こんにちは 안녕 🙂 e\u0301 — 1234567890 " * 9]

# Weights of this size keep what llama.cpp's half-precision table of GELU does to a logit below 1e-3, while a rotary
# base 20 % off is already twenty times above it.
MATRIX = 0.05
VECTOR = 0.1

SIZES = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_theta": 5000.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "starcoder2": SIZES
    | {
        "model_type": "starcoder2",
        "norm_epsilon": 1e-4,
        "sliding_window": None,
        "use_bias": True,
        "hidden_act": "gelu_pytorch_tanh",
    },
    "llama": SIZES | {"model_type": "llama", "rms_norm_eps": 1e-4, "hidden_act": "silu"},
    "qwen2": SIZES | {"model_type": "qwen2", "rms_norm_eps": 1e-4, "hidden_act": "silu"},
    "qwen3": SIZES | {"model_type": "qwen3", "rms_norm_eps": 1e-4, "hidden_act": "silu", "head_dim": 24},
}


def config_of(model_type: str, vocabulary: int, **changes: Any) -> dict[str, Any]:
    """The config.json of a tiny model with `vocabulary` rows, untied where `changes` do not say otherwise."""
    return CONFIGS[model_type] | {"vocab_size": vocabulary, "tie_word_embeddings": False} | changes


class Arrays(Tensors):
    """Weights that stand in memory."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def infos(self) -> list[TensorInfo]:
        return [TensorInfo(name, array.shape, str(array.dtype)) for name, array in self.arrays.items()]

    def read(self, name: str) -> np.ndarray:
        return self.arrays[name]


def random_weights(config: dict[str, Any], seed: int = 7) -> dict[str, np.ndarray]:
    """Norms and biases too are away from 1 and 0, so that a swap of any two tensors shows."""
    table = ARCHITECTURES[config["model_type"]]
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in table.shapes(table.read(config, "test")).items():
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        scale = MATRIX if len(shape) > 1 else VECTOR
        weights[name] = (centre + scale * random.standard_normal(shape)).astype(np.float32)
    return weights


def save_safetensors(path: Path, tensors: Tensors, names: list[str]) -> Path:
    """Write some tensors to a file; the package itself writes no bfloat16 from numpy."""
    codes = {ours: theirs for theirs, (ours, _) in TYPES.items()}
    header, data = {}, b""
    infos = {info.name: info for info in tensors}
    for name in names:
        content = np.ascontiguousarray(tensors.read(name)).tobytes()
        header[name] = {
            "dtype": codes[infos[name].dtype],
            "shape": list(infos[name].shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    path.write_bytes(packed(header, data))
    return path


FIM = {
    "starcoder2": ("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<repo_name>", "<file_sep>"),
    "qwen2": ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    "deepseek": ("<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"),
    "llama3": (),
    "codellama": ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
}
ENDS = {  # bos and eos
    "starcoder2": ("<|endoftext|>", "<|endoftext|>"),
    "qwen2": (None, "<|endoftext|>"),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "llama3": ("<|begin_of_text|>", "<|end_of_text|>"),
    "codellama": ("<s>", "</s>"),
}
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _split(*patterns: str) -> list[Any]:
    return [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]


def _byte_level(family: str) -> Any:
    """The pre-tokenizer that the published models of a family have."""
    digits, bytes_only = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False, use_regex=False)
    steps = {
        "starcoder2": [digits, pre_tokenizers.ByteLevel(False)],
        "qwen2": [*_split(CL100K % r"\p{N}"), bytes_only],
        "llama3": [*_split(CL100K % r"\p{N}{1,3}"), bytes_only],
        "deepseek": [
            *_split("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+"),
            digits,
            bytes_only,
        ],
    }
    return pre_tokenizers.Sequence(steps[family])


def train_tokenizer(family: str, folder: Path, size: int = 590) -> tuple[Path, dict[str, Any]]:
    """A tokenizer.json of `size` tokens with the structure of a family's, and its tokenizer_config.json's object."""
    bos, eos = ENDS[family]
    path = folder / "tokenizer.json"
    config = {"eos_token": eos} | ({} if bos is None else {"bos_token": {"content": bos}})
    specials = [text for text in dict.fromkeys((bos, eos)) if text is not None]
    if family == "codellama":
        _train_characters(path, ["<unk>", *specials], size)
        return path, config
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=family == "llama3"))
    tokenizer.pre_tokenizer = _byte_level(family)
    tokenizer.decoder = decoders.ByteLevel()
    if family == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 13 - len(FIM[family]),
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    listed = {"qwen2", "deepseek"}  # their files list these as ordinary added tokens
    tokenizer.add_tokens([AddedToken(text, special=family not in listed, normalized=False) for text in FIM[family]])
    if family == "deepseek":  # bytes that no UTF-8 text has, and so tokens of letters
        tokenizer.add_tokens([AddedToken(letter, special=False) for letter in "õ÷Áý"])
    if family == "llama3":
        pair = (bos, tokenizer.token_to_id(bos))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[pair])
    if family == "deepseek":
        config["add_bos_token"] = True
    tokenizer.save(str(path))
    return path, config


def with_every_pair(tokenizer: tuple[Path, dict[str, Any]], folder: Path) -> tuple[tuple[Path, dict[str, Any]], int]:
    """A byte-level tokenizer with its words replaced by all pairs of bytes, and its size: every cut of a text shows."""
    data = json.loads(tokenizer[0].read_text())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in alphabet]
    pairs = [[one, other] for one in alphabet for other in alphabet]
    words = [*(token["content"] for token in data["added_tokens"]), *alphabet, *map("".join, pairs)]
    ids = {word: id for id, word in enumerate(words)}
    for token in data["added_tokens"]:
        token["id"] = ids[token["content"]]
    data["model"] |= {"vocab": ids, "merges": pairs}
    data["post_processor"] = None
    path = folder / "pairs.json"
    path.write_text(json.dumps(data))
    return (path, tokenizer[1]), len(words)


def _train_characters(path: Path, specials: list[str], size: int) -> None:
    """CodeLlama's kind: whole characters, bytes for the rest, and all pairs that make a token among the merges.

    The trainer lists one pair for each token; a vocabulary converted from SentencePiece has them all.
    """
    plain = tokenizers.Tokenizer(models.BPE())
    plain.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    plain.pre_tokenizer = pre_tokenizers.Split(Regex("▁*[^▁\n]*"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=size - 280, show_progress=False)
    plain.train_from_iterator([text.replace("\n", " ") for text in CORPUS], trainer)
    trained = json.loads(plain.to_str())["model"]
    made = ["".join(pair) for pair in trained["merges"]]
    characters = [token for token in trained["vocab"] if len(token) == 1]
    words = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *made, *characters, *FIM["codellama"]]
    vocab = {token: id for id, token in enumerate(words)}
    merges = [(token[:cut], token[cut:]) for token in made for cut in range(1, len(token))]
    model = models.BPE(
        vocab,
        [pair for pair in merges if pair[0] in vocab and pair[1] in vocab],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = plain.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in (*specials, *FIM["codellama"])])
    pair = ("<s>", vocab["<s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[pair])
    tokenizer.save(str(path))


def source_of(
    config: dict[str, Any], tokenizer: tuple[Path, dict[str, Any]], tensors: Tensors | None = None, **fields: Any
) -> ModelSource:
    """A checkpoint as core resolves one, with random weights where none are given."""
    return ModelSource(
        name="tiny",
        format="safetensors",
        digest="0",
        config=config,
        tokenizer=tokenizer[0],
        tokenizer_config=tokenizer[1],
        tensors=tensors or Arrays(random_weights(config)),
        **fields,
    )
