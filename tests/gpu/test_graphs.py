"""Steps of several sequences, by their kernels: on a GPU in captured graphs, elsewhere as Triton interprets them.

The interpreter has no products of matrices in bfloat16.
"""

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.runtime.errors import OutOfResources

from codellm.errors import InvalidValueError
from codellm.spec import LoadSpec
from codellm.torch.cache import Cache
from codellm.torch.linear import Linear
from codellm.torch.load import plan
from codellm_gpu.cuda.activation import activate
from codellm_gpu.cuda.attention import Parts, attend
from codellm_gpu.cuda.choice import TILES, candidates, fastest
from codellm_gpu.cuda.graphs import GraphSteps
from codellm_gpu.cuda.norm import add_norm
from codellm_gpu.cuda.place import Rows
from codellm_gpu.cuda.product import Product
from codellm_gpu.cuda.skinny import Tiles
from codellm_gpu.cuda.sums import Sums
from codellm_gpu.cuda.weight_only import Int8Linear
from support.checkpoints import CONFIGS, Arrays, config_of, random_weights, source_of, train_tokenizer

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
SHARE = {"float32": 5e-5, "float16": 0.01, "bfloat16": 0.06}
"""Of the greatest logit, by which two ways of computing it may differ."""
DTYPES = list(SHARE) if CUDA else ["float32", "float16"]
CASES = {name: (name, {}) for name in CONFIGS} | {
    "starcoder2 without biases": ("starcoder2", {"use_bias": False}),
    "past its window": ("starcoder2", {"sliding_window": 16}),
    "every bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "nine heads of 128 share a key": (
        "llama",
        {"hidden_size": 144, "num_attention_heads": 9, "num_key_value_heads": 1, "head_dim": 128},
    ),
    "no groups, heads of 24": ("llama", {"num_key_value_heads": 6, "head_dim": 24}),
    "tied": ("starcoder2", {"tie_word_embeddings": True}),
}
CHUNK = 4
SMALL = Tiles(128, 64, 4, 2, swapped=True, parts=2)


@attrs.frozen
class Steps:
    """Steps under test, and a decoder with a cache of the same content that computes as it always did."""

    steps: GraphSteps
    cache: Cache
    share: float

    def prompt(self, slot, length):
        ids = torch.randint(0, 500, (1, length), device=DEVICE)
        for start in range(0, length, CHUNK):
            stop = min(start + CHUNK, length)
            for cache in (self.steps.cache, self.cache):
                at = torch.arange(start, stop, device=DEVICE)[None]
                self.steps.decoder.prefill(ids[:, start:stop], at, cache.view(slot, slot + 1, cache.ring))

    def decode(self, ids, positions):
        at = torch.tensor(positions, device=DEVICE)
        return self.steps.decoder.decode(ids, at, self.cache)[:, : self.steps.vocab_size]


