import json
import os
import shutil
import subprocess
import sys
import time

import attrs
import pytest

from codellm.artifacts import store
from codellm.artifacts.ensure import ensure
from codellm.errors import ArtifactError, InvalidValueError, ModelFileError, QualityError
from codellm.loading import find
from codellm.plugins.registry import registry
from codellm.system.cache import content_digest, state


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def left_over(cache):
    """What a failed run must not leave: anything but locks."""
    return [path for path in (cache / "artifacts").glob("*") if not path.name.endswith(".lock")]


def make(model, scheme, **more):
    return ensure(find(model).fetch(), registry().scheme(scheme), **more)


def test_a_ladder_shares_its_base_and_nothing_is_made_twice(cache):
    told = []
    first = make("codellm-demo", "q4_0", progress=lambda *event: told.append(event))
    assert [what for what, done, total in told if done == total and "writing" in what] == [
        "writing bf16",
        "writing q4_0",
    ]
    second = make("codellm-demo", "q8_0", progress=lambda *event: told.append(event))
    again = make("codellm-demo", "q8_0", progress=lambda *event: pytest.fail("made twice"))
    assert second == again
    assert [kept.manifest["scheme"] for kept in store.kept_artifacts()] == ["bf16", "q4_0", "q8_0"]
    assert first.path.name == "codellm-demo-q4_0.gguf"
    assert first.digest == find("codellm-demo").fetch().digest


def test_the_manifest_says_what_the_gate_measured(cache):
    made = make("codellm-demo", "q8_0")
    figures = json.loads((made.path.parent / "manifest.json").read_text())["quality"]
    assert figures["bound"] == registry().scheme("q8_0").bound
    assert abs(figures["bits_per_byte"] - figures["reference"]) < figures["bound"]


def test_dummy_weights_pass_no_gate(cache):
    made = make("dummy:tiny", "q8_0")
    manifest = json.loads((made.path.parent / "manifest.json").read_text())
    assert manifest["dummy"]
    assert "quality" not in manifest


def test_the_gate_refuses_what_lost_too_much(cache):
    strict = attrs.evolve(registry().scheme("q4_0"), bound=0.0)
    with pytest.raises(QualityError, match="over its bound of 0"):
        ensure(find("codellm-demo").fetch(), strict)
    assert [kept.manifest["scheme"] for kept in store.kept_artifacts()] == ["bf16"]
    assert len(left_over(cache)) == 1


def test_the_gate_refuses_nan(cache):
    with pytest.raises(QualityError, match="nan"):
        make("codellm-demo", "bf16", measure=lambda source: float("nan"))
    assert left_over(cache) == []


def test_a_file_is_not_quantized_into_a_scheme_that_leads_nowhere(cache):
    gguf = make("codellm-demo", "bf16")
    with pytest.raises(InvalidValueError, match="f16 is made from safetensors"):
        ensure(find(str(gguf.path)).fetch(), registry().scheme("f16"))


def test_an_unwritable_cache_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ArtifactError, match="CODELLM_CACHE"):
        make("codellm-demo", "bf16")


