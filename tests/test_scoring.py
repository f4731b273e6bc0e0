"""Submissions in both formats, evaluated against every form that labels come in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from smp_features.errors import SourceError
from smp_features.scoring import evaluate, submission

LABELS = {"11": 3.0, "22": 8.5, "33": 6.25, "44": 1.0}
PREDICTIONS = {"11": 4.0, "22": 7.0, "33": 7.5, "44": 2.0}


def expected() -> dict[str, float]:
    wanted, given = list(LABELS.values()), list(PREDICTIONS.values())
    errors = [abs(a - b) for a, b in zip(wanted, given, strict=True)]
    return {"src": spearmanr(wanted, given).statistic, "mae": sum(errors) / 4, "n": 4, "extra": 0}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"coefficients": {}, "oracle": {"src": 1, "mae": 0}, "test_labels": LABELS}))
    return path


@pytest.fixture
def as_csv(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.csv"
    lines = ["post_id,popularity_score", *(f"post{pid},{score}" for pid, score in PREDICTIONS.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_both_formats_score_alike(tmp_path, truth, as_csv):
    as_json = tmp_path / "predictions.json"
    as_json.write_text(json.dumps(submission(PREDICTIONS, {})))
    assert evaluate(as_json, truth) == pytest.approx(expected())
    assert evaluate(as_csv, truth) == pytest.approx(expected())


def test_labels_may_be_a_mapping_a_table_or_aligned_lines(tmp_path, as_csv):
    mapping = tmp_path / "labels.json"
    mapping.write_text(json.dumps(LABELS))
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(f"{pid},{score}" for pid, score in LABELS.items()))
    lines = tmp_path / "train_label.txt"
    lines.write_text("\r\n".join(str(score) for score in LABELS.values()) + "\r\n")
    paths = "\r\n".join(f'"train/1@N1/{pid}.jpg"' for pid in LABELS)
    (tmp_path / "train_img_filepath.txt").write_text(paths + "\r\n")
    for labels in (mapping, table, lines):
        assert evaluate(as_csv, labels) == pytest.approx(expected())


def test_predictions_without_a_label_are_counted(tmp_path, as_csv):
    some = tmp_path / "some.json"
    some.write_text(json.dumps({pid: LABELS[pid] for pid in ("11", "22", "33")}))
    found = evaluate(as_csv, some)
    assert (found["n"], found["extra"]) == (3, 1)


def test_a_labelled_post_without_a_prediction_is_refused(truth, tmp_path):
    short = tmp_path / "short.csv"
    short.write_text("post11,4.0\npost22,7.0\n")
    with pytest.raises(SourceError, match="lacks 2 of the 4"):
        evaluate(short, truth)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("twice.csv", "post1,2\npost1,3\n", "there twice"),
        ("wide.csv", "a,b,c\n1,2,3\n", "3 columns"),
        ("narrow.csv", "post1\n", "not a file of scores"),
        ("nan.csv", "post1,nan\n", "finite"),
        ("word.csv", "post_id,popularity_score\npost1,high\n", "not a file of scores"),
        ("empty.csv", "", "no scores"),
        ("broken.json", "{", "not a file of scores"),
        ("list.json", "[1]", "not a file of scores"),
        ("train_label.txt", "1.0\n", "is not beside it"),
    ],
)
def test_files_that_are_no_scores_are_refused(tmp_path, truth, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SourceError, match=message):
        evaluate(path, truth)


def test_labels_and_paths_that_are_not_aligned_are_refused(tmp_path, as_csv):
    (tmp_path / "train_label.txt").write_text("1.0\n2.0\n")
    (tmp_path / "train_img_filepath.txt").write_text("train/u/1.jpg\n")
    with pytest.raises(SourceError, match="aligned"):
        evaluate(as_csv, tmp_path / "train_label.txt")


def test_a_missing_file_is_named(tmp_path, truth):
    with pytest.raises(SourceError, match="No such file"):
        evaluate(tmp_path / "nowhere.csv", truth)


def test_external_data_is_declared_as_the_model_was_trained():
    used = submission({"1": 2.0}, {"external_used": "true", "time_rules": "challenge"})["external_data"]
    assert used["used"] is True and "challenge" in used["details"]
    assert submission({"1": 2.0}, {"external_used": "false"})["external_data"]["used"] is False
    assert submission({"1": 2.5}, {})["result"] == [{"post_id": "post1", "popularity_score": 2.5}]
