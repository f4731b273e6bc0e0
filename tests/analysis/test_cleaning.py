"""Cleaning rules: what each flags, and what none may flag."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from smp_features.analysis.cleaning import (
    ANY,
    HIGH_PERPLEXITY,
    RULES,
    cleaning_flags,
    perplexity_threshold,
    removed_by_interval,
    with_high_perplexity,
)

CASES = {
    "empty": ["", "   ", "\u3000\n"],
    "file_name": [
        "DSC_0123", "IMG_20150304", "IMG 2045", "img-1234 (2)", "P1010382", "DSCN0001", "_MG_4711", "MVI_0042",
        "GOPR0815", "PICT0001", "image001", "sunset.jpg", "my best photo.JPEG", "Screenshot 2015-03-04 12.30.11",
    ],
    "date_only": [
        "2015-03-04", "04/03/2015", "4.3.15", "20150304", "4 March 2015", "March 4th, 2015", "Sat, 4 Mar 2015", "2015",
        "2015-03-04 12:30:11", "May 2015", "4th of July",
    ],
    "link_only": ["http://example.org/a?b=c", "www.example.org", " HTTPS://example.org  http://example.com/x "],
    "repeated_character": ["aaaaa", "AAAaaa", "!!!", ". . . . .", "zzzzzzzx"],
    "no_letters": ["0123", "???", "\U0001f642", "12 : 45", "2015-03-04", "\u0663\u0664"],
}  # fmt: skip

ORDINARY = [
    "A red boat after the rain", "May", "March of the penguins", "Photo of a house", "P1 racing", "1984 was good",
    "hahaha", "Gooal", "aa", "Route 66", "see www.example.org for more", "\u65e5\u672c\u306e\u7a7a", "Image of love",
    "Mr. Smith", "10 June bugs", "img",
]  # fmt: skip


@pytest.mark.parametrize(("rule", "title"), [(rule, title) for rule, titles in CASES.items() for title in titles])
def test_a_rule_flags_what_it_is_named_for(rule, title):
    assert RULES[rule](title)


@pytest.mark.parametrize("title", ORDINARY)
def test_ordinary_titles_break_no_rule(title):
    assert [rule for rule, breaks in RULES.items() if breaks(title)] == []


def test_flags_come_as_one_row_per_title_and_one_column_per_rule():
    flags = cleaning_flags(["", "A boat", "2015-03-04"])
    assert list(flags.columns) == list(RULES)
    assert all(kind.kind == "b" for kind in flags.dtypes)
    assert [sorted(flags.columns[row]) for row in flags.to_numpy()] == [["empty"], [], ["date_only", "no_letters"]]


def test_no_titles_give_an_empty_table_of_flags():
    assert cleaning_flags([]).shape == (0, len(RULES))


def test_long_titles_of_one_kind_are_judged_in_no_time():
    started = time.perf_counter()
    for title in ("a" * 100_000, "1" * 100_000, "-" * 100_000, "IMG_" + "1 " * 50_000 + "x", "http://" * 20_000):
        cleaning_flags([title])
    assert time.perf_counter() - started < 10


def test_the_perplexity_rule_flags_what_lies_beyond_the_quantile_of_the_training_posts():
    train = np.append(np.arange(1.0, 102.0), np.nan)
    threshold = perplexity_threshold(train, 0.95)
    assert threshold == 96.0
    flags = with_high_perplexity(
        cleaning_flags(["a boat", "a boat", "", "xqzw"]), [96.0, 96.01, np.nan, 500.0], threshold
    )
    assert list(flags.columns) == [*RULES, HIGH_PERPLEXITY]
    assert flags[HIGH_PERPLEXITY].tolist() == [False, True, False, True]
    assert flags.dtypes.map(lambda kind: kind.kind == "b").all()


def test_without_perplexities_nothing_lies_beyond():
    threshold = perplexity_threshold([np.nan], 0.95)
    assert not with_high_perplexity(cleaning_flags(["a boat"]), [1e9], threshold).any(axis=None)


def test_shares_removed_are_counted_by_interval_and_rule_among_labelled_posts():
    rng = np.random.default_rng(1)
    popularity = rng.uniform(2, 16, 400).round(2)
    popularity[(popularity >= 5) & (popularity < 6)] = 4.5  # an interval without posts
    popularity[:20] = np.nan
    users = rng.integers(0, 90, 400)
    flags = pd.DataFrame({"first": rng.random(400) < 0.3, "second": rng.random(400) < 0.05})
    table = removed_by_interval(popularity, flags, users).set_index(["rule", "lower"])
    assert list(table.index.levels[1]) == list(range(2, 14))
    posts = pd.DataFrame({"p": popularity, "any": flags["first"] | flags["second"], **flags})
    for (rule, lower), row in table.iterrows():
        inside = posts[(posts["p"] >= lower) & (posts["p"] < (lower + 1 if lower < 13 else 99))]
        assert (row["posts"], row["removed"]) == (len(inside), inside[rule].sum())
        if lower == 5:
            assert row["posts"] == 0 and row[["share", "low", "high"]].isna().all()
        else:
            assert row["share"] == pytest.approx(inside[rule].mean())
            assert 0 <= row["low"] <= row["share"] <= row["high"] <= 1
    assert table.loc[ANY, "posts"].sum() == 380
