import importlib.util
import os

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers") else ["*"]

if not collect_ignore_glob:
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported: without a GPU its kernels are interpreted


def pytest_runtest_setup(item):
    import torch

    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
