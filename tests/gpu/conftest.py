import importlib.util

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers") else ["*"]


def pytest_runtest_setup(item):
    import torch

    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
