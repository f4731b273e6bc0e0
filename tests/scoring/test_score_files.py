"""Submissions in both formats and labels in every form are read alike, and what is wrong with one is named."""

from __future__ import annotations

import json

import pytest

from smp_features.errors import SourceError
from smp_features.scoring.score_files import counted, read_scores

SCORES = {"11": 3.0, "22": 8.5, "33": 6.25, "44": 1.0}


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def lines(form, header=""):
    return header + "".join(form.format(pid=pid, score=score) + "\n" for pid, score in SCORES.items())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.json", {"result": [{"post_id": f"post{pid}", "popularity_score": s} for pid, s in SCORES.items()]}),
        ("s.json", {"coefficients": {}, "oracle": {"src": 1}, "test_labels": SCORES}),
        ("s.json", SCORES),
        ("s.csv", lines("post{pid},{score}", "post_id,popularity_score\n")),
        ("s.csv", lines("{score},{pid}", "prediction,pid\n")),
        ("s.csv", lines("{pid},{score}", "\ufeffpid,popularity\n")),
        ("s.csv", lines("{pid},{score}") + "\n"),
        ("s.json", [{"post_id": int(pid), "popularity_score": str(s)} for pid, s in SCORES.items()]),
        ("s.json", {"result": [{"popularity_score": s, "post_id": float(pid)} for pid, s in SCORES.items()]}),
        ("s.csv", lines("post{pid}.0,{score}", "post_id,popularity_score\r\n")),
    ],
    ids=[
        "submission", "truth", "mapping", "challenge csv", "other order", "byte-order mark", "no header",
        "entries alone", "ids as numbers", "ids as decimals",
    ],
)  # fmt: skip
def test_every_form_is_read_alike(written, name, content):
    assert read_scores(written(name, content)) == SCORES


def test_labels_in_quotes_and_paths_of_windows_are_read(written):
    written("test_img_filepath.txt", "\r\n".join(f"test\\1@N1\\{pid}.jpg" for pid in SCORES))
    assert read_scores(written("test_label.txt", "\n".join(f'"{score}"' for score in SCORES.values()))) == SCORES


def test_a_file_in_another_encoding_is_told_as_such(tmp_path):
    path = tmp_path / "s.csv"
    path.write_bytes(lines("{pid},{score}").encode("utf-16"))
    with pytest.raises(SourceError, match=r"s\.csv is not UTF-8 text"):
        read_scores(path)


def test_label_lines_take_their_posts_from_the_paths_beside_them(written):
    written("train_img_filepath.txt", "\r\n".join(f'"train/1@N1/{pid}.jpg"' for pid in SCORES) + "\r\n")
    assert read_scores(written("train_label.txt", "\r\n".join(map(str, SCORES.values())) + "\r\n")) == SCORES


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("twice.csv", "post1,2\npost1,3\n2,1\npost2,1\n", r"states 2 posts \(1, 2\) twice"),
        ("twice.json", '{"1": 2, "1": 3}', r"states 1 post \(1\) twice"),
        ("nan.csv", "post1,nan\n2,inf\n3,1\n4,\n5,high\n", r"no finite score for 4 posts \(1, 2, 4 …\)"),
        ("true.json", '{"1": true, "2": NaN}', r"no finite score for 2 posts \(1, 2\)"),
        ("wide.csv", "a,b,c\n1,2,3\n", "has 3 columns: a, b, c"),
        ("unknown.csv", "a,score\n1,2\n", "unknown column 'a'"),
        ("index.csv", ",post_id,popularity_score\n0,1,2\n", r"has 3 columns: \(no name\), post_id"),
        ("semicolon.csv", "post_id;popularity_score\n1;3.1\n", "line 1: a semicolon where a comma should stand"),
        ("comma.csv", "1;3,1\n", "line 1: a semicolon"),
        ("tab.csv", "post_id,popularity_score\n1\t3.1\n", "line 2: a tab"),
        ("decimals.csv", '1,"3,1"\n', "line 1: a comma within a number"),
        ("rounded.csv", "1.00E+03,3.1\n", r"names a post 1\.00E\+03, which a spreadsheet has rounded"),
        ("spellings.csv", "post1,2\n1.0,3\n", r"states 1 post \(1\) twice"),
        ("typo.csv", "post_id,populartiy_score\n1,2\n", "Did you mean 'popularity_score'"),
        ("both.csv", "pid,popularity,prediction\n1,2,3\n", "3 columns: pid, popularity, prediction"),
        ("third.csv", "pid,popularity\n1,2,3\n", "line 2: 3 columns"),
        ("entry.json", {"result": [{"post_id": "1", "score": 2}]}, "entry 1 has no popularity_score"),
        ("nobody.csv", ",2\n", "score 1 belongs to no post"),
        ("empty.csv", "", "no scores"),
        ("broken.json", "{", "not a file of scores"),
        ("list.json", "[1]", "not a file of scores"),
        ("train_label.txt", "1.0\n", "is not beside it"),
    ],
)
def test_files_that_are_no_scores_are_refused_by_name_and_count(written, name, content, message):
    with pytest.raises(SourceError, match=message) as refused:
        read_scores(written(name, content))
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_labels_and_paths_that_are_not_aligned_are_refused(written):
    written("train_img_filepath.txt", "train/u/1.jpg\n")
    with pytest.raises(SourceError, match="aligned"):
        read_scores(written("train_label.txt", "1.0\n2.0\n"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere\.csv cannot be read: No such file"):
        read_scores(tmp_path / "nowhere.csv")


def test_many_posts_are_counted_and_the_first_named():
    assert counted(["1", "2", "1"]) == "2 posts (1, 2)"
    assert counted([str(number) for number in range(1200)]) == "1,200 posts (0, 1, 2 …)"
