"""docs/write-a-backend.md followed to the letter, in an empty folder and a clean environment."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "write-a-backend.md").read_text()
FINISHED = ROOT / "docs" / "examples" / "codellm-ngram"

BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
MADE = {"dist", "results", "__pycache__", ".pytest_cache"}
"""What commands leave behind, beside the files that the tutorial writes."""


def sources(folder: Path) -> dict[str, str]:
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(path): (folder / path).read_text() for path in paths if not MADE & set(path.parts)}


class Reader:
    """Someone who does what the tutorial says, and nothing else."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.seen: dict[str, str] = {}

    def read(self, lead: str, language: str, body: str) -> None:
        named = re.search(r"`([\w./-]+)`:$", lead)
        if language == "console":
            for command in body.splitlines():
                self.run(command)
        elif named is None:
            assert any(body in text for text in sources(FINISHED).values()), f"quoted, but nowhere: {body}"
        else:
            path = self.folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            before = path.read_text() if "At the end of" in lead else ""
            path.write_text(before + body)

    def run(self, command: str) -> None:
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        self.seen[command] = done.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The reader at the end of the tutorial."""
    place = tmp_path_factory.mktemp("tutorial")
    wheels = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place / "wheels")]
    subprocess.run([*wheels, *(str(ROOT / f"codellm-{name}") for name in ("core", "eval"))], check=True)
    venv.create(place / "env", with_pip=True)
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    environment |= {
        "PATH": f"{place / 'env' / 'bin'}{os.pathsep}{environment['PATH']}",
        "PIP_FIND_LINKS": str(place / "wheels"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "CODELLM_CACHE": str(place / "cache"),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "80",
    }
    folder = place / "codellm-ngram"
    folder.mkdir()
    reader = Reader(folder, environment)
    for block in BLOCK.finditer(TUTORIAL):
        lead = TUTORIAL[: block.start()].rstrip().splitlines()[-1]
        reader.read(lead, block["language"], block["body"])
    return reader


def test_the_reader_ends_with_the_finished_package(reader):
    assert sources(reader.folder) == sources(FINISHED)


def test_the_backend_is_listed_from_its_first_ten_lines_on(reader):
    assert "ngram" in reader.seen["codellm backends"]
    assert "codellm-ngram 1.0" in reader.seen["codellm plugins"]


def test_the_kit_passes(reader):
    summary = reader.seen["pytest --codellm-backend ngram --codellm-model ../corpus"].splitlines()[-1]
    passed, skipped = (int(re.search(rf"(\d+) {word}", summary)[1]) for word in ("passed", "skipped"))
    assert f"the {passed + skipped} checks" in TUTORIAL


def test_the_new_backend_is_in_the_bench_table(reader):
    table = reader.seen["codellm bench -m ../corpus"]
    names = [line.split()[0] for line in table.splitlines() if line.startswith("ngram")]
    names = [name for name in names if not name.endswith(":")]  # notes begin so
    assert list(dict.fromkeys(names)) == ["ngram", "ngram:ngram4"], table  # each stands in every table


def test_the_package_is_built(reader):
    assert {path.suffix for path in (reader.folder / "dist").iterdir()} == {".whl", ".gz"}
