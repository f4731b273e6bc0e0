"""Cleaning rules: named flags on titles that say little, for the analysis; no post is ever dropped at prediction.

The paper cleans its training posts before it looks at them (figure 2: the share removed falls as popularity rises) and
does not state its rules; these are ours. A title may break several. One rule is fitted: titles that the language model
finds less likely than nearly all training titles.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from smp_features.features.metadata import LINK
from smp_features.metrics import interval_names
from smp_features.summaries import interval_label, intervals_from, share

_EXTENSIONS = "jpe?g|png|gif|tiff?|bmp|webp|heic|raw|cr2|nef|arw|dng|psd|mov|mp4|avi"
_CAMERAS = (
    "img|dscn?|dscf|_mg|mg|pict|p|pic|image|photo|mvi|vid|mov|gopr|sam|cimg|sdc|hpim|kif|imag|pxl|wp|fullsizerender"
    "|screenshot|screen shot|untitled"
)
_FILE_NAME = re.compile(rf"(?:.*\S)?\S\.(?:{_EXTENSIONS})|_?(?:{_CAMERAS})[ _-]?\(?\d[\d _.()-]{{2,}}", re.IGNORECASE)
_LINK_ONLY = re.compile(rf"(?:{LINK}\S*)(?:\s+{LINK}\S*)*")

_MONTHS = "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
_MONTHS += "|nov(?:ember)?|dec(?:ember)?"
_DAYS = "(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?"
_YEAR = r"(?:1[89]|20)\d\d"
_DATE_PART = re.compile(rf"\d{{1,2}}(?:st|nd|rd|th)?|{_YEAR}(?:\d{{4}})?|{_MONTHS}|{_DAYS}|[ap]m|of|the", re.IGNORECASE)
_DATED = re.compile(
    rf"{_YEAR}|\d\D*(?:{_MONTHS})|(?:{_MONTHS})\D*\d|\d{{1,2}}[./-]\d{{1,2}}[./-]\d{{2}}", re.IGNORECASE
)
_SEPARATORS = re.compile(r"[\s,./:_-]+")

REPEATED_SHARE = 0.75
"""From this share of one character on, a title is that character repeated."""


def is_empty(title: str) -> bool:
    """Whether a title holds nothing but white space."""
    return not title.strip()


def is_file_name(title: str) -> bool:
    """Whether a title is the name a camera or program gave the file: DSC_0123, IMG 2045, P1010382, sunset.jpg."""
    return _FILE_NAME.fullmatch(title.strip()) is not None


def is_date_only(title: str) -> bool:
    """Whether a title is a date, perhaps with a time, and nothing else: 2015-03-04, 4 March 2015, 20150304 12:30."""
    parts = [part for part in _SEPARATORS.split(title) if part]
    return bool(parts) and all(map(_DATE_PART.fullmatch, parts)) and _DATED.search(title) is not None


def is_link_only(title: str) -> bool:
    """Whether a title is one or more URLs and nothing else."""
    return _LINK_ONLY.fullmatch(title.strip()) is not None


def is_repeated_character(title: str) -> bool:
    """Whether one character, in either case, makes up three quarters of a title of at least three: aaaaa, !!!!."""
    characters = [character for character in title.casefold() if not character.isspace()]
    if len(characters) < 3:
        return False
    return Counter(characters).most_common(1)[0][1] / len(characters) >= REPEATED_SHARE


def has_no_letters(title: str) -> bool:
    """Whether a title holds something, but no letter of any script: 0123, ???, an emoji alone."""
    return not is_empty(title) and not any(unicodedata.category(character).startswith("L") for character in title)


RULES: dict[str, Callable[[str], bool]] = {
    "empty": is_empty,
    "file_name": is_file_name,
    "date_only": is_date_only,
    "link_only": is_link_only,
    "repeated_character": is_repeated_character,
    "no_letters": has_no_letters,
}
"""The rules about a title's text by name, in the order they are shown."""

HIGH_PERPLEXITY = "high_perplexity"
"""The fitted rule, which follows those of `RULES`."""

ANY = "any"
"""Stands for breaking at least one rule."""


def cleaning_flags(titles: Iterable[str]) -> pd.DataFrame:
    """Apply every rule about a title's text to every title.

    Args:
        titles: (n,) titles, '' if empty.

    Returns:
        (n, 6) bool, one column per rule of `RULES`; a title is kept by the analysis when its row is all False.
    """
    listed = list(titles)
    return pd.DataFrame({name: [rule(title) for title in listed] for name, rule in RULES.items()}, dtype=bool)


def perplexity_threshold(log_perplexities: ArrayLike, quantile: float) -> float:
    """Return the log-perplexity beyond which a title counts as gibberish.

    Args:
        log_perplexities: Of the training posts alone, nats per token; NaN where a title is empty. No label is used.
        quantile: Share of those posts that stay, 0..1.

    Returns:
        Nats per token; infinite, so that nothing lies beyond it, when no post has one.
    """
    values = np.asarray(log_perplexities, np.float64)
    known = values[~np.isnan(values)]
    return float(np.quantile(known, quantile)) if len(known) else float("inf")


def with_high_perplexity(flags: pd.DataFrame, log_perplexities: ArrayLike, threshold: float) -> pd.DataFrame:
    """Return flags with the fitted rule's column appended.

    Args:
        flags: (n, 6) of `cleaning_flags`.
        log_perplexities: (n,) nats per token; NaN, as of an empty title, breaks another rule and not this one.
        threshold: Of `perplexity_threshold`.
    """
    return flags.assign(**{HIGH_PERPLEXITY: np.asarray(log_perplexities, np.float64) > threshold})


def removed_by_interval(popularity: ArrayLike, flags: pd.DataFrame, users: ArrayLike) -> pd.DataFrame:
    """Count by popularity interval the posts that each rule removes from the analysis (figure 2).

    Args:
        popularity: (n,) labels, log2(views + 1); posts whose label is NaN are left out.
        flags: (n, k) bool, one column per rule.
        users: (n,) user of each post.

    Returns:
        One row per interval and rule, `any` rule first, empty intervals included: `lower`, `interval`, `rule`, `posts`,
        `removed`, and `share`, `low`, `high`: the share removed with its 95 % interval over users (NaN without posts).
    """
    labels = np.asarray(popularity, np.float64)
    labelled = ~np.isnan(labels)
    lowers, owners, shown = interval_names(labels[labelled]), np.asarray(users)[labelled], flags[labelled]
    rules = {ANY: shown.any(axis=1), **{str(name): shown[name] for name in shown}}
    rows = []
    for name, broken in rules.items():
        breaks = broken.to_numpy(bool)
        for lower in intervals_from(lowers):
            inside = lowers == lower
            found = share(breaks[inside], owners[inside])
            ends = (found.value, found.low, found.high)
            rows.append((lower, interval_label(lower), name, inside.sum(), breaks[inside].sum(), *ends))
    columns = ["lower", "interval", "rule", "posts", "removed", "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
