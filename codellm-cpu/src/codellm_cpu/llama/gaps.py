"""What a GGUF file does not say of its vocabulary, and what is assumed instead: told to whoever loads it.

llama.cpp assumes too, but tells nobody which file, which key and which token (src/llama-vocab.cpp, load).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codellm_cpu.llama.header import Header
    from codellm_cpu.llama.tokenizer import LlamaTokenizer


def gaps(header: Header, tokenizer: LlamaTokenizer) -> list[str]:
    """A line for each key of the vocabulary that `header` should have and has not."""
    return [line for line in (_pre(header), _end(header, tokenizer), _begin(header, tokenizer)) if line]


def _pre(header: Header) -> str:
    byte_level = header.scalars.get("tokenizer.ggml.model") == "gpt2"
    if not byte_level or header.scalars.get("tokenizer.ggml.pre"):
        return ""
    return (
        "names no pre-tokenizer (tokenizer.ggml.pre), so text is cut into words as llama.cpp's default does; if the "
        "model learned it otherwise, its text and figures are worse: convert it anew, or write the key with "
        "gguf-new-metadata --pre-tokenizer NAME"
    )


def _end(header: Header, tokenizer: LlamaTokenizer) -> str:
    if "tokenizer.ggml.eos_token_id" in header.scalars:
        return ""
    missing = "names no end-of-text token (tokenizer.ggml.eos_token_id), and "
    if tokenizer.eos is not None:
        return f"{missing}{tokenizer.text_of(tokenizer.eos)!r} is taken for it"
    if tokenizer.ends:
        ends = ", ".join(repr(tokenizer.text_of(id)) for id in sorted(tokenizer.ends))
        return f"{missing}none is known; texts end at {ends}"
    return f"{missing}none is known; texts end at --max-tokens or a --stop only"


def _begin(header: Header, tokenizer: LlamaTokenizer) -> str:
    if "tokenizer.ggml.bos_token_id" in header.scalars or not tokenizer.add_bos:
        return ""
    missing = "names no token to begin a text with (tokenizer.ggml.bos_token_id) but asks for one, and "
    if tokenizer.bos is None:
        return f"{missing}none is known; texts begin without"
    return f"{missing}{tokenizer.text_of(tokenizer.bos)!r} is taken for it"
