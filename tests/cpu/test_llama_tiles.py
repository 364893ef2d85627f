"""Whether llama.cpp's matrix tiles are tried before they are used, and done without where it dies of them."""

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, dequantize

from codellm import LoadSpec
from codellm.errors import BackendError
from codellm.sources import ModelSource
from codellm.system import machine
from codellm_cpu.llama import build, tiles, tiles_child
from codellm_cpu.llama.library import library, open_native
from codellm_cpu.llama.load import load
from codellm_cpu.llama.options import Options


class Build:
    """A llama.cpp that says what it was compiled for."""

    def __init__(self, folder, features=b"AMX_INT8 = 1"):
        self.__file__ = str(folder / "llama_cpp.py")
        self.features = features

    def llama_print_system_info(self):
        return b"CPU : %s | " % self.features


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))


def child(monkeypatch, folder, code):
    """Have `code` tried in place of the product."""
    (folder / "tried.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(tiles, "_CHILD", "tried")


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
def test_what_the_product_comes_to_is_kept(code, usable, monkeypatch, tmp_path):
    child(monkeypatch, tmp_path, code)
    monkeypatch.setattr(tiles, "_TIMEOUT", 2.0 if "sleep" in code else 60.0)
    assert tiles.usable(Build(tmp_path)) is usable
    child(monkeypatch, tmp_path, "raise SystemExit(1)" if usable else "")
    assert tiles.usable(Build(tmp_path)) is usable


def test_a_build_compiled_anew_is_tried_anew(monkeypatch, tmp_path):
    child(monkeypatch, tmp_path, "raise SystemExit(1)")
    assert not tiles.usable(Build(tmp_path))
    child(monkeypatch, tmp_path, "")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libggml-cpu.so").touch()
    assert tiles.usable(Build(tmp_path))


def test_a_build_without_tiles_is_not_tried(monkeypatch, tmp_path):
    child(monkeypatch, tmp_path, "raise SystemExit(1)")
    assert tiles.usable(Build(tmp_path, b"AVX2 = 1"))


def test_the_blocks_hold_the_numbers_that_are_expected_of_them():
    levels = np.random.default_rng(1).integers(0, 16, (3, 2, 32), np.uint8)
    blocks = tiles_child.q4_0(levels)
    assert np.array_equal(
        dequantize(blocks.reshape(3, 36), GGMLQuantizationType.Q4_0), levels.reshape(3, 64).astype(np.float32) - 8
    )


def test_a_wrong_product_is_seen(monkeypatch):
    ggml = tiles_child.Ggml()
    device = ggml.by_name(b"CPU")
    plain = ggml.plain(device)
    assert tiles_child.sound(ggml, device, plain)
    true = tiles_child.q4_0
    monkeypatch.setattr(tiles_child, "q4_0", lambda levels: true(np.maximum(levels, 1)))
    assert not tiles_child.sound(ggml, device, plain)


def test_without_sound_tiles_weights_stay_as_the_file_has_them(tiny_gguf, monkeypatch):
    monkeypatch.setattr(tiles, "usable", lambda lib: False)
    given, lib = [], library()
    real = lib.llama_model_load_from_file
    monkeypatch.setattr(
        lib,
        "llama_model_load_from_file",
        lambda path, params: given.append(params.use_extra_bufts) or real(path, params),
    )
    with contextlib.ExitStack() as stack:
        open_native(stack, tiny_gguf, repack=True, mmap=True)
    assert given == [False]


def test_asking_for_them_all_the_same_is_refused_with_the_command_that_mends_them(tiny_gguf, monkeypatch):
    monkeypatch.setattr(tiles, "usable", lambda lib: False)
    source = ModelSource(name="tiny", path=tiny_gguf, format="gguf")
    with pytest.raises(BackendError, match="-fno-dse"):
        load(LoadSpec(model=str(tiny_gguf)), source, Options.parse({"repack": "on"}))


def test_the_doctor_tries_anew_and_tells_the_command(monkeypatch):
    monkeypatch.setattr(build, "_ASK", "print('CPU : AMX_INT8 = 1 | ')")
    monkeypatch.setattr(machine, "cpu_features", lambda: ("amx_int8",))
    monkeypatch.setattr(tiles, "multiply", lambda: False)
    found = build.examine()
    assert not found.ok
    assert "goes without them" in found.value
    assert found.remedy == build.KEEP_TILES
    monkeypatch.setattr(tiles, "multiply", lambda: True)
    assert build.examine().ok


def test_the_flags_are_those_of_the_readme_and_of_the_project_s_own_builds():
    root = Path(__file__).parents[2]
    assert f'CXXFLAGS="{tiles.FLAGS}"' in (root / "README.md").read_text()
    assert f'"CXXFLAGS": "{tiles.FLAGS}"' in (root / "noxfile.py").read_text()
