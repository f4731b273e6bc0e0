"""One pass checks and counts the whole source, in flat memory, before anything is published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from small_source import MISSING, write_half

from smp_features.config import SourceConfig
from smp_features.errors import ReconciliationError, SourceError
from smp_features.ingest import scan as ingest_scan
from smp_features.ingest.scan import EXTERNAL_FILES, POST_FILES, REFUSED_FILES, ScanResult, scan
from smp_features.ingest.staged import text_key
from smp_features.runs import Phases
from smp_features.sources.base import RowSource
from smp_features.sources.smpd import SmpdSource


def write(folder: Path, split: str, *posts: dict[str, Any]) -> None:
    filled = [
        {**MISSING, "Uid": f"{post['Pid']}@N01", "Title": "t", "Postdate": 1_425_168_000, "path": "x.jpg", "label": "1"}
        | post
        for post in posts
    ]
    write_half(folder, split, filled)


def scanned(folder: Path, scratch: Path) -> tuple[ScanResult, dict[str, list[Mapping[str, Any]]]]:
    staged: dict[str, list[Mapping[str, Any]]] = {POST_FILES: [], REFUSED_FILES: [], EXTERNAL_FILES: []}

    def stage(name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
        staged[name] += rows

    scratch.mkdir(exist_ok=True)
    (scratch / "ledger.sqlite").unlink(missing_ok=True)
    return scan(SmpdSource(SourceConfig(path=str(folder)), scratch), scratch, "run", Phases(), stage), staged


def test_of_a_repeated_pid_the_first_row_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "p", "train", {"Pid": 1}, {"Pid": 2}, {"Pid": "1"}, {"Pid": 2, "Title": "other"}, {"Pid": 3})
    write(tmp_path / "p", "test", {"Pid": 3}, {"Pid": 1, "Title": "third"}, {"Pid": 4})
    found, staged = scanned(tmp_path / "p", tmp_path / "s")
    assert [(post["pid"], post["source_row"]) for post in staged[POST_FILES]] == [
        ("1", "train:1"),
        ("2", "train:2"),
        ("3", "train:5"),
        ("4", "test:3"),
    ]
    assert [(row["source_row"], row["reason"], row["run"]) for row in staged[REFUSED_FILES]] == [
        ("train:3", "duplicate_pid", "run"),
        ("train:4", "conflicting_pid", "run"),
        ("test:1", "duplicate_pid", "run"),
        ("test:2", "conflicting_pid", "run"),
    ]
    assert found.rows == Counter(train=5, test=3) and found.posts == Counter(train=3, test=1)
    assert found.refused == Counter(duplicate_pid=2, conflicting_pid=2)


def test_the_same_row_with_another_label_is_a_conflict(tmp_path: Path) -> None:
    write(tmp_path / "p", "train", {"Pid": 1, "label": "2"}, {"Pid": 1, "label": "3"})
    found, staged = scanned(tmp_path / "p", tmp_path / "s")
    assert found.refused == Counter(conflicting_pid=1)
    assert staged[POST_FILES][0]["popularity"] == 2.0


def test_a_refused_row_does_not_take_the_place_of_a_good_one(tmp_path: Path) -> None:
    write(tmp_path / "p", "train", {"Pid": 1, "label": "nan"}, {"Pid": 1})
    found, staged = scanned(tmp_path / "p", tmp_path / "s")
    assert found.refused == Counter(bad_label=1)
    assert [post["source_row"] for post in staged[POST_FILES]] == ["train:2"]


def test_users_and_unseen_test_posts_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "p", "train", {"Pid": 1, "Uid": "a"}, {"Pid": 2, "Uid": "a"}, {"Pid": 3, "Uid": "b"})
    write(tmp_path / "p", "test", {"Pid": 4, "Uid": "a"}, {"Pid": 5, "Uid": "c"}, {"Pid": 6, "Uid": "c"})
    found, _ = scanned(tmp_path / "p", tmp_path / "s")
    assert (found.users, found.unseen_test_posts) == (3, 2)


def test_external_profiles_are_staged_once_per_alias(tmp_path: Path) -> None:
    write(tmp_path / "p", "train", {"Pid": 1})
    lines = ["None 9 9 9 9 9 9 9 9", "a 1 1 1 1 1 1 1 1", "b 2 2 2 2 2 2 2 2", "a 3 3 3 3 3 3 3 3"]
    (tmp_path / "p" / "user_additional.txt").write_text("\n".join(lines))
    found, staged = scanned(tmp_path / "p", tmp_path / "s")
    assert [(row["alias"], row["external_views"]) for row in staged[EXTERNAL_FILES]] == [("a", 1), ("b", 2)]
    assert found.external == 2 and found.quirks["external profiles of an alias met before"] == 1


def test_the_size_of_the_batches_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "p", "train", *({"Pid": n % 7 + 1} for n in range(10)))
    whole = scanned(tmp_path / "p", tmp_path / "s")
    monkeypatch.setattr(ingest_scan, "BATCH_ROWS", 3)
    assert scanned(tmp_path / "p", tmp_path / "s") == whole


def test_images_are_looked_up_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "p", "train", {"Pid": 1, "path": "train/1.jpg"}, {"Pid": 2}, {"Pid": 3, "path": "../../x"})
    (tmp_path / "p" / "train").mkdir()
    (tmp_path / "p" / "train" / "1.jpg").write_bytes(b"x")
    found, staged = scanned(tmp_path / "p", tmp_path / "s")
    assert found.images == Counter(present=1, missing=1, path_refused=1)
    assert [post["image_size"] for post in staged[POST_FILES]] == [1, None, None]


def test_a_source_without_rows_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "p", "train")
    with pytest.raises(SourceError, match="holds no posts"):
        scanned(tmp_path / "p", tmp_path / "s")


def test_a_row_lost_on_the_way_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sort_out = ingest_scan._sort_out

    def lose_one(batch: Any, place: Any, split: Any, counts: ScanResult, ledger: Any) -> Any:
        counts.rows[split] += 1
        return sort_out(batch[1:], place, split, counts, ledger)

    monkeypatch.setattr(ingest_scan, "_sort_out", lose_one)
    write(tmp_path / "p", "train", *({"Pid": n} for n in (1, 2, 3)))
    with pytest.raises(ReconciliationError, match="3 source rows of train became 2 posts and 0 refusals"):
        scanned(tmp_path / "p", tmp_path / "s")


class Listed(RowSource):
    """Posts that a test lists."""

    splits = ("train",)  # type: ignore[assignment]
    listed: tuple[dict[str, Any], ...] = ()

    def check(self) -> None:
        pass

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        yield from (
            {"pid": "1", "uid": "a", "event_ts": 1_425_168_000_000_000, "popularity": 1} | row for row in self.listed
        )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"photo_count": "many"}, r"photo_count of a post is not int64 \(ArrowInvalid\)"),
        ({"description_vector": 3}, r"description_vector of a post is not list<item: float>"),
    ],
)
def test_a_value_that_does_not_fit_its_column_is_refused_by_name(tmp_path: Path, row: Any, words: str) -> None:
    def stage(name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
        for field in schema:
            pa.array([row.get(field.name) for row in rows], field.type)

    source = Listed(SourceConfig(kind="listed"), tmp_path)
    source.listed = ({"pid": "0"}, row)
    with pytest.raises(SourceError, match=f"listed: {words}"):
        scan(source, tmp_path, "run", Phases(), stage)


def test_what_no_table_holds_is_repaired_of_any_source(tmp_path: Path) -> None:
    staged: dict[str, list[Any]] = {}

    class Odd(Listed):
        def external_profiles(self) -> Iterator[Any]:
            yield {"alias": "a\ud83d", "external_views": 1}

    source = Odd(SourceConfig(kind="listed"), tmp_path)
    source.listed = ({"pid": "1\udc00", "uid": "a\0", "title": "a\ud83db", "tags": "\ud83d", "image_path": "\udfff"},)
    scan(source, tmp_path, "run", Phases(), lambda name, rows, _: staged.setdefault(name, []).extend(rows))
    (row,) = staged[POST_FILES]
    assert (row["pid"], row["uid"], row["title"]) == ("1\ufffd", "a\ufffd", "a\ufffdb")
    assert (row["tags"], row["image_path"], row["title_key"]) == ("\ufffd", "\ufffd", text_key("a\ufffdb"))
    assert staged[EXTERNAL_FILES][0]["alias"] == "a\ufffd"


def test_rows_of_plain_values_are_numbered_and_completed(tmp_path: Path) -> None:
    staged: list[Any] = []
    source = Listed(SourceConfig(kind="listed"), tmp_path)
    source.listed = ({}, {"pid": "2", "description_vector": [1.0, 2.0]}, {"pid": "2", "description_vector": [1.0, 2.5]})
    found = scan(source, tmp_path, "run", Phases(), lambda name, rows, schema: staged.extend(rows))
    assert found.refused == Counter(conflicting_pid=1) and found.images == Counter(missing=2)
    assert [(row["source_row"], row.get("title"), row.get("image_folder")) for row in staged] == [
        ("train:1", "", None),
        ("train:2", "", None),
        ("train:3", None, None),
    ]