def tiles_of(product):
    """Tiles that no shape here is a multiple of, and torch's own product for some."""
    if product.weight.shape[0] == product.weight.shape[1]:
        return None
    return attrs.evolve(SMALL, parts=1) if product.activation or product.whole else SMALL


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make steps of a tiny model, for so many slots."""
    tokenizer = train_tokenizer("starcoder2", tmp_path_factory.mktemp("tokenizer"))

    def make(case, dtype="float32", slots=2, *, layers=1, choose=tiles_of, context=300):
        model_type, changes = CASES[case]
        config = config_of(model_type, 600, max_position_embeddings=context, num_hidden_layers=layers, **changes)
        spec = LoadSpec(model="tiny", dtype=dtype, context_length=context, batch_size=slots)
        planned = plan(spec, source_of(config, tokenizer, Arrays(random_weights(config))), DEVICE, free=1 << 40)
        caches = [
            Cache.allocate(
                planned.config, slots=slots, context_length=context, chunk=CHUNK, dtype=planned.dtype, device=DEVICE
            )
            for _ in range(2)
        ]
        return Steps(GraphSteps(planned.decoder(), caches[0], 590, choose), caches[1], SHARE[dtype])

    return make


@pytest.fixture(autouse=True)
def _inference():
    torch.manual_seed(3)
    with torch.inference_mode():
        yield


def assert_near(ours, expected, share):
    assert ours.dtype == torch.float32
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() <= share * expected.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_steps_of_ragged_slots_are_those_of_the_decoder(case, made):
    assert_same_steps(made(case), [5, 150])


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_are_those_of_the_decoder_in_every_type(dtype, made):
    assert_same_steps(made("starcoder2", dtype, layers=2), [37, 2])


def assert_same_steps(model, lengths):
    for slot, length in enumerate(lengths):
        model.prompt(slot, length)
    for step in range(4 if CUDA else 1):
        ids = torch.randint(0, 500, (len(lengths),), device=DEVICE)
        positions = [length + step for length in lengths]
        assert_near(model.steps(ids, positions), model.decode(ids, positions), model.share)


def test_projections_that_compute_by_themselves_do_so_in_a_step(made):
    model = made("llama", "float16")
    layer = model.steps.decoder.layers[0]
    for module, name in ((layer.attention, "qkv"), (layer.feed_forward, "up"), (model.steps.decoder, "lm_head")):
        projection = getattr(module, name)
        setattr(module, name, Int8Linear.of(projection.weight, projection.bias))
    assert_same_steps(model, [70, 3])


def test_a_slot_is_refilled_and_what_it_held_before_is_not_seen(made):
    model = made("past its window")
    for slot in range(2):
        model.prompt(slot, 60)
    ids = torch.randint(0, 500, (2,), device=DEVICE)
    for part in (*model.steps.cache.keys, *model.steps.cache.values):
        part[1] = float("nan")
    for part in (*model.cache.keys, *model.cache.values):
        part[1] = 0
    for position in range(2):
        positions = [60 + position, position]
        assert_near(model.steps(ids, positions), model.decode(ids, positions), model.share)


def test_a_slot_without_a_token_keeps_its_cells(made):
    model = made("llama", slots=5)
    for slot in range(5):
        model.prompt(slot, 9)
    before = [part.clone() for part in model.steps.cache.keys]
    ids = torch.randint(0, 500, (5,), device=DEVICE)
    logits = model.steps(ids, [9, -1, 9, -1, -1]).clone()
    assert_near(logits[[0, 2]], model.decode(ids, [9] * 5)[[0, 2]], model.share)
    for part, old in zip(model.steps.cache.keys, before, strict=True):
        assert torch.equal(part[[1, 3, 4]], old[[1, 3, 4]])
        assert not torch.equal(part[0], old[0])
    assert model.steps(ids, [-1] * 5).shape == logits.shape


@pytest.mark.parametrize("case", ["starcoder2", "past its window"])
def test_several_tokens_of_a_slot_see_those_before_them(case, made):
    model = made(case)
    model.prompt(0, 70)
    model.prompt(1, 33)
    ids = torch.randint(0, 500, (7,), device=DEVICE)
    slots, positions = [1, 0, 0, 0, 0, 1, 1], [33, 70, 71, 72, 73, 34, 35]
    ours = model.steps.rows(ids, slots, positions)
    expected = torch.empty_like(ours)
    for row, (slot, position) in enumerate(zip(slots, positions, strict=True)):
        tokens, at = ids[[row, row]], [69, 32]
        at[slot] = position
        view = model.cache.view(slot, slot + 1, model.cache.ring)
        where = torch.tensor([position], device=DEVICE)
        expected[row] = model.steps.decoder.decode(tokens[:1], where, view)[0, :590]
    assert_near(ours, expected, model.share)


def test_a_step_has_at_most_64_rows(made):
    steps = made("llama").steps
    with pytest.raises(InvalidValueError, match="at most 64 rows, not 65"):
        steps.rows(torch.zeros(65, dtype=torch.long, device=DEVICE), [0] * 65, list(range(65)))


def attended(query, keys, values, cells):
    """Attention of a row's query heads [N, D] to the tokens in `cells` of a slot [R, KV, D], in float64."""
    group = len(query) // keys.shape[1]
    k, v = (part[cells].double().repeat_interleave(group, 1) for part in (keys, values))  # [L, N, D]
    chances = (torch.einsum("nd,lnd->nl", query.double(), k) * query.shape[1] ** -0.5).softmax(-1)
    return torch.einsum("nl,lnd->nd", chances, v)


