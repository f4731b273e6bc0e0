"""Figures say what they show: axes with units, counts, palette, no reference to the outside."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from smp_features import figures
from smp_features.analysis.cleaning import removed_by_interval
from smp_features.associations import rank_correlations
from smp_features.metrics import Interval
from smp_features.summaries import by_interval, calibration

RNG = np.random.default_rng(0)
POPULARITY = RNG.uniform(2, 9, 300)
PREDICTED = POPULARITY + RNG.normal(size=300)


def _similarity():
    return figures.measures_by_interval({"caption against title": by_interval(POPULARITY, PREDICTED)}, "cosine")


def _calibration():
    return figures.calibration(calibration(PREDICTED, POPULARITY, np.arange(300) // 3))


def _importance():
    return figures.importance(pd.Series({"title": 60.0, "user": 40.0}), "share of the total gain, %")


def _changes():
    change = (Interval(-0.1, -0.2, -0.05, 0.95), Interval(0.01, -0.1, 0.12, 0.95))
    return figures.score_changes({"picture": change, "user": change})


def _adaptation():
    rng = np.random.default_rng(3)
    panels = [(modality, state) for modality in ("image", "text") for state in ("before", "after")]
    return figures.adaptation(
        pd.concat(
            pd.DataFrame(rng.normal(size=(30, 3)), columns=["x", "y", "z"]).assign(
                modality=modality, state=state, density=np.linspace(0.1, 1, 30)
            )
            for modality, state in panels
        )
    )


def _curve():
    losses = {"training rows": [1.0, 0.8, 0.7], "users held out": [0.9, 0.7, 0.8], "others": [None, None, None]}
    return figures.adapter_curve(losses, [1, 2, 2], "label variance = 1")


REMOVED = removed_by_interval(
    [2.5] * 40 + [4.5] * 3, pd.DataFrame({"empty": [True] * 10 + [False] * 33}), np.arange(43)
)


def _left():
    return figures.posts_left(REMOVED[REMOVED["rule"] == "any"])


def _correlations():
    posts = pd.DataFrame({"uid": np.arange(300) // 3, "category": "Food", "popularity": POPULARITY, "seen": PREDICTED})
    posts = posts.assign(event_epoch_days=np.arange(300.0), event_weekday=np.arange(300) % 7 + 1.0)
    tables = {"all": rank_correlations(posts, ["seen"], 50), "left": rank_correlations(posts[::2], ["seen"], 50)}
    return figures.correlations(tables, {"seen": "a measure"})


FIGURES = [
    _left,
    _correlations,
    _similarity,
    lambda: figures.predicted_against_actual(PREDICTED, POPULARITY),
    _calibration,
    _importance,
    _changes,
    _adaptation,
    _curve,
]


@pytest.mark.parametrize("draw", FIGURES)
def test_every_figure_is_self_contained_and_equal_numbers_draw_equal_text(draw):
    text = figures.svg(draw())
    links = set(re.findall(r'(?:href|src)="([^#"][^"]*)"', text))
    assert not {link for link in links if not link.startswith("data:")}
    assert text.startswith("<svg")
    assert figures.svg(draw()) == text


@pytest.mark.parametrize("draw", FIGURES)
def test_every_horizontal_axis_at_the_bottom_is_labelled(draw):
    figure = draw()
    drawn = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert all(axes.get_xlabel() for axes in drawn if axes.get_subplotspec().is_last_row())


def test_intervals_are_drawn_at_their_median_with_counts_and_unit():
    table = by_interval([1.5] * 12 + [2.5] * 3, [0.1] * 12 + [0.2] * 3)
    axes = figures.measures_by_interval({"caption against title": table}, "cosine similarity").axes[0]
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.2])
    assert [text.get_text() for text in axes.texts] == ["n=12", "n=3"]
    assert axes.get_ylabel() == "cosine similarity"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1–2", "2–3"]
    dots = axes.collections[0]
    assert [to_hex(color) for color in dots.get_facecolors()] == ["#0072b2", "#ffffff"]  # 3 posts: hollow


def test_an_interval_without_posts_leaves_a_gap_and_says_so():
    axes = figures.measures_by_interval({"a": by_interval([1.5, 3.5], [0.1, 0.3])}, "cosine similarity").axes[0]
    assert [text.get_text() for text in axes.texts] == ["n=1", "n=0", "n=1"]
    assert axes.lines[0].get_xdata().tolist() == [1, 3]


def test_the_interval_of_a_median_is_drawn_around_it():
    table = by_interval([1.5] * 30 + [2.5] * 3, [*range(30), 1, 2, 3], np.arange(33))
    axes = figures.measures_by_interval({"a": table}, "nats per token").axes[0]
    [[band]] = [container.lines[2] for container in axes.containers if container.get_label().startswith("95 %")]
    assert [segment.tolist() for segment in band.get_segments()] == [
        [[1, pytest.approx(table.loc[0, "low"])], [1, pytest.approx(table.loc[0, "high"])]]
    ]


def test_posts_left_and_removed_add_up_and_the_share_is_in_percent():
    counts, shares = _left().axes
    left, removed = counts.containers
    assert [bar.get_height() for bar in left] == [30, 0, 3]
    assert [(bar.get_y(), bar.get_height()) for bar in removed] == [(30, 10), (0, 0), (3, 0)]
    dots = shares.collections[-1]
    assert dots.get_offsets().tolist() == [[2, 25], [4, 0]]  # no post, no share
    assert [to_hex(color) for color in dots.get_facecolors()] == ["#d55e00", "#ffffff"]
    assert [text.get_text() for text in shares.texts] == ["n=40", "n=0", "n=3"]
    assert shares.get_ylim()[1] < 60  # the interval of three posts reaches beyond


def test_correlations_share_their_axis_and_carry_the_counts_of_each():
    left, right = _correlations().axes
    assert left.get_xlim() == right.get_xlim()
    assert [text.get_text() for text in left.texts] == ["n=300"] * 3
    assert [text.get_text() for text in right.texts] == ["n=150", "n=100", "n=100"]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["a measure"]


def test_calibration_draws_bins_where_their_means_are_and_states_n():
    bins = calibration(PREDICTED, POPULARITY, np.arange(300) // 3)
    axes = figures.calibration(bins).axes[0]
    drawn = axes.containers[0].lines[0]
    assert drawn.get_ydata().tolist() == pytest.approx(bins["mean_actual"].tolist())
    assert axes.get_title(loc="left") == "n = 300 posts in 10 bins of 30"


def test_importance_puts_the_largest_on_top_with_its_share():
    axes = _importance().axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["user", "title"]
    assert [text.get_text() for text in axes.texts] == ["40.0", "60.0"]


def test_a_change_within_noise_is_hollow():
    source, error = _changes().axes
    assert to_hex(source.collections[0].get_facecolors()[0]) == "#0072b2"
    assert to_hex(error.collections[0].get_facecolors()[0]) == "#ffffff"


def test_adaptation_has_a_panel_for_each_modality_and_state_with_its_count_and_one_colour_bar():
    figure = _adaptation()
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert [axes.get_title() for axes in panels] == [
        f"{modality}, {state} adaptation (n = 30)" for modality in ("image", "text") for state in ("before", "after")
    ]
    assert len(figure.axes) == len(panels) + 1
    x, y, z = panels[0].collections[0]._offsets3d
    assert len(x) == len(y) == len(z) == 30
    assert panels[3].collections[0].get_array().max() == 1


def test_the_adapters_curve_counts_epochs_from_one_and_leaves_out_lines_without_values():
    axes = _curve().axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["users held out"].get_xdata().tolist() == [1, 2, 3]
    assert lines["users held out"].get_ydata().tolist() == [0.9, 0.7, 0.8]
    assert lines["median epoch kept"].get_xdata() == [2, 2]
    assert "others" not in lines


def test_drawing_leaves_no_global_state():
    import matplotlib

    before = dict(matplotlib.rcParams)
    _similarity()
    assert dict(matplotlib.rcParams) == before
