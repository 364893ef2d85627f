"""Every measured figure of the documentation names its record in docs/results and the command that made it."""

import itertools
import json
import math
import re
from pathlib import Path

import pytest

from codellm_cpu.schemes import FILE_TYPES
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.show import table
from support.documentation import generator

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

NOT_MEASURED = {
    "With Python 3.11": "a version",
    "git and Python 3.11": "a version",
    "takes groups from 25.1": "a version",
    "need Python 3.11": "a version",
    "one task is 0.6": "a 164th",
    "one task of pass@1 is 0.6": "a 164th",
}
"""Decimals of the text that are no measurements."""
STATED = {"quantization.md: The ladder of the bundled model": [kind.bound for kind in FILE_TYPES.values()]}
"""Figures of a table that are no measurements, and are held to what they come from here."""
ANY_SCALE = (1, 100, 1e3, 1e-3, 1e-6, 1e-9)
"""From a record's units (seconds, bytes, shares) to those that people read."""

_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?![\w.]*\w)")
_DECIMAL = re.compile(r"(?<![\w./=-])\d+\.\d+|\d+e-\d+")


GENERATORS = ("performance", "decoding", "gpu")
GENERATED = [line for name in GENERATORS for line in generator(f"generate_{name}").page().splitlines()]


class Section:
    """What stands under one heading of a page."""

    def __init__(self, page: Path, text: str) -> None:
        self.page, self.text = page, text
        self.name = f"{page.name}: {text.partition(chr(10))[0].strip('# ')}"
        console = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        self.prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        inline = [" ".join(code.split()) for code in re.findall(r"`((?:codellm|python) [^`]+)`", self.prose)]
        self.commands = [*"".join(console).splitlines(), *inline]
        self.records = [
            (page.parent / target).resolve()
            for target in re.findall(r"\]\(([^)#:]+)\)", text)
            if RESULTS in (page.parent / target).resolve().parents
        ]

    @property
    def cells(self) -> list[str]:
        """The cells of its tables that hold figures, but for those of the first column, which names the rows."""
        lines = [line for line in self.prose.splitlines() if line.startswith("|") and not set(line) <= set("|-: ")]
        cells = [cell.strip() for line in lines for cell in re.split(r"(?<!\\)\|", line.strip("|"))[1:]]
        return [cell for cell in cells if re.match(r"[-+]?\d", cell) and len(re.findall("[A-Za-z]+", cell)) <= 1]

    @property
    def decimals(self) -> list[str]:
        """The sentences' parts that hold figures with a point, but for those that are named as no measurement."""
        lines = [line for line in self.prose.splitlines() if not line.startswith("|")]
        text = " ".join(re.sub(r"`[^`]*`|\]\([^)]*\)", "", "\n".join(lines)).split())
        for start in NOT_MEASURED:
            text = text.replace(start, "")
        return [text[max(0, match.start() - 40) : match.end()] for match in _DECIMAL.finditer(text)]


SECTIONS = [
    Section(page, text)
    for page in PAGES
    if page.name not in ("cli.md", "backends.md")  # what the commands and backends say of themselves, generated
    for text in re.split(r"(?m)^(?=#+ )", page.read_text())
]
MEASURED = [section for section in SECTIONS if section.cells or section.records]


def named(section: Section) -> str:
    return section.name


def test_figures_are_found_where_they_are():
    names = {section.name for section in SECTIONS if section.cells}
    assert names >= {
        "README.md: On one GPU",
        "README.md: On two cores",
        "performance.md: Many sequences",
        "quantization.md: The ladder of a 3B",
    }


@pytest.mark.parametrize("section", SECTIONS, ids=named)
def test_figures_name_their_record(section):
    if section.cells or section.decimals:
        assert section.records, [*section.cells[:3], *section.decimals]
    for record in section.records:
        assert record.exists(), record


@pytest.mark.parametrize("section", MEASURED, ids=named)
def test_records_name_the_command_that_made_them(section):
    shown = [command for each in SECTIONS if each.page == section.page for command in each.commands]
    for record in section.records:
        assert any(makes(command, record) for command in shown) or own_command(record), record


