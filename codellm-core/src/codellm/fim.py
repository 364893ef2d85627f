"""Fill-in-the-middle: which special tokens a model marks prefix, suffix and middle with."""

from __future__ import annotations

from collections.abc import Callable

import attrs


@attrs.frozen(kw_only=True)
class FimIds:
    """The ids of a model's fill-in-the-middle tokens.

    `spm` models put the suffix before the prefix. `eot` are ids that also end a filled-in middle. `file` stands between
    the files of a repository, None where the model has learned no such token.
    """

    prefix: int
    suffix: int
    middle: int
    spm: bool = False
    eot: frozenset[int] = frozenset()
    file: int | None = None

    def prompt(self, prefix: list[int], suffix: list[int]) -> list[int]:
        """The prompt ids that ask for the text between `prefix` and `suffix`."""
        if self.spm:
            return [self.prefix, self.suffix, *suffix, self.middle, *prefix]
        return [self.prefix, *prefix, self.suffix, *suffix, self.middle]


@attrs.frozen(kw_only=True)
class FimTemplate:
    """The special strings of one family of models."""

    family: str
    prefix: str
    suffix: str
    middle: str
    eot: tuple[str, ...] = ()
    file: str | None = None


TEMPLATES = (
    # bigcode/starcoder2-7b, special_tokens_map.json
    FimTemplate(
        family="StarCoder2",
        prefix="<fim_prefix>",
        suffix="<fim_suffix>",
        middle="<fim_middle>",
        eot=("<file_sep>", "<repo_name>", "<fim_pad>"),
        file="<file_sep>",
    ),
    # codellama/CodeLlama-7b-hf, tokenizer_config.json (its strings begin with U+2581)
    FimTemplate(family="CodeLlama", prefix="▁<PRE>", suffix="▁<SUF>", middle="▁<MID>", eot=("▁<EOT>",)),
    # Qwen/Qwen2.5-Coder-7B, tokenizer_config.json; Qwen/Qwen3-8B has the same
    FimTemplate(
        family="Qwen2.5-Coder",
        prefix="<|fim_prefix|>",
        suffix="<|fim_suffix|>",
        middle="<|fim_middle|>",
        eot=("<|file_sep|>", "<|repo_name|>", "<|fim_pad|>"),
        file="<|file_sep|>",
    ),
    # deepseek-ai/deepseek-coder-6.7b-base, tokenizer.json (the bars are U+FF5C, the underline U+2581)
    FimTemplate(family="DeepSeek-Coder", prefix="<｜fim▁begin｜>", suffix="<｜fim▁hole｜>", middle="<｜fim▁end｜>"),
    # google/codegemma-2b, special_tokens_map.json: the same strings as Qwen2.5-Coder, <|file_separator|> at the end
    FimTemplate(
        family="CodeGemma",
        prefix="<|fim_prefix|>",
        suffix="<|fim_suffix|>",
        middle="<|fim_middle|>",
        eot=("<|file_separator|>",),
        file="<|file_separator|>",
    ),
)


def find_fim(special_id: Callable[[str], int | None]) -> FimIds | None:
    """The tokens of the first family of `TEMPLATES` whose three strings the vocabulary has."""
    for template in TEMPLATES:
        prefix, suffix, middle = (special_id(text) for text in (template.prefix, template.suffix, template.middle))
        if prefix is not None and suffix is not None and middle is not None:
            alike = [other for other in TEMPLATES if other.prefix == template.prefix]
            ends = (special_id(text) for other in alike for text in other.eot)
            files = (special_id(other.file) for other in alike if other.file is not None)
            return FimIds(
                prefix=prefix,
                suffix=suffix,
                middle=middle,
                eot=frozenset(end for end in ends if end is not None),
                file=next((id for id in files if id is not None), None),
            )
    return None
