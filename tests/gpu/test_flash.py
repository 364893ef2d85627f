"""FlashAttention-2's wiring, with both kernels spelled out in plain torch: the same logits as sdpa's, also past the
sliding window, in ragged batches, with slots that are refilled and prompts in chunks of any size."""

import sys

import numpy as np
import pytest
import torch

import codellm
from codellm.errors import BackendUnavailableError, InvalidValueError
from codellm.spec import LoadSpec
from codellm_gpu import flash
from codellm_gpu.backend import TransformersCudaBackend
from codellm_gpu.flash import FlashEngine
from support.checkpoints import Arrays, config_of, random_weights, source_of, train_tokenizer
from support.packages import pretend_absent, pretend_installed

WINDOW = 16
CASES = {
    "starcoder2": {"model_type": "starcoder2", "sliding_window": WINDOW},
    "no window": {"model_type": "starcoder2"},
    "one key-value head": {"model_type": "starcoder2", "sliding_window": WINDOW, "num_key_value_heads": 1},
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3"},
}


def mix(q, k, v, seen, scale):
    """`q` [B, T, N, D], `k` and `v` [B, S, KV, D], seen [B, T, S] → [B, T, N, D]."""
    groups = q.shape[2] // k.shape[2]
    k, v = (part.repeat_interleave(groups, dim=2) for part in (k, v))
    scores = torch.einsum("btnd,bsnd->bnts", q, k) * scale
    weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(dim=-1)
    return torch.einsum("bnts,bsnd->btnd", weights, v)


def chunk_kernel(q, k, v, *, softmax_scale, causal, window_size):
    """flash_attn_func as its docstring has it: causal is lined up at the bottom right, so is the window."""
    assert causal
    length, seen = q.shape[1], k.shape[1]
    query = torch.arange(length)[:, None] + seen - length
    key = torch.arange(seen)
    left = window_size[0] if window_size[0] >= 0 else seen
    return mix(q, k, v, ((key <= query) & (key >= query - left))[None], softmax_scale)


def step_kernel(q, k_cache, v_cache, *, cache_seqlens, softmax_scale):
    """flash_attn_with_kvcache for one query: the first `cache_seqlens` cells of each slot, in any order."""
    assert q.shape[1] == 1
    assert cache_seqlens.dtype == torch.int32
    seen = torch.arange(k_cache.shape[1]) < cache_seqlens[:, None]
    return mix(q, k_cache, v_cache, seen[:, None], softmax_scale)


class Engine(FlashEngine):
    """With plain attention in the place of the kernels, wherever it runs."""

    @staticmethod
    def kernels():
        return flash.Kernels(chunk_kernel, step_kernel)

    @staticmethod
    def require(device, dtype):
        pass


class Backend(TransformersCudaBackend):
    def engine(self, attention):
        return Engine if attention == "flash_attention_2" else super().engine(attention)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer("starcoder2", tmp_path_factory.mktemp("tokenizer"))


def load(source, attention, chunk=512, batch_size=1, context=96):
    spec = LoadSpec(
        model="tiny", device="cpu", dtype="float32", attn_implementation=attention, batch_size=batch_size,
        context_length=context, options={"chunk": str(chunk)},
    )  # fmt: skip
    return Backend().load(spec, source)


@pytest.mark.parametrize("chunk", [512, 64, 16, 7, 1])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_logits_equal_those_of_sdpa(case, chunk, tokenizer):
    config = config_of(vocabulary=600, **case)
    source = source_of(config, tokenizer, Arrays(random_weights(config)))
    ids = np.random.default_rng(1).integers(0, 500, 90).tolist()
    with load(source, "sdpa") as plain, load(source, "flash_attention_2", chunk) as ours:
        assert plain.engine.cache.ring > ours.engine.cache.ring or config.get("sliding_window") is None
        expected = plain.logits(ids)
        assert np.abs(ours.logits(ids) - expected).max() < 1e-4 * np.abs(expected).max()
        [scores], [wanted] = ours.score([ids]), plain.score([ids])
        assert scores == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("chunk", [512, 16, 7])
def test_a_ragged_batch_generates_as_with_sdpa(chunk, tokenizer):
    config = config_of("starcoder2", 600, sliding_window=WINDOW)
    source = source_of(config, tokenizer, Arrays(random_weights(config)))
    random = np.random.default_rng(2)
    prompts = [random.integers(1, 500, size).tolist() for size in (1, 15, 40, 16, 17, 3, 60, 33)] + [[5, 6, 7]] * 3
    params = codellm.SamplingParams(max_tokens=30, ignore_eos=True)
    results = {}
    for attention in ("sdpa", "flash_attention_2"):
        with load(source, attention, chunk, batch_size=3) as model:
            results[attention] = [result.token_ids for result in model.generate_batch(prompts, params)]
    assert results["flash_attention_2"] == results["sdpa"]


def ask(device="cuda", dtype="float16"):
    flash.require(torch.device(device), getattr(torch, dtype))


def test_what_it_cannot_run_on_is_told_with_what_to_do(monkeypatch):
    with pytest.raises(InvalidValueError, match="runs on the device cuda, not cpu; take sdpa"):
        ask("cpu")
    pretend_absent(monkeypatch, "flash_attn")
    with pytest.raises(BackendUnavailableError, match=r'needs flash-attn.*pip install "codellm-gpu\[flash-attn\]"'):
        ask()
    pretend_installed(monkeypatch, "flash_attn")
    with pytest.raises(InvalidValueError, match="float16 or bfloat16, not float32"):
        ask(dtype="float32")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(BackendUnavailableError, match=r"capability 8\.0, and Tesla T4 has 7\.5; take sdpa"):
        ask()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    ask()


def test_nothing_of_flash_attn_is_imported_before_it_is_asked_for():
    with codellm.load("codellm-demo", backend="transformers-cuda", device="cpu"):
        assert "flash_attn" not in sys.modules


def test_on_the_cpu_it_is_refused_before_a_weight_is_read():
    with pytest.raises(InvalidValueError, match="flash_attention_2 runs on the device cuda"):
        codellm.load("codellm-demo", backend="transformers-cuda", device="cpu", attn_implementation="flash_attention_2")
