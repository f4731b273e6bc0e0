"""The report's figures: numbers in, a matplotlib Figure out; the notebooks draw the same ones."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from smp_features.associations import ADJUSTMENTS
from smp_features.metrics import Interval
from smp_features.summaries import FEW

# Okabe and Ito's palette, which people with any of the common colour-vision deficiencies can tell apart.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip

WIDTH = 7.2  # inches: the text width of an A4 page with the report's margins
POPULARITY = "log2(views + 1)"

# Pale where posts are sparse, dark where they are dense; the palest end of the scale would vanish on paper.
DENSITY = ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1, 256)), name="density")

_STYLE: dict[Any, Any] = {  # matplotlib's own types want every key as a literal
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.edgecolor": "#555555",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "svg.hashsalt": "smp_features",  # equal numbers give equal bytes
}


@contextmanager
def _canvas(
    height: float,
    rows: int = 1,
    columns: int = 1,
    sharex: bool = False,
    sharey: bool = False,
    projection: str | None = None,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Yield a Figure in the house style, which belongs to no global state, with its axes in reading order."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(
            rows, columns, sharex=sharex, sharey=sharey, squeeze=False, subplot_kw={"projection": projection}
        )
        yield figure, list(axes.flat)


def svg(figure: Figure) -> str:
    """Return a figure as an SVG document that refers to nothing outside itself; equal figures give equal text."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def measures_by_interval(summaries: Mapping[str, pd.DataFrame], unit: str) -> Figure:
    """Draw median and quartiles of each measure by popularity interval, with the number of posts.

    Args:
        summaries: Panel title to a table of `summaries.by_interval`, all over the same intervals.
        unit: What the measures are in, for the vertical axis.

    Returns:
        One panel per measure: a bar from the first to the third quartile, a dot at the median (hollow where fewer
        than 10 posts are behind it) within its interval, n along the bottom.
    """
    with _canvas(1.0 + 1.75 * len(summaries), rows=len(summaries), sharex=True) as (figure, panels):
        for axes, (title, table) in zip(panels, summaries.items(), strict=True):
            filled = table[table["n"] > 0]
            at = filled["lower"].to_numpy()
            axes.bar(
                at, filled["q3"] - filled["q1"], bottom=filled["q1"], width=0.6, color=SKY, alpha=0.45,
                label="first to third quartile",
            )  # fmt: skip
            axes.plot(at, filled["median"], color=BLUE, linewidth=1.0, label="median")
            faces = [BLUE if n >= FEW else "white" for n in filled["n"]]
            axes.scatter(at, filled["median"], s=22, color=faces, edgecolors=BLUE, zorder=3)
            banded = table[table["low"].notna()]
            axes.errorbar(
                banded["lower"], banded["median"], yerr=_reach(banded, "median"), fmt="none", ecolor=BLACK,
                elinewidth=1.3, capsize=3.5, label="95 % interval of the median", zorder=4,
            )  # fmt: skip
            axes.set_title(title)
            axes.set_ylabel(unit)
            if len(filled):
                bottom, top = filled[["q1", "low"]].min(axis=None), filled[["q3", "high"]].max(axis=None)
                room = max(top - bottom, 1e-3)
                axes.set_ylim(bottom - 0.28 * room, top + 0.08 * room)  # the counts stand below the bars
            _counts(axes, table, "n")
        _legend_above(panels[0], 3)
        panels[-1].set_xlabel(f"popularity interval, {POPULARITY}")
        return figure


