"""The protocol `llama-chunks` against what llama-perplexity printed, of which docs/results keeps a record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import codellm
from codellm_eval.perplexity.documents import Document, heldout_documents
from codellm_eval.perplexity.perplexity import measure

RECORD = json.loads((Path(__file__).parents[2] / "docs/results/llama-perplexity.json").read_text())


def text() -> str:
    """The file that llama-perplexity read: the beginning of the held-out corpus."""
    whole = "".join(document.text for document in heldout_documents()).encode()
    cut = whole[: RECORD["text"]["bytes"]]
    assert hashlib.sha256(cut).hexdigest() == RECORD["text"]["sha256"]
    return cut.decode()


@pytest.mark.parametrize("row", RECORD["rows"], ids=[row["scheme"] for row in RECORD["rows"]])
def test_chunks_equal_llama_perplexity(row):
    """Its own error is 4 %; the same computation differs by what this processor rounds otherwise than that one."""
    theirs = row["llama_perplexity"]
    with codellm.load("codellm-demo", scheme=row["scheme"], threads=1) as model:
        ours = measure(model, [Document("heldout", text())], protocol="llama-chunks", window=RECORD["chunk"])
    assert ours.tokens == row["tokens"]
    assert ours.perplexity == pytest.approx(theirs["perplexity"], rel=3e-3)
    assert ours.error == pytest.approx(theirs["error"], rel=1e-2)


def test_chunks_by_numpy():
    """From the logits themselves, one token at a time, over two chunks of 16."""
    with codellm.load("codellm-demo", scheme="f16", context_length=256) as model:
        ids = model.tokenizer.encode(text())[:39]  # what is left over is dropped
        cut = model.tokenizer.decode(ids)
        ours = measure(model, [Document("cut", cut)], protocol="llama-chunks", window=16)
        nll = []
        for chunk in (ids[:16], ids[16:32]):
            for place in range(9, 16):  # the second half, but its first token
                logits = model.logits(chunk[:place]).astype(np.float64)
                nll.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[chunk[place]])
    assert ours.tokens == len(nll) == 14
    assert ours.perplexity == pytest.approx(float(np.exp(np.mean(nll))), rel=2e-3)
