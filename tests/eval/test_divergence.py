import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import BackendError, InputError
from codellm_eval.errors import DummyModelError
from codellm_eval.perplexity.divergence import ReferenceFile, divergences, first_tokens
from codellm_eval.perplexity.documents import Document
from codellm_eval.perplexity.reading import Reading
from support.bigram import Bigram

TEXTS = (Document("a", "def f():\n    return 1\n"), Document("b", "né = '…'\n" * 9))


def passages(model, texts=TEXTS, window=16):
    return Reading.of("document", model.info.context_length, window).passages(model.tokenizer, texts)


def before(texts=TEXTS):
    """The byte before each one that is scored."""
    return [byte for document in texts for byte in (256, *document.text.encode()[:-1])]


def test_kl_and_top_1_are_those_of_the_tables(tmp_path):
    reference, other, file = Bigram(), Bigram(noise=0.3), ReferenceFile(tmp_path / "distributions")
    file.write(reference, passages(reference))
    found = file.compare(other, passages(other))
    p, q = (model.table[before()].astype(float) for model in (reference, other))
    assert found.tokens == len(p) == sum(document.size for document in TEXTS)
    assert found.kl == pytest.approx((np.exp(p) * (p - q)).sum(axis=1).mean(), rel=1e-3)  # float16
    assert found.top1 == pytest.approx((p.argmax(axis=1) == q.argmax(axis=1)).mean())
    assert 0 < found.top1 < 1


def test_a_model_is_as_far_from_itself_as_float16_rounds(tmp_path):
    model, file = Bigram(), ReferenceFile(tmp_path / "distributions")
    file.write(model, passages(model))
    found = file.compare(model, passages(model))
    assert abs(found.kl) < 1e-6
    assert found.top1 == 1


def test_the_file_takes_two_bytes_a_probability(tmp_path):
    model, file = Bigram(), ReferenceFile(tmp_path / "distributions")
    chosen = first_tokens(passages(model), 50)
    assert sum(passage.tokens for passage in chosen) == 50
    file.write(model, chosen)
    assert file.path.stat().st_size == 50 * 257 * 2
    assert file.compare(model, chosen).tokens == 50


@given(st.integers(1, 200), st.integers(4, 40))
def test_first_tokens_are_the_first(count, window):
    model = Bigram()
    whole = passages(model, window=window)
    chosen = first_tokens(whole, count)
    total = sum(passage.tokens for passage in whole)
    assert sum(passage.tokens for passage in chosen) == min(count, total)
    assert [passage.ids[: passage.scored] for passage in chosen] == [
        passage.ids[: passage.scored] for passage in whole[: len(chosen)]
    ]


def test_what_cannot_be_paired_is_refused(tmp_path):
    model, file = Bigram(), ReferenceFile(tmp_path / "distributions")
    with pytest.raises(InputError, match="left no distributions"):
        file.compare(model, passages(model))
    file.write(model, passages(model))
    with pytest.raises(InputError, match="other tokens or windows"):
        file.compare(model, passages(model, window=17))
    model.tokenizer.vocab_size = 258
    with pytest.raises(InputError, match="other tokens or windows"):
        file.compare(model, passages(model))


def test_faults_of_a_backend_are_told(tmp_path):
    file = ReferenceFile(tmp_path / "distributions")
    with pytest.raises(DummyModelError):
        file.write(Bigram(dummy=True), passages(Bigram()))
    broken = Bigram()
    broken.table[:] = np.nan
    with pytest.raises(BackendError, match="'bigram' computed NaN"):
        file.write(broken, passages(broken))
    short = Bigram()
    short.distributions = lambda ids, start: iter([short.table[:1]])
    with pytest.raises(BackendError, match="gave 1 distributions for"):
        file.write(short, passages(short))


def test_what_is_impossible_counts_where_the_reference_holds_it_possible():
    with np.errstate(divide="ignore"):
        rows = np.log(np.array([[0.5, 0.5, 0], [1, 0, 0], [0.25, 0.75, 0]], np.float32))
    kept = np.maximum(rows, -65504)
    assert divergences(kept[:1], rows[:1]) == pytest.approx([0], abs=1e-6)
    assert divergences(kept[1:2], rows[:1]) == pytest.approx([np.log(2)], abs=1e-6)
    assert divergences(kept[:1], rows[1:2]) == [np.inf]
