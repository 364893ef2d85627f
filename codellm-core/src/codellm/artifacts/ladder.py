"""One model in many schemes, one after the other from one file: what each takes, and what it costs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from codellm.artifacts import store
from codellm.artifacts.calibration import Calibration
from codellm.artifacts.ensure import RefusedError, base_scheme, ensure, find_kept, plan
from codellm.artifacts.store import Kept
from codellm.errors import CodellmError
from codellm.plugins.registry import registry
from codellm.progress import Progress, quiet
from codellm.scheme import PRECISIONS, Scheme
from codellm.sources import ModelSource


@attrs.frozen(kw_only=True)
class Rung:
    """A scheme and what became of it: the artifact that is `kept`, or the `fault` for which there is none.

    `made` tells that this run made it, not one before. What the gate refused has a manifest too.
    """

    scheme: Scheme
    kept: Kept | None = None
    made: bool = False
    fault: str = ""
    manifest: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def size(self) -> int | None:
        """Bytes of the file."""
        size = self._figure("bytes")
        return int(size) if size is not None else None

    @property
    def bits_per_weight(self) -> float | None:
        """Bytes of all tensors times 8 / weights: the nominal bits, and what the scheme keeps at more."""
        size, weights = self._figure("weight_bytes"), self._figure("parameters")
        return size * 8 / weights if size and weights else None

    @property
    def bits_per_byte(self) -> float | None:
        """What the gate measured; None for dummy weights, which have no quality."""
        quality = self.manifest.get("quality")
        return float(quality["bits_per_byte"]) if quality else None

    @property
    def seconds(self) -> float | None:
        """How long writing it took when it was made, a matrix that had to be computed for it included."""
        return self._figure("seconds")

    def _figure(self, name: str) -> float | None:
        value = self.manifest.get(name)
        return float(value) if isinstance(value, int | float) else None


def all_schemes(source: ModelSource) -> list[Scheme]:
    """The precision that `source` is quantized from, and every file scheme of fewer bits, from many bits to few."""
    known = [scheme for scheme in registry().schemes.values() if scheme.applies == "file"]
    native = PRECISIONS.get(source.dtype)
    base = [scheme for scheme in known if scheme.name == native and source.format in scheme.takes]
    reached = {source.format, *(scheme.format for scheme in base)}
    most = base[0].bits if base else 32.0
    fewer = [scheme for scheme in known if scheme.bits < most and scheme.takes & reached]
    return base + sorted(fewer, key=lambda scheme: -scheme.bits)


def climb(
    source: ModelSource,
    schemes: Sequence[Scheme],
    *,
    threads: int | None = None,
    calibration: Calibration | None = None,
    keep: bool = True,
    progress: Progress = quiet,
) -> Iterator[Rung]:
    """`source` in each of `schemes`, of which one that fails leaves the others alone.

    `calibration` goes to the schemes that take one. Without `keep` each file that this makes is removed again once its
    rung was looked at, and the one that they are made from at the end: there are never more than two at a time.

    Raises:
        CodellmError: what the schemes are made from cannot be made.
    """
    sound = [scheme for scheme in schemes if _planned(source, scheme, calibration, progress)]
    with contextlib.ExitStack() as doomed:
        for base in _bases(source, sound):
            made = find_kept(source, base) is None
            ensure(source, base, threads=threads, progress=progress)
            kept = find_kept(source, base)
            if made and not keep and kept is not None:
                doomed.callback(store.remove, kept)
        for scheme in schemes:
            rung = _rung(source, scheme, threads, _fit(scheme, calibration), progress, planned=scheme in sound)
            yield rung
            if rung.made and not keep and rung.kept is not None:
                store.remove(rung.kept)


def _bases(source: ModelSource, schemes: Sequence[Scheme]) -> list[Scheme]:
    """The lossless schemes that others are made from; a scheme that nothing leads to is told with its rung."""
    found: dict[str, Scheme] = {}
    for scheme in schemes:
        with contextlib.suppress(CodellmError):
            base = base_scheme(source, scheme)
            if base is not None:
                found[base.name] = base
    return list(found.values())


def _planned(source: ModelSource, scheme: Scheme, calibration: Calibration | None, progress: Progress) -> bool:
    """Whether `scheme` can be made or is kept, with what is to be remarked on told; why not is told with its rung."""
    try:
        if find_kept(source, scheme, _fit(scheme, calibration)) is None:
            plan(source, scheme, calibration=_fit(scheme, calibration), progress=progress)
    except CodellmError:
        return False
    return True


def _fit(scheme: Scheme, calibration: Calibration | None) -> Calibration | None:
    """What `scheme` is fitted to: nothing where it takes no calibration text."""
    return calibration if scheme.takes_calibration else None


def _rung(
    source: ModelSource,
    scheme: Scheme,
    threads: int | None,
    calibration: Calibration | None,
    progress: Progress,
    *,
    planned: bool,
) -> Rung:
    made = find_kept(source, scheme, calibration) is None
    try:
        ensure(source, scheme, threads=threads, calibration=calibration, progress=progress, planned=planned)
    except RefusedError as error:
        return Rung(scheme=scheme, fault=str(error), manifest=error.manifest)
    except CodellmError as error:
        return Rung(scheme=scheme, fault=str(error))
    kept = find_kept(source, scheme, calibration)
    return Rung(scheme=scheme, kept=kept, made=made, manifest=kept.manifest if kept is not None else {})
