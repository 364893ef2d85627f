"""Every job of this repository: `nox -l` lists them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "types", "tests", "tests-torch", "example"]
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
TORCH = ("torch==2.13.0", "transformers>=5.0,<6", "accelerate>=1.10", "bitsandbytes>=0.50")


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
    install(session, "mypy>=1.13", "pytest>=8.3", "types-tabulate", "types-psutil", "nox", TORCH[0])
    session.run("mypy", *SOURCES, "noxfile.py")


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite, on the built wheels."""
    install(session, *TOOLS)
    session.run("pytest", *(session.posargs or ["--ignore=tests/torch", "--ignore=tests/gpu", "tests"]))


@nox.session(name="tests-torch")
def tests_torch(session: nox.Session) -> None:
    """The torch backends, and parity with transformers: the tests that need torch. Those marked `gpu` are skipped."""
    install(session, *TOOLS, *TORCH, packages=PACKAGES)
    session.run("pytest", *(session.posargs or ["tests/torch", "tests/gpu"]))


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
