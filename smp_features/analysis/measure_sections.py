"""The report's sections about inconsistency: cleaning, measures by popularity, and their rank correlations with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from smp_features import figures
from smp_features.analysis.cleaning import (
    ANY,
    HIGH_PERPLEXITY,
    RULES,
    perplexity_threshold,
    removed_by_interval,
    with_high_perplexity,
)
from smp_features.analysis.page import Cell, Note, Section, Table, drawn, show, table
from smp_features.analysis.readings import PERPLEXITY, SIMILARITIES
from smp_features.associations import ADJUSTMENTS, rank_correlations
from smp_features.metrics import Interval
from smp_features.summaries import FEW, FEWEST_USERS, by_interval, share

MEASURES = {**SIMILARITIES, PERPLEXITY: "title log-perplexity"}
"""The four measures of inconsistency, and what figures call them."""

_SHARE = "% removed [95 %]"
_NO_SIMILARITIES = "No similarities yet. `smp extract`, then `smp features` make them."
_NO_MEASURES = "No measures of labelled posts yet. `smp extract`, then `smp features` make them."
_BAND = (
    "The vertical line through each median is its 95 % interval, point by point, by a bootstrap over users; medians of "
    f"fewer than {FEWEST_USERS} users have none. Hollow dots: fewer than {FEW} posts."
)


def cleaned(measures: pd.DataFrame, quantile: float) -> tuple[pd.DataFrame, float]:
    """Flag every post by every cleaning rule; the fitted one learns from training posts alone.

    Args:
        measures: As of `readings.measures`.
        quantile: As of `cleaning.perplexity_threshold`.

    Returns:
        (posts, 7) bool, and the log-perplexity beyond which a title counts as gibberish, nats per token.
    """
    threshold = perplexity_threshold(measures.loc[measures["split"] == "train", PERPLEXITY], quantile)
    return with_high_perplexity(measures[list(RULES)], measures[PERPLEXITY], threshold), threshold


def cleaning_section(measures: pd.DataFrame, flags: pd.DataFrame, threshold: float, quantile: float) -> Section:
    """Show which posts cleaning takes out of the analysis, by popularity and by rule (figure 2).

    Args:
        measures: As of `readings.measures`.
        flags: Of `cleaned`.
        threshold: Of `cleaned`.
        quantile: What it was fitted with.
    """
    title = "Posts left after cleaning"
    if measures["popularity"].isna().all():
        return Section("cleaning", title, missing="No features of labelled posts yet. `smp features` makes them.")
    removed = removed_by_interval(measures["popularity"], flags, measures["uid"])
    of_any = removed[removed["rule"] == ANY]
    picture = drawn(
        figures.posts_left(of_any),
        "Posts left and share removed by popularity interval; the tables below hold the numbers.",
        "Labelled posts; intervals over users. Hollow dots: fewer than "
        f"{FEW} posts, whose interval may leave the picture.",
    )
    fitted = (
        f"`{HIGH_PERPLEXITY}`: beyond {threshold:.2f} nats per token, the {quantile:g} quantile of the training posts."
        if threshold < float("inf")
        else f"`{HIGH_PERPLEXITY}` flags nothing, since no training post has a perplexity yet."
    )
    how = (
        f"Every post carries every flag; a title may break several rules. {fitted} Flags serve this analysis only: no "
        "post is left out of training or of predictions by them."
    )
    return Section("cleaning", title, (picture, _by_rule(measures, flags), _removed_table(removed), Note(how)))


def similarity_section(measures: pd.DataFrame, draws: tuple[int, int]) -> Section:
    """Show the three similarities by popularity interval.

    Args:
        measures: As of `readings.measures`.
        draws: Resamples and seed of the bootstrap over users.
    """
    title = "Similarity of picture and text by popularity"
    if _labelled(measures)[list(SIMILARITIES)].isna().all(axis=None):
        return Section("similarity", title, missing=_NO_SIMILARITIES)
    described = {name: _described(measures, column, draws) for column, name in SIMILARITIES.items()}
    picture = drawn(
        figures.measures_by_interval(described, "cosine similarity"),
        "Quartiles of three cosine similarities by popularity interval; the tables below hold the numbers.",
        "Cosine of CLIP embeddings; higher means that the two say the same. The caption is a vision-language model's "
        f"description of the picture, so caption against title is the consistency of picture and title. {_BAND}",
    )
    return Section("similarity", title, (picture, *(_quartile_table(*each) for each in described.items())))


def perplexity_section(measures: pd.DataFrame, draws: tuple[int, int]) -> Section:
    """Show the title's log-perplexity by popularity interval.

    Args:
        measures: As of `readings.measures`.
        draws: Resamples and seed of the bootstrap over users.
    """
    title = "Log-perplexity of the title by popularity"
    if _labelled(measures)[PERPLEXITY].isna().all():
        return Section(
            "perplexity", title, missing="No perplexities yet. `smp extract`, then `smp features` make them."
        )
    described = _described(measures, PERPLEXITY, draws)
    picture = drawn(
        figures.measures_by_interval({"title": described}, "nats per token"),
        "Quartiles of the title's log-perplexity by popularity interval; the table below holds the numbers.",
        "Mean negative log-likelihood of the title's tokens under the language model; gibberish is high. Posts with an "
        f"empty title have none. {_BAND}",
    )
    return Section("perplexity", title, (picture, _quartile_table("title log-perplexity, nats per token", described)))


def correlation_section(measures: pd.DataFrame, flags: pd.DataFrame, draws: tuple[int, int]) -> Section:
    """Show how the ranks of the measures go with the rank of popularity, on all labelled posts and on those left.

    Args:
        measures: As of `readings.measures`.
        flags: Of `cleaned`.
        draws: Resamples and seed of the bootstrap over users.
    """
    title = "Rank correlation of the measures with popularity"
    labelled = _labelled(measures)
    if labelled[list(MEASURES)].isna().all(axis=None):
        return Section("correlations", title, missing=_NO_MEASURES)
    sets = {
        "all labelled posts": labelled,
        "posts left after cleaning": labelled[~flags.loc[labelled.index].any(axis=1)],
    }
    found = {name: rank_correlations(posts, MEASURES, *draws) for name, posts in sets.items()}
    picture = drawn(
        figures.correlations(found, MEASURES),
        "Rank correlations with 95 % intervals; the tables below hold the numbers.",
        "Below zero: the measure is lower where posts are more popular. Intervals: 95 %, bootstrap over users.",
    )
    how = (
        "Overall: Spearman's correlation. Within users: of ranks less their user's mean rank, so that users who are "
        "popular anyway do not count. Adjusted: of what user effects, time (a cubic trend, two daily waves, weekdays) "
        "and category leave of both ranks. Users with one post say nothing within users, and are left out there."
    )
    return Section("correlations", title, (picture, *(_correlation_table(*each) for each in found.items()), Note(how)))


def _labelled(measures: pd.DataFrame) -> pd.DataFrame:
    return measures[measures["popularity"].notna()]


def _described(measures: pd.DataFrame, column: str, draws: tuple[int, int]) -> pd.DataFrame:
    return by_interval(measures["popularity"], measures[column], measures["uid"], *draws)


def _quartile_table(name: str, described: pd.DataFrame) -> Table:
    headers = ("interval", "posts", "n", "users", "median [95 %]", "first quartile", "third quartile")
    rows: list[list[Cell]] = [
        [row["interval"], row["posts"], row["n"], row["users"], _interval(row, "median"), row["q1"], row["q3"]]
        for row in _records(described)
    ]
    return table(headers, rows, f"{name}, by popularity interval; n = posts that have a value, users = theirs")


def _by_rule(measures: pd.DataFrame, flags: pd.DataFrame) -> Table:
    """One row per rule: the posts of each split that break it."""
    splits = sorted(measures["split"].unique(), reverse=True)
    headers = ["rule", *(text for split in splits for text in (f"{split}: flagged", f"{split}: % flagged [95 %]"))]
    rows: list[list[Cell]] = []
    for name, broken in {**{str(rule): flags[rule] for rule in flags}, "any of them": flags.any(axis=1)}.items():
        cells: list[Cell] = [name]
        for split in splits:
            inside = measures["split"] == split
            cells += [int(broken[inside].sum()), _percent(share(broken[inside], measures["uid"][inside]))]
        rows.append(cells)
    counts = ", ".join(f"{int((measures['split'] == split).sum()):,} {split}" for split in splits)
    return table(headers, rows, f"By rule, of {counts} posts")


def _removed_table(removed: pd.DataFrame) -> Table:
    rules = [str(rule).replace("_", " ") for rule in removed["rule"].unique()]
    headers = ("interval", "posts", "left", f"any rule: {_SHARE}", *rules[1:])
    rows: list[list[Cell]] = []
    for _, part in removed.groupby("lower"):
        cells = _records(part)
        first = cells[0]
        counts: list[Cell] = [first["interval"], first["posts"], first["posts"] - first["removed"]]
        rows.append([*counts, _percent(_interval(first, "share")), *(show(100 * row["share"], 1) for row in cells[1:])])
    return table(headers, rows, "By popularity interval of labelled posts, % removed by any rule and by each")


def _correlation_table(name: str, found: pd.DataFrame) -> Table:
    headers = ("measure", "how", "rank correlation [95 %]", "n", "users", "left out")
    rows: list[list[Cell]] = [
        [text, adjustment, _interval(row, "correlation"), row["n"], row["users"], row["single"]]
        for column, text in MEASURES.items()
        for adjustment in ADJUSTMENTS
        for row in _records(found[(found["measure"] == column) & (found["adjustment"] == adjustment)])
    ]
    return table(headers, rows, f"{name[0].upper()}{name[1:]}; left out: posts of users with no other")


def _percent(value: Interval) -> str:
    return show(Interval(100 * value.value, 100 * value.low, 100 * value.high, value.level), 1)


def _interval(row: Mapping[str, Any], value: str) -> Interval:
    return Interval(row[value], row["low"], row["high"], 0.95)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
