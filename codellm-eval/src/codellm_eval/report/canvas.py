"""What all pictures share: their size, letters and colours, and how they become SVG and PNG.

matplotlib is imported here and in the modules that draw, when they do.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from codellm_eval.report.names import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from codellm_eval.report.measure import Interval

SIZE = (5.0, 3.9)
"""Inches. Its letters are still readable where a phone shows it 360 pixels wide."""
DPI = 200
EDGE = 0.018
"""Of the width: where titles begin."""
LINE = 76
"""Characters of a line of the subtitle."""
LINES = 3
INK, SOFT, FAINT, PAPER = "#1d2129", "#5b6472", "#dfe3e8", "#ffffff"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b6472")
"""Okabe and Ito, Color Universal Design (2008): told apart also by people who see fewer colours."""
MARK = 6.0
"""Points: the size of a mark."""
LEGEND = 0.24
"""Inches of a line of the legend."""
LEGEND_COLUMNS = 3
LEGEND_NAME = 40
"""Characters of a name in the legend."""
LEGEND_MARK = 8
"""Characters that its mark and the room around it take."""
WIDE = 20.0
"""From this ratio of the greatest to the least value an axis is logarithmic."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
"""As the colours, so that a picture printed in black still tells them apart."""
SMALL, TEXT, HEAD = 8.0, 9.0, 11.0

STYLE: dict[str, Any] = {
    "figure.figsize": SIZE,
    "figure.dpi": 100,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same picture
    "font.size": TEXT,
    "text.color": INK,
    "text.parse_math": False,  # names are text, whatever dollars they hold
    "axes.facecolor": PAPER,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "svg.fonttype": "path",
    "svg.hashsalt": "codellm",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in our style, whatever the user's matplotlibrc says."""
    import matplotlib.style

    with matplotlib.style.context(STYLE, after_reset=True):
        yield


def canvas(
    title: str, subtitle: str, *, height: float = SIZE[1], panels: int = 1, backends: Sequence[str] = ()
) -> tuple[Figure, list[Axes]]:
    """An empty picture with its title, its `panels` side by side and, where there are several `backends`, a legend.

    `height` is in inches without the legend; a long subtitle takes LINES lines and ends there.
    """
    from matplotlib.figure import Figure

    looks = kinds(backends)
    if len(looks) > 1:
        height += LEGEND * -(-len(looks) // _legend_columns(looks))
    lines = textwrap.wrap(drawable(subtitle), LINE, max_lines=LINES, placeholder=" …")
    figure = Figure(figsize=(SIZE[0], height))
    top = 1 - (0.36 + 0.16 * len(lines)) / height
    figure.set_layout_engine("constrained", rect=(0, 0, 1, top), w_pad=0.08, h_pad=0.08)
    figure.text(EDGE, 1 - 0.1 / height, drawable(title), va="top", fontsize=HEAD, fontweight="bold")
    figure.text(EDGE, 1 - 0.33 / height, "\n".join(lines), va="top", fontsize=SMALL, color=SOFT, linespacing=1.3)
    if len(looks) > 1:
        _legend(figure, looks)
    axes = figure.subplots(1, panels, squeeze=False, sharey=panels > 1)
    return figure, list(axes[0])


def _legend_columns(looks: Mapping[str, tuple[str, str]]) -> int:
    """Count of columns that the longest name leaves room for."""
    longest = min(LEGEND_NAME, max(map(len, looks)))
    return max(1, min(LEGEND_COLUMNS, LINE // (longest + LEGEND_MARK)))


def _legend(figure: Figure, looks: Mapping[str, tuple[str, str]]) -> None:
    from matplotlib.lines import Line2D

    names = [drawable(shorten(name, LEGEND_NAME)) for name in looks]
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=MARK, label=name)
        for name, (colour, marker) in zip(names, looks.values(), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=_legend_columns(looks))


def scale(axes: Axes, way: Literal["x", "y"], values: Sequence[Interval], *, margin: float, zero: bool = False) -> None:
    """Limits that hold `values` and a share `margin` of free room at each end; logarithmic where they differ much.

    `zero` begins a linear axis there, so that lengths compare.
    """
    import matplotlib.ticker

    low, high = min(value.low for value in values), max(value.high for value in values)
    if low <= 0 or high / low <= WIDE:
        zero = zero and low >= 0
        room = margin * (high if zero else high - low) or 0.1 * abs(high) or 1.0
        axes.set(**{f"{way}lim": (0 if zero else low - room, high + room)})
        return
    room = (high / low) ** margin
    axes.set(**{f"{way}scale": "log", f"{way}lim": (low / room, high * room)})
    axis = axes.xaxis if way == "x" else axes.yaxis
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 3)))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(matplotlib.ticker.NullLocator())


def put(text: Text, left: float, y: float) -> None:
    """Move a text to a position in pixels, which it keeps at any resolution: `left`, and `y` by its own alignment."""
    figure = text.get_figure(root=True)
    assert figure is not None
    text.set_transform(figure.transFigure)
    across, up = figure.transFigure.inverted().transform((left, y))
    text.set_position((float(across), float(up)))


def settle(figure: Figure) -> None:
    """Fix where everything stands, so that what is measured in pixels stays so."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def render(figure: Figure) -> tuple[str, bytes]:
    """The picture as SVG and as PNG; the same picture gives the same bytes."""
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return svg.getvalue(), png.getvalue()


def drawable(text: str) -> str:
    """Text in one line, with � for each character that the font has no picture of."""
    from matplotlib import font_manager

    known = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    return "".join(letter if ord(letter) in known and letter.isprintable() else "\ufffd" for letter in text)


def kinds(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each different one of `names`, in their order; after seven they come again."""
    different = list(dict.fromkeys(names))
    return {
        name: (COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)])
        for index, name in enumerate(different)
    }