def posts_left(table: pd.DataFrame) -> Figure:
    """Draw the posts that cleaning leaves and the share it removes, by popularity interval (figure 2).

    Args:
        table: The rows of one rule, or of any, of `cleaning.removed_by_interval`.

    Returns:
        Above, bars of posts left and posts removed; below, the share removed in percent with its 95 % interval, and
        the number of posts along the bottom; hollow where there are fewer than 10.
    """
    with _canvas(4.4, rows=2, sharex=True) as (figure, [counts, shares]):
        left = table["posts"] - table["removed"]
        counts.bar(table["lower"], left, width=0.7, color=SKY, label="left")
        counts.bar(
            table["lower"], table["removed"], bottom=left, width=0.7, color=VERMILION, hatch="////",
            edgecolor="white", linewidth=0, label="removed",
        )  # fmt: skip
        counts.set_ylabel("posts")
        counts.set_title("posts left after cleaning")
        counts.yaxis.set_major_formatter("{x:,.0f}")
        counts.grid(visible=False, axis="x")
        _legend_above(counts, 2)
        filled = table[table["posts"] > 0]
        percent = 100 * filled[["share", "low", "high"]]
        shares.errorbar(
            filled["lower"], percent["share"], yerr=_reach(percent, "share"), fmt="none", ecolor=BLACK,
            elinewidth=1.3, capsize=3.5,
        )  # fmt: skip
        many = filled["posts"] >= FEW
        faces = [VERMILION if enough else "white" for enough in many]
        shares.scatter(filled["lower"], percent["share"], s=26, color=faces, edgecolors=VERMILION, zorder=3)
        shares.set_title("share removed, with 95 % interval")
        shares.set_ylabel("% of posts")
        # An interval of a few posts may leave the picture, so that it does not flatten all others.
        top = max(percent["share"].max(), percent["high"][many].max()) if many.any() else 100.0
        shares.set_ylim(-0.22 * top, 1.06 * top)
        shares.set_yticks(
            [tick for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(0, top) if 0 <= tick <= 1.06 * top]
        )
        _counts(shares, table, "posts")
        shares.set_xlabel(f"popularity interval, {POPULARITY}")
        return figure


