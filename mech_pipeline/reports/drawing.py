"""How every figure of a report looks: palette, panels, axes with units, PNG bytes.

Figures are built without pyplot, so nothing global is touched and threads can draw side by side.
"""

import io
import math
from collections.abc import Container, Iterable

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe & Ito 2008: distinguishable with every common colour blindness. Their yellow is left out, too pale on white, and
# so is their black, which is kept for totals.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LINE_STYLES = ("-", "--", ":", "-.")
MUTED = "#777777"
FONT_POINTS = 8
_DOTS_PER_INCH = 110


def line_look(index: int) -> tuple[str, str]:
    """Colour and line style of the i-th series; the style changes when the colours are used up."""
    return PALETTE[index % len(PALETTE)], LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]


def kind_colours(kinds: Iterable[str], others: Container[str] = ()) -> dict[str, str]:
    """A colour for each kind of document, by its name's place: figures of the same kinds have the same colours.

    Args:
        others: names that are no kinds and have a look of their own.

    >>> kind_colours({"tiled", "plain", "momentum"}, {"momentum"})
    {'plain': '#0072B2', 'tiled': '#D55E00'}
    """
    return {kind: line_look(place)[0] for place, kind in enumerate(sorted(k for k in kinds if k not in others))}


def new_figure(width_inches: float = 9.0, height_inches: float = 4.0) -> Figure:
    """An empty figure on the Agg canvas whose parts keep out of each other's way."""
    figure = Figure(figsize=(width_inches, height_inches), dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(count: int, columns: int, row_inches: float = 3.6, width_inches: float = 9.0) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in rows of at most `columns`."""
    columns = max(1, min(columns, count))
    rows = max(1, math.ceil(count / columns))
    figure = new_figure(width_inches, 0.4 + row_inches * rows)
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(count)]


def finish_axes(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Labels (which carry the units), small fonts, a faint grid and no box."""
    axes.set_xlabel(x, fontsize=FONT_POINTS)
    axes.set_ylabel(y, fontsize=FONT_POINTS)
    axes.set_title(title, fontsize=FONT_POINTS + 1, loc="left")
    axes.tick_params(labelsize=FONT_POINTS - 1)
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.get_offset_text().set_fontsize(FONT_POINTS - 1)
    axes.yaxis.get_offset_text().set_fontsize(FONT_POINTS - 1)


def legend_beside(axes: Axes) -> None:
    """A legend to the right of a panel, where it covers no line; none if nothing has a label."""
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(fontsize=FONT_POINTS - 1, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.6)


def legend_inside(axes: Axes) -> None:
    """A legend where the panel is emptiest; none if nothing has a label."""
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(fontsize=FONT_POINTS - 1, frameon=False, handlelength=1.6)


def headline(figure: Figure, text: str) -> None:
    """The title over all panels: what, and over how many."""
    figure.suptitle(text, fontsize=FONT_POINTS + 2, x=0.01, horizontalalignment="left")


def figure_png(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes (no software version or date inside)."""
    content, canvas = io.BytesIO(), figure.canvas
    assert isinstance(canvas, FigureCanvasAgg), "`new_figure` made it"
    canvas.print_png(content, metadata={"Software": None})  # `savefig` would lay it out and draw it twice
    return content.getvalue()