@settings(max_examples=40 if CUDA else 12)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=3),
    group=st.sampled_from([1, 2, 6, 9, 12]),
    head_dim=st.sampled_from([64, 128]),
    kv_heads=st.integers(1, 2),
    window=st.one_of(st.just(400), st.integers(1, 200)),
    programs=st.sampled_from([1, 16, 100]),
)
def test_attention_is_that_of_its_formula(lengths, group, head_dim, kv_heads, window, programs):
    random = torch.Generator(DEVICE).manual_seed(len(lengths) + 7 * sum(lengths))
    dtype, rows, ring = (torch.bfloat16 if CUDA else torch.float16), len(lengths), min(window + 3, 400)

    def drawn(*shape):
        return torch.randn(*shape, generator=random, device=DEVICE).to(dtype)

    queries, out = drawn(rows, kv_heads * group * head_dim), drawn(rows, kv_heads * group * head_dim)
    keys, values = drawn(rows, ring, kv_heads, head_dim), drawn(rows, ring, kv_heads, head_dim)
    slots = list(range(rows))[::-1]
    places = torch.tensor([slots, [length - 1 for length in lengths]], dtype=torch.int32, device=DEVICE)
    parts = Parts.allocate(rows, kv_heads * group, kv_heads, head_dim, programs, DEVICE)
    before = out.clone()
    for _ in range(2):  # what the first leaves behind is as the second needs it
        attend(queries, keys, values, Rows(places), window, parts, out)
    assert not parts.done.any()
    for row, length in enumerate(lengths):
        if not length:
            assert torch.equal(out[row], before[row])
            continue
        cells = [position % ring for position in range(max(0, length - window), length)]
        expected = attended(queries[row].view(-1, head_dim), keys[slots[row]], values[slots[row]], cells)
        assert (out[row].view(-1, head_dim) - expected).abs().max() < 0.02 * expected.abs().max() + 1e-3


