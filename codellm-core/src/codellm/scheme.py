"""A quantization by name."""

from __future__ import annotations

from typing import Literal

import attrs

PRECISIONS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
"""The lossless scheme of each type that weights are stored in."""

CalibrationUse = Literal["none", "takes", "wants", "needs"]
"""How a scheme uses a calibration text: see `Scheme`."""


@attrs.frozen(kw_only=True)
class Scheme:
    """What a quantization is, and how it is applied.

    A `file` scheme writes an artifact of `format` from a source whose format is in `takes`; a `load` scheme is applied
    by the backend while it loads, and where it has a `format` it can be written too, for others to load. `bound` is the
    stated loss: the greatest rise in bits per byte over the source that the quality gate lets pass, None where the
    scheme only has to stay finite (a change of precision). `calibration` says whether weights are fitted to a text: it
    takes `none`; it `takes` one if the user names one; it `wants` one, or `needs` one because nothing is made without:
    there a bundled text stands in.
    """

    name: str
    bits: float
    """Nominal bits per weight."""
    applies: Literal["file", "load"]
    format: str = ""
    takes: frozenset[str] = frozenset()
    bound: float | None = None
    calibration: CalibrationUse = "none"
    description: str = ""

    @property
    def takes_calibration(self) -> bool:
        """Whether its weights can be fitted to a text that the user names."""
        return self.calibration != "none"


def is_quantized(scheme: str | None) -> bool:
    """Whether weights in the scheme of this name have lost precision; None is the name of a checkpoint's own."""
    return scheme is not None and scheme not in PRECISIONS.values()
