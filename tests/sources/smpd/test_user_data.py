"""Each field's encoding is told by its value, in either form and in mixtures of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from smp_features.sources.smpd.user_data import (
    FORM_A_ONLY,
    FORM_B_ONLY,
    FORM_DEPENDENT,
    PROFILE_FIELDS,
    offset_minutes,
    profile,
)

SHARED = {
    "photo_firstdate": "1104537600",
    "photo_count": "120",
    "ispro": "1",
    "canbuypro": "0",
    "photo_firstdatetaken": "2004-12-31 10:00:00",
}
FORM_A = SHARED | {
    "timezone_offset": "53",
    "timezone_timezone_id": "12",
    "user_description": ",".join(f"{n / 1000:.3f}" for n in range(399)),
    "location_description": ",".join(f"{n / 1000:.3f}" for n in range(400)),
}
FORM_B = SHARED | {
    "timezone_offset": "+01:00",
    "timezone_id": "Europe/Berlin",
    "user_description": 'I like <a href="http://example.org">snow</a>, rain, and sun',
    "location_description": "Berlin, Germany",
}


def test_form_a_gives_vectors_and_codes() -> None:
    row = profile(FORM_A, Counter())
    assert row["photo_first_at"] == 1_104_537_600_000_000
    assert (row["photo_count"], row["is_pro"], row["can_buy_pro"]) == (120, True, False)
    assert row["photo_first_taken"] == "2004-12-31 10:00:00"
    assert row["description"] is None and row["location"] is None and row["timezone_offset_minutes"] is None
    assert row["timezone_name"] == "12"
    np.testing.assert_array_equal(row["description_vector"], np.arange(399, dtype=np.float32) / np.float32(1000))
    assert row["location_vector"].shape == (400,) and row["location_vector"].dtype == np.float32


def test_form_b_gives_texts_names_and_offsets() -> None:
    row = profile(FORM_B, Counter())
    assert row["description"] == FORM_B["user_description"]
    assert row["location"] == "Berlin, Germany"
    assert (row["timezone_name"], row["timezone_offset_minutes"]) == ("Europe/Berlin", 60)
    assert row["description_vector"] is None and row["location_vector"] is None


def test_the_forms_agree_in_every_field_that_both_can_express() -> None:
    a, b = profile(FORM_A, Counter()), profile(FORM_B, Counter())
    agreeing = [name for name in PROFILE_FIELDS if name not in FORM_DEPENDENT]
    assert {name: a[name] for name in agreeing} == {name: b[name] for name in agreeing}
    assert len(agreeing) == 5
    assert all(b[name] is None for name in FORM_A_ONLY)
    assert all(a[name] is None for name in FORM_B_ONLY)


def test_fields_of_both_forms_mix_in_one_record() -> None:
    mixed = FORM_A | {"timezone_offset": "-03:30", "location_description": "Oslo"}
    row = profile(mixed, Counter())
    assert row["timezone_offset_minutes"] == -210
    assert row["location"] == "Oslo" and row["location_vector"] is None
    assert row["description_vector"].shape == (399,)


@pytest.mark.parametrize("empty", ["\n", "", "None", None, ",".join(["0.0"] * 399), ",".join(["0"] * 400)])
def test_an_empty_profile_text_is_null_in_every_spelling(empty: str | None) -> None:
    row = profile({"user_description": empty, "location_description": empty}, Counter())
    assert [row[name] for name in ("description", "description_vector", "location", "location_vector")] == [None] * 4


@pytest.mark.parametrize("numbers", [["0.5"] * 398, ["0.5"] * 398 + ["nan"]])
def test_a_vector_of_the_wrong_length_or_not_finite_is_null_and_counted(numbers: list[str]) -> None:
    seen: Counter[str] = Counter()
    row = profile({"user_description": ",".join(numbers)}, seen)
    assert row["description"] is None and row["description_vector"] is None
    assert seen["profile vectors that are not 399 finite numbers"] == 1


def test_a_text_of_many_commas_stays_a_text() -> None:
    text = "a, " * 200
    assert profile({"user_description": text}, Counter())["description"] == text.strip()


def test_missing_values_are_null_and_a_count_of_zero_is_not() -> None:
    row = profile({"photo_firstdate": "None", "photo_count": "0", "ispro": "None", "canbuypro": ""}, Counter())
    assert row["photo_count"] == 0
    assert [row[name] for name in ("photo_first_at", "is_pro", "can_buy_pro", "photo_first_taken")] == [None] * 4


@pytest.mark.parametrize(
    ("stated", "minutes"),
    [("+01:00", 60), ("-08:00", -480), ("+0530", 330), ("+00:00", 0), ("None", None), ("53", None), (53, None)],
)
def test_offsets_are_minutes_and_codes_are_null(stated: object, minutes: int | None) -> None:
    assert offset_minutes(stated, Counter()) == minutes
