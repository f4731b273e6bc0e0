"""What `generate` writes: the SMPD layout, its quirks, the truth beside it, and nothing that gives the truth away."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, UnidentifiedImageError

from smp_features.demo.generate import CRAWL_DATE, GenerateSummary, generate
from smp_features.errors import UsageError

POSTS = 800
PARTS = ("category", "text", "temporalspatial_information", "additional_information")
SHARED_USER_FIELDS = ("Uid", "Pid", "photo_firstdate", "photo_count", "ispro", "canbuypro", "photo_firstdatetaken")


def _records(out: Path, split: str, part: str) -> list[dict]:
    return json.loads((out / f"{split}_allmetadata_json" / f"{split}_{part}.json").read_text(encoding="utf-8"))


def _both(out: Path, part: str) -> list[dict]:
    return _records(out, "train", part) + _records(out, "test", part)


def _paths(out: Path, split: str) -> list[str]:
    raw = (out / f"{split}_allmetadata_json" / f"{split}_img_filepath.txt").read_bytes().decode().splitlines()
    return [line.strip().strip('"') for line in raw if line]


def _labels(out: Path) -> list[float]:
    return [float(line) for line in (out / "train_allmetadata_json" / "train_label.txt").read_text().split()]


def _contents(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> GenerateSummary:
    return generate(POSTS, tmp_path_factory.mktemp("generated") / "posts", seed=7)


@pytest.fixture(scope="module")
def out(summary: GenerateSummary) -> Path:
    return summary.out


def test_every_metadata_file_holds_the_same_posts_in_the_same_order(out: Path, summary: GenerateSummary) -> None:
    assert summary.train + summary.test == POSTS
    for split, count in (("train", summary.train), ("test", summary.test)):
        expected = [(path.split("/")[1], path.split("/")[2].removesuffix(".jpg")) for path in _paths(out, split)]
        assert len(expected) == count
        for part in (*PARTS, "user_data"):
            assert [(row["Uid"], str(row["Pid"])) for row in _records(out, split, part)] == expected
    assert len({str(row["Pid"]) for row in _both(out, "text")}) == POSTS


def test_only_train_has_labels_and_they_are_scores_of_whole_views(out: Path, summary: GenerateSummary) -> None:
    assert not (out / "test_allmetadata_json" / "test_label.txt").exists()
    lines = (out / "train_allmetadata_json" / "train_label.txt").read_text().splitlines()
    assert len(lines) == summary.train
    for line in lines:
        views = round(2 ** float(line) - 1)
        assert views >= 1
        assert abs(float(line) - np.log2(views + 1)) <= 0.0051


def test_images_lie_where_the_path_files_say_except_the_missing_ones(out: Path, summary: GenerateSummary) -> None:
    listed = {f"images/{path}" for split in ("train", "test") for path in _paths(out, split)}
    present = {str(path.relative_to(out)) for path in out.glob("images/*/*/*")}
    assert present < listed
    assert len(listed - present) == summary.broken_images["missing_file"] > 0


def test_broken_images_are_of_every_kind_and_all_others_open(out: Path, summary: GenerateSummary) -> None:
    found: Counter[str] = Counter()
    for path in out.glob("images/*/*/*"):
        content = path.read_bytes()
        if not content:
            found["zero_bytes"] += 1
            continue
        try:
            Image.open(path).load()
        except UnidentifiedImageError:
            assert content.startswith(b"<!DOCTYPE html")
            found["html"] += 1
        except OSError as error:
            assert "truncated" in str(error)
            found["truncated"] += 1
    found["missing_file"] = summary.broken_images["missing_file"]
    assert dict(found) == summary.broken_images
    assert min(found.values()) >= 1


def test_test_posts_are_later_than_every_train_post_over_sixteen_months(out: Path) -> None:
    train = [int(row["Postdate"]) for row in _records(out, "train", "temporalspatial_information")]
    test = [int(row["Postdate"]) for row in _records(out, "test", "temporalspatial_information")]
    assert max(train) < min(test)
    assert 450 < (max(test) - min(train)) / 86400 < 500


def test_two_thirds_of_test_posts_come_from_users_never_seen_in_train(out: Path, summary: GenerateSummary) -> None:
    seen = {row["Uid"] for row in _records(out, "train", "text")}
    unseen = [row["Uid"] not in seen for row in _records(out, "test", "text")]
    assert np.mean(unseen) == pytest.approx(0.64, abs=0.005)
    assert summary.unseen_user_share == pytest.approx(np.mean(unseen))
    users = {row["Uid"] for row in _both(out, "text")}
    assert summary.users == len(users)
    assert 2.5 < POSTS / len(users) < 3.5


def test_missing_values_come_in_every_spelling(out: Path) -> None:
    places = {(row["Latitude"], row["Longitude"]) for row in _both(out, "temporalspatial_information")}
    assert {("0", ""), ("None", "None"), (None, None)} < places
    with_place = [row for row in _both(out, "temporalspatial_information") if row["Geoaccuracy"] != "0"]
    assert 0.2 < len(with_place) / POSTS < 0.4
    assert any(row["photo_firstdate"] == "None" for row in _both(out, "user_data"))
    assert any(row["Alltags"] == "" for row in _both(out, "text"))


def test_numbers_come_as_strings_and_as_numbers(out: Path) -> None:
    for part, field in (("text", "Pid"), ("temporalspatial_information", "Postdate"), ("user_data", "Pid")):
        kinds = Counter(type(row[field]) for row in _both(out, part))
        assert kinds[str] > kinds[int] > 0


def test_titles_come_under_a_misspelt_key_and_empty_and_as_file_names(out: Path) -> None:
    rows = _both(out, "text")
    assert sum("Tile" in row for row in rows) > 0
    assert all(("Tile" in row) != ("Title" in row) for row in rows)
    titles = [row.get("Title", row.get("Tile")) for row in rows]
    assert "" in titles
    assert any(title.startswith(("IMG_", "DSC", "P10", "MVI_", "PICT")) for title in titles)


def test_users_without_alias_and_a_profile_row_named_none_exist(out: Path) -> None:
    assert any(row["Pathalias"] == "None" for row in _both(out, "additional_information"))
    rows = [line.split(" ") for line in (out / "user_additional.txt").read_text().splitlines()]
    assert all(len(row) == 9 and all(count.isdigit() for count in row[1:]) for row in rows)
    aliases = [row[0] for row in rows]
    assert "None" in aliases
    assert len(set(aliases)) == len(aliases)
    known = {row["Pathalias"] for row in _both(out, "additional_information")}
    assert set(aliases) - known <= {"None"}
    assert 0 < len(known - set(aliases)) < len(known) / 4


def test_total_views_of_a_profile_contain_the_labels_views(out: Path) -> None:
    totals = {line.split(" ")[0]: int(line.split(" ")[1]) for line in (out / "user_additional.txt").open()}
    for row, label in zip(_records(out, "train", "additional_information"), _labels(out), strict=True):
        if row["Pathalias"] != "None" and row["Pathalias"] in totals:
            assert totals[row["Pathalias"]] >= 0.99 * (2**label - 1) - 1


def test_some_paths_are_quoted_and_some_end_in_a_carriage_return(out: Path) -> None:
    raw = b"".join((out / f"{s}_allmetadata_json" / f"{s}_img_filepath.txt").read_bytes() for s in ("train", "test"))
    lines = raw.split(b"\n")
    assert any(line.startswith(b'"') for line in lines)
    assert any(line.endswith(b"\r") for line in lines)


def test_pictures_and_titles_repeat(out: Path) -> None:
    digests = Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("images/*/*/*"))
    repeated = [digest for digest, count in digests.items() if count == 2]
    assert len(repeated) >= POSTS * 0.015
    titles = Counter(row.get("Title", row.get("Tile")) for row in _both(out, "text"))
    assert sum(count - 1 for title, count in titles.items() if title) >= POSTS * 0.008


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    first, again, other = (generate(60, tmp_path / name, seed).out for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert _contents(first) == _contents(again)
    assert _contents(first) != _contents(other)


def test_both_user_data_forms_carry_the_same_values(tmp_path: Path) -> None:
    records = generate(120, tmp_path / "records", seed=5, user_data_form="records").out
    columns = generate(120, tmp_path / "columns", seed=5, user_data_form="columns").out
    for split in ("train", "test"):
        by_row = _records(records, split, "user_data")
        by_column = _records(columns, split, "user_data")
        assert isinstance(by_row, list) and isinstance(by_column, dict)
        for field in SHARED_USER_FIELDS:
            assert [by_column[field][str(place)] for place in range(len(by_row))] == [row[field] for row in by_row]
        assert set(by_row[0]) - set(by_column) == {"timezone_timezone_id"}
        assert set(by_column) - set(by_row[0]) == {"timezone_id"}
        offsets = set(by_column["timezone_offset"].values())
        assert all(len(offset) == 6 and offset[0] in "+-" and offset[3] == ":" for offset in offsets)
        for row in by_row:
            assert row["timezone_offset"].isdigit() and row["timezone_timezone_id"].isdigit()
            for field, length in (("user_description", 399), ("location_description", 400)):
                assert row[field] == "\n" or len([float(value) for value in row[field].split(",")]) == length
        assert any("<" in text for text in by_column["user_description"].values())
    same, differing = _contents(records), _contents(columns)
    assert {name for name in same if same[name] != differing[name]} == {
        "train_allmetadata_json/train_user_data.json",
        "test_allmetadata_json/test_user_data.json",
        "generated.json",
    }


def test_truth_holds_the_test_labels_the_oracle_and_the_planted_effects(out: Path, summary: GenerateSummary) -> None:
    truth = json.loads((out / "truth.json").read_text())
    assert list(truth["test_labels"]) == [str(row["Pid"]) for row in _records(out, "test", "text")]
    assert truth["oracle"] == {"src": summary.oracle_src, "mae": summary.oracle_mae}
    assert 0.78 < summary.oracle_src < 0.92
    assert truth["coefficients"]["inconsistency"] >= 1.5
    assert truth["coefficients"]["gibberish"] < 0
    assert sum(truth["coefficients"]["planned_variance_shares"].values()) == pytest.approx(1)
    assert min(truth["test_labels"].values()) >= 1


def test_generated_json_states_the_crawl_date_and_the_seed(out: Path) -> None:
    described = json.loads((out / "generated.json").read_text())
    assert described["crawl_date"] == CRAWL_DATE > "2016-07-01"
    assert (described["seed"], described["posts"]) == (7, POSTS)


def test_file_size_tells_nothing_of_the_score(out: Path) -> None:
    labels = pd.Series(_labels(out))
    sizes = pd.Series([_size(out / "images" / path) for path in _paths(out, "train")])
    intact = sizes > 5000
    assert abs(sizes[intact].corr(labels[intact], method="spearman")) < 0.12
    assert sizes[intact].between(8_000, 12_100).all()


def _size(path: Path) -> float:
    return path.stat().st_size if path.exists() else float("nan")


def test_row_order_and_pid_tell_nothing_of_score_or_time(out: Path) -> None:
    labels = pd.Series(_labels(out))
    pids = pd.Series([int(row["Pid"]) for row in _records(out, "train", "text")])
    times = pd.Series([int(row["Postdate"]) for row in _records(out, "train", "temporalspatial_information")])
    rows = pd.Series(range(len(labels)))
    uids = pd.Series([int(row["Uid"].split("@")[0]) for row in _records(out, "train", "text")])
    for left, right in ((pids, labels), (rows, labels), (rows, times), (pids, times), (rows, pids), (uids, labels)):
        assert abs(left.corr(right, method="spearman")) < 0.15


def test_progress_is_told_up_to_the_last_post(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    generate(150, tmp_path / "posts", seed=1, progress=lambda done, wanted: told.append((done, wanted)))
    assert told == [(100, 150), (150, 150)]


def test_an_empty_folder_and_what_a_killed_run_left_do_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "posts").mkdir()
    left = tmp_path / ".posts.unfinished" / "images"
    left.mkdir(parents=True)
    assert generate(50, tmp_path / "posts", seed=1).posts == 50
    assert not left.exists()


@pytest.mark.parametrize("posts", [0, 49, -1])
def test_too_few_posts_are_refused(tmp_path: Path, posts: int) -> None:
    with pytest.raises(UsageError, match="at least 50"):
        generate(posts, tmp_path / "posts", seed=1)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_files_is_refused_and_kept(tmp_path: Path) -> None:
    kept = tmp_path / "posts" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(UsageError, match="already holds files"):
        generate(50, kept.parent, seed=1)
    with pytest.raises(UsageError, match="is a file"):
        generate(50, kept, seed=1)
    assert kept.read_text() == "mine"
    assert list(kept.parent.iterdir()) == [kept]


def test_an_unknown_user_data_form_and_a_negative_seed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="user_data form 'rows'"):
        generate(50, tmp_path / "posts", seed=1, user_data_form="rows")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="seed"):
        generate(50, tmp_path / "posts", seed=-1)


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        generate(50, tmp_path / "file" / "posts", seed=1)
