"""The n-gram table of docs/examples against the same thing written plainly."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SOURCE = Path(__file__).parents[2] / "docs" / "examples" / "codellm-ngram" / "src"


@pytest.fixture(scope="module")
def table():
    """The module of the example."""
    sys.path.insert(0, str(SOURCE))
    try:
        from codellm_ngram import table

        yield table
    finally:
        sys.path.remove(str(SOURCE))


def plainly(texts: list[bytes], ids: list[int], order: int) -> np.ndarray:
    """Witten-Bell, method C, by walking over every place for every length of context."""
    padded, end = b"\0" * 8, 256
    for text in texts:
        padded += text + b"\0"
    context = bytes(id % 256 for id in ids)
    mixed = np.full(257, 1 / 257)
    for length in range(min(order, 8, len(context)) + 1):
        tail = context[len(context) - length :]
        counts = Counter(
            padded[place] or end for place in range(8, len(padded)) if padded[place - length : place] == tail
        )
        if not counts:
            break
        kinds, total = len(counts), sum(counts.values())
        mixed = np.array([(counts[id] + kinds * mixed[id]) / (total + kinds) for id in range(257)])
    return mixed


few = st.sampled_from(list(b"ab\xff"))
texts = st.lists(st.lists(few, max_size=30).map(bytes), min_size=1, max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts, st.lists(few | st.just(256), max_size=12), st.integers(1, 8))
def test_probabilities_are_those_of_the_plain_walk(table, texts, ids, order):
    found = table.Table.of(texts).probabilities(ids, order)
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, plainly(texts, ids, order), rtol=1e-12)
