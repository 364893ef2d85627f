"""The report as a user and a program get it."""

import json
import os

import filelock
import pytest

from codellm._version import __version__
from codellm.artifacts.store import abandoned
from codellm.cli.doctor.hardware import hardware
from codellm.system.packages import installed_versions
from support.plugin_folder import codellm, install_plugin

KEYS = [
    "python", "platform", "packages", "backends", "broken_plugins", "cpu", "memory", "gpus", "caches", "findings",
    "problems",
]  # fmt: skip

TOY = """
from codellm import Availability, Backend, Scheme, hookimpl

class Toy(Backend):
    name = "toy"
    formats = frozenset({"toy"})
    def availability(self): %s
    def schemes(self): return (Scheme(name="toy-int2", bits=2, applies="load"),)
    def load(self, spec, source): raise RuntimeError

@hookimpl
def codellm_backends():
    return [Toy()]
"""

HOOK = "from codellm import Finding, hookimpl\n@hookimpl\ndef codellm_doctor(): "


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Where codellm-gpu is installed, a machine without a GPU is a problem of its own, which no test here counts."""
    monkeypatch.setenv("CODELLM_DISABLE_PLUGINS", "codellm-gpu")


def report(**settings):
    done = codellm("doctor", "--format", "json", **settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def problems(found):
    return {finding["topic"]: finding for finding in found["findings"] if not finding["ok"]}


def test_what_programs_read():
    found = report()
    assert list(found) == KEYS
    assert found["packages"]["codellm-core"] == __version__
    assert found["cpu"]["threads"] >= 1
    assert found["memory"]["total_bytes"] >= found["memory"]["available_bytes"] > 0
    assert found["memory"]["read_bytes_per_second"] > 1e8
    assert [cache["name"] for cache in found["caches"]] == ["codellm", "Hugging Face"]
    assert found["problems"] == len(problems(found))
    llama = next(backend for backend in found["backends"] if backend["name"] == "llama-cpp")
    assert llama == {"name": "llama-cpp", "available": True, "reason": "", "remedy": ""}


def test_what_people_read(tmp_path):
    install_plugin(tmp_path, "toy", TOY % "return Availability(False, 'no toy is plugged in', 'pip install toy')")
    sentence = "repair it, and if all else fails remove it for good with `pip uninstall broken`"
    install_plugin(
        tmp_path, "told", HOOK + f"return [Finding(topic='told', value='is odd', ok=False, remedy={sentence!r})]"
    )
    long = "pip install " + " ".join(f"--option-{place}" for place in range(12))
    install_plugin(
        tmp_path, "long", HOOK + f"return [Finding(topic='long', value='x ' * 99, ok=False, remedy='{long}')]"
    )
    # a path is not broken, whatever its length: these are short
    done = codellm("doctor", path=tmp_path, COLUMNS="80", HF_HOME="/h", CODELLM_CACHE="/c")
    assert done.returncode == 0
    assert "! toy " in done.stdout
    assert "not available: no toy is plugged in\n    mend: pip install toy\n" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout
    command = next(text for text in done.stdout.split(" mend: ") if text.startswith("pip install --"))
    assert " ".join(command.split("\n!")[0].replace("\\\n", " ").split()) == long
    assert "repair it, and if all else fails remove it for good with `pip\n          uninstall broken`\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "3 things need mending: the lines marked with !"


def test_an_extra_that_is_absent_is_no_problem(tmp_path):
    absent = "return Availability(False, 'toys not installed', 'pip install toys', optional=True)"
    install_plugin(tmp_path, "toy", TOY % absent)
    assert "toy" not in problems(report(path=tmp_path))
    done = codellm("doctor", path=tmp_path, COLUMNS="80")
    assert "optional, not available: toys not installed\n     get: pip install toys\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "nothing to mend"


def test_backends_show_a_long_command_whole(tmp_path):
    command = f"pip install {' '.join(f'--option-{place}' for place in range(12))}"
    install_plugin(tmp_path, "toy", TOY % f"return Availability(False, 'no toy', {command!r})")
    done = codellm("backends", path=tmp_path, COLUMNS="80")
    assert done.stdout.endswith(f"toy:\n  {command}\n")
    assert "no: no toy " in done.stdout
    [row] = [
        row
        for row in json.loads(codellm("backends", "--format", "json", path=tmp_path).stdout)
        if row["backend"] == "toy"
    ]
    assert row["available"] == f"no: no toy; {command}"


def test_a_backend_says_what_mends_it_and_one_that_fails_hurts_no_other(tmp_path):
    install_plugin(tmp_path, "toy", TOY % "raise OSError('no such device')")
    found = report(path=tmp_path)
    toy = next(backend for backend in found["backends"] if backend["name"] == "toy")
    assert not toy["available"]
    assert "OSError: no such device" in toy["reason"]
    assert toy["remedy"]
    assert any(backend["available"] for backend in found["backends"])
    assert problems(found).keys() == {"toy"}


def test_hook_codellm_doctor_tells_what_a_plugin_finds(tmp_path):
    answer = "return (Finding(topic='tea', value='is cold', ok=False, remedy='boil --again'),)"
    install_plugin(tmp_path, "kettle", HOOK + answer)
    assert problems(report(path=tmp_path))["tea"] == {
        "section": "Plugins", "topic": "tea", "value": "is cold", "ok": False, "remedy": "boil --again",
    }  # fmt: skip


def test_hook_codellm_doctor_that_fails_hurts_no_other(tmp_path):
    faults = {
        "raises": ("raise KeyError('x')", "KeyError: 'x'"),
        "exits": ("raise SystemExit(3)", "SystemExit: 3"),
        "strings": ("return ['all is well']", "str"),
        "nothing": ("return 7", "TypeError"),
        "wrong-field": ("return [Finding(topic='t', value=3)]", "value"),
    }
    for name, (body, _) in faults.items():
        install_plugin(tmp_path, name, HOOK + body)
    install_plugin(tmp_path, "works", HOOK + "return [Finding(topic='tea', value='is hot')]")
    found = report(path=tmp_path)
    assert "tea" in {finding["topic"] for finding in found["findings"]}
    assert problems(found).keys() == set(faults)
    for name, (_, says) in faults.items():
        assert says in problems(found)[name]["value"]


def test_a_broken_plugin_is_a_problem(tmp_path):
    install_plugin(tmp_path, "raises", "raise OSError('no such device')")
    found = report(path=tmp_path)
    assert found["broken_plugins"][0]["name"] == "raises"
    assert "no such device" in problems(found)["raises"]["value"]
    assert "pip uninstall raises" in problems(found)["raises"]["remedy"]


def test_a_package_of_another_version_is_a_problem(tmp_path):
    install_plugin(tmp_path, "codellm-gpu", "", version="0.0.9")
    found = problems(report(path=tmp_path))["codellm-gpu"]
    assert found["value"].startswith("0.0.9, ")
    assert found["remedy"] == f"pip install codellm-gpu=={__version__}"


def test_packages_that_are_absent_are_left_out():
    assert installed_versions(["no-such-package-at-all"]) == {}


def test_gpus_are_told(tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 580.159.04, 9.0'\n")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert report(PATH=path)["gpus"] == [
        {"name": "NVIDIA H200", "memory_bytes": 143771 << 20, "driver": "580.159.04", "compute_capability": "9.0"}
    ]
    program.write_text("#!/bin/sh\necho 'no driver'; exit 9\n")
    assert "no driver" in problems(report(PATH=path))["GPU"]["value"]


def test_without_memory_nothing_is_measured(tmp_path):
    limits = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": str(1 << 20), "sys/fs/cgroup/memory.current": "0"}
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    memory = hardware(tmp_path).facts["memory"]
    assert (memory["available_bytes"], memory["read_bytes_per_second"]) == (1 << 20, None)


def test_caches_are_counted_without_what_links_lead_to(tmp_path):
    blob = tmp_path / "hub" / "models--x" / "blobs" / "ab"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"weights")
    (blob.parent / "model.safetensors").symlink_to(blob)
    found = report(HF_HOME=str(tmp_path), HF_HUB_CACHE=str(tmp_path / "hub"), CODELLM_CACHE=str(tmp_path / "none"))
    ours, hub = found["caches"]
    assert (hub["bytes"], hub["files"]) == (7, 1)
    assert (ours["bytes"], ours["files"]) == (0, 0)
    assert not (tmp_path / "none").exists()


def test_a_cache_that_cannot_be_written_is_a_problem(tmp_path):
    (tmp_path / "file").write_text("")
    found = problems(report(CODELLM_CACHE=str(tmp_path / "file" / "cache")))
    assert "Not a directory" in found["codellm"]["value"]
    assert "CODELLM_CACHE" in found["codellm"]["remedy"]


@pytest.mark.parametrize("locked", [True, False])
def test_an_artifact_that_nobody_finishes_is_a_problem(locked, tmp_path, monkeypatch):
    monkeypatch.setenv("CODELLM_CACHE", str(tmp_path))
    directory = tmp_path / "artifacts" / ".demo-q8_0-0123456789ab-deadbeef"
    directory.mkdir(parents=True)
    lock = filelock.FileLock(directory.with_name(".demo-q8_0-0123456789ab.lock"))
    with lock if locked else filelock.FileLock(tmp_path / "another"):
        assert abandoned() == ([] if locked else [directory])
        found = problems(report())
    assert (f"rm -r {directory}" in [each["remedy"] for each in found.values()]) is not locked