@pytest.mark.parametrize("tiles", [*TILES, SMALL], ids=str)
@pytest.mark.parametrize("rows", [32 if CUDA else 2])
def test_products_are_those_of_torch_however_they_are_cut(tiles, rows):
    kind = torch.bfloat16 if CUDA else torch.float16
    for outputs, inputs in ((256, 512), (150, 200)):
        x = torch.randn(64, inputs, device=DEVICE).to(kind)
        linear = Linear(inputs, outputs, device=DEVICE).to(kind)
        exact = torch.nn.functional.linear(x[:rows].double(), linear.weight.double())
        bias = linear.bias.double()
        for parts in (1, 4):
            cut = attrs.evolve(tiles, parts=parts)
            sums = Product([linear], rows, tiles=cut).sums(0, x)
            assert sums.parts.shape == (parts, max(16, rows), outputs)
            torch.testing.assert_close(sums.parts.double().sum(0)[:rows], exact, rtol=1e-3, atol=1e-3)
        one = attrs.evolve(tiles, parts=1)
        for activation in ("gelu", "gate"):
            size = outputs // 2 if activation == "gate" else outputs
            active, expected = x.new_zeros(64, size), x.new_zeros(64, size)
            try:
                Product([linear], rows, activation, tiles=one).activated(0, x, active)
            except OutOfResources:  # two tiles of weights, and a choice goes by such tiles too
                continue
            Product([linear], rows, activation).activated(0, x, expected)
            torch.testing.assert_close(active[:rows], expected[:rows], rtol=0.02, atol=0.01)
            full = exact + bias
            wanted = (
                torch.nn.functional.silu(full[:, :size]) * full[:, size:]
                if activation == "gate"
                else torch.nn.functional.gelu(full, approximate="tanh")
            )
            torch.testing.assert_close(active[:rows].double(), wanted, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("parts", [0, 1, 3])
def test_the_norm_of_what_is_added_is_torch_s(kind, parts):
    from codellm.torch.weights import RMSNorm

    norm = (torch.nn.LayerNorm if kind == "layer" else RMSNorm)(200, eps=1e-4).to(DEVICE)
    for values in norm.parameters():
        torch.nn.init.normal_(values, 1.0)
    residual, out = torch.randn(8, 200, device=DEVICE), torch.zeros(8, 200, device=DEVICE)
    sums = Sums(torch.randn(parts, 8, 200, device=DEVICE), torch.randn(200, device=DEVICE)) if parts else None
    whole = residual if sums is None else residual + sums.parts.sum(0) + sums.bias
    expected = norm(whole)
    add_norm(residual, sums, norm, out, 5)
    torch.testing.assert_close(residual[:5], whole[:5])
    torch.testing.assert_close(out[:5], expected[:5], rtol=1e-4, atol=1e-5)
    assert not out[5:].any()


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # of numpy, which interprets
def test_activations_are_torch_s_far_from_zero_too():
    x = torch.linspace(-30, 30, 1200, device=DEVICE)[None]
    for gated in (False, True):
        out = torch.zeros(1, 600 if gated else 1200, device=DEVICE)
        activate(Sums(x[None]), out, 1, gated=gated)
        expected = (
            torch.nn.functional.silu(x[:, :600]) * x[:, 600:]
            if gated
            else torch.nn.functional.gelu(x, approximate="tanh")
        )
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 8, 64])
def test_ways_that_are_worth_a_try_keep_the_gpu_busy(rows):
    for outputs, inputs in ((5632, 4608), (4608, 18432), (1024, 1024)):
        layer = Linear(inputs, outputs, bias=False, device="meta")
        found = candidates(Product([layer], rows))
        assert found
        assert all(tiles.parts * tiles.inputs <= inputs for tiles in found)
        assert {tiles.parts for tiles in candidates(Product([layer], rows, "gelu"))} == {1}


@pytest.mark.gpu
def test_the_way_of_a_product_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path))
    layers = [Linear(1024, 2048, device=DEVICE).bfloat16() for _ in range(3)]
    found = fastest(Product(layers, 8))
    kept = (tmp_path / "products.json").read_text()
    assert fastest(Product(layers, 8)) == found
    assert (tmp_path / "products.json").read_text() == kept


@pytest.mark.gpu
@pytest.mark.parametrize("slots", [1, 8, 50])
def test_steps_at_any_context_repeat_bit_for_bit(slots, made, tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path))
    model = made("nine heads of 128 share a key", "bfloat16", slots, choose=fastest, context=4200)
    for part, twin in zip(
        (*model.steps.cache.keys, *model.steps.cache.values), (*model.cache.keys, *model.cache.values), strict=True
    ):
        twin.copy_(part.normal_())
    random = np.random.default_rng(slots)
    for _ in range(12):
        positions = random.integers(0, 4097, slots).tolist()
        ids = torch.randint(0, 500, (slots,), device=DEVICE)
        first = model.steps(ids, positions).clone()
        assert_near(first, model.decode(ids, positions), model.share)
        for _ in range(3):
            assert torch.equal(model.steps(ids, positions), first)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_the_host_does_not_wait_in_a_step(made):
    model = made("starcoder2")
    ids = torch.zeros(3, dtype=torch.long, device=DEVICE)
    model.steps(ids, [1, 2, 3])
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.steps(ids, [2, 3])
    finally:
        torch.cuda.set_sync_debug_mode("default")
