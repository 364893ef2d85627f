"""Whether llama.cpp's matrix tiles are tried before they are used, and done without where it dies of them."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, dequantize

from codellm.errors import BackendError
from codellm_cpu.llama import build, tiles, tiles_child
from codellm_cpu.llama.library import library, model_params
from codellm_cpu.llama.load import require_tiles


class Build:
    """The installed llama.cpp, but for what it says it was compiled for."""

    def __init__(self, folder, features=b"AMX_INT8 = 1"):
        self.__file__ = str(folder / "llama_cpp.py")
        self.features = features

    def llama_print_system_info(self):
        return b"CPU : %s | " % self.features

    def __getattr__(self, name):
        return getattr(library(), name)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tried(monkeypatch, tmp_path):
    """Makes what tries `code` in place of the product."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def tried(code, seconds=60.0):
        (tmp_path / "tried.py").write_text(code)
        return functools.partial(tiles.multiply, "tried", seconds)

    return tried


def test_the_installed_llama_cpp_multiplies_or_is_known_not_to():
    done = subprocess.run([sys.executable, "-P", "-m", "codellm_cpu.llama.tiles_child"], check=False)
    assert (done.returncode == 0) == tiles.usable(library())


@pytest.mark.parametrize(
    ("code", "usable"),
    [
        ("", True),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", False),
        ("raise SystemExit(1)", False),
        ("import time; time.sleep(60)", False),
    ],
)
def test_what_the_product_comes_to_is_kept(code, usable, tried, tmp_path):
    assert tiles.usable(Build(tmp_path), tried(code, 2.0 if "sleep" in code else 60.0)) is usable
    assert tiles.usable(Build(tmp_path), tried("raise SystemExit(1)" if usable else "")) is usable


def test_a_build_compiled_anew_is_tried_anew(tried, tmp_path):
    assert not tiles.usable(Build(tmp_path), tried("raise SystemExit(1)"))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libggml-cpu.so").touch()
    assert tiles.usable(Build(tmp_path), tried(""))


def test_a_build_without_tiles_is_not_tried(tried, tmp_path):
    assert tiles.usable(Build(tmp_path, b"AVX2 = 1"), tried("raise SystemExit(1)"))


def test_the_blocks_hold_the_numbers_that_are_expected_of_them():
    levels = np.random.default_rng(1).integers(0, 16, (3, 2, 32), np.uint8)
    blocks = tiles_child.q4_0(levels)
    assert np.array_equal(
        dequantize(blocks.reshape(3, 36), GGMLQuantizationType.Q4_0), levels.reshape(3, 64).astype(np.float32) - 8
    )


def test_a_wrong_product_is_seen():
    ggml = tiles_child.Ggml()
    device = ggml.by_name(b"CPU")
    plain = ggml.plain(device)
    assert tiles_child.sound(ggml, device, plain)
    levels, inputs = tiles_child.operands()
    right, wrong = (
        tiles_child.multiplied(ggml, device, plain, given, inputs) for given in (levels, np.maximum(levels, 1))
    )
    assert not np.array_equal(right, wrong)


def test_without_sound_tiles_weights_stay_as_the_file_has_them(tmp_path):
    for sound in (False, True):
        params = model_params(
            Build(tmp_path / str(sound)), repack=True, mmap=True, multiplies=lambda sound=sound: sound
        )
        assert params.use_extra_bufts is sound


def test_asking_for_them_all_the_same_is_refused_with_the_command_that_mends_them(tmp_path):
    with pytest.raises(BackendError, match="-fno-dse"):
        require_tiles(Build(tmp_path), lambda: False)


def test_the_doctor_tries_anew_and_tells_the_command():
    built = build.parse_features("CPU : AMX_INT8 = 1 | ")
    found = build.judge("0.3.0", built, ("amx_int8",), lambda: False)
    assert not found.ok
    assert "goes without them" in found.value
    assert found.remedy == build.KEEP_TILES
    assert build.judge("0.3.0", built, ("amx_int8",), lambda: True).ok


def test_the_flags_are_those_of_the_readme_and_of_the_project_s_own_builds():
    root = Path(__file__).parents[2]
    assert f'CXXFLAGS="{tiles.FLAGS}"' in (root / "README.md").read_text()
    assert f'"CXXFLAGS": "{tiles.FLAGS}"' in (root / "noxfile.py").read_text()
