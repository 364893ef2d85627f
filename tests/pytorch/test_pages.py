import mmap
import re
import sys
from pathlib import Path

import pytest
import torch

import codellm
from codellm.torch.pages import LEAST, use_large_pages

SMAPS = Path("/proc/self/smaps")
pytestmark = pytest.mark.skipif(sys.platform != "linux" or not SMAPS.exists(), reason="Linux tells it of each mapping")


def flags(address):
    """The flags of the mapping that holds `address` (proc_pid_smaps(5)); `hg` is the advice for large pages."""
    held = ""
    for line in SMAPS.read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            held = int(found[1], 16) <= address < int(found[2], 16)
        elif held and line.startswith("VmFlags:"):
            return line.split()[1:]
    return []


def test_a_large_tensor_lies_in_large_pages_whole():
    tensor = torch.empty(4 * LEAST, dtype=torch.uint8)
    use_large_pages(tensor)
    assert all("hg" in flags(tensor.data_ptr() + place) for place in (4096, 2 * LEAST, 4 * LEAST - 4097))
    assert int(tensor.fill_(1).sum()) == 4 * LEAST


def test_a_small_tensor_is_left_alone():
    # memory of its own: what the allocator reuses may have the advice of a large one that lay there before
    place = mmap.mmap(-1, LEAST // 2, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    tensor = torch.frombuffer(place, dtype=torch.uint8)
    use_large_pages(tensor)
    assert "hg" not in flags(tensor.data_ptr() + 4096)


def test_the_weights_of_a_model_do():
    with codellm.load("dummy:tiny", backend="torch-cpu", dtype="float32") as model:
        weights = max(model.engine.decoder.parameters(), key=torch.numel)
        assert "hg" in flags(weights.data_ptr() + 8192)
