"""A quantization by name."""

from __future__ import annotations

from typing import Literal

import attrs


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
    calibration: Literal["none", "takes", "wants", "needs"] = "none"
    description: str = ""
