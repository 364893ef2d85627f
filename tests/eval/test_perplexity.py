import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codellm.errors import BackendError, InputError, InvalidValueError
from codellm_eval.errors import DummyModelError
from codellm_eval.perplexity.documents import Document, file_document, heldout_documents
from codellm_eval.perplexity.perplexity import measure
from codellm_eval.perplexity.reading import Reading, Window, chunks, token_streams, windows
from eval.oracle import Oracle

TEXTS = (Document("a", "def f():\n    return 1\n"), Document("b", "né = '…'\n" * 9))


class Bigram(Oracle):
    """p(next | last) from a fixed table, so that no context but the last token matters."""

    def __init__(self, **how):
        super().__init__(**how)
        table = np.random.default_rng(5).random((257, 257))
        self.table = np.log(table / table.sum(axis=1, keepdims=True)).astype(np.float32)

    def score(self, batch):
        with self.claim():
            return [self.table[list(ids[:-1]), list(ids[1:])] for ids in batch]


class Counting(Oracle):
    """-ln p of a token is how many tokens of context it was given: shows every window."""

    def score(self, batch):
        with self.claim():
            return [-np.arange(1, len(ids), dtype=np.float32) for ids in batch]


def test_windows_of_a_small_text():
    assert list(windows(5, 3, 2)) == [Window(0, 3, 1), Window(2, 5, 3)]
    assert list(windows(6, 4, 1)) == [Window(0, 4, 1), Window(1, 5, 4), Window(2, 6, 5)]
    assert list(windows(3, 8, 4)) == [Window(0, 3, 1)]
    assert list(windows(1, 8, 4)) == list(windows(0, 8, 4)) == []


@given(st.integers(0, 200), st.integers(2, 40), st.data())
def test_each_token_is_scored_once_by_the_first_window_that_holds_it(length, window, data):
    stride = data.draw(st.integers(1, window - 1))
    parts = list(windows(length, window, stride))
    scored = [place for part in parts for place in range(part.scored, part.end)]
    assert scored == list(range(1, length))
    for part in parts:
        assert part.begin < part.scored < part.end <= part.begin + window
    assert [part.begin for part in parts] == [stride * number for number in range(len(parts))]


def test_uniform_model_has_the_perplexity_of_its_vocabulary():
    found = measure(Oracle(), TEXTS)
    size = sum(document.size for document in TEXTS)
    assert (found.tokens, found.bytes, found.documents) == (size, size, 2)
    assert found.perplexity == pytest.approx(257)
    assert found.bits_per_byte == pytest.approx(math.log2(257))


@pytest.mark.parametrize(("window", "stride"), [(2, 1), (7, 3), (16, 15), (64, 32), (4096, 1)])
def test_a_bigram_scores_the_same_through_every_window(window, stride):
    model = Bigram()
    data = [byte for document in TEXTS for byte in (256, *document.text.encode())]
    streams = {
        "sliding": [data[1:]],
        "document": [[256, *document.text.encode()] for document in TEXTS],
    }
    for protocol, stream in streams.items():
        found = measure(model, TEXTS, protocol=protocol, window=window, stride=stride)
        by_hand = -sum(float(model.table[a, b]) for ids in stream for a, b in itertools.pairwise(ids))
        assert found.nll == pytest.approx(by_hand, rel=1e-6)
        assert found.tokens == sum(len(ids) - 1 for ids in stream)
        assert found.perplexity == pytest.approx(math.exp(by_hand / found.tokens))


def test_context_is_what_the_window_allows():
    # 6 tokens through a window of 4 that moves by 2: contexts 1, 2, 3 and then 2, 3
    found = measure(Counting(), [Document("a", "abcdef")], protocol="sliding", window=4, stride=2)
    assert found.nll == 1 + 2 + 3 + 2 + 3
    # as documents, each begins anew behind the begin token
    found = measure(Counting(), [Document("a", "ab"), Document("b", "abc")], window=4, stride=2)
    assert (found.nll, found.tokens) == (1 + 2 + 1 + 2 + 3, 5)


def test_sliding_gives_no_bits_per_byte_because_some_bytes_are_not_scored():
    found = measure(Oracle(), TEXTS, protocol="sliding")
    assert found.bits_per_byte is None
    assert found.tokens == sum(document.size for document in TEXTS)  # one less, and one between the two


def test_default_window_and_stride():
    assert str(measure(Oracle(), TEXTS).reading) == "document, window 1024, stride 512"
    assert str(measure(Oracle(context=100), TEXTS).reading) == "document, window 100, stride 50"
    assert str(Reading.of("llama-chunks", 2048)) == "llama-chunks, window 512"
    assert str(Reading.of("llama-chunks", 100)) == "llama-chunks, window 100"


@pytest.mark.parametrize(
    ("window", "stride", "message"),
    [(1, None, "--window"), (5000, None, "--window"), (8, 8, "--stride"), (8, 0, "--stride"), (8, -1, "--stride")],
)
def test_windows_that_cannot_be_are_refused(window, stride, message):
    with pytest.raises(InvalidValueError, match=message):
        measure(Oracle(), TEXTS, window=window, stride=stride)


@pytest.mark.parametrize(("window", "stride", "message"), [(2, None, "--window must be from 3"), (8, 8, "--stride")])
def test_chunks_that_cannot_be_are_refused(window, stride, message):
    with pytest.raises(InvalidValueError, match=message):
        measure(Oracle(), TEXTS, protocol="llama-chunks", window=window, stride=stride)


