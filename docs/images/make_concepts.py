"""Draws the pictures of docs/concepts.md: `.venv/bin/python docs/images/make_concepts.py` writes them beside this file.

The curves are sketches, not measurements; pictures of measured numbers come from the report.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"


def timeline() -> Figure:
    """A run as a line of updates, with checkpoints, a window and cells."""
    figure, axes = _canvas(9, 3.4)
    axes.plot([0, 20], [0, 0], color="black", lw=1.5)
    for update in range(21):
        axes.plot([update, update], [-0.12, 0.12], color=GREY, lw=0.8)
    kept = [0, 4, 8, 12, 20]
    axes.plot(kept, [0] * len(kept), "o", ms=11, color=BLUE)
    for step in kept:
        axes.text(step, -0.55, f"step {step}", ha="center", color=BLUE)
    axes.annotate("", (8, 0.75), (4, 0.75), arrowprops={"arrowstyle": "<->", "color": ORANGE, "lw": 2})
    axes.text(6, 0.95, "window: the updates between\ntwo checkpoints", ha="center", color=ORANGE)
    axes.annotate("one update:\none batch of examples", (14.5, 0.12), (14.5, 0.95), ha="center", color=GREY,
                  arrowprops={"arrowstyle": "->", "color": GREY})  # fmt: skip
    axes.text(20.4, 0, "a run", va="center", fontsize=12)
    for column, step in enumerate(kept):
        for row in range(2):
            axes.add_patch(plt.Rectangle((step - 0.55, -1.5 - 0.55 * row), 1.1, 0.45, ec=GREEN, fc="white", lw=1.3))
            axes.text(step, -1.28 - 0.55 * row, f"{(0.1, 0.3, 1.2, 2.4, 2.9)[column] * (1, 0.2)[row]:.2f}",
                      ha="center", va="center", fontsize=9)  # fmt: skip
    axes.text(-0.9, -1.28, "mechanism", ha="right", va="center", color=GREEN)
    axes.text(-0.9, -1.83, "head score", ha="right", va="center", color=GREEN)
    axes.text(
        10, -2.6, "each box is a cell: stored, current or not, and computed again on its own", ha="center", color=GREEN
    )
    axes.set(xlim=(-4, 22.5), ylim=(-2.8, 1.7))
    return figure


def formation() -> Figure:
    """Two seeds that form, one that does not: event, interval, censored."""
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    steps = np.arange(0, 1401, 100)
    for middle, color, height, name in (
        (800, BLUE, 3.0, "seed 0"),
        (1050, GREEN, 2.9, "seed 1"),
        (2200, GREY, 2.5, "control"),
    ):
        values = height / (1 + np.exp(-(steps - middle) / 70))
        axes.plot(steps, values, "o-", color=color, label=name)
        at = np.argmax(values >= 1.5)
        if values[at] >= 1.5:
            axes.axvspan(steps[at - 1], steps[at], color=color, alpha=0.15, lw=0)
            axes.annotate("event: it forms\nin this interval", (steps[at] - 50, 2.0), (steps[at] - 460, 2.35), color=color,
                          arrowprops={"arrowstyle": "->", "color": color}) if color == BLUE else None  # fmt: skip
    axes.axhline(1.5, color=RED, ls="--", lw=1)
    axes.text(10, 1.56, "threshold, to be held for some evaluations", color=RED)
    axes.annotate("censored: not formed until here,\nand nothing is known of later", (1400, 0.02), (860, -0.75), color=GREY,
                  arrowprops={"arrowstyle": "->", "color": GREY})  # fmt: skip
    axes.set(xlabel="step (updates)", ylabel="mechanism (nats)", title="Formation (sketch)", ylim=(-0.95, 3.2))
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 0.68), frameon=False)
    return figure


def ledger_is_not_influence() -> Figure:
    """Two arrows: the account of the past, and the prediction of a training that was not done."""
    figure, axes = _canvas(9, 4.2)
    steps = np.linspace(0, 10, 200)
    real = 2.6 / (1 + np.exp(-(steps - 6)))
    other = 2.6 / (1 + np.exp(-(steps - 7.6)))
    axes.plot(steps, real, color="black", lw=2)
    axes.plot(steps, other, color=ORANGE, lw=2, ls="--")
    axes.text(10.1, real[-1] + 0.03, "the run as it was", va="center")
    axes.text(10.1, other[-1] - 0.03, "the run without\nsome examples", va="center", color=ORANGE)
    axes.annotate("", (3.9, 0.6), (6.9, 2.25), arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 3})
    axes.text(4.9, 1.75, "LEDGER: looks back along the real run\n“which examples moved it, by how much?”\n"
              "an account that sums to the change", ha="right", va="bottom", color=BLUE)  # fmt: skip
    axes.annotate("", (8.6, 1.9), (8.6, real[172] - 0.03), arrowprops={"arrowstyle": "-|>", "color": ORANGE, "lw": 3})
    axes.text(8.9, 1.05, "INFLUENCE: looks across to a\nrun that nobody trained\n“what if it had not seen them?”\n"
              "a prediction that retraining can refute", va="top", color=ORANGE)  # fmt: skip
    axes.plot([8.6], [real[172]], "o", color="black", ms=7)
    axes.text(8.55, real[172] + 0.09, "target step", ha="right", color=GREY)
    axes.annotate("", (10, -0.15), (0, -0.15), arrowprops={"arrowstyle": "->", "color": GREY})
    axes.text(0, -0.4, "training", color=GREY)
    axes.set(xlim=(-0.3, 13.6), ylim=(-0.55, 3.5))
    return figure


def smooth_or_not() -> Figure:
    """Metasmoothness: the weights' answer to a little more and twice a little more of some data."""
    figure, panes = plt.subplots(1, 3, figsize=(9.5, 3.0), layout="constrained")
    weight = np.linspace(0, 2, 100)
    for axes, values, title in (
        (panes[0], 0.8 * weight + 0.05 * weight**2, "smooth: near 1\na derivative predicts"),
        (
            panes[1],
            np.where(weight < 1, weight, 2 - weight),
            "it turns back: near −1\nthe derivative points the wrong way",
        ),
    ):
        axes.plot(weight, values, color="black")
        axes.plot(weight, weight * (values[1] / weight[1]), color=ORANGE, ls="--")
        axes.plot([0, 1, 2], np.interp([0, 1, 2], weight, values), "o", color=BLUE)
        axes.set(title=title, xlabel="change of the data weights, in units of h", ylim=(-0.1, 2.1), xticks=[0, 1, 2])
        axes.set_ylabel("a weight of the model")
        axes.set_yticks([])
        axes.title.set_fontsize(10)
    back = np.arange(0, 871, 10)
    panes[2].semilogy(back, np.exp((870 - back) / 60), color="black")
    panes[2].axhline(1e4, color=RED, ls="--", lw=1)
    panes[2].axvspan(870 - 60 * np.log(1e4), 870, color=GREEN, alpha=0.15, lw=0)
    panes[2].text(400, 2, "inside the horizon", color=GREEN, fontsize=9)
    panes[2].text(5, 1.4e4, "limit", color=RED, fontsize=9)
    panes[2].set(
        title="horizon: how far back\nthe sweep can be believed", xlabel="update", ylabel="growth of the adjoint"
    )
    panes[2].title.set_fontsize(10)
    return figure


def lds() -> Figure:
    """Predicted against measured changes for random removals."""
    figure, panes = plt.subplots(1, 2, figsize=(7.5, 3.2), layout="constrained", sharey=True)
    drawn = np.random.Generator(np.random.PCG64(0))
    predicted = drawn.normal(0, 1, 40)
    for axes, noise, title in (
        (panes[0], 0.35, "LDS near 0.9: it orders removals"),
        (panes[1], 2.5, "LDS near 0.3: a hint at most"),
    ):
        measured = 0.7 * predicted + drawn.normal(0, noise, 40)
        axes.plot(predicted, (measured - measured.mean()) / measured.std(), "o", ms=4, color=BLUE)
        axes.set(title=title, xlabel="predicted by influence")
        axes.title.set_fontsize(10)
    panes[0].set_ylabel("measured by retraining")
    return figure


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.set_axis_off()
    return figure, axes


PICTURES = {"timeline": timeline, "formation": formation, "two_questions": ledger_is_not_influence,
            "smooth_or_not": smooth_or_not, "lds": lds}  # fmt: skip

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        draw().savefig(HERE / f"concepts_{name}.png", dpi=110, metadata={"Software": None})
