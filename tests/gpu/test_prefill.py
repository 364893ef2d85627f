"""Prompts in chunks of any size: what `Decoder` computes under a mask, by the same modules without one.

flash-attn and torch's own FlashAttention-2 are spelled out in plain torch where there is no GPU."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from codellm.errors import BackendUnavailableError, InvalidValueError
from codellm.spec import LoadSpec
from codellm.torch.cache import Cache, join
from codellm.torch.load import plan
from codellm_gpu.cuda.chunk_attention import FlashAttn, chosen, has_torch_flash, masked, torch_flash
from codellm_gpu.cuda.prefill import Prefill, implementation
from support.checkpoints import Arrays, config_of, random_weights, source_of, train_tokenizer
from support.packages import pretend_absent, pretend_installed

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
WINDOW, CONTEXT = 16, 96
LENGTH = 50 if CUDA else 29  # past the window; the interpreter takes its time
CASES = {
    "starcoder2": ("starcoder2", {}),
    "past its window": ("starcoder2", {"sliding_window": WINDOW}),
    "one key-value head": ("starcoder2", {"sliding_window": WINDOW, "num_key_value_heads": 1}),
    "llama": ("llama", {}),
    "every bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
}
SEEN = ["starcoder2", "past its window", "one key-value head"]
"""The cases that differ in what attention is given."""
SHARE = 1e-5
"""Of the greatest number, by which two ways of computing it may differ in float32."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a tiny decoder of two layers, and its plan."""
    tokenizer = train_tokenizer("starcoder2", tmp_path_factory.mktemp("tokenizer"))
    known = {}

    def make(case, dtype="float32"):
        if (case, dtype) not in known:
            model_type, changes = CASES[case]
            config = config_of(model_type, 600, max_position_embeddings=CONTEXT, **changes)
            spec = LoadSpec(model="tiny", dtype=dtype, context_length=CONTEXT)
            planned = plan(spec, source_of(config, tokenizer, Arrays(random_weights(config))), DEVICE, free=1 << 40)
            known[case, dtype] = planned, planned.decoder()
        return known[case, dtype]

    return make


@pytest.fixture(autouse=True)
def _inference():
    torch.manual_seed(3)
    with torch.inference_mode():
        yield


def empty(planned, chunk, slots=2):
    return Cache.allocate(
        planned.config, slots=slots, context_length=CONTEXT, chunk=chunk, dtype=planned.dtype, device=DEVICE
    )


def expected(planned, decoder, ids):
    """Every token's output of the last layer, at once, from the decoder itself."""
    cache = empty(planned, len(ids), slots=1)
    return decoder.hidden(ids[None], torch.arange(len(ids), device=DEVICE)[None], cache)[0]


def computed(ours, ids, sizes, slot=1):
    """The same from `ours`, in chunks of `sizes` over and over."""
    parts, start = [], 0
    while start < len(ids):
        for size in sizes:
            parts.append(ours.hidden(slot, ids[start : start + size], start))
            start += len(parts[-1])
            if start == len(ids):
                break
    return torch.cat(parts)


def assert_near(ours, wanted, share=SHARE):
    assert ours.shape == wanted.shape
    assert (ours - wanted).abs().max() <= share * wanted.abs().max()


def spelled(q, k, v, window):
    """Attention of [1, T, N, D] to [1, S, KV, D], lined up at the bottom right; a negative window is none."""
    length, seen, groups = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    k, v = (part.repeat_interleave(groups, dim=2) for part in (k, v))
    query, key = torch.arange(length)[:, None] + seen - length, torch.arange(seen)
    mask = (key <= query) & (key >= query - (window if window >= 0 else seen))
    scores = torch.einsum("btnd,bsnd->bnts", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bnts,bsnd->btnd", scores.masked_fill(~mask, -torch.inf).softmax(dim=-1), v)


def flash_attn_func(q, k, v, *, causal, window_size):
    assert causal
    assert window_size[1] == (0 if window_size[0] >= 0 else -1)
    return spelled(q, k, v, window_size[0])


def flash_attention_forward(
    q, k, v, cum_q, cum_k, max_q, max_k, dropout, causal, debug, *, window_size_left, window_size_right
):
    """As aten's operator of this name takes its arguments."""
    assert (cum_q, cum_k, max_q, max_k, dropout, debug) == (None, None, q.shape[1], k.shape[1], 0.0, False)
    assert causal
    assert window_size_right == (0 if window_size_left >= 0 else -1)
    return spelled(q, k, v, window_size_left), None


ATTENTIONS = {"flash_attention_2": FlashAttn(flash_attn_func), "sdpa": masked, "sdpa of a GPU": torch_flash}


@pytest.fixture(params=ATTENTIONS)
def attention(request, monkeypatch):
    """Each way to compute attention, in float32."""
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", flash_attention_forward)
    return ATTENTIONS[request.param]


@pytest.mark.skipif(CUDA, reason="kernels are spelled out for the CPU")
@pytest.mark.parametrize(
    ("case", "attention"),
    [(case, name) for case in CASES for name in (ATTENTIONS if case in SEEN else ["sdpa"])],
    indirect=["attention"],
)
def test_chunks_are_what_the_decoder_computes(case, attention, made):
    planned, decoder = made(case)
    ids = torch.randint(0, 500, (LENGTH,), device=DEVICE)
    wanted = expected(planned, decoder, ids)
    for chunk in (LENGTH, 9):
        ours = Prefill(decoder, empty(planned, chunk), attention)
        assert_near(computed(ours, ids, [chunk]), wanted)
    assert_near(decoder.logits(computed(ours, ids[9:], [9])), decoder.logits(expected(planned, decoder, ids[9:])))


@pytest.mark.skipif(CUDA, reason="kernels are spelled out for the CPU")
def test_the_ring_may_be_as_small_as_the_window(attention, made):
    planned, decoder = made("past its window")
    ids = torch.randint(0, 500, (LENGTH,), device=DEVICE)
    ours = Prefill(decoder, empty(planned, 1), attention)
    assert ours.cache.ring == WINDOW
    assert_near(computed(ours, ids, [5, 1, 20]), expected(planned, decoder, ids))


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4), chunk=st.sampled_from([1, 5, 20]))
@settings(max_examples=8)
def test_where_a_prompt_is_cut_changes_nothing(sizes, chunk, made):
    planned, decoder = made("past its window")
    ids = torch.randint(0, 500, (24,), device=DEVICE)
    ours = Prefill(decoder, empty(planned, chunk), masked)
    with torch.inference_mode():
        assert_near(computed(ours, ids, sizes), expected(planned, decoder, ids))