@given(st.integers(0, 200), st.integers(3, 40))
def test_chunks_are_whole_and_scored_after_the_first_token_of_their_second_half(length, window):
    parts = list(chunks(length, window))
    assert [(part.begin, part.end) for part in parts] == [
        (window * number, window * (number + 1)) for number in range(length // window)
    ]
    assert all(part.scored - part.begin == window // 2 + 1 < window for part in parts)


@pytest.mark.parametrize("window", [3, 8, 9, 64])
def test_chunks_of_a_bigram_by_numpy(window):
    model = Bigram()
    ids = np.frombuffer("".join(document.text for document in TEXTS).encode(), np.uint8)
    cut = ids[: len(ids) // window * window].reshape(-1, window)  # [chunks, window]
    nll = -model.table[cut[:, :-1], cut[:, 1:]].astype(float)[:, window // 2 :]
    found = measure(model, TEXTS, protocol="llama-chunks", window=window)
    assert found.tokens == nll.size == len(cut) * (window - window // 2 - 1)
    assert found.perplexity == pytest.approx(np.exp(nll.mean()))
    if nll.size > 1:  # the standard error of a mean, times what exp does to it
        assert found.error == pytest.approx(found.perplexity * nll.std() / math.sqrt(nll.size - 1), rel=1e-4)
    assert found.bits_per_byte is None


def test_each_chunk_of_a_model_that_wants_it_begins_with_the_begin_token():
    tokenizer = Oracle().tokenizer
    tokenizer.bos, tokenizer.add_bos = 7, True
    passages = Reading.of("llama-chunks", 100, 3).passages(tokenizer, [Document("a", "ABC"), Document("b", "DEF")])
    # the text is 7 A B C D E F; the third chunk would be cut short
    assert [passage.ids for passage in passages] == [[7, 65, 66], [7, 68, 69]]
    assert [passage.scored for passage in passages] == [2, 2]


def test_what_does_not_fill_a_chunk_is_refused_by_name():
    with pytest.raises(InputError, match="not 512 tokens, a chunk, under the protocol llama-chunks"):
        measure(Oracle(), TEXTS, protocol="llama-chunks")


def test_documents_are_told_apart():
    found = measure(Bigram(), TEXTS, window=16, stride=8)
    assert [each.name for each in found.each] == ["a", "b"]
    assert [each.bytes for each in found.each] == [document.size for document in TEXTS]
    for document, each in zip(TEXTS, found.each, strict=True):
        alone = measure(Bigram(), [document], window=16, stride=8)
        assert (each.tokens, each.nll) == (alone.tokens, pytest.approx(alone.nll))
    assert measure(Bigram(), TEXTS, protocol="sliding").each == ()


def test_progress_ends_at_its_total():
    calls = []
    measure(Oracle(), TEXTS, window=16, stride=8, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1]
    assert calls == sorted(calls)


def test_dummy_weights_get_no_figure():
    with pytest.raises(DummyModelError, match="random"):
        measure(Oracle(dummy=True), TEXTS)


def test_nan_and_missing_scores_are_the_backends_fault():
    model = Oracle()
    model.score = lambda batch: [np.full(len(ids) - 1, np.nan, np.float32) for ids in batch]
    with pytest.raises(BackendError, match="'oracle' computed NaN"):
        measure(model, TEXTS)
    model.score = lambda batch: [np.zeros(len(ids), np.float32) for ids in batch]
    with pytest.raises(BackendError, match="report it"):
        measure(model, TEXTS)


def test_hopeless_models_are_infinite_not_an_overflow():
    model = Oracle()
    model.score = lambda batch: [np.full(len(ids) - 1, -1e6, np.float32) for ids in batch]
    assert measure(model, TEXTS).perplexity == math.inf


def test_a_model_without_a_begin_token_has_the_other_protocol():
    model = Oracle()
    model.tokenizer.eos = None
    with pytest.raises(InvalidValueError, match="--protocol sliding"):
        measure(model, TEXTS)
    assert measure(model, TEXTS, protocol="sliding").tokens == sum(document.size for document in TEXTS) - 1


def test_bos_leads_where_the_model_wants_it():
    tokenizer = Oracle().tokenizer
    tokenizer.bos, tokenizer.add_bos = 7, True
    assert token_streams(tokenizer, [Document("a", "A"), Document("b", "B")], "sliding") == [[7, 65, 7, 66]]
    assert token_streams(tokenizer, [Document("a", "A")], "document") == [[7, 65]]


def test_files(tmp_path):
    good, empty, latin = (tmp_path / name for name in ("good.py", "empty.py", "latin.py"))
    good.write_bytes("é\r\n".encode())
    empty.touch()
    latin.write_bytes(b"caf\xe9")
    assert file_document(good).text == "é\r\n"
    with pytest.raises(InputError, match=r"empty\.py: the file is empty"):
        file_document(empty)
    with pytest.raises(InputError, match=r"latin\.py: byte 3 is not UTF-8"):
        file_document(latin)
    with pytest.raises(InputError, match=r"none\.py: cannot be read \(No such file"):
        file_document(tmp_path / "none.py")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory"):
        file_document(tmp_path)


def test_a_text_of_one_token_has_nothing_to_score():
    with pytest.raises(InputError, match="not a token to score"):
        measure(Oracle(), [Document("a", "x")], protocol="sliding")


def test_the_held_out_corpus_ships():
    try:
        documents = heldout_documents()
    except InputError as error:
        pytest.skip(f"this checkout has no corpus: {error}")
    assert len(documents) > 1
    assert all(document.size for document in documents)
    assert measure(Oracle(), documents).bits_per_byte == pytest.approx(math.log2(257))
