"""Every command and every example of the documentation runs, here or in a place that is named."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.documentation import door, generator

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / name for name in ("CONTRIBUTING.md", "RELEASING.md", "SECURITY.md")]
SHOWN_BY_PYPI = sorted(ROOT.glob("codellm-*/README.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *GUIDES, *SHOWN_BY_PYPI]
TUTORIAL = "write-a-backend.md"
"""Its blocks build on each other; test_tutorial.py follows it."""

DOOR = door().splitlines()
ELSEWHERE = {
    "python -m pip install nox && python -m nox -s demo": "the session; its command is tests/eval/test_bench_demo.py",
    "python -m nox -s tests": "this very run",
    "nox -s bench-cpu": "takes an hour; tests/pytorch/test_cpu_tables.py runs its commands on a small model",
    "pip install codellm-cpu": "test_install.py",
    "pip install codellm-cpu --config-settings=cmake.define.LLAVA_BUILD=OFF": "how noxfile.py builds it",
    "codellm bench --allow-code-execution": "tests/eval/test_bench_demo.py",
    'pip install "codellm-core[testing]"': "test_tutorial.py, which needs codellm-eval too",
    "pip install codellm-eval codellm-cpu": "test_install.py and test_tutorial.py, one each",
    **dict.fromkeys(DOOR, "test_contributing.py"),
    "nox -s tests": "this very run",
    ".ci/run": "what runs this",
}
"""Commands that another place runs."""

NOT_RUN = {
    "pip install --force-reinstall": "compiles llama.cpp again, without the cache: minutes",
    'pip install "codellm-cpu[torch]"': "brings torch, which the session tests-torch installs",
    'pip install "codellm-gpu[flash-attn]"': "compiles flash-attn: needs CUDA, and most of an hour",
    "python -m pytest tests/gpu": "needs a GPU; the session tests-torch runs what does not",
    "pip install codellm-gpu": "brings torch, which the session tests-torch installs",
    "codellm generate -b torch-cuda": "needs a GPU; tests/gpu/test_torch_cuda.py runs its schemes",
    "codellm generate -b transformers-cuda": "needs torch; tests/gpu/test_backend.py runs them",
    "codellm generate -b torch-cpu": "needs torch; tests/pytorch/test_backends.py runs them",
    "codellm generate -b transformers-cpu": "needs torch; tests/pytorch/test_backends.py runs them",
    "codellm quantize codellm-demo -q bnb-nf4": "needs torch; tests/gpu/test_save_bitsandbytes.py writes them",
    "codellm generate -m nf4": "needs torch; tests/gpu/test_save_bitsandbytes.py loads them",
    "codellm bench -m bigcode/": "downloads published weights; docs/reproduce.md says so",
    "codellm bench grid -m bigcode/": "downloads published weights; docs/reproduce.md says so",
    "codellm generate -m bigcode/": "downloads published weights; test_sources.py loads a hub model from a cache",
    "python tests/benchmarks/": "takes minutes; its record is in docs/results",
    "codellm quantize codellm-demo --all": "takes minutes; tests/core/test_ladder.py makes a ladder of several schemes",
    "codellm quantize dummy:starcoder2-3b": "takes tens of minutes and 9 GB; its record is in docs/results",
    'pip install "codellm-gpu[gptq]"': "brings torch, and compiles gptqmodel; the session gptq installs it",
    "pip install -e codellm-core": "what it brings, llama.cpp compiled, this very run has",
    "pytest tests/": "this very run has it",
    "uv ": "needs uv, which is not installed here; takes the arguments that test_contributing.py gives pip",
    'pip install "codellm-cpu[serve]"': "what it brings this very run has",
    "codellm serve": "does not end by itself; tests/docs/test_serve_page.py starts it",
    "export OPENAI_API_": "settings of aider, which follows",
    "aider ": "a program of others, and wants a model that converses; test_serve_chat.py asks alike",
    "lm_eval ": "needs that server and a data set of the hub; tests/clients/test_lm_eval.py asks it alike",
    "curl ": "needs that server; tests/docs/test_serve_page.py sends it",
    "nox -l": "needs nox, which runs this",
    "nox -s ": "needs nox, which runs this and the others",
    "cmake ": "compiles llama-bench, which only the benchmark of decoding needs",
}
"""Beginnings of commands that no test runs, and why."""
for _start in (
    "codellm bench -m dummy:starcoder2-7b --no-quality --row torch-cuda",
    "codellm bench grid -m dummy:starcoder2-7b",
    "codellm bench --repeats 1 --row transformers-cuda",
):
    if any(_start in generator(name).page() for name in ("generate_decoding", "generate_gpu")):
        NOT_RUN[_start] = "needs a GPU; its record is in docs/results/gpu"


def blocks(language: str) -> list[tuple[str, str]]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    pages = [page for page in PAGES if page.name != TUTORIAL]
    return [(str(page.relative_to(ROOT)), block) for page in pages for block in pattern.findall(page.read_text())]


def once(places: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each command where it stands first."""
    first: dict[str, str] = {}
    for page, command in places:
        first.setdefault(command, page)
    return [(page, command) for command, page in first.items()]


COMMANDS = once([(page, line) for page, block in blocks("console") for line in block.splitlines() if line.strip()])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder with the one file that the commands name."""
    path = tmp_path_factory.mktemp("user")
    (path / "program.py").write_text("def double(x):\n    # twice x\n    pass\n    pass\n    pass\n")
    return path


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_of_the_documentation_works(page, command, folder):
    if command in ELSEWHERE or any(command.startswith(start) for start in NOT_RUN):
        return
    scripts = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_nothing_is_excused_that_is_not_there():
    commands = [command for _, command in COMMANDS]
    for command in ELSEWHERE:
        assert command in commands
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in commands), start


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_an_example_of_the_documentation_runs(page, code, tmp_path):
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_links_lead_somewhere():
    for page in set(PAGES) - set(SHOWN_BY_PYPI):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [*SHOWN_BY_PYPI, ROOT / "SECURITY.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_that_is_shown_elsewhere_links_to_what_is_there(page):
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert targets
    for target in targets:
        assert target.startswith("https://"), target
        _, ours, path = target.partition("https://github.com/codellm/codellm/blob/main/")
        assert not ours or (ROOT / path.partition("#")[0]).is_file(), target
