"""Image files are looked up by paths from data, and none leads out of the folder they must lie in."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smp_features.ingest import image_paths
from smp_features.ingest.image_intake import Portion, portions, read_file
from smp_features.ingest.image_paths import ImageFile, look_up, look_up_all
from smp_features.sources.base import ImageRoot


@pytest.fixture
def root(tmp_path: Path) -> ImageRoot:
    """An image folder with one file, and a secret beside it."""
    (tmp_path / "images" / "user").mkdir(parents=True)
    (tmp_path / "images" / "user" / "1.jpg").write_bytes(b"abc")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "images-2").mkdir()
    (tmp_path / "images-2" / "secret.jpg").write_bytes(b"secret")
    return ImageRoot(tmp_path / "images", "train")


def test_a_file_is_found_with_and_without_the_leading_split(root: ImageRoot) -> None:
    path = root.folder / "user" / "1.jpg"
    os.utime(path, ns=(1, 1_425_168_000_123_456_789))
    expected = ImageFile("present", str(path.resolve()), 3, 1_425_168_000_123_456)
    assert look_up(root, "train/user/1.jpg") == expected
    assert look_up(root, "user/1.jpg") == expected


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("train\\user\\1.jpg", "user/1.jpg"),
        (".\\user\\1.jpg", "user/1.jpg"),
        ("./train/user/1.jpg", "user/1.jpg"),
        ("train//user///1.jpg", "user/1.jpg"),
        ("train/./user/./1.jpg", "user/1.jpg"),
        ("user/1.JPG", "user/1.jpg"),
        ("train/user%2F1.jpg", "user/1.jpg"),
        ("user/a%20b%C3%A9.jpg", "user/a b\u00e9.jpg"),
        ("user/a%20b.jpg", "user/a%20b.jpg"),
        ("user/2.jpg", "user/2.JPG"),
        ("user\\1.jpg", "user\\1.jpg"),
        ("user/..x/1.jpg", "user/..x/1.jpg"),
    ],
)
def test_a_path_as_another_system_writes_it_is_found(root: ImageRoot, path: str, file: str) -> None:
    (root.folder / file).parent.mkdir(exist_ok=True)
    (root.folder / file).write_bytes(b"found")
    found = look_up(root, path)
    assert (found.status, found.size, found.path) == ("present", 5, str((root.folder / file).resolve()))


@pytest.mark.parametrize(
    "path",
    [
        "../secret.jpg",
        "train/../../secret.jpg",
        "user/../../secret.jpg",
        "../images-2/secret.jpg",
        "../no-such-file.jpg",
        "nowhere/../../secret.jpg",
        "/etc/passwd",
        "file:///etc/passwd",
        "file:user/1.jpg",
        "https://example.org/1.jpg",
        "C:\\secret.jpg",
        "\\\\host\\secret.jpg",
        "user/1.jpg\0",
        "user%2F..%2F..%2Fsecret.jpg",
        "%2e%2e/secret.JPG",
        "user\\..\\..\\secret.jpg",
        "%2Fetc/passwd",
        "file%3A///etc/passwd",
        "user/1%00.jpg",
        "user",
        "..",
        ".",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(root: ImageRoot, path: str) -> None:
    assert look_up(root, path) == ImageFile("path_refused")


@pytest.mark.parametrize("target", ["secret.jpg", "images-2"])
def test_a_link_out_of_the_folder_is_refused(root: ImageRoot, target: str) -> None:
    link = root.folder / "link"
    link.symlink_to(root.folder.parent / target)
    path = "link" if target.endswith(".jpg") else "link/secret.jpg"
    assert look_up(root, path).status == "path_refused"


def test_links_within_the_folder_and_to_the_folder_are_followed(root: ImageRoot, tmp_path: Path) -> None:
    (root.folder / "again.jpg").symlink_to(root.folder / "user" / "1.jpg")
    (tmp_path / "linked").symlink_to(root.folder)
    assert look_up(root, "again.jpg").status == "present"
    assert look_up(ImageRoot(tmp_path / "linked"), "user/1.jpg").status == "present"


def test_a_pipe_is_not_opened(root: ImageRoot) -> None:
    os.mkfifo(root.folder / "pipe.jpg")
    assert look_up(root, "pipe.jpg").status == "path_refused"


def test_missing_empty_and_too_large_files_have_their_status(root: ImageRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.folder / "empty.jpg").touch()
    assert look_up(root, "user/2.jpg") == ImageFile("missing")
    assert look_up(root, None) == look_up(root, "") == ImageFile("missing")
    assert look_up(root, "x" * 5_000).status == "missing"
    assert look_up(root, "empty.jpg").status == "empty"
    monkeypatch.setattr(image_paths, "MAX_FILE_BYTES", 2)
    assert look_up(root, "user/1.jpg").status == "too_many_bytes"


def test_many_are_looked_up_in_order(root: ImageRoot) -> None:
    paths = ["user/1.jpg", "user/2.jpg", "../x"] * 50
    with ThreadPoolExecutor(4) as threads:
        found = [file.status for file in look_up_all(root, paths, threads)]
        assert found == ["present", "missing", "path_refused"] * 50
        assert look_up_all(root, [], threads) == []


def test_a_file_that_vanished_after_the_look_up_is_missing(root: ImageRoot) -> None:
    row = read_file(str(root.folder / "user" / "gone.jpg"), str(root.folder))
    assert (row["read_status"], row["read_key"], row["bytes"]) == ("missing", None, None)


def test_a_file_that_became_a_link_out_after_the_look_up_is_refused(root: ImageRoot) -> None:
    path = root.folder / "user" / "1.jpg"
    path.unlink()
    path.symlink_to(root.folder.parent / "secret.jpg")
    row = read_file(str(path), str(root.folder))
    assert (row["read_status"], row["bytes"]) == ("path_refused", None)


def test_a_file_that_became_empty_has_no_key(root: ImageRoot) -> None:
    (root.folder / "user" / "1.jpg").write_bytes(b"")
    row = read_file(str(root.folder / "user" / "1.jpg"), str(root.folder))
    assert (row["read_status"], row["read_key"], row["read_size"]) == ("empty", None, 0)


def test_portions_stay_within_files_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smp_features.ingest.image_intake.PORTION_FILES", 10)
    monkeypatch.setattr("smp_features.ingest.image_intake.PORTION_BYTES", 100)
    buckets = [(0, 4, 10), (1, 4, 10), (2, 4, 10), (3, 1, 95), (5, 1, 200), (6, 1, 1)]
    assert portions(buckets) == [
        Portion(0, 1, 8),
        Portion(2, 2, 4),
        Portion(3, 3, 1),
        Portion(5, 5, 1),
        Portion(6, 6, 1),
    ]
    assert portions([]) == []
