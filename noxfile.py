"""Every job of this repository: `nox -l` lists them."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "types", "tests", "tests-torch", "clients", "example"]
nox.options.error_on_missing_interpreters = True

LAPTOP = ("codellm-core", "codellm-cpu", "codellm-eval")
PACKAGES = (*LAPTOP, "codellm-gpu")
EXAMPLE = "docs/examples/codellm-ngram"
SOURCES = [f"{package}/src" for package in (*PACKAGES, EXAMPLE)]

# llama.cpp compiles for the processor it is built on. Its multimodal parts are left out: nothing here uses them, and
# they double the time. CMAKE_ARGS would do the same, but pip's settings are what pip hands to the build.
LLAMA_CPP = ("llama-cpp-python>=0.3.36,<0.4", "--config-settings=cmake.define.LLAVA_BUILD=OFF")
# Without these gcc 12 compiles its AMX kernels into a crash, and a processor with AVX512-FP16 computes attention over
# heads of 64 one number at a time (codellm_cpu/llama/tiles.py).
LLAMA_CPP_FLAGS = {"CXXFLAGS": "-fno-dse -fno-tree-dse -U__AVX512FP16__"}

GROUPS = nox.project.load_toml("pyproject.toml")
TOOLS = nox.project.dependency_groups(GROUPS, "test")
CLIENTS = nox.project.dependency_groups(GROUPS, "clients")
SERVE = nox.project.load_toml("codellm-core/pyproject.toml")["project"]["optional-dependencies"]["serve"]
TORCH = (
    "torch==2.13.0", "transformers>=5.0,<6", "accelerate>=1.10", "bitsandbytes>=0.50",
    "cuda-bindings>=13,<14", "nvidia-cuda-nvrtc>=13,<14",  # which a torch with CUDA brings: to compile the step kernel
)  # fmt: skip

# A test file takes one core and at most 2 GB; with more processes than these the longest file is what takes the time.
PROCESSES = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
JUNIT = Path("build/tests")


def wheels(session: nox.Session, *packages: str) -> list[str]:
    """Build the packages' wheels and return their paths."""
    folder = Path(tempfile.mkdtemp(prefix="wheels-", dir=session.create_tmp()))
    session.run(
        "python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder),
        *(f"./{package}" for package in packages),
    )  # fmt: skip
    return [str(path) for path in sorted(folder.glob("*.whl"))]


def install(session: nox.Session, *others: str, packages: tuple[str, ...] = LAPTOP) -> None:
    """Install the packages as a user would: from built wheels. codellm-gpu brings torch, the others do not."""
    session.install(*LLAMA_CPP, env=LLAMA_CPP_FLAGS)
    session.install(*wheels(session, *packages), *others)
    examine = "from codellm_cpu.llama.build import examine; print(examine())"
    if "ok=True" not in str(session.run("python", "-c", examine, silent=True)):
        # pip keeps what it compiled, for whatever processor and with whatever flags that was
        session.run("python", "-m", "pip", "cache", "remove", "llama_cpp_python", success_codes=[0, 1])
        session.install("--force-reinstall", "--no-deps", *LLAMA_CPP, env=LLAMA_CPP_FLAGS)


def run_tests(session: nox.Session, *where: str, command: tuple[str, ...] = ("pytest",), fine: int = 0) -> None:
    """Run the files of tests in several processes, then the tests that need the machine for themselves.

    How long each took stands in build/tests, for tests/benchmarks/suite.py. Arguments of the session are those of one
    pytest instead. `fine` is an exit code that is none of a failure.
    """
    if session.posargs:
        session.run(*command, *session.posargs)
        return
    together = ("-m", "not alone", f"-n{PROCESSES}", "--dist=loadfile", "--no-loadscope-reorder")
    for name, how, found_none in (("together", together, ()), ("alone", ("-m", "alone"), (5,))):
        report = JUNIT / f"{session.name}-{name}.xml"
        session.run(*command, *how, f"--junitxml={report}", *where, success_codes=(0, fine, *found_none))