def correlations(panels: Mapping[str, pd.DataFrame], names: Mapping[str, str]) -> Figure:
    """Draw rank correlations with popularity, one panel per set of posts, with 95 % intervals and n.

    Args:
        panels: Panel title to a table of `associations.rank_correlations`, all of the same measures.
        names: What to call each measure.
    """
    looks = dict(zip(ADJUSTMENTS, ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D")), strict=True))
    with _canvas(1.2 + 0.72 * len(names), columns=len(panels), sharey=True) as (figure, drawn):
        for axes, (title, table) in zip(drawn, panels.items(), strict=True):
            for adjustment, (colour, marker) in looks.items():
                rows = table[table["adjustment"] == adjustment].set_index("measure").reindex(list(names))
                at = np.arange(len(names)) + 0.27 * (list(looks).index(adjustment) - 1)
                axes.errorbar(
                    rows["correlation"], at, xerr=_reach(rows, "correlation"), fmt=marker, color=colour, ecolor=colour,
                    markeredgecolor=BLACK, markeredgewidth=0.5, markersize=5, elinewidth=1.6, capsize=2.5,
                    label=adjustment,
                )  # fmt: skip
                for height, n in zip(at, rows["n"], strict=True):
                    place = axes.get_yaxis_transform()
                    axes.text(1.0, height, f"n={n:,.0f}", transform=place, ha="right", va="center", fontsize=6.5)
            axes.axvline(0, color=VERMILION, linewidth=1.2, linestyle="--")
            _label_rows(axes, list(names.values()), "rank correlation with popularity", title)
            axes.grid(visible=False, axis="y")
        low, high = (pick(axes.get_xlim()[end] for axes in drawn) for end, pick in enumerate((min, max)))
        for axes in drawn:
            axes.set_xlim(low, high + 0.22 * (high - low))  # the counts stand right of the intervals
        figure.legend(*drawn[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
        return figure


def predicted_against_actual(predicted: ArrayLike, actual: ArrayLike) -> Figure:
    """Draw predicted against actual popularity as a density of posts, with the line where both are equal.

    Args:
        predicted: (n,) predictions, log2(views + 1).
        actual: (n,) labels, likewise.
    """
    guess, truth = np.asarray(predicted, float), np.asarray(actual, float)
    both = np.concatenate([guess, truth])
    low, high = (np.floor(both.min()) - 0.5, np.ceil(both.max()) + 0.5) if len(both) else (0.0, 1.0)
    with _canvas(4.6) as (figure, [axes]):
        cells = axes.hexbin(
            truth, guess, gridsize=36, extent=(low, high, low, high), mincnt=1, bins="log", cmap="cividis", linewidths=0
        )
        axes.plot([low, high], [low, high], color=VERMILION, linewidth=1.4, label="predicted = actual")
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set_xlabel(f"actual popularity, {POPULARITY}")
        axes.set_ylabel(f"predicted popularity, {POPULARITY}")
        axes.set_title(f"n = {len(truth):,} posts")
        axes.legend(loc="upper left", frameon=False)
        figure.colorbar(cells, ax=axes, label="posts per cell, logarithmic", shrink=0.8, format="%d")
        return figure


def calibration(bins: pd.DataFrame) -> Figure:
    """Draw mean actual against mean predicted popularity by bin.

    Args:
        bins: A table of `summaries.calibration`.
    """
    with _canvas(4.2) as (figure, [axes]):
        ends = bins[["mean_predicted", "low", "high"]].to_numpy()
        low, high = np.floor(ends.min()), np.ceil(ends.max())
        axes.plot([low, high], [low, high], color="#777777", linestyle="--", linewidth=1, label="perfect calibration")
        errors = np.abs(bins[["low", "high"]].to_numpy().T - bins["mean_actual"].to_numpy())
        axes.errorbar(
            bins["mean_predicted"], bins["mean_actual"], yerr=errors, fmt="o", color=BLUE, markersize=5, capsize=3,
            linewidth=1.2, label="bin mean, 95 % interval",
        )  # fmt: skip
        smallest, largest = bins["n"].min(), bins["n"].max()
        per_bin = f"{smallest:,}" if smallest == largest else f"{smallest:,}–{largest:,}"
        axes.set_title(f"n = {bins['n'].sum():,} posts in {len(bins)} bins of {per_bin}")
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set_xlabel(f"mean predicted popularity, {POPULARITY}")
        axes.set_ylabel(f"mean actual popularity, {POPULARITY}")
        axes.legend(loc="upper left", frameon=False)
        return figure


def adaptation(placed: pd.DataFrame) -> Figure:
    """Draw the 3-D t-SNE of each modality before and after adaptation, coloured by density: the paper's figure 5.

    Args:
        placed: A table of `training/embedding.coordinates`.
    """
    panels = list(placed.groupby(["modality", "state"], sort=False))
    with _canvas(3.3 * -(-len(panels) // 2) + 0.2, -(-len(panels) // 2), 2, projection="3d") as (figure, drawn):
        spaces: list[Any] = drawn  # matplotlib's own types know no third axis
        figure.dpi = 200  # of the points, which an SVG holds as a picture: thousands of shapes would be megabytes
        for axes, ((modality, state), part) in zip(spaces, panels, strict=False):
            ordered = part.sort_values("density")
            dots = axes.scatter(
                ordered["x"], ordered["y"], ordered["z"], c=ordered["density"], vmin=0, vmax=1, cmap=DENSITY, s=7,
                linewidths=0, depthshade=False, rasterized=True,
            )  # fmt: skip
            axes.set_title(f"{modality}, {state} adaptation (n = {len(part):,})")
            for number, axis in enumerate((axes.xaxis, axes.yaxis, axes.zaxis), start=1):
                axis.set_ticklabels([])  # t-SNE's coordinates have no unit, and none to compare between panels
                axis.set_label_text(f"t-SNE {number}", fontsize=7.5)
                axis.labelpad = -12
                axis.set_pane_color("#f7f7f7")
            axes.set_box_aspect((1, 1, 0.9), zoom=1.05)
        for axes in spaces[len(panels) :]:
            axes.set_axis_off()
        figure.colorbar(dots, ax=drawn, label="density, share of the greatest in the panel", shrink=0.6, pad=0.06)
        return figure


def adapter_curve(losses: Mapping[str, Sequence[float | None]], kept: Sequence[int], unit: str) -> Figure:
    """Draw the adapters' losses by epoch, and the epochs whose weights they kept.

    Args:
        losses: What each line is of, to the mean loss by epoch; a line without any value is left away.
        kept: Epoch kept by each adapter, from one.
        unit: What the losses are in, for the axis.
    """
    with _canvas(3.0) as (figure, [axes]):
        styles = ((BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, ":", "^"))
        for (name, values), (color, line, marker) in zip(losses.items(), styles, strict=False):
            shown = np.array(values, dtype=float)
            if np.isfinite(shown).any():
                at = np.arange(1, len(shown) + 1)
                axes.plot(at, shown, color=color, linestyle=line, marker=marker, markersize=3.5, label=name)
        axes.axvspan(min(kept), max(kept), color=SKY, alpha=0.2, linewidth=0, label="epochs kept, first to last")
        axes.axvline(float(np.median(kept)), color=SKY, linewidth=1.5, label="median epoch kept")
        axes.set_xlabel(f"epoch, {len(kept)} adapters side by side")
        axes.set_ylabel(f"loss, {unit}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
        return figure


def importance(shares: pd.Series, unit: str) -> Figure:
    """Draw feature importance as bars, the largest on top.

    Args:
        shares: Importance in percent by feature name.
        unit: What the percentages are of, for the axis.
    """
    ordered = shares.sort_values(kind="stable")
    with _canvas(0.9 + 0.21 * len(ordered)) as (figure, [axes]):
        bars = axes.barh([str(name) for name in ordered.index], ordered.to_numpy(), color=BLUE, height=0.7)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=7.5, color="#444444")
        axes.set_xlabel(unit)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.08, y=0.02)
        return figure


def score_changes(changes: Mapping[str, tuple[Interval, Interval]]) -> Figure:
    """Draw what leaving each feature group out does to SRC and to MAE, with 95 % intervals.

    Args:
        changes: What was left out, to the change of SRC (below zero is worse) and of MAE (above zero is worse).
    """
    names = list(changes)
    with _canvas(1.1 + 0.36 * len(names), columns=2, sharey=True) as (figure, panels):
        labels = ("change of SRC", f"change of MAE, {POPULARITY}")
        titles = ("left of the dashed line: worse", "right of the dashed line: worse")
        for side, (axes, label, title) in enumerate(zip(panels, labels, titles, strict=True)):
            for row, name in enumerate(names):
                estimate = changes[name][side]
                clear = estimate.low > 0 or estimate.high < 0
                axes.plot([estimate.low, estimate.high], [row, row], color=BLUE, linewidth=2)
                axes.scatter(estimate.value, row, s=36, color=BLUE if clear else "white", edgecolors=BLUE, zorder=3)
            axes.axvline(0, color=VERMILION, linewidth=1.2, linestyle="--")
            _label_rows(axes, [f"without {name}" for name in names], label, title)
        return figure


def score_steps(steps: Mapping[str, tuple[Interval, Interval]]) -> Figure:
    """Draw SRC and MAE as feature groups are added one after the other, with 95 % intervals.

    Args:
        steps: Heading of each step, in order, to its SRC and its MAE; values that are not finite are left away.
    """
    names = list(steps)
    with _canvas(1.1 + 0.36 * len(names), columns=2, sharey=True) as (figure, panels):
        labels = ("SRC", f"MAE, {POPULARITY}")
        for side, (axes, label, title) in enumerate(
            zip(panels, labels, ("right: better", "left: better"), strict=True)
        ):
            shown = [(row, steps[name][side]) for row, name in enumerate(names)]
            shown = [(row, value) for row, value in shown if np.isfinite(value.value)]
            axes.plot([value.value for _, value in shown], [row for row, _ in shown], color=SKY, linewidth=1, zorder=1)
            for row, value in shown:
                axes.plot([value.low, value.high], [row, row], color=BLUE, linewidth=2, zorder=2)
                axes.scatter(value.value, row, s=36, color=BLUE, zorder=3)
            _label_rows(axes, names, label, title)
        return figure


def _reach(table: pd.DataFrame, value: str) -> np.ndarray:
    """Return how far each interval reaches below and above its value, (2, n)."""
    values = table[value].to_numpy(float)
    return np.stack([values - table["low"].to_numpy(float), table["high"].to_numpy(float) - values]).clip(min=0)


def _counts(axes: Axes, table: pd.DataFrame, column: str) -> None:
    """Label the intervals along the bottom of a panel, with the counts of a column above the labels."""
    axes.set_xticks(table["lower"], table["interval"])
    axes.grid(visible=False, axis="x")
    for lower, n in zip(table["lower"], table[column], strict=True):
        place = axes.get_xaxis_transform()
        axes.text(lower, 0.04, f"n={n:,}", transform=place, ha="center", fontsize=6.5, color="#333333")


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(loc="upper right", bbox_to_anchor=(1, 1.25), ncols=columns, frameon=False, fontsize=8)


def _label_rows(axes: Axes, names: Sequence[str], label: str, title: str) -> None:
    """Label a panel with one row per name, the first on top."""
    axes.set_xlabel(label)
    axes.set_title(title, fontweight="normal", fontsize=8.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(5))
