"""In which script a title is written: a plain function that says what is meant, and Spark's equal.

A script is Unicode's property of a character, and says what a guess at the language of some three words cannot say
reliably. Both patterns are read alike by Java and by the library `regex` (its version 1 rules); characters that only
the newer of the two Unicode versions knows are letters to one of them.
"""

from __future__ import annotations

import regex
from pyspark.sql import Column
from pyspark.sql import functions as F

SCRIPTS = (
    *("Latin", "Cyrillic", "Greek", "Armenian", "Georgian", "Hebrew", "Arabic"),
    *("Devanagari", "Bengali", "Tamil", "Telugu", "Thai"),
    *("Hangul", "Hiragana", "Katakana", "Han"),
)
"""Scripts told apart, by their Unicode names; of two with as many letters the first is taken."""

OTHER = "Other"
"""Letters of any other script, and those of none, such as the bold letters of mathematics."""

LETTER = r"\p{L}"


def title_script(title: str) -> dict[str, str | float | None]:
    """Return the columns of the group `title` that the scripts of its letters decide.

    Args:
        title: The title as extracted, '' if empty.

    Returns:
        `title_script`, the name of the script that most letters are of, and `title_script_share`, its part of all
        letters, 0..1; both None without letters.
    """
    letters = len(regex.findall(LETTER, title))
    counts = {script: len(regex.findall(_letters_of(script), title, regex.V1)) for script in SCRIPTS}
    counts[OTHER] = letters - sum(counts.values())
    most = max(counts, key=lambda script: counts[script])
    return {
        "title_script": most if letters else None,
        "title_script_share": counts[most] / letters if letters else None,
    }


def script_columns(title: str = "title") -> dict[str, Column]:
    """Return `title_script` of a string column as expressions."""
    letters = F.regexp_count(title, F.lit(LETTER))
    counts = {script: F.regexp_count(title, F.lit(_letters_of(script))) for script in SCRIPTS}
    counts[OTHER] = letters - sum(counts.values(), F.lit(0))
    ranked = [
        F.struct(count.alias("count"), F.lit(-place).alias("place"), F.lit(script).alias("script"))
        for place, (script, count) in enumerate(counts.items())
    ]
    most = F.greatest(*ranked)
    return {
        "title_script": F.when(letters > 0, most["script"]),
        "title_script_share": F.when(letters > 0, most["count"] / letters),
    }


def _letters_of(script: str) -> str:
    return rf"[\p{{L}}&&\p{{Is{script}}}]"
