"""The protocol `sliding` against the loop of Hugging Face's guide, on the bundled model in transformers, float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import codellm
from codellm import Model, ModelInfo
from codellm.tokenizer import HFTokenizer
from codellm_eval.perplexity.documents import heldout_documents
from codellm_eval.perplexity.perplexity import measure
from codellm_eval.perplexity.reading import token_streams

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

DEMO = Path(codellm.__file__).parent / "data" / "codellm-demo"
TOKENIZER = HFTokenizer(DEMO / "tokenizer.json", {"eos_token": "<|endoftext|>"})
WINDOW = 256


class Theirs(Model):
    """A model of transformers, for `score` alone: both sides of the comparison compute with it."""

    def __init__(self, theirs):
        self.theirs = theirs
        self.tokenizer = TOKENIZER
        self.info = ModelInfo(
            backend="theirs", architecture="Starcoder2", parameters=0, weight_bytes=0, context_length=WINDOW
        )

    def score(self, batch):
        with torch.inference_mode():
            return [self.score_one(torch.tensor([ids])).numpy() for ids in batch]

    def score_one(self, ids):
        logits = self.theirs(ids).logits[0, :-1]  # [T - 1, V]
        return logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]

    def run(self, sequences):
        raise NotImplementedError

    def logits(self, ids):
        raise NotImplementedError


@pytest.fixture(scope="module")
def theirs():
    return transformers.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32).eval()


def guide(model, ids, window, stride):
    """The guide (docs/transformers/perplexity): perplexity, and the mean nll and the weight of each window."""
    total, weights, means, before = len(ids), [], [], 0
    for begin in range(0, total, stride):
        end = min(begin + window, total)
        given = torch.tensor([ids[begin:end]])
        target = given.clone()
        target[:, : -(end - before)] = -100
        with torch.inference_mode():
            means.append(float(model(given, labels=target).loss))
        weights.append(int((target != -100).sum()) - 1)  # the labels are shifted inside the model
        before = end
        if end == total:
            break
    return float(np.exp(np.average(means, weights=weights))), means, weights


@pytest.mark.parametrize("stride", [128, 200])
def test_sliding_equals_the_loop_of_the_guide(theirs, stride):
    documents = heldout_documents()[:4]
    [ids] = token_streams(TOKENIZER, documents, "sliding")
    perplexity, means, weights = guide(theirs, ids, WINDOW, stride)

    ours = measure(Theirs(theirs), documents, protocol="sliding", window=WINDOW, stride=stride)

    assert ours.tokens == len(ids) - 1
    assert ours.perplexity == pytest.approx(perplexity, rel=1e-3)
    # what is left is the weight of one token that the guide takes off each window but the first
    scored = [weight + (place > 0) for place, weight in enumerate(weights)]
    assert ours.perplexity == pytest.approx(float(np.exp(np.average(means, weights=scored))), rel=1e-5)
