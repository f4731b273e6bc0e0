"""A submission has the challenge's form, and declares what its predictions were really made from."""

from __future__ import annotations

from dataclasses import replace

from smp_features.scoring.submission import Declaration, submission

NOTHING = Declaration("popularity version 3", "strict", False, 40, 0, (), ("blip", "gpt2"), "user_additional.txt")


def test_the_form_is_the_challenges():
    made = submission({"1": 2.5, "7": 3.0}, NOTHING)
    assert made["version"] == "VERSION 1.2"
    assert made["result"] == [
        {"post_id": "post1", "popularity_score": 2.5},
        {"post_id": "post7", "popularity_score": 3.0},
    ]
    assert made["external_data"] == {
        "used": False,
        "details": "No data beside the challenge's own. Pretrained, not trained further: blip, gpt2.",
    }


def test_counts_trained_on_or_predicted_from_are_declared_with_file_date_rules_and_posts():
    trained = replace(NOTHING, time_rules="challenge", trained_on_external=True, crawled=("2024-03-01",))
    declared = trained.as_json()
    assert declared["used"] is True
    for said in ("user_additional.txt", "crawled 2024-03-01", "challenge time rules", "0 of 40", "gpt2"):
        assert said in declared["details"]
    assert "version 3 was trained on" in declared["details"]
    predicted = replace(NOTHING, predicted_from_external=12).as_json()
    assert predicted["used"] is True
    for said in ("12 of 40", "no stated crawl date", "version 3 was not trained on"):
        assert said in predicted["details"]


def test_a_model_of_metadata_alone_names_no_pretrained_model():
    assert replace(NOTHING, pretrained=()).as_json()["details"] == "No data beside the challenge's own."
