"""Tokenizes hostile texts with each pre-tokenizer that it is named, in a process that may die of it.

`python tokenize_child.py FOLDER LENGTH TEXT,... PRE...` prints the name of each before it is tried.
"""

import sys
from pathlib import Path

from codellm_cpu.llama.library import NativeModel
from codellm_cpu.llama.tokenizer import LlamaTokenizer
from support.gguf_bytes import STRING, WORDS, starcoder2

TEXTS = {
    "letters": "a",
    "capitals": "A",
    "letters of both cases": "aA",
    "digits": "7",
    "blanks": " ",
    "line ends": "\n",
    "punctuation": "!",
    "CJK": "中",
    "combining marks": "\u0301",
    "letters with marks": "a\u0301",
    "words": "ab ",
    "symbols": "🙂",
}
RAW = {"gemma4", "sarvam-moe", "whitespace"}
"""Those that look for whole characters in the vocabulary, where the file has bytes."""


def main() -> None:
    folder, length = Path(sys.argv[1]), int(sys.argv[2])
    for pre in sys.argv[4:]:
        file = starcoder2()
        file.drop("tokenizer.ggml.pre")
        if pre != "none":
            file.put("tokenizer.ggml.pre", STRING, pre)
        path = folder / "pre.gguf"
        path.write_bytes(file.encode())
        tokenizer = LlamaTokenizer(NativeModel(path, repack=False, mmap=True, vocab_only=True))
        ids = {tokenizer.token_bytes(id): id for id, word in enumerate(WORDS) if len(word) == 1}
        for name in sys.argv[3].split(","):
            if pre == "whitespace" and name in ("blanks", "line ends"):
                continue  # llama.cpp ends the process of any such text: the probe refuses the file
            sys.stdout.write(f"{pre}: {name}\n")
            sys.stdout.flush()
            text = (TEXTS[name] * length)[:length]
            found = tokenizer.encode(text)
            if pre not in RAW:
                assert found == [ids[bytes([byte])] for byte in text.encode()]


if __name__ == "__main__":
    main()
