"""Train the tokenizer: byte-level BPE with StarCoder2's pre-tokenizer and special tokens.

python tokenizer.py CORPUS/train.jsonl.xz MODEL_DIRECTORY
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import document
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 3584  # 14 * 256: what is left of 6 M parameters once the layers are paid for
SAMPLE = 12_000  # documents; the corpus is shuffled, and merges stop changing long before
END, PREFIX, MIDDLE, SUFFIX = "<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>"
# StarCoder2's special tokens in StarCoder2's order, so that every id that a tool knows by heart is right here too.
SPECIAL = (
    END, PREFIX, MIDDLE, SUFFIX, "<fim_pad>", "<repo_name>", "<file_sep>",
    "<issue_start>", "<issue_comment>", "<issue_closed>",
    "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>",
    "<code_to_intermediate>", "<intermediate_to_code>",
    "<pr>", "<pr_status>", "<pr_is_merged>", "<pr_base>", "<pr_file>", "<pr_base_code>", "<pr_diff>", "<pr_diff_hunk>",
    "<pr_comment>", "<pr_event_id>", "<pr_review>", "<pr_review_state>", "<pr_review_comment>",
    "<pr_in_reply_to_review_id>", "<pr_in_reply_to_comment_id>", "<pr_diff_hunk_comment_line>",
    "<NAME>", "<EMAIL>", "<KEY>", "<PASSWORD>",
)  # fmt: skip


def train(texts: Iterator[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """A byte-level BPE tokenizer of `vocabulary` entries, special tokens first; digits are single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path, context: int = 2048) -> None:
    """Write tokenizer.json and the two files that transformers reads beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    ends = {"bos_token": END, "eos_token": END, "unk_token": END}
    settings = {
        **ends,
        "add_prefix_space": False,
        "additional_special_tokens": list(SPECIAL),
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        # The class that takes tokenizer.json as it stands: GPT2Tokenizer rebuilds the pre-tokenizer without Digits.
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    for name, content in (
        ("tokenizer_config.json", settings),
        ("special_tokens_map.json", {**ends, "additional_special_tokens": list(SPECIAL)}),
    ):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def main() -> None:
    """Train on a sample of the corpus and write the tokenizer's files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    sample = islice(document.read(arguments.corpus), SAMPLE)
    save(train(doc.text for doc in sample), arguments.directory)


if __name__ == "__main__":
    main()
