"""A file whose lines are moved against the other files is told by what its lines are named after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smp_features.config import SourceConfig
from smp_features.errors import SourceError
from smp_features.sources.base import Refusal
from smp_features.sources.smpd import SmpdSource

MakePost = Callable[..., dict[str, Any]]
POSTS = range(1, 7)


def rows(folder: Any, limit: int | None = None) -> list[Any]:
    return list(SmpdSource(SourceConfig(path=str(folder.path), limit=limit), folder.path).rows("train"))


def change(path: Path, changed: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(f"{line}\n" for line in changed(path.read_text().splitlines())))


@pytest.mark.parametrize(
    ("moved", "line"),
    [
        (lambda lines: lines[1:] + lines[:1], 1),
        (lambda lines: [*lines[1:], "train/9@N01/9.jpg"], 1),
        (lambda lines: [lines[0], *lines[:-1]], 2),
        (lambda lines: [*lines[:3], lines[2], *lines[3:-1]], 4),
        (lambda lines: ["", *lines[:-1]], 2),
        (lambda lines: [*lines[:4], lines[5], lines[4]], 5),
        (lambda lines: lines[::-1], 1),
        (lambda lines: [*lines[:2], lines[1], *lines[3:]], 3),
    ],
    ids=["rotated", "lost at the top", "first twice", "one twice", "blank at the top", "swapped", "reversed", "over"],
)
@pytest.mark.parametrize("spelling", ["train/{0}@N01/{0}.jpg", "train\\{0}@N01\\{0}.JPG", '"{0}.png"'])
def test_paths_named_after_other_posts_are_refused_with_their_line(
    folder: Any, post: MakePost, moved: Callable[[list[str]], list[str]], line: int, spelling: str
) -> None:
    folder.write(*(post(n, path=spelling.format(n)) for n in POSTS))
    change(folder.file("img_filepath.txt"), moved)
    with pytest.raises(SourceError, match=rf"train_img_filepath\.txt:{line}: .* named after the Pid of record"):
        rows(folder)


def test_a_moved_line_is_told_in_a_pilot_too(folder: Any, post: MakePost) -> None:
    folder.write(*(post(n) for n in POSTS))
    change(folder.file("img_filepath.txt"), lambda lines: [lines[0], *lines[:-1]])
    with pytest.raises(SourceError, match=r"train_img_filepath\.txt:2: "):
        rows(folder, limit=3)


def test_pictures_in_the_folders_of_other_users_are_refused(folder: Any, post: MakePost) -> None:
    folder.write(*(post(n, path=f"train/{n}@N01/picture.jpg") for n in POSTS))
    change(folder.file("img_filepath.txt"), lambda lines: lines[1:] + lines[:1])
    with pytest.raises(SourceError, match=r"img_filepath\.txt:1: .* named after the Uid of record 2, not of record 1"):
        rows(folder)


@pytest.mark.parametrize(
    "path",
    [
        "train/{0}@N01/{0}.jpg",
        "train/{0}@N01/picture.jpg",
        "train/7/{0}.jpg",
        "train/1.jpg",
        "img_{0}.jpg",
        "train/{0}/IMG.jpg",
        "train/{0}/{1}.jpg",
        "None",
    ],
)
def test_paths_that_are_named_otherwise_are_no_evidence(folder: Any, post: MakePost, path: str) -> None:
    folder.write(*(post(n, path=path.format(n, n + 700)) for n in POSTS))
    assert [row["pid"] for row in rows(folder)] == list("123456")


def test_a_number_as_a_shard_is_no_users_folder(folder: Any, post: MakePost) -> None:
    folder.write(*(post(n, Uid=str(n), path=f"train/{n % 4}/{n}.jpg") for n in POSTS))
    assert len(rows(folder)) == 6


@pytest.mark.parametrize("heading", ["popularity", '"label"', "pid,label", "# labels"])
@pytest.mark.parametrize("lines_lost", [0, 1])
def test_a_heading_above_labels_is_refused_with_file_and_line(
    folder: Any, post: MakePost, heading: str, lines_lost: int
) -> None:
    folder.write(*(post(n) for n in POSTS))
    change(folder.file("label.txt"), lambda lines: [heading, *lines[: len(lines) - lines_lost]])
    with pytest.raises(SourceError, match=r"train_label\.txt:1: the first line is no label"):
        rows(folder)


@pytest.mark.parametrize("lines_lost", [0, 1])
def test_a_heading_above_paths_is_refused_with_file_and_line(folder: Any, post: MakePost, lines_lost: int) -> None:
    folder.write(*(post(n) for n in POSTS))
    change(folder.file("img_filepath.txt"), lambda lines: ["img_filepath", *lines[: len(lines) - lines_lost]])
    with pytest.raises(SourceError, match=r"train_img_filepath\.txt:1: the first line is no path"):
        rows(folder)


@pytest.mark.parametrize("label", ["nan", "None", ""])
def test_a_missing_first_label_is_a_refused_row_and_no_heading(folder: Any, post: MakePost, label: str) -> None:
    folder.write(post(1, label=label), *(post(n) for n in POSTS[1:]))
    first, *rest = rows(folder)
    assert isinstance(first, Refusal) and first.reason == "bad_label"
    assert [row["popularity"] for row in rest] == [2.5, 3.5, 4.5, 5.5, 6.5]


@pytest.mark.parametrize("record", ["null", "7", "{}", '{"Category": "Animal"}'])
def test_one_record_without_ids_is_a_refused_row(folder: Any, post: MakePost, record: str) -> None:
    path = folder.write(post(1), post(2), post(3)).file("category.json")
    stated = path.read_text().removeprefix("[").removesuffix("]").split("}, {")
    path.write_text(f"[{stated[0]}}}, {record}, {{{stated[2]}]")
    first, refused, last = rows(folder)
    assert (first["pid"], last["pid"]) == ("1", "3")
    assert isinstance(refused, Refusal) and (refused.source_row, refused.reason) == ("train:2", "no_pid")
