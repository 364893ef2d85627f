"""Dummy weights drawn by torch, as on a GPU: here on the CPU, by the same call."""

import pytest
import torch

from codellm.loading import find
from codellm.torch import weights

CPU = torch.device("cpu")
NAME = "model.layers.0.mlp.c_fc.weight"


@pytest.fixture(scope="module")
def source():
    return find("dummy:tiny").fetch()


def draw(source, name):
    [info] = [info for info in source.tensors if info.name == name]
    return weights.drawn(source.tensors, info, CPU)


def test_a_tensor_depends_on_its_name_alone(source):
    first = draw(source, NAME)
    assert not torch.equal(first, draw(source, NAME.replace("layers.0", "layers.1")))
    assert torch.equal(first, draw(source, NAME))


def test_its_distribution_is_that_of_the_host(source):
    [info] = [info for info in source.tensors if info.name == NAME]
    host, ours = weights.as_tensor(source.tensors, info, CPU).float(), draw(source, NAME)
    assert ours.dtype == torch.bfloat16
    assert ours.shape == host.shape
    assert ours.float().mean().item() == pytest.approx(0, abs=1e-3)
    assert ours.float().std().item() == pytest.approx(host.std().item(), rel=0.01)


def test_norms_are_one_and_zero(source):
    assert draw(source, "model.norm.weight").eq(1).all()
    assert draw(source, "model.norm.bias").eq(0).all()


@pytest.mark.parametrize(("device", "drawn"), [("cpu", False), ("cuda", True)])
def test_only_for_a_gpu_are_they_drawn_there(source, device, drawn):
    [info] = [info for info in source.tensors if info.name == NAME]
    found = weights.as_tensor(source.tensors, info, torch.device(device), lambda *args: "drawn")
    assert (isinstance(found, str) and found == "drawn") is drawn


def test_other_weights_are_read():
    source = find("codellm-demo").fetch()
    info = next(iter(source.tensors))
    assert weights.as_tensor(source.tensors, info, torch.device("cuda"), None).device == CPU
