"""Two results folders side by side: the ratio of each figure that both have, and whether it is noise."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from codellm_eval.bench.ask.row import Row
from codellm_eval.bench.records.folder import Folder
from codellm_eval.bench.records.record import Record
from codellm_eval.bench.show.quantity import Quantity, quantities
from codellm_eval.errors import ResultsError
from codellm_eval.stats.differences import difference, solved


@attrs.frozen
class Pair:
    """One figure of one row, in both."""

    row: Row
    a: Quantity
    b: Quantity

    @property
    def ratio(self) -> float | None:
        """Ratio of B over A; None where A is 0."""
        return self.b.value / self.a.value if self.a.value else None

    @property
    def noise(self) -> bool | None:
        """Whether the difference may be none: within both spreads, or, of texts and tasks, within its paired interval.

        None where nobody knows: one of the two was measured once, or on too few texts.
        """
        if self.a.texts and self.b.texts:
            found = difference(self.b.texts, self.a.texts)
            return None if found is None or found.interval is None else self._differs and not found.told_apart
        if self.a.verdicts and self.b.verdicts:
            tasks = solved(self.b.verdicts, self.a.verdicts)
            return None if tasks is None else self._differs and not tasks.told_apart
        if self.a.reach is None or self.b.reach is None:
            return None
        reach = self.a.reach * self.a.value + self.b.reach * self.b.value
        return self._differs and abs(self.b.value - self.a.value) <= reach

    @property
    def _differs(self) -> bool:
        return self.a.value != self.b.value


def pairs(a: Folder, b: Folder) -> list[Pair]:
    """Every figure that a row has in both, in the order of A's rows.

    Raises:
        ResultsError: no row is in both.
    """
    theirs = {record.row: quantities(record) for record in b.records}
    if not any(record.row in theirs for record in a.records):
        raise ResultsError(f"{a.path} and {b.path} share no row: {_names(a.records)} there, {_names(b.records)} here")
    return [
        Pair(record.row, quantity, theirs[record.row][name])
        for record in a.records
        if record.row in theirs
        for name, quantity in quantities(record).items()
        if name in theirs[record.row]
    ]


def differences(a: Folder, b: Folder) -> Iterator[str]:
    """What else differs between the two, so that a ratio may come from it, and what has no pair."""
    for name, folder in (("A", a), ("B", b)):
        if not folder.finished:
            yield f"{name} was killed before its end: what it was made with is not known, and rows may be missing"
    yield from _made(a, b)
    yield from _models(a, b)
    if a.plan.protocol != b.plan.protocol:
        yield f"protocols differ: A {a.plan.protocol}; B {b.plan.protocol}"
    if a.plan.seed != b.plan.seed:
        yield f"prompts differ: seed {a.plan.seed} in A, {b.plan.seed} in B"
    yield from _unpaired(a, b)


def _made(a: Folder, b: Folder) -> Iterator[str]:
    """Machines and software."""
    if not (a.finished and b.finished):
        return
    for title, ours, theirs in (
        ("machines", _machine(a), _machine(b)),
        ("software", _software(a), _software(b)),
    ):
        changed = [key for key in dict.fromkeys([*ours, *theirs]) if ours.get(key) != theirs.get(key)]
        if changed:
            told = "; ".join(f"{key} {ours.get(key, 'none')} in A, {theirs.get(key, 'none')} in B" for key in changed)
            yield f"{title} differ: {told}"


def _machine(folder: Folder) -> dict[str, object]:
    memory = f"{folder.manifest.get('memory_bytes', 0) / 2**30:.1f} GiB"
    known = {key: folder.manifest.get(key) for key in ("cpu", "cores", "threads", "platform")}
    features = " ".join(folder.manifest.get("cpu_features", ())) or "not told"
    gpus = ", ".join(folder.manifest.get("gpus", ())) or "none"
    return {**known, "cpu features": features, "memory": memory, "gpus": gpus}


def _software(folder: Folder) -> dict[str, object]:
    return {"python": folder.manifest.get("python"), **(folder.manifest.get("packages") or {})}


def _models(a: Folder, b: Folder) -> Iterator[str]:
    """Rows of one name that measured different models, or different files of one."""
    theirs = {record.row: record for record in b.records}
    digests = _digests(a), _digests(b)
    for record in a.records:
        other = theirs.get(record.row)
        if other is None:
            continue
        ours, its = (each.get(str(record.row)) for each in digests)
        if record.model != other.model:
            yield f"{record.row}: the model is {record.model} in A, {other.model} in B"
        elif ours and its and ours != its:
            yield f"{record.row}: the files of {record.model} are not the same"
        if record.info and other.info and record.info.threads != other.info.threads:
            yield f"{record.row}: {record.info.threads} threads in A, {other.info.threads} in B"


def _digests(folder: Folder) -> dict[str, str | None]:
    return {each["name"]: each.get("sha256") for each in folder.manifest.get("models", [])}


def _unpaired(a: Folder, b: Folder) -> Iterator[str]:
    """Rows and figures that only one of the two has."""
    for name, folder, other in (("A", a, b), ("B", b, a)):
        rows = {record.row for record in other.records}
        alone = [record for record in folder.records if record.row not in rows]
        if alone:
            yield f"only in {name}: {_names(alone)}"
        for record in folder.records:
            if record.error is not None:
                yield f"{record.row} failed in {name}: {record.error}"
        figures = _figures(other)
        missing = [each for each in _figures(folder) if each not in figures]
        if missing:
            yield f"figures only in {name}: {', '.join(missing)}"


def _figures(folder: Folder) -> dict[str, None]:
    return dict.fromkeys(name for record in folder.records for name in quantities(record))


def _names(records: tuple[Record, ...] | list[Record]) -> str:
    return ", ".join(str(record.row) for record in records)
