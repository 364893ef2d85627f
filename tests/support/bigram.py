"""A model whose next byte depends on the last alone, by a seeded table: what it computes can be computed by hand."""

from __future__ import annotations

import numpy as np

from codellm.model import Model, ModelInfo
from codellm.tokenizer import ByteTokenizer


class Bigram(Model):
    """`table` [257, 257] holds ln p(next | last); `noise` moves it from that of the seed."""

    def __init__(self, *, seed=5, noise=0.0, context=4096, dummy=False):
        self.tokenizer = ByteTokenizer()
        weights = np.random.default_rng(seed).normal(0, 2, (257, 257))
        weights += noise * np.random.default_rng(seed + 1).normal(0, 1, (257, 257))
        self.table = (weights - np.log(np.exp(weights).sum(axis=1, keepdims=True))).astype(np.float32)
        self.info = ModelInfo(
            backend="bigram", architecture="Bigram", parameters=0, weight_bytes=0, context_length=context, dummy=dummy
        )

    def run(self, sequences):
        raise NotImplementedError

    def score(self, batch):
        with self.claim():
            return [self.table[list(ids[:-1]), list(ids[1:])] for ids in batch]

    def logits(self, ids):
        with self.claim():
            return self.table[ids[-1]] + 3
