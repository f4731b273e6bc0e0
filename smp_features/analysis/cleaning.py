"""Cleaning rules: named flags on titles that say little, for the analysis; no post is ever dropped at prediction.

The paper cleans its training posts before it looks at them (figure 2: the share removed falls as popularity rises) and
does not state its rules; these are ours. A title may break several.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

import pandas as pd

from smp_features.features.metadata import LINK

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
"""The rules by name, in the order they are shown."""


def cleaning_flags(titles: Iterable[str]) -> pd.DataFrame:
    """Apply every rule to every title.

    Args:
        titles: (n,) titles, '' if empty.

    Returns:
        (n, 6) bool, one column per rule of `RULES`; a title is kept by the analysis when its row is all False.
    """
    listed = list(titles)
    return pd.DataFrame({name: [rule(title) for title in listed] for name, rule in RULES.items()}, dtype=bool)