def makes(command: str, record: Path) -> bool:
    """Whether `command` writes the file `record` or a folder around it, or is the one that its manifest names."""
    if {str(each.relative_to(ROOT)) for each in (record, *record.parents) if RESULTS in each.parents} & {
        *command.split()
    }:
        return True
    manifests = [folder / "manifest.json" for folder in record.parents if RESULTS in folder.parents]
    return any(command == json.loads(each.read_text())["command"] for each in manifests if each.exists())


def own_command(record: Path) -> bool:
    """Whether another program's output says itself what printed it."""
    return record.suffix == ".md" and re.search(r"^`[\w-]+ .*`$", record.read_text(), re.MULTILINE) is not None


def test_every_record_is_named():
    named = {record for section in SECTIONS for record in section.records}
    for record in RESULTS.iterdir():
        assert any(each == record or record in each.parents for each in named), record.name


def test_a_record_s_command_is_the_one_that_its_page_shows():
    for file in RESULTS.glob("*.json"):
        manifest = json.loads(file.read_text())
        if isinstance(manifest, dict):
            command = manifest["manifest"]["command"]
            assert any(line.endswith(command) for section in SECTIONS for line in section.commands), file.name


def generated(section: Section) -> bool:
    """Whether a script makes the section of its records: test_performance_page.py and its like see to it."""
    return section.text.partition("\n")[0] in GENERATED


@pytest.mark.parametrize("section", [each for each in SECTIONS if each.cells and not generated(each)], ids=named)
def test_each_figure_of_a_table_is_in_its_record(section):
    known = [number for record in section.records for number in numbers(record)]
    known += STATED.get(section.name, [])
    missing = [cell for cell in section.cells for figure in _NUMBER.findall(cell) if not stands(figure, known)]
    assert not missing


def numbers(record: Path) -> list[float]:
    """Every number of a record; of several repeats the median and the ends; none of a picture or a report."""
    if record.suffix in (".png", ".svg", ".html"):
        return []
    if record.suffix == ".md":
        return [float(found) for found in _NUMBER.findall(record.read_text())]
    lines = record.read_text().splitlines() if record.suffix == ".jsonl" else [record.read_text()]
    return list(itertools.chain.from_iterable(_numbers(json.loads(line)) for line in lines))


def _numbers(value):
    if isinstance(value, dict):
        value = [each for key, each in value.items() if key != "values"]
    if isinstance(value, list):
        return itertools.chain.from_iterable(map(_numbers, value))
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def stands(figure: str, known: list[float]) -> bool:
    """Whether `figure` is one of the `known` numbers, rounded as it is."""
    digits = len(figure.partition(".")[2])
    wanted = abs(float(figure))
    half = 0.5 * 10.0**-digits * (1 + 1e-9)
    return any(
        math.isclose(abs(number) * scale, wanted, rel_tol=0, abs_tol=half) for number in known for scale in ANY_SCALE
    )


def test_the_readme_s_table_is_the_record_s():
    folder = Folder.read(RESULTS / "demo")
    made = parsed(table.markdown(table.sections(folder.records, folder.plan)[0], folder.records))
    shown = parsed(next(section.text for section in SECTIONS if section.name == "README.md: On two cores"))
    assert [row["row"] for row in shown] == [row["row"] for row in made]
    for here, there in zip(shown, made, strict=True):
        assert here.items() <= there.items()


def test_the_readme_s_table_of_the_gpu_is_the_page_s():
    shown, made = (
        parsed(next(section.text for section in SECTIONS if section.name == name))
        for name in ("README.md: On one GPU", "performance.md: Decoding on a GPU")
    )
    assert [row[""] for row in shown] == [row[""] for row in made]
    for here, there in zip(shown, made, strict=True):
        assert here.items() <= there.items()


def parsed(text: str) -> list[dict[str, str]]:
    """The first table of a page, each row by its titles."""
    first = text[text.index("|") :].partition("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in first.splitlines()]
    titles, _, *rows = lines
    return [dict(zip(titles, row, strict=True)) for row in rows]
