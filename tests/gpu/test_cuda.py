"""transformers-cuda on a GPU, held against float32 on the CPU within what half precision may move."""

import gc
import importlib.util

import numpy as np
import pytest
import torch

import codellm
from codellm.errors import NotEnoughMemoryError
from codellm.generation import complete
from codellm.plugins.registry import registry
from codellm.spec import LoadSpec
from codellm.torch.schedule import Scheduler
from support.checkpoints import Arrays, config_of, random_weights, source_of, train_tokenizer
from support.conformance import DRAWS, NUMBERS, run

pytestmark = pytest.mark.gpu

NAME = "transformers-cuda"
FLASH = pytest.param(
    "flash_attention_2",
    marks=pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="flash-attn is not installed"),
)
BITSANDBYTES = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
SHARE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.1}
"""Of the greatest logit, by which a logit may differ from float32's on the CPU."""
WINDOW = 16
TEXT = "def add(a, b):\n    return a + b\n\n\nclass Stack:\n    def __init__(self):\n        self.items = []\n" * 8
GIB = 1 << 30


def load(model="codellm-demo", **fields):
    return codellm.load(model, backend=NAME, **fields)


def differ(ours, expected):
    """The greatest difference as a share of the greatest logit."""
    return np.abs(ours - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--codellm-spec=dtype=float32", "--codellm-tolerance=1e-3"), id="float32"),
        pytest.param(("--codellm-spec=dtype=bfloat16", "--codellm-tolerance=0.3", *DRAWS), id="bfloat16"),
        pytest.param(
            ("--codellm-spec=dtype=float16", "--codellm-spec=attn_implementation=eager", "--codellm-tolerance=0.05",
             *NUMBERS), id="eager, float16",
        ),
        pytest.param(
            ("--codellm-spec=dtype=bfloat16", "--codellm-spec=attn_implementation=flash_attention_2",
             "--codellm-tolerance=0.3", *DRAWS), id="flash_attention_2, bfloat16", marks=FLASH.marks,
        ),
    ],
)  # fmt: skip
def test_it_passes_the_conformance_kit(options, tmp_path):
    assert f"backend {NAME}, model codellm-demo" in run(tmp_path, f"--codellm-backend={NAME}", *options)


@pytest.fixture(scope="module")
def expected():
    """Token ids, and float32's logits after the last of them on the CPU."""
    with load(device="cpu", dtype="float32") as model:
        ids = model.tokenizer.encode(TEXT)
        return ids, model.logits(ids)


