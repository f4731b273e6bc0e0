"""A submission is scored as scipy and a pencil score it, over all posts and over each kind of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from smp_features.config import load_config
from smp_features.errors import SourceError
from smp_features.scoring.evaluation import Evaluation, posts_at
from smp_features.scoring.evaluation import evaluate as measure

# pid: uid, category, label, prediction. `ann` and `bob` have train posts, `cat` and `dan` have none.
POSTS = {
    "1": ("ann", "Travel", 3.0, 3.5),
    "2": ("ann", "Travel", 8.5, 8.0),
    "3": ("bob", "Animal", 6.25, 8.25),
    "4": ("bob", None, 1.0, 3.0),
    "5": ("cat", "Animal", 3.5, 4.5),
    "6": ("dan", "Animal", 14.0, 13.0),
    "7": ("dan", "Animal", 13.0, 14.0),
}
TRAIN = {"90": ("ann", "Travel"), "91": ("bob", "Food"), "92": ("eve", "Food")}


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.csv"
    path.write_text("".join(f"post{pid},{given}\n" for pid, (_, _, _, given) in POSTS.items()) + "post99,5\n")
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({pid: label for pid, (_, _, label, _) in POSTS.items()}))
    return path


def evaluate(predictions: Path, labels: Path, posts: Path | None = None) -> Evaluation:
    with posts_at(load_config(), None if posts is None else str(posts)) as source:
        return measure(predictions, labels, source)


def smpd(folder: Path, columns: bool = False) -> Path:
    """An SMPD folder of which only what evaluation reads is filled."""
    for split, posts in (("train", TRAIN), ("test", POSTS)):
        place = folder / f"{split}_allmetadata_json"
        place.mkdir(parents=True)
        records = [{"Uid": row[0], "Pid": pid, "Category": row[1] or "None"} for pid, row in posts.items()]
        as_columns = {
            name: {str(at): record[name] for at, record in enumerate(records)} for name in ("Uid", "Pid", "Category")
        }
        (place / f"{split}_category.json").write_text(json.dumps(as_columns if columns else records))
        for about in ("text", "temporalspatial_information", "additional_information", "user_data"):
            (place / f"{split}_{about}.json").write_text("[]")
        for about in ("img_filepath", "label"):
            (place / f"{split}_{about}.txt").write_text("")
    return folder


def by_hand(*pids: str) -> dict[str, float]:
    wanted, given = [POSTS[pid][2] for pid in pids], [POSTS[pid][3] for pid in pids]
    errors = [b - a for a, b in zip(wanted, given, strict=True)]
    src = None if len(pids) < 2 else spearmanr(wanted, given).statistic
    scores = {"src": src, "mae": sum(map(abs, errors)) / len(pids), "bias": sum(errors) / len(pids)}
    return {"n": len(pids)} | {name: None if value is None else pytest.approx(value) for name, value in scores.items()}


def test_without_the_posts_there_is_one_row(predictions, labels):
    found = evaluate(predictions, labels)
    assert found.rows == [{"segment": "all", "which": "all"} | by_hand(*POSTS)]
    assert found.extra == 1


@pytest.mark.parametrize("columns", [False, True])
def test_with_the_posts_every_segment_is_scored(tmp_path, predictions, labels, columns):
    rows = evaluate(predictions, labels, smpd(tmp_path / "smpd", columns)).rows
    expected = {
        ("all", "all"): ("1", "2", "3", "4", "5", "6", "7"),
        ("users", "seen"): ("1", "2", "3", "4"),
        ("users", "unseen"): ("5", "6", "7"),
        ("interval", "1–2"): ("4",),
        ("interval", "3–4"): ("1", "5"),
        ("interval", "6–7"): ("3",),
        ("interval", "8–9"): ("2",),
        ("interval", "≥ 13"): ("6", "7"),
        ("category", "(none)"): ("4",),
        ("category", "Animal"): ("3", "5", "6", "7"),
        ("category", "Travel"): ("1", "2"),
    }
    assert [(row["segment"], row["which"]) for row in rows] == list(expected)
    for row, pids in zip(rows, expected.values(), strict=True):
        assert {name: row[name] for name in ("n", "src", "mae", "bias")} == by_hand(*pids)
        assert row["users"] == len({POSTS[pid][0] for pid in pids})


def test_intervals_are_over_users_and_need_two(tmp_path, predictions, labels):
    rows = {row["which"]: row for row in evaluate(predictions, labels, smpd(tmp_path / "smpd")).rows}
    # Ann is always 0.5 off, Bob always 2: half of all resamples hold only one of them.
    assert (rows["seen"]["mae_low"], rows["seen"]["mae_high"]) == (0.5, 2.0)
    # Cat and Dan are always 1 off, whoever is drawn.
    assert (rows["unseen"]["mae_low"], rows["unseen"]["mae_high"]) == (1.0, 1.0)
    assert rows["unseen"]["src_low"] < rows["unseen"]["src"] <= rows["unseen"]["src_high"]
    alone = {name: rows["≥ 13"][name] for name in ("src_low", "src_high", "mae_low", "mae_high")}
    assert set(alone.values()) == {None}


def test_train_posts_that_are_scored_do_not_make_their_users_seen(tmp_path, predictions):
    folder = smpd(tmp_path / "smpd")
    held_out = {"90": 4.0, "91": 5.0, "1": 3.0}  # Ann's and Bob's only train posts
    labels, guesses = tmp_path / "held_out.json", tmp_path / "guesses.json"
    for path in (labels, guesses):
        path.write_text(json.dumps(held_out))
    rows = evaluate(guesses, labels, folder).rows
    assert [row["which"] for row in rows if row["segment"] == "users"] == ["unseen"]


def test_labelled_posts_without_a_prediction_are_named_and_counted(tmp_path, labels):
    short = tmp_path / "short.csv"
    short.write_text("post1,4.0\npost2,7.0\n")
    with pytest.raises(SourceError, match=r"lacks 5 posts \(3, 4, 5 …\) of the 7 in"):
        evaluate(short, labels)


def test_labelled_posts_that_are_not_in_the_folder_are_named_and_counted(tmp_path, predictions, labels):
    folder = smpd(tmp_path / "smpd")
    path = folder / "test_allmetadata_json" / "test_category.json"
    path.write_text(json.dumps(json.loads(path.read_text())[2:]))
    with pytest.raises(SourceError, match=r"smpd lacks 2 posts \(1, 2\)"):
        evaluate(predictions, labels, folder)
    with pytest.raises(SourceError, match="does not exist"):
        evaluate(predictions, labels, tmp_path / "smpdd")


def test_a_single_post_is_not_scored(tmp_path, predictions):
    path = tmp_path / "one.json"
    path.write_text('{"1": 2.0}')
    with pytest.raises(SourceError, match="at least two"):
        evaluate(predictions, path)
