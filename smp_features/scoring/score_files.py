"""Reads files that give posts scores: submissions in both formats, and every form that labels come in."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from smp_features.errors import SourceError, nearest

POST_COLUMNS = ("post_id", "pid")
SCORE_COLUMNS = ("popularity_score", "popularity", "prediction", "label")
"""Names that the two columns of a CSV may have: the challenge's own, and those of the tables."""

_WHOLE = re.compile(r"^(\d+)\.0+$")
"""An id that went through a column of numbers."""

_ROUNDED = re.compile(r"\d+(\.\d+)?[eE]\+?\d+")
_DECIMAL_COMMA = re.compile(r"\s*-?\d+,\d+\s*")
_SEPARATORS = {";": "a semicolon", "\t": "a tab", "|": "a bar"}

NAMED = 3
"""Posts that a message names; the others are counted."""


def read_scores(path: Path) -> dict[str, float]:
    """Return pid to score, in the file's order; a pid's `post` in front is dropped, and a `.0` that made it a number.

    Args:
        path: A submission (`.json`, or a CSV of two columns, with or without a header); the list of its entries alone;
            `truth.json` (its `test_labels`); a JSON object of pid to score; or plain label lines (`…_label.txt`) with
            the aligned `…_img_filepath.txt` beside it.

    Raises:
        SourceError: The file cannot be read, has unknown columns, states a post twice or a value that is no finite
            number; the posts are named and counted.
    """
    scores: dict[str, float] = {}
    twice: list[str] = []
    broken: list[str] = []
    try:
        for pid, value in _pairs(path):
            name = _pid(pid, path)
            if not name or isinstance(pid, bool | list | dict | None):
                raise SourceError(f"{path}: score {len(scores) + 1} belongs to no post.")
            score = _number(value)
            if name in scores:
                twice.append(name)
            elif score is None or not math.isfinite(score):
                broken.append(name)
            scores[name] = math.nan if score is None else score
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not UTF-8 text.", "Save it again in the encoding UTF-8.") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, csv.Error) as error:
        raise SourceError(
            f"{path} is not a file of scores: {type(error).__name__}.", "Expected a submission, JSON or CSV, or labels."
        ) from None
    if twice:
        raise SourceError(f"{path} states {counted(twice)} twice.", "Every post has one score.")
    if broken:
        raise SourceError(f"{path} has no finite score for {counted(broken)}.", "Every score is a finite number.")
    if not scores:
        raise SourceError(f"{path} holds no scores.")
    return scores


def _pid(pid: object, path: Path) -> str:
    """Return a post's name as the tables have it.

    Raises:
        SourceError: A spreadsheet has rounded it.
    """
    name = str(pid).strip().removeprefix("post")
    if _ROUNDED.fullmatch(name):
        raise SourceError(
            f"{path} names a post {name}, which a spreadsheet has rounded.", "Write the posts' ids as text."
        )
    return _WHOLE.sub(r"\1", name)


def counted(pids: Sequence[str]) -> str:
    """Return how many posts these are, and the names of the first: `4 posts (11, 22, 33 …)`."""
    distinct = list(dict.fromkeys(pids))
    more = " …" if len(distinct) > NAMED else ""
    return f"{len(distinct):,} post{'s' * (len(distinct) != 1)} ({', '.join(distinct[:NAMED])}{more})"


def _pairs(path: Path) -> Iterable[tuple[Any, Any]]:
    if path.suffix == ".json":
        return _json_pairs(path)
    return _aligned_pairs(path) if path.suffix == ".txt" else _csv_pairs(path)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, as it is written."""


def _json_pairs(path: Path) -> list[tuple[Any, Any]]:
    # Objects stay lists of pairs, since a dictionary would keep only the last of two scores for one post.
    content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_Pairs)
    if isinstance(content, _Pairs):
        fields = dict(content)
        if "result" not in fields:
            return list(fields.get("test_labels", content))
        content = fields["result"]
    entries = [dict(entry) for entry in content]
    for number, entry in enumerate(entries, 1):
        for name in ("post_id", "popularity_score"):
            if name not in entry:
                raise SourceError(f"{path}: entry {number} has no {name}, but {', '.join(entry) or 'nothing'}.")
    return [(entry["post_id"], entry["popularity_score"]) for entry in entries]


def _csv_pairs(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        post, score = 0, 1
        for number, row in enumerate(csv.reader(file), 1):
            if not row:
                continue
            for separator, named in _SEPARATORS.items():
                if separator in row[0]:
                    raise SourceError(f"{path}, line {number}: {named} where a comma should stand between the columns.")
            if any(_DECIMAL_COMMA.fullmatch(cell) for cell in row):
                raise SourceError(f"{path}, line {number}: a comma within a number.", "Write decimals with a point.")
            if number == 1 and not any(_number(cell) is not None for cell in row[1:]):
                post, score = _columns(path, row)
            elif len(row) != 2:
                raise SourceError(f"{path}, line {number}: {len(row)} columns where two are expected.")
            else:
                yield row[post], row[score]


def _columns(path: Path, header: Sequence[str]) -> tuple[int, int]:
    names = [name.strip().lower() for name in header]
    if len(names) != 2:
        raise SourceError(
            f"{path} has {len(names)} columns: {', '.join(name or '(no name)' for name in names)}.",
            "Expected two: post_id, popularity_score.",
        )
    known = (*POST_COLUMNS, *SCORE_COLUMNS)
    for name in names:
        if name not in known:
            raise SourceError(f"{path} has an unknown column '{name}'.", nearest(name, known))
    posts, scores = ([names.index(name) for name in of if name in names] for of in (POST_COLUMNS, SCORE_COLUMNS))
    if len(posts) != 1 or len(scores) != 1:
        raise SourceError(f"{path} has the columns {', '.join(names)}.", "Expected two: post_id, popularity_score.")
    return posts[0], scores[0]


def _aligned_pairs(path: Path) -> list[tuple[str, str]]:
    beside = path.with_name(path.name.replace("_label", "_img_filepath"))
    values = [value.strip("\"'") for value in path.read_text(encoding="utf-8-sig").split()]
    if beside == path or not beside.exists():
        raise SourceError(
            f"{path} holds labels without posts, and {beside.name} is not beside it.",
            "Put the aligned file of image paths there, or pass a CSV of post and score.",
        )
    lines = beside.read_text(encoding="utf-8-sig").splitlines()
    posts = [line.strip().strip("\"'") for line in lines if line.strip()]
    if len(values) != len(posts):
        raise SourceError(f"{path} holds {len(values)} labels and {beside} {len(posts)} paths; they must be aligned.")
    return [(PureWindowsPath(post).stem, value) for post, value in zip(posts, values, strict=True)]


def _number(value: object) -> float | None:
    """Return a number, also one written as text and one that is not finite; null for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