@pytest.mark.parametrize("dtype", SHARE)
@pytest.mark.parametrize("attention", ["sdpa", "eager", FLASH])
def test_logits_are_those_of_the_cpu(attention, dtype, expected):
    if attention == "flash_attention_2" and dtype == "float32":
        pytest.skip("it has no float32")
    ids, wanted = expected
    with load(dtype=dtype, attn_implementation=attention) as model:
        assert model.info.device == "cuda"
        assert model.info.dtype == dtype
        assert differ(model.logits(ids), wanted) < SHARE[dtype]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model with a window of 16 tokens, which every test here goes past."""
    config = config_of("starcoder2", 600, sliding_window=WINDOW)
    tokenizer = train_tokenizer("starcoder2", tmp_path_factory.mktemp("tokenizer"))
    return source_of(config, tokenizer, Arrays(random_weights(config)))


def load_small(source, **fields):
    return registry().backend(NAME).load(LoadSpec(model="tiny", context_length=96, **fields), source)


@pytest.mark.parametrize("chunk", ["512", "16", "7"])
@pytest.mark.parametrize("attention", ["sdpa", FLASH])
def test_places_of_any_length_decode_past_the_window(attention, chunk, small):
    ids = np.random.default_rng(3).integers(1, 500, (3, 80)).tolist()
    lengths = [5, 17, 50]
    fields = {"attn_implementation": attention, "dtype": "float16", "options": {"chunk": chunk}}
    with load_small(small, device="cpu", dtype="float32") as plain, load_small(small, batch_size=3, **fields) as model:
        engine, size = model.engine, int(chunk)
        with engine.mode():
            for slot, length in enumerate(lengths):
                for start in range(0, length, size):
                    engine.prefill(slot, ids[slot][start : min(start + size, length)], start)
            for step in range(25):
                positions = [length + step for length in lengths]
                tokens = [row[position] for row, position in zip(ids, positions, strict=True)]
                logits = engine.decode(torch.tensor(tokens, device="cuda"), positions).cpu().numpy()
        for row, length, ours in zip(ids, lengths, logits, strict=True):
            assert differ(ours, plain.logits(row[: length + 25])) < SHARE["float16"]


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("attention", ["sdpa", "eager", FLASH])
def test_the_host_waits_for_nothing_but_the_copy_of_what_was_chosen(attention, ahead, small, monkeypatch):
    """That wait is for an event, which is no error in CUDA's debug mode, as all other waits are."""
    with load_small(small, batch_size=2, dtype="float16", attn_implementation=attention) as model:
        engine = model.engine
        params = codellm.SamplingParams(temperature=1.0, top_p=0.9, repetition_penalty=1.1, seed=1)
        sequences = [codellm.Sequence(index=index, prompt_ids=[1, 2, 3], params=params) for index in range(2)]
        monkeypatch.setattr(engine, "ahead", ahead)
        with engine.mode():
            list(zip(range(3), Scheduler(engine, sequences[:1]).steps(), strict=False))  # what is set up once
            steps = Scheduler(engine, sequences).steps()
            torch.cuda.set_sync_debug_mode("error")
            try:
                tokens = [token for _ in range(5) for token in next(steps)]
            finally:
                torch.cuda.set_sync_debug_mode("default")
        assert len(tokens) == 2 * (5 - ahead)


def test_who_runs_ahead_gives_what_he_gives_who_waits(small, monkeypatch):
    """Refills, draws, penalties and samples of one prompt, on three slots."""
    params = [
        codellm.SamplingParams(max_tokens=5 + number % 7, ignore_eos=True, seed=number, **more)
        for number, more in enumerate([{}, {"temperature": 1.0}, {"repetition_penalty": 1.2}] * 5)
    ]
    prompts = [list(range(20, 20 + length)) for length in (1, 5, 40, 5, 70)] * 3
    found = []
    with load_small(small, batch_size=3, dtype="float32") as model:
        for ahead in (0, 1):
            monkeypatch.setattr(model.engine, "ahead", ahead)
            asked = zip(prompts, params, strict=True)
            sequences = [codellm.Sequence(prompt_ids=ids, params=each) for ids, each in asked]
            results = {event.sequence: event.result for event in complete(model, sequences) if event.result}
            found.append([results[one].token_ids for one in sequences])
    assert found[0] == found[1]
    assert list(map(len, found[0])) == [each.max_tokens for each in params]


@BITSANDBYTES
@pytest.mark.parametrize(
    ("scheme", "options", "least"),
    [
        ("bnb-int8", {}, 0.99),
        ("bnb-int8", {"threshold": "3.0"}, 0.99),
        ("bnb-nf4", {}, 0.9),
        ("bnb-nf4", {"compute_dtype": "float16"}, 0.9),
        ("bnb-nf4", {"compute_dtype": "float32", "double_quant": "true"}, 0.9),
        ("bnb-fp4", {}, 0.8),
    ],
)
def test_schemes_of_bitsandbytes_generate_and_stay_near(scheme, options, least, expected):
    ids, wanted = expected
    with load(scheme=scheme, dtype="bfloat16", options=options, batch_size=2) as model:
        assert np.corrcoef(model.logits(ids), wanted)[0, 1] > least
        results = model.generate_batch(["def ", "import "], codellm.SamplingParams(max_tokens=8, ignore_eos=True))
        assert [len(result.token_ids) for result in results] == [8, 8]