def test_two_processes_make_one_artifact(cache):
    command = [sys.executable, "-m", "codellm", "quantize", "codellm-demo", "-q", "q8_0"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    paths, notes = zip(*(child.communicate(timeout=120) for child in both), strict=True)
    assert paths[0] == paths[1]
    assert sum(note.count(b"writing q8_0") for note in notes) == 1
    assert len(left_over(cache)) == 2  # bf16 and q8_0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_killed_run_leaves_nothing_that_is_taken_for_an_artifact(cache, name):
    import signal

    env = {**os.environ, "CODELLM_CACHE": str(cache)}
    child = subprocess.Popen(
        [sys.executable, "-m", "codellm", "quantize", "dummy:starcoder2-3b", "-q", "q4_0"],
        env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(cache.glob("artifacts/.*/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(getattr(signal, name))
    _, errors = child.communicate(timeout=60)
    assert store.kept_artifacts() == []
    if name == "SIGINT":
        assert child.returncode == 130
        assert b"Traceback" not in errors
        assert left_over(cache) == []


def test_what_a_killed_run_left_is_swept_by_the_next(cache):
    made = make("codellm-demo", "bf16")
    stale = made.path.parent.with_name(f".{made.path.parent.name}-abc")
    store.remove(store.kept_artifacts()[0])
    stale.mkdir()
    (stale / "half.gguf").write_bytes(b"GGUF")
    make("codellm-demo", "bf16")
    assert not stale.exists()


def test_remove_deletes(cache):
    make("codellm-demo", "bf16")
    [kept] = store.kept_artifacts()
    assert kept.size > 1_000_000
    store.remove(kept)
    assert store.kept_artifacts() == []


def test_what_is_left_of_a_removed_artifact_is_no_artifact_and_no_obstacle(cache):
    """A file without its manifest, or a manifest without its file: whoever deleted half of it, it is made anew."""
    for name in ("manifest.json", "dummy-tiny-bf16.gguf"):
        made = make("dummy:tiny", "bf16")
        (made.path.parent / name).unlink()
        assert store.kept_artifacts() == []
    assert make("dummy:tiny", "bf16") == made
    assert len(left_over(cache)) == 1


def test_whatever_is_made_next_sweeps_what_killed_runs_left(cache):
    stale = cache / "artifacts" / ".another-q8_0-0123456789ab-deadbeef"
    stale.mkdir(parents=True)
    (stale / "half.gguf").write_bytes(b"GGUF")
    make("dummy:tiny", "bf16")
    assert not stale.exists()


def flip(path, offset):
    """Change one bit, and set the time of modification back."""
    stat = path.stat()
    with path.open("r+b") as stream:
        stream.seek(offset % stat.st_size)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def cut(path, _):
    os.truncate(path, path.stat().st_size // 2)


def swap(path, _):
    """Another file of the same size and time of modification."""
    stat, other = path.stat(), path.with_name("other")
    other.write_bytes(bytes(stat.st_size))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)


def named(value):
    """The name of a test's case, the same in every process: a function's own, without where it lies."""
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(
    ("damage", "offset"), [(flip, 4), (flip, 100), (flip, 333_333), (flip, -1), (cut, 0), (swap, 0)], ids=named
)
def test_an_artifact_that_is_not_as_it_was_made_is_made_again(cache, damage, offset):
    made, told = make("dummy:tiny", "f32"), []
    right = made.path.read_bytes()
    damage(made.path, offset)
    again = make("dummy:tiny", "f32", progress=lambda *event: told.append(event[0]))
    assert again.path.read_bytes() == right
    assert told[0] == "dummy:tiny: its file in f32 is not as it was made; making it again"


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"file": "none"}'])
def test_a_manifest_that_is_none_is_no_artifact(cache, manifest):
    made = make("dummy:tiny", "f32")
    right = made.path.read_bytes()
    (made.path.parent / "manifest.json").write_text(manifest)
    assert store.kept_artifacts() == []
    assert make("dummy:tiny", "f32").path.read_bytes() == right


@pytest.mark.parametrize(("change", "offset"), [(flip, 0), (flip, 70_000), (flip, -1), (swap, 0), (cut, 0)], ids=named)
def test_a_digest_is_of_what_the_file_holds_now(cache, tmp_path, change, offset):
    file = tmp_path / "model.safetensors"
    file.write_bytes(os.urandom(1 << 20))
    before = content_digest([file])
    assert content_digest([file]) == before
    change(file, offset)
    changed = content_digest([file])
    assert changed != before
    shutil.rmtree(cache)
    assert content_digest([file]) == changed


def test_a_digest_is_remembered_where_the_folder_is_moved(cache, tmp_path):
    file = tmp_path / "making" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    before = state(file)
    assert state(file.parent.rename(tmp_path / "kept") / file.name) == before


def test_a_file_that_is_being_made_is_told_of_by_what_it_is(cache):
    def measure(source):
        raise ModelFileError(f"{source.path}: llama.cpp crashes on it: near {source.path}")

    with pytest.raises(ArtifactError) as told:
        make("codellm-demo", "f32", measure=measure)
    assert str(told.value) == "codellm-demo in f32: llama.cpp crashes on it: near codellm-demo in f32"
