"""Scripts of titles: expectations by hand, and Spark agreeing with the plain function."""

from __future__ import annotations

import pytest

from smp_features.features.scripts import OTHER, SCRIPTS, script_columns, title_script

WORDS = {
    "Latin": "Été", "Cyrillic": "Лодка", "Greek": "βάρκα", "Armenian": "Նավակ", "Georgian": "ნავი", "Hebrew": "סירה",
    "Arabic": "قارب", "Devanagari": "नाव", "Bengali": "নৌকা", "Tamil": "படகு", "Telugu": "పడవ", "Thai": "เรือ",
    "Hangul": "보트", "Hiragana": "ふね", "Katakana": "フネ", "Han": "小船", OTHER: "ጀልባ",
}  # fmt: skip
TITLES = [
    *WORDS.values(),
    *("", " ", "2015 ?!", "\U0001f642", "IMG_0042.JPG 日", "日本の空 sky", "東京タワー", "\u00b5\u02b9", "e\u0301"),
    *("\U0001d400bold", "\U00020000\U0002f800", "\u3005\u3007", "\uff21\uff71", "aбβ", "\x00nul\\d+ [x]", "a\nб\r\nбб"),
]


@pytest.mark.parametrize(("script", "word"), WORDS.items())
def test_each_script_is_told_by_its_letters(script, word):
    assert title_script(f"{word} 42!") == {"title_script": script, "title_script_share": 1.0}


def test_every_script_has_a_word_here():
    assert {*SCRIPTS, OTHER} == set(WORDS)


def test_the_script_of_most_letters_wins_and_digits_marks_and_emoji_are_no_letters():
    assert title_script("日本の空 sky \U0001f642 2015") == {"title_script": "Latin", "title_script_share": 3 / 7}
    assert title_script("日本の空 e\u0301") == {"title_script": "Han", "title_script_share": 3 / 5}
    assert title_script("aбβ") == {"title_script": "Latin", "title_script_share": 1 / 3}


def test_letters_of_no_script_are_other():
    assert title_script("\U0001d400\U0001d401x") == {"title_script": OTHER, "title_script_share": 2 / 3}


@pytest.mark.parametrize("title", ["", "  ", "2015 ?!", "\U0001f642"])
def test_without_letters_there_is_no_script(title):
    assert title_script(title) == {"title_script": None, "title_script_share": None}


def test_spark_agrees_on_every_title(spark):
    rows = spark.createDataFrame([(title,) for title in TITLES], "title string")
    found = rows.select(*(column.alias(name) for name, column in script_columns().items())).collect()
    assert [row.asDict() for row in found] == [title_script(title) for title in TITLES]