def test_decoding_goes_on_from_what_it_left_in_the_cache(made):
    planned, decoder = made("past its window")
    ids = torch.randint(0, 500, (LENGTH,), device=DEVICE)
    caches = [empty(planned, 8) for _ in range(2)]
    ours = Prefill(decoder, caches[0], masked)
    computed(ours, ids[:-1], [8])
    for start in range(0, LENGTH - 1, 8):
        part = ids[None, start : min(start + 8, LENGTH - 1)]
        decoder.hidden(part, torch.arange(start, start + part.shape[1], device=DEVICE)[None], caches[1].view(1, 2, 24))
    for ours_part, part in zip((*caches[0].keys, *caches[0].values), (*caches[1].keys, *caches[1].values), strict=True):
        assert_near(ours_part, part)
        assert not ours_part[0].any()


@given(size=st.integers(1, 9), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_joined_tokens_are_in_order_and_the_ring_holds_the_last(size, sizes):
    ring, start = torch.full((size, 1, 1), -1.0), 0
    for count in sizes:
        tokens = torch.arange(start, start + count, dtype=torch.float32).view(-1, 1, 1)
        seen = join(ring, tokens, start)
        end = start + count
        assert seen.flatten().tolist() == list(range(max(0, start - size + 1) if end > size else 0, end))
        last = range(max(0, end - size), end)
        assert {at % size: float(at) for at in last}.items() <= dict(enumerate(ring.flatten().tolist())).items()
        start = end


@pytest.mark.parametrize(("length", "before", "window"), [(1030, 0, 5000), (700, 300, 5000), (1100, 50, 100)])
def test_blocks_of_queries_see_what_the_whole_would(length, before, window):
    q = torch.randn(length, 4, 8, device=DEVICE)
    k, v = (torch.randn(length + before, 2, 8, device=DEVICE) for _ in range(2))
    at = torch.arange(length + before, device=DEVICE)
    mask = (at <= at[before:, None]) & (at > at[before:, None] - window)
    heads = [part.transpose(0, 1) for part in (q, k, v)]
    wanted = scaled_dot_product_attention(*heads, attn_mask=mask, enable_gqa=True).transpose(0, 1).flatten(1)
    assert_near(masked(q, k, v, window), wanted)


def test_what_is_computed_without_being_asked_for(monkeypatch):
    half, full, device = torch.bfloat16, torch.float32, torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    pretend_absent(monkeypatch, "flash_attn")
    assert implementation(None, device, half) == "sdpa"
    with pytest.raises(BackendUnavailableError, match="flash_attention_2 needs flash-attn"):
        implementation("flash_attention_2", device, half)
    pretend_installed(monkeypatch, "flash_attn")
    assert implementation(None, device, full) == "sdpa"
    assert implementation("flash_attention_2", device, half) == "flash_attention_2"
    with pytest.raises(InvalidValueError, match="no attention eager; take one of sdpa, flash_attention_2"):
        implementation("eager", device, half)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_torch_s_own_flash_computes_what_the_decoder_does(case, made):
    planned, decoder = made(case, "float16")
    ids = torch.randint(0, 500, (LENGTH,), device=DEVICE)
    ours = Prefill(decoder, cache := empty(planned, 40), chosen("sdpa", cache.keys[0]))
    assert has_torch_flash(ours.cache.keys[0])
    assert_near(computed(ours, ids, [40, 7]), expected(planned, decoder, ids), 0.01)


@pytest.mark.gpu
def test_on_a_gpu_float32_is_computed_without_writing_scores_out():
    q = torch.randn(1100, 4, 64, device=DEVICE)
    k, v = (torch.randn(1150, 2, 64, device=DEVICE) for _ in range(2))
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        assert masked(q, k, v, 100).isfinite().all()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_the_host_does_not_wait_in_a_chunk(made):
    planned, decoder = made("past its window", "float16")
    ids = torch.randint(0, 500, (LENGTH,), device=DEVICE)
    ours = Prefill(decoder, cache := empty(planned, 40), chosen("sdpa", cache.keys[0]))
    computed(ours, ids, [40])
    torch.cuda.set_sync_debug_mode("error")
    try:
        computed(ours, ids, [40])
    finally:
        torch.cuda.set_sync_debug_mode("default")