@nox.session
def demo(session: nox.Session) -> None:
    """The main job, offline: every row of the bundled model, its growth curves too, a results folder and a report."""
    install(session)
    session.run(
        "codellm", "bench", "--allow-code-execution", "--growth", *session.posargs,
        env={"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


@nox.session(name="bench-cpu")
def bench_cpu(session: nox.Session) -> None:
    """The CPU tables of docs/performance.md: an hour on two cores of a machine that does nothing else, 24 GiB."""
    install(session, *TORCH)
    session.run("python", "tests/benchmarks/cpu.py", *session.posargs, env={"HF_HUB_OFFLINE": "1"})
    session.run("python", "docs/generate_performance.py")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and that wheels and source distributions build and describe themselves well."""
    session.install(*nox.project.dependency_groups(GROUPS, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    folder = tempfile.mkdtemp(prefix="dist-", dir=session.create_tmp())
    for package in PACKAGES:
        session.run("python", "-m", "build", "--outdir", folder, package, silent=True)
    session.run("twine", "check", "--strict", *(str(path) for path in Path(folder).iterdir()))


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict, on our code."""
    install(session, "mypy>=1.13", "pytest>=8.3", "types-tabulate", "types-psutil", "nox", *SERVE, TORCH[0])
    session.run("mypy", *SOURCES, "noxfile.py")


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite, on the built wheels."""
    install(session, *TOOLS)
    run_tests(session, "--ignore=tests/pytorch", "--ignore=tests/gpu", "--ignore=tests/clients", "tests")


@nox.session
def clients(session: nox.Session) -> None:
    """Programs of others that speak to `codellm serve`, the real ones, against the real server."""
    install(session, *TOOLS, *CLIENTS)
    run_tests(session, "tests/clients")


@nox.session
def load(session: nox.Session) -> None:
    """By hand: AIPerf, a load generator that takes minutes to install, against the real server."""
    install(session, *TOOLS, *nox.project.dependency_groups(GROUPS, "load"))
    # -p: dash, which it brings, has a plugin for pytest that warns
    session.run("pytest", "-p", "no:dash", *(session.posargs or ["tests/clients/test_aiperf.py"]))


@nox.session(name="tests-torch")
def tests_torch(session: nox.Session) -> None:
    """The torch backends, and parity with transformers: the tests that need torch. Those marked `gpu` are skipped."""
    install(session, *TOOLS, *TORCH, packages=PACKAGES)
    run_tests(session, "tests/pytorch", "tests/gpu")


@nox.session
def release(session: nox.Session) -> None:
    """Build the four packages and look at them as PyPI will get them; `-- publish` uploads them too (RELEASING.md)."""
    publish = session.posargs == ["publish"]
    if session.posargs and not publish:
        session.error(f"release takes nothing, or publish, not {' '.join(session.posargs)}")
    if publish and not os.environ.get("TWINE_PASSWORD"):
        session.error("TWINE_PASSWORD holds no token of PyPI")
    version = version_to_release(session, publish=publish)
    shutil.rmtree("dist", ignore_errors=True)
    session.install(*nox.project.dependency_groups(GROUPS, "lint"))
    for package in PACKAGES:
        session.run("python", "-m", "build", "--outdir", "dist", package, silent=True)
    files = sorted(str(path) for path in Path("dist").iterdir())
    named = sorted(f"dist/{package.replace('-', '_')}-{version}" for package in PACKAGES)
    expected = [f"{name}{ending}" for name in named for ending in ("-py3-none-any.whl", ".tar.gz")]
    if files != expected:
        session.error(f"built {' '.join(files)}, not {' '.join(expected)}")
    session.run("twine", "check", "--strict", *files)
    look_at_installed(session, version)
    upload = ("twine", "upload", "--non-interactive", *files)
    if publish:
        session.run(*upload, env={"TWINE_USERNAME": "__token__"})
    else:
        session.log(f"`nox -s release -- publish` would now run {' '.join(upload)}")


def version_to_release(session: nox.Session, *, publish: bool) -> str:
    """The version of all four packages, where nothing is in the way of it; else the session ends here."""
    versions = {
        package: tomllib.loads(Path(package, "pyproject.toml").read_text())["project"]["version"]
        for package in PACKAGES
    }
    version = str(versions[PACKAGES[0]])
    faults = []
    if len(set(versions.values())) > 1:
        faults.append(f"the versions differ: {versions}")
    section = re.search(rf"^## {re.escape(version)}(?: \((.*)\))?$", Path("CHANGELOG.md").read_text(), re.MULTILINE)
    if section is None:
        faults.append(f"CHANGELOG.md has no section {version}")
    elif not re.fullmatch(r"\d{4}-\d\d-\d\d", section[1] or ""):
        told = f"CHANGELOG.md has no date for {version}, but {section[1]!r}"
        if publish:
            faults.append(told)
        else:
            session.warn(told)
    if session.run("git", "status", "--porcelain", external=True, silent=True):
        faults.append("the tree is not clean: commit or remove what `git status` lists")
    if session.run("git", "tag", "--list", f"v{version}", external=True, silent=True):
        faults.append(f"the tag v{version} is there already: raise the version")
    if faults:
        session.error("; ".join(faults))
    return version


def look_at_installed(session: nox.Session, version: str) -> None:
    """Install the wheels into an environment of their own, and see that they are all there and say their version.

    Without the dependencies of codellm-cpu and codellm-gpu: to compile llama.cpp is what `tests` does.
    """
    clean = Path(session.create_tmp()) / "clean"
    shutil.rmtree(clean, ignore_errors=True)
    session.run("python", "-m", "venv", str(clean))
    python = str(clean / "bin" / "python")
    core, cpu, evaluation, gpu = sorted(str(path) for path in Path("dist").glob("*.whl"))
    session.run(python, "-m", "pip", "install", "--quiet", core, evaluation, external=True)
    session.run(python, "-m", "pip", "install", "--quiet", "--no-deps", cpu, gpu, external=True)
    command = str(clean / "bin" / "codellm")
    said = session.run(command, "--version", external=True, silent=True)
    if str(said).strip() != f"codellm, version {version}":
        session.error(f"`codellm --version` says {said}, not {version}")
    plugins = json.loads(str(session.run(command, "plugins", "--format", "json", external=True, silent=True)))
    found = {row["distribution"] for row in plugins if row["state"] == "works"}
    missing = {f"{package} {version}" for package in PACKAGES[1:]} - found
    if missing:
        session.error(f"installed, but not among what `codellm plugins` says works: {', '.join(sorted(missing))}")


@nox.session
def coverage(session: nox.Session) -> None:
    """By hand: the lines that the tests reach, all of them in one environment, as build/tests/coverage.json."""
    install(session, *TOOLS, *CLIENTS, *TORCH, "coverage>=7.10", packages=PACKAGES)
    run_tests(session, "tests", command=("coverage", "run", "-m", "pytest"), fine=1)  # it slows tests of time
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "json", "--quiet", "-o", str(JUNIT / "coverage.json"))


@nox.session
def gptq(session: nox.Session) -> None:
    """By hand: GPTQ's checkpoints written, loaded again and measured, and the record of that (codellm-gpu/README.md).

    gptqmodel wants numpy 2.2.6, and builds its CUDA kernels unless it is told not to: here it runs on the CPU.
    """
    env = {"BUILD_CUDA_EXT": "0"}
    index = ("--extra-index-url", "https://download.pytorch.org/whl/cpu")
    session.install(
        "torch==2.13.0", "transformers>=5.17,<5.24", "numpy==2.2.6", "setuptools>=78", "wheel", "ninja", *index
    )
    packages = wheels(session, "codellm-core", "codellm-cpu", "codellm-eval", "codellm-gpu")
    needs = [f"{wheel}[gptq]" if "codellm_gpu" in wheel else wheel for wheel in packages]
    session.install(*LLAMA_CPP, env=LLAMA_CPP_FLAGS)
    session.install("--no-build-isolation", *needs, *TOOLS, "hatchling", *index, env=env)
    session.run("pytest", *(session.posargs or ["tests/gpu/test_gptq.py"]))
    session.run("python", "tests/benchmarks/gptq.py", "--output", "docs/results/gptq-demo.json")


@nox.session
def example(session: nox.Session) -> None:
    """The tutorial's backend as its users get it: a wheel in a clean environment, the conformance kit, the bench."""
    session.install(*wheels(session, "codellm-core", "codellm-eval", EXAMPLE), "pytest>=8.3")
    folder = session.create_tmp()
    session.run(
        "python",
        "-c",
        f"import email, shutil; shutil.copytree(email.__path__[0], {folder!r} + '/corpus', dirs_exist_ok=True)",
    )
    session.chdir(folder)  # away from the sources: what is installed is what runs
    session.run("pytest", "--codellm-backend", "ngram", "--codellm-model", "corpus")
    session.run("codellm", "bench", "-m", "corpus", "--repeats", "2", env={"CODELLM_CACHE": f"{folder}/cache"})
