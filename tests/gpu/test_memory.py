"""A device that is full, spelled out by fakes: what is said, that the model goes on, and what a limit leaves."""

import gc
import types
import weakref

import attrs
import pytest
import torch

import codellm
from codellm.errors import InvalidValueError, NotEnoughMemoryError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.sources import Tensors
from codellm.spec import LoadSpec
from codellm.torch import device as devices
from codellm.torch.model import TorchModel
from codellm.torch.transformers_engine import TransformersEngine
from codellm_gpu.backend import TransformersCudaBackend
from support.engines import Wrapped

FULL = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.72 GiB of which 3 GiB is free. "
    "Process 1 has 136 GiB memory in use."
)
TOLD = (
    r"memory of the device cpu is full \(CUDA out of memory\. Tried to allocate 20\.00 GiB\); take a smaller batch_size"
)
CALLS = {
    "generate": lambda model: model.generate("def "),
    "score": lambda model: model.score([[1, 2, 3]]),
    "logits": lambda model: model.logits([1, 2, 3]),
    "distributions": lambda model: list(model.distributions([1, 2, 3])),
}


@pytest.fixture(scope="module")
def model():
    with codellm.load("codellm-demo", backend="transformers-cuda", device="cpu", context_length=64) as model:
        yield model


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_full_device_says_what_to_do_and_the_model_goes_on(model, call):
    held = []

    class Full(Wrapped):
        def prefill(self, *args):
            activations = torch.zeros(1000)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError(FULL)

        all_position_logits = prefill

    with pytest.raises(NotEnoughMemoryError, match=TOLD):
        call(TorchModel(model.info, model.tokenizer, Full(model.engine)))
    gc.collect()
    assert held[0]() is None  # the error keeps nothing of what was computed
    assert call(model) is not None


def test_a_device_that_is_full_while_decoding_ends_the_stream_alone(model):
    steps = iter(range(3))

    class Full(Wrapped):
        def decode(self, ids, positions):
            if next(steps, None) is None:
                raise torch.OutOfMemoryError(FULL)
            return self.engine.decode(ids, positions)

    params = codellm.SamplingParams(max_tokens=20, ignore_eos=True)
    with pytest.raises(NotEnoughMemoryError, match=TOLD):
        TorchModel(model.info, model.tokenizer, Full(model.engine)).generate("def ", params)
    assert len(model.generate("def ", params).token_ids) == 20


def test_a_device_that_is_full_while_loading_is_told_and_gives_all_back():
    held = []

    class Full(TransformersEngine):
        def __init__(self, model, cache, **sizes):
            held.append(weakref.ref(model))
            raise torch.OutOfMemoryError(FULL)

    class Backend(TransformersCudaBackend):
        def engine(self, attention):
            return Full

    with pytest.raises(NotEnoughMemoryError, match=TOLD):
        Backend().load(LoadSpec(model="codellm-demo", device="cpu"), find("codellm-demo").fetch())
    gc.collect()
    assert held[0]() is None


def test_a_weight_that_does_not_fit_is_told():
    class Full(Tensors):
        def __init__(self, tensors):
            self.tensors = tensors

        def infos(self):
            return self.tensors.infos()

        def read(self, name):
            raise torch.OutOfMemoryError(FULL)

    source = find("codellm-demo").fetch()
    source = attrs.evolve(source, tensors=Full(source.tensors))
    with pytest.raises(NotEnoughMemoryError, match=TOLD):
        registry().backend("transformers-cuda").load(LoadSpec(model=source.name, device="cpu"), source)


@pytest.fixture
def gpu(monkeypatch):
    """CUDA's side of memory, with 100 GiB free of 140; what was asked of it."""
    asked = {}
    fake = types.SimpleNamespace(
        empty_cache=lambda: None,
        reset_peak_memory_stats=lambda device: asked.update(peak=0),
        mem_get_info=lambda device: (100 << 30, 140 << 30),
        memory_reserved=lambda device: 4 << 30,
        set_per_process_memory_fraction=lambda fraction, device: asked.update(fraction=fraction),
    )
    monkeypatch.setattr(torch, "cuda", fake)
    return asked


def test_a_limit_holds_for_the_process_and_for_the_check_before_loading(gpu):
    device = torch.device("cuda")
    devices.clear(device, 35 << 30)
    assert gpu == {"peak": 0, "fraction": 0.25}
    assert devices.free_memory(device, 35 << 30) == (31 << 30) * 9 // 10
    assert devices.free_memory(device, 1 << 30) == 0
    devices.clear(device)
    assert gpu["fraction"] == 1.0
    assert devices.free_memory(device) == (100 << 30) * 9 // 10
    assert devices.free_memory(device, 120 << 30) == (100 << 30) * 9 // 10


def test_the_option_is_a_size():
    seen = []

    class Backend(TransformersCudaBackend):
        def limit(self, options):
            seen.append(super().limit(options))
            return seen[-1]

    backend = Backend()
    assert backend.limit({"memory_gib": 0.5}) == 1 << 29
    spec = LoadSpec(model="codellm-demo", device="cpu", options={"memory_gib": "40"})
    with backend.load(spec, find("codellm-demo").fetch()):
        assert seen == [1 << 29, 40 << 30]
    with pytest.raises(InvalidValueError, match="memory_gib is a size in GiB above 0, not 'all'"):
        backend.load(LoadSpec(model="codellm-demo", options={"memory_gib": "all"}), find("codellm-demo").fetch())
