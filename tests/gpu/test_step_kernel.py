"""The step kernel on a GPU, held against the decoder in float32 for the shapes of every family."""

from __future__ import annotations

import attrs
import pytest
import torch

from codellm.sources import TensorInfo
from codellm.sources.architectures import ARCHITECTURES
from codellm.sources.dummy import dummy_config
from codellm.torch.cache import Cache
from codellm.torch.decoder import Decoder
from codellm.torch.weights import Weights

pytestmark = pytest.mark.gpu

LENGTH = 4160
NEAR = {"none": 0.02, "int8": 0.02, "int4": 0.02}
"""Of the logits' norm, by which they may differ from those of float32 with the same weights: bfloat16 has 8 bits."""
PROJECTIONS = (("attention", "qkv"), ("attention", "o_proj"), ("feed_forward", "up"), ("feed_forward", "down"))
MODELS = ("starcoder2-7b", "codellama-7b", "llama-3.1-8b", "qwen2.5-coder-1.5b", "qwen2.5-coder-7b", "qwen3-0.6b")


class Drawn(Weights):
    """Weights drawn on the device; norms near 1, and biases that are not zero."""

    def __init__(self, infos, dtype):
        super().__init__(None, infos, dtype=dtype, device=torch.device("cuda"))
        self._generator = torch.Generator("cuda").manual_seed(1)

    def _fill(self, target, name):
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        target.normal_(mean, 0.1 if "norm" in name else 0.02, generator=self._generator)


def build(model, scheme="none", dtype=torch.bfloat16, slots=1):
    """A decoder of two layers of `model`, its twin in float32 with the same weights, and caches of both."""
    from codellm_gpu.cuda.weight_only import Int4Linear, Int8Linear

    raw = dummy_config(model) | {"num_hidden_layers": 2, "sliding_window": None}
    architecture = ARCHITECTURES[raw["model_type"]]
    config = architecture.read(raw, model)
    infos = {name: TensorInfo(name, shape, "bfloat16") for name, shape in architecture.shapes(config).items()}
    decoder, twin = (Decoder(config, Drawn(infos, dtype), LENGTH).eval() for _ in range(2))
    if scheme != "none":
        kind = Int8Linear if scheme == "int8" else Int4Linear
        for layer in decoder.layers:
            for part, name in PROJECTIONS:
                plain = getattr(getattr(layer, part), name)
                setattr(getattr(layer, part), name, kind.of(plain.weight, plain.bias))
        decoder.lm_head = Int8Linear.of(decoder.lm_head.weight, None)
        exact(decoder, twin)
    caches = [
        Cache.allocate(config, slots=slots, context_length=LENGTH, chunk=1, dtype=kind, device=torch.device("cuda"))
        for kind in (dtype, torch.float32)
    ]
    return config, decoder, twin.float(), caches


def exact(decoder, twin):
    """Give `twin` the weights that those of `decoder` stand for."""
    for layer, other in zip(decoder.layers, twin.layers, strict=True):
        for part, name in (
            ("attention", "qkv"),
            ("attention", "o_proj"),
            ("feed_forward", "up"),
            ("feed_forward", "down"),
        ):
            quantized, plain = getattr(getattr(layer, part), name), getattr(getattr(other, part), name)
            plain.weight.data = quantized.dequantized(slice(None), torch.float32)
    twin.lm_head.weight = torch.nn.Parameter(decoder.lm_head.dequantized(slice(None), torch.float32), False)


def fill(caches, generator):
    for mine, theirs in zip((*caches[0].keys, *caches[0].values), (*caches[1].keys, *caches[1].values), strict=True):
        mine.normal_(0, 0.5, generator=generator)
        theirs.copy_(mine)


@pytest.mark.parametrize("scheme", NEAR)
@pytest.mark.parametrize("model", MODELS)
def test_its_logits_are_those_of_float32(model, scheme):
    from codellm_gpu.cuda.kernel import StepKernel

    with torch.inference_mode():
        config, decoder, twin, caches = build(model, scheme)
        kernel = StepKernel(config, decoder, caches[0], config.vocab_size - 7)
        generator = torch.Generator("cuda").manual_seed(2)
        fill(caches, generator)
        random = torch.Generator().manual_seed(3)
        for start in (0, 1, 15, 16, 17, 63, 527, 1024, 4094, *torch.randint(1, 4094, (6,), generator=random).tolist()):
            ids = torch.tensor([start % 91], device="cuda")
            for position in (start, start + 1):
                logits = kernel(ids, 0, position)[0].clone()
                wanted = twin.decode(ids, torch.tensor([position], device="cuda"), caches[1])[0]
                assert (logits - wanted).norm() <= NEAR[scheme] * wanted.norm(), position
                seen = logits[: config.vocab_size - 7]
                following, logprob = kernel.likeliest
                assert following.item() == seen.argmax().item()
                assert abs(logprob.item() - seen.log_softmax(-1).max().item()) < 1e-4
                assert torch.equal(kernel(ids, 0, position)[0], logits)  # to the bit
                ids = following.clone()


def test_a_slot_is_its_own_and_a_window_slides_over_the_ring():
    from codellm_gpu.cuda.kernel import StepKernel

    with torch.inference_mode():
        config, decoder, twin, caches = build("qwen2.5-coder-1.5b", slots=3)
        caches = [
            attrs.evolve(
                cache,
                keys=[part[:, :96].contiguous() for part in cache.keys],
                values=[part[:, :96].contiguous() for part in cache.values],
                ring=96,
                window=64,
            )
            for cache in caches
        ]
        kernel = StepKernel(config, decoder, caches[0], config.vocab_size)
        fill(caches, torch.Generator("cuda").manual_seed(2))
        others = [part[[0, 2]].clone() for part in (*caches[0].keys, *caches[0].values)]
        for position in range(90, 200):
            ids = torch.tensor([5, position, 5], device="cuda")
            logits = kernel(ids, 1, position)[1]
            wanted = twin.decode(
                ids[1:2], torch.tensor([position], device="cuda"), caches[1].view(1, 2, caches[1].ring)
            )[0]
            assert (logits - wanted).norm() <= 0.02 * wanted.norm(), position
        for part, before in zip((*caches[0].keys, *caches[0].values), others, strict=True):
            assert torch.equal(part[[0, 2]], before)


def test_a_logit_that_is_no_number_is_told_by_its_log_probability():
    from codellm_gpu.cuda.kernel import StepKernel

    with torch.inference_mode():
        config, decoder, _, caches = build("qwen2.5-coder-1.5b")
        decoder.norm.weight[3] = torch.nan
        kernel = StepKernel(config, decoder, caches[0], config.vocab_size)
        kernel(torch.tensor([5], device="cuda"), 0, 0)
        assert kernel.likeliest[1].isnan().all()