@BITSANDBYTES
def test_four_bits_take_less_memory():
    sizes = {}
    for scheme in (None, "bnb-int8", "bnb-nf4"):
        with load("dummy:starcoder2-3b", scheme=scheme, context_length=256) as model:
            sizes[scheme] = model.memory().device
    assert sizes["bnb-nf4"] < 0.7 * sizes["bnb-int8"] < 0.5 * sizes[None]


def test_random_weights_of_a_7b_are_made_there():
    with load("dummy:starcoder2-7b", context_length=512) as model:
        memory = model.memory()
        assert model.info.parameters == pytest.approx(7.17e9, rel=0.01)
        assert model.info.weight_bytes <= memory.device < model.info.weight_bytes + GIB
        assert memory.device <= memory.device_peak
        assert np.isfinite(model.logits([1, 2, 3])).all()
        assert len(model.generate("def ", codellm.SamplingParams(max_tokens=8, ignore_eos=True)).token_ids) == 8


def test_random_weights_are_the_same_each_time():
    found = []
    for _ in range(2):
        with load("dummy:tiny") as model:
            found.append(model.logits([1, 2, 3]))
    assert np.array_equal(*found)


def test_a_model_that_is_closed_gives_its_memory_back():
    gc.collect()
    before = torch.cuda.memory_allocated()
    model = load("dummy:starcoder2-3b", context_length=256)
    assert torch.cuda.memory_allocated() - before > 5 * GIB
    model.close()
    assert torch.cuda.memory_allocated() - before < GIB // 16
    assert torch.cuda.memory_reserved() - before < GIB


def test_what_does_not_fit_a_limit_is_told_before_a_weight_is_read():
    with pytest.raises(NotEnoughMemoryError, match=r"starcoder2-7b in bfloat16 needs .* GB of memory"):
        load("dummy:starcoder2-7b", options={"memory_gib": "8"})


def test_a_full_device_is_told_and_the_next_request_works():
    fields = {
        "attn_implementation": "eager",
        "context_length": 16384,
        "options": {"memory_gib": "14", "chunk": "16384"},
    }
    params = codellm.SamplingParams(max_tokens=4, ignore_eos=True)
    with load("dummy:starcoder2-3b", **fields) as model:
        short = model.generate([1, 2, 3], params).token_ids
        before = model.memory().device
        with pytest.raises(NotEnoughMemoryError, match=r"memory of the device cuda is full \(CUDA out of memory"):
            model.generate([1] * 16000, params)  # the scores of attention take 24 x 16000^2 x 2 bytes
        assert model.memory().device - before < GIB // 16
        assert model.generate([1, 2, 3], params).token_ids == short
    with load() as model:  # without a limit, there is none
        assert model.generate([1, 2, 3], params).token_ids
        torch.empty(20 * GIB, dtype=torch.uint8, device="cuda")


def test_a_study_s_largest_batch_fits_40_gib():
    """8 x 18000 of 7B ran out of memory on the card of 40 GB, without a cache."""
    fields = {"batch_size": 8, "context_length": 18016, "options": {"memory_gib": "40"}}
    with load("dummy:starcoder2-7b", **fields) as model:
        engine = model.engine
        ids = np.random.default_rng(1).integers(1, 49000, 18000).tolist()
        with engine.mode():
            for start in range(0, 18000, engine.chunk):
                for slot in range(8):
                    engine.prefill(slot, ids[start : start + engine.chunk], start)
            logits = engine.decode(torch.ones(8, dtype=torch.long, device="cuda"), [18000] * 8)
        assert torch.isfinite(logits).all()
        assert model.memory().device_peak < 40 * GIB


def test_the_bandwidth_is_that_of_a_gpu():
    found = registry().backend(NAME).bandwidth("cuda")
    assert 1e11 < found < 2e13


def test_draws_repeat_with_their_seed(small):
    params = codellm.SamplingParams(max_tokens=12, temperature=1.0, seed=5, ignore_eos=True)
    with load_small(small, dtype="float32") as model:
        assert model.generate([1, 2, 3], params).token_ids == model.generate([1, 2, 3], params).token_ids
