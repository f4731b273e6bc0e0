"""The report's page: its numbers are the tables' numbers, untrusted text stays text, and nothing is fetched."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import spearmanr

from smp_features.analysis import report as report_stage
from smp_features.analysis.cleaning import RULES
from smp_features.analysis.demo_models import demo_model_warning
from smp_features.analysis.measure_sections import MEASURES
from smp_features.analysis.page import Page, Section, Table, render, short, show
from smp_features.analysis.readings import SIMILARITIES, measures
from smp_features.analysis.report import read_truth, report
from smp_features.analysis.results import trained
from smp_features.config import load_config
from smp_features.errors import ConfigError
from smp_features.lake.tables import Lakehouse
from smp_features.metrics import Interval
from smp_features.runs import Summary

NOW = datetime(2026, 1, 2, 3, 4, 5)
SCRIPT = "<script>alert('title')</script>"
LONG = "Sunset & <b>sea</b> " + "very " * 40
TRAIN, TEST = 60, 30


class _Reader(HTMLParser):
    """Collects the page's tables by section, its text, and its references."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.text: list[str] = []
        self._section, self._cell = "", False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag == "section":
            self._section = dict(attrs)["id"]
        elif tag == "table":
            self.tables.setdefault(self._section, []).append([])
        elif tag == "tr":
            self.tables[self._section][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self._section][-1][-1].append("")
        self._cell = tag in ("td", "th")

    def handle_endtag(self, tag):
        self._cell = False

    def handle_data(self, data):
        self.text.append(data)
        if self._cell:
            self.tables[self._section][-1][-1][-1] += data


def _key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (shade, 90, 200 - shade)).save(buffer, "PNG")
    return buffer.getvalue()


def _posts() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    count = TRAIN + TEST
    posts = pd.DataFrame({"pid": [f"p{n:03}" for n in range(count)]})
    posts["split"] = ["train"] * TRAIN + ["test"] * TEST
    # Users of three posts; the first half of the test posts are of users seen in train.
    posts["uid"] = [f"u{n // 3}" if n < TRAIN + TEST // 2 else f"new{n // 3}" for n in range(count)]
    posts.loc[TRAIN : TRAIN + TEST // 2 - 1, "uid"] = [f"u{n}" for n in range(TEST // 2)]
    posts["popularity"] = rng.uniform(1.5, 15, count).round(2)
    posts["predicted"] = (6 + 0.5 * (posts["popularity"] - 6) + rng.normal(size=count)).astype(float)
    for name in SIMILARITIES:
        posts[name] = rng.uniform(-0.2, 0.9, count)
    posts["title_log_perplexity"] = rng.uniform(1, 9, count)
    posts["title"] = [f"secret title {n}" for n in range(count)]
    posts.loc[3, ["title", "caption_title_similarity"]] = [SCRIPT, 0.99]
    posts.loc[4, ["title", "caption_title_similarity"]] = [LONG, 0.98]
    posts.loc[5, [*SIMILARITIES]] = np.nan
    posts["caption"] = "a secret caption"
    posts["image"] = [_png(n % 5) for n in range(count)]
    return posts


def _fill(lakehouse: Lakehouse, posts: pd.DataFrame) -> None:
    rows = posts.to_dict("records")
    fingerprints = {f"{name}_extractor": f"{name}-f1" for name in ("caption", "clip_image", "clip_text", "perplexity")}
    common = {"event_ts": NOW, "known_at": NOW, "computed_at": NOW, "image_status": "ok", "time_rules": "strict"}
    common |= {"title_key": _key(b""), "tags": "", "source_row": "train:1", "row_hash": "h", "features_key": "f"}
    common |= {"inputs_key": "i", **fingerprints}
    lakehouse.append("posts", [common | row | {"image_key": _key(row["image"])} for row in rows])
    lakehouse.append(
        "labels", [{"pid": r["pid"], "popularity": r["popularity"], "known_at": NOW} for r in rows[:TRAIN]]
    )
    lakehouse.append("post_features", [common | {k: None if v != v else v for k, v in row.items()} for row in rows])
    images = {_key(row["image"]): row["image"] for row in rows}
    image = {"width": 300, "height": 200, "format": "PNG", "frames": 1, "status": "ok"}
    lakehouse.append("images", [image | {"image_key": k, "shard": k[0], "bytes": v} for k, v in images.items()])
    lakehouse.append(
        "extractors",
        [
            {"extractor": f"{name}-f1", "name": name, "description": '{"model": "tiny"}', "first_used_at": NOW}
            for name in ("caption", "clip_image", "clip_text", "perplexity")
        ],
    )
    refused = {
        "shard": "a",
        "image_key": "a" * 64,
        "extractor": "caption-f1",
        "status": "truncated",
        "computed_at": NOW,
    }
    lakehouse.append("captions", [refused, refused | {"image_key": "ab" * 32}])
    lakehouse.append("quarantine", [{"source_row": "train:9", "reason": "duplicate_pid", "run": "r"}])
    lakehouse.append(
        "predictions",
        [
            {
                "pid": row["pid"], "model": "smp_popularity", "model_version": "3", "prediction": row["predicted"],
                "features_key": "f", "scored_at": NOW,
            }
            for row in rows[TRAIN:]
        ],
    )  # fmt: skip
    first = Summary("ingest", wanted=80, ok=80, computed=90, model_loads=4)
    again = Summary("ingest", "nothing_to_do", wanted=91, ok=90, failed=1)
    later = NOW + timedelta(hours=1)
    lakehouse.record("run-2", [again], later, later + timedelta(seconds=1))
    lakehouse.record("run-1", [first], NOW, NOW + timedelta(seconds=2))


def _results(posts: pd.DataFrame) -> dict[str, object]:
    def held(value: float | None, low: float | None, high: float | None) -> dict[str, object]:
        return {"value": value, "low": low, "high": high, "level": 0.95, "excludes_zero": False}

    model = {"split": "identity", "model": "model", "segment": "all", "n": TRAIN, "users": 20}
    model |= {"src": held(0.6123, 0.5, 0.7), "mae": held(1.4567, 1.3, 1.6), "bias": held(-0.0321, -0.2, 0.1)}
    median = model | {"model": "median", "src": held(None, None, None), "mae": held(2.0, 1.9, 2.1)}
    unseen = model | {"split": "chronological", "segment": "unseen users", "n": 7, "src": held(0.4, -0.1, 0.8)}
    return {
        "rows": {"labelled": TRAIN, "users": 20, "gate": 0, "gate_users": 0},
        "label": {"median": 7.5, "low": 1.5, "high": 15},
        "headline": model,
        "scores": [model, median, unseen],
        "leave_out": [
            {"name": "picture", "delta_src": held(-0.08, -0.12, -0.04), "delta_mae": held(0.2, 0.1, 0.3)},
            {"name": "user", "delta_src": held(-0.01, -0.03, 0.01), "delta_mae": held(0.0, -0.1, 0.1)},
        ],
        "importance": [
            {"feature": "title_embedding_pca_0", "group": "text", "gain": 30.0},
            {"feature": "user_photo_count", "group": "user", "gain": 10.0},
        ],
        "external_used": False,
    }


def _oof(posts: pd.DataFrame) -> pd.DataFrame:
    return posts.head(TRAIN).rename(columns={"popularity": "actual"})[["pid", "uid", "predicted", "actual"]]


@pytest.fixture(scope="module")
def posts() -> pd.DataFrame:
    return _posts()


@pytest.fixture(scope="module")
def filled(spark, tmp_path_factory, empty_tables, posts):
    """A lakehouse with 90 posts, and a source folder with the truth beside it."""
    folder = tmp_path_factory.mktemp("report")
    source = folder / "posts"
    source.mkdir()
    truth = {
        "oracle": {"src": 0.8, "mae": 1.0},
        "test_labels": dict(zip(posts["pid"][TRAIN:], posts["popularity"][TRAIN:], strict=True)),
    }
    (source / "truth.json").write_text(json.dumps(truth))
    config = load_config(None, [f"source.path={source}", "training.bootstrap=100"], root=str(folder / "lake"))
    shutil.copytree(empty_tables, folder / "lake" / "tables")
    _fill(Lakehouse(spark, config), posts)
    return config


@pytest.fixture(scope="module")
def page(spark, filled, posts) -> str:
    """The report of that lakehouse with a champion."""
    with pytest.MonkeyPatch.context() as patch:
        champion = trained("smp_popularity", "3", _results(posts), _oof(posts))
        patch.setattr(report_stage, "champion_results", lambda config: champion)
        summary = report(spark, filled, run="run-3")
    assert (summary.stage, summary.outcome, summary.wanted, summary.ok) == ("report", "done", 1, 1)
    assert summary.message.endswith("/reports/report.html")
    assert not list(Path(summary.message).parent.glob("*.unfinished"))
    return Path(summary.message).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(page) -> _Reader:
    return _Reader(page)


def test_the_page_fetches_nothing(page, read):
    assert {ref.split(":")[0] if ref.startswith("data:") else ref[:1] for ref in read.references} == {"data", "#"}
    assert read.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "form", "base"})
    assert not re.search(r"https?:|@import|url\(", page)


def test_titles_with_markup_are_shown_as_text_and_cut(page, read):
    assert SCRIPT not in page
    assert "&lt;script&gt;alert" in page
    assert "<b>sea" not in page
    shown = [text for text in read.text if text.startswith("Sunset & <b>sea</b>")]
    assert shown and all(len(text) <= 80 and text.endswith("…") for text in shown)


def test_medians_and_quartiles_in_the_page_are_those_of_the_posts(read, posts):
    labelled = posts.head(TRAIN)
    for column, table in zip(SIMILARITIES, read.tables["similarity"], strict=True):
        assert table[0] == ["interval", "posts", "n", "users", "median [95 %]", "first quartile", "third quartile"]
        for interval, count, n, users, median, *quartiles in table[1:]:
            lower = float(re.search(r"\d+", interval).group())
            upper = 99 if interval.startswith("≥") else lower + 1
            inside = labelled[(labelled["popularity"] >= lower) & (labelled["popularity"] < upper)]
            known = inside.dropna(subset=[column])
            assert [int(count), int(n), int(users)] == [len(inside), len(known), known["uid"].nunique()]
            middle, low, high = (f"{known[column].quantile(q):.3f}".replace("-", "−") for q in (0.5, 0.25, 0.75))
            assert [median.split(" [")[0], *quartiles] == [middle, low, high]
            assert ("[" in median) == (known["uid"].nunique() >= 6)
    assert sum(int(row[1]) for row in read.tables["perplexity"][0][1:]) == TRAIN


def test_the_page_counts_what_cleaning_removes_by_rule_and_by_popularity(read, posts):
    by_rule, by_interval = read.tables["cleaning"]
    train, test = posts.head(TRAIN), posts.tail(TEST)
    threshold = np.quantile(train["title_log_perplexity"], 0.95)
    counts = {row[0]: (row[1], row[3]) for row in by_rule[1:]}
    expected = [str((part["title_log_perplexity"] > threshold).sum()) for part in (train, test)]
    assert counts["high_perplexity"] == counts["any of them"] == tuple(expected)
    assert counts["empty"] == ("0", "0")
    removed = train[train["title_log_perplexity"] > threshold]
    for interval, count, left, share, *_, last in by_interval[1:]:
        lower = int(re.search(r"\d+", interval).group())
        inside = np.minimum(np.floor(train["popularity"]), 13) == lower
        gone = (np.minimum(np.floor(removed["popularity"]), 13) == lower).sum()
        assert [int(count), int(left)] == [inside.sum(), inside.sum() - gone]
        assert share.startswith(f"{100 * gone / inside.sum():.1f} [" if inside.any() else "–")
        assert share.split(" [")[0] == last  # the one rule that was broken


def test_the_page_states_rank_correlations_of_all_posts_and_of_those_left(read, posts):
    train = posts.head(TRAIN)
    kept = train[train["title_log_perplexity"] <= np.quantile(train["title_log_perplexity"], 0.95)]
    for part, table in zip((train, kept), read.tables["correlations"], strict=True):
        rows = {(measure, how): cells for measure, how, *cells in table[1:]}
        assert len(rows) == 12
        for column, measure in MEASURES.items():
            known = part.dropna(subset=[column])
            value = f"{spearmanr(known[column], known['popularity']).statistic:.3f}".replace("-", "−")
            several = known.groupby("uid")["uid"].transform("size") > 1
            overall = rows[measure, "overall"]
            assert overall[0].startswith(f"{value} [") and overall[1] == str(len(known)) and overall[3] == "0"
            for how in ("within users", "adjusted"):
                assert rows[measure, how][1::2] == [str(several.sum()), str((~several).sum())]


def test_flags_are_read_for_every_post_and_titles_stay_behind(spark, filled, posts):
    found = measures(Lakehouse(spark, filled)).set_index("pid").loc[posts["pid"]]
    assert "title" not in found
    assert found["popularity"].notna().tolist() == [True] * TRAIN + [False] * TEST
    assert not found[list(RULES)].any(axis=None)
    assert set(found["event_weekday"]) == {5.0} and found["event_epoch_days"].iloc[0] == pytest.approx(20455.127836)


def test_scores_carry_split_segment_n_and_interval(read):
    rows = read.tables["scores"][0][1:]
    assert rows[0] == [
        "identity", "model", "all", "60", "0.612 [0.500, 0.700]", "1.457 [1.300, 1.600]", "−0.032 [−0.200, 0.100]",
    ]  # fmt: skip
    assert rows[1][1] == "median" and rows[1][4] == "–"
    assert rows[2][:4] == ["chronological", "model", "unseen users", "7"]


def test_a_group_left_out_is_judged_in_plain_words(read):
    rows = read.tables["leave-out"][0][1:]
    assert rows[0] == ["picture", "−0.080 [−0.120, −0.040]", "0.200 [0.100, 0.300]", "costs score"]
    assert [row[-1] for row in rows] == ["costs score", "not distinguishable"]


def test_the_largest_misses_are_the_largest(read, posts):
    oof = _oof(posts)
    worst = (oof["predicted"] - oof["actual"]).abs().nlargest(15).index
    shown = read.tables["predictions"][1][1:]
    assert [row[0] for row in shown] == oof.loc[worst, "pid"].tolist()
    assert [row[2] for row in shown] == [f"{value:.3f}" for value in oof.loc[worst, "predicted"]]


def test_errors_are_stated_by_popularity(read, posts):
    oof = _oof(posts)
    for interval, n, mae, bias in read.tables["predictions"][0][1:-1]:
        off = (oof["predicted"] - oof["actual"])[np.floor(oof["actual"]) == int(interval.split("–")[0])]
        assert [n, mae, bias.replace("−", "-")] == [str(len(off)), f"{off.abs().mean():.3f}", f"{off.mean():.3f}"]


def test_calibration_compares_means_of_equal_bins(read, posts):
    ordered = _oof(posts).sort_values("predicted")
    shown = read.tables["calibration"][0][1:]
    assert len(shown) == 10
    for number, row in enumerate(shown):
        part = ordered.iloc[6 * number : 6 * number + 6]
        assert row[:2] == ["6", f"{part['predicted'].mean():.3f}"]
        assert row[2].startswith(f"{part['actual'].mean():.3f} [")


def test_test_posts_are_scored_against_the_truth_with_seen_and_unseen_users_apart(read, posts):
    test = posts.tail(TEST)
    seen = test["uid"].isin(posts["uid"].head(TRAIN))
    rows = {(row[1], row[2]): row for row in read.tables["truth"][0][1:]}
    assert rows["oracle", "all"][3:6] == [str(TEST), "0.800", "1.000"]
    for segment, part in {"all": test, "seen users": test[seen], "unseen users": test[~seen]}.items():
        row = rows["model", segment]
        src = spearmanr(part["predicted"], part["popularity"]).statistic
        mae = (part["predicted"] - part["popularity"]).abs().mean()
        assert row[3] == str(len(part))
        assert row[4].split(" [")[0] == f"{src:.3f}"
        assert row[5].split(" [")[0] == f"{mae:.3f}"
        low, high = map(float, re.search(r"\[(.*), (.*)\]", row[5]).groups())
        assert low < mae < high
        assert rows["median of the labels", segment][5].startswith(f"{(7.5 - part['popularity']).abs().mean():.3f} [")


def test_errors_are_counted_by_type_and_a_stage_stands_where_its_last_run_left_it(read):
    runs, errors, covered = read.tables["coverage"]
    assert runs[1:] == [["ingest", "nothing_to_do", "1", "91", "90", "1", "0", "0", "90", "4"]]
    assert ["extract/caption", "caption caption-f1", "truncated", "2"] in errors
    assert ["ingest: source rows refused", "–", "duplicate_pid", "1"] in errors
    assert covered[1][:4] == ["train", "60", "60", "59"]


def test_time_rules_that_are_assumptions_are_marked(read):
    rules = {row[0]: row[2] for row in read.tables["data"][2][1:]}
    assert rules["user record (user_data)"].startswith("assumed")
    assert rules["label"].startswith("assumed")
    assert rules["title, tags, picture, place"] == "stated by the source"
    assert any(text.startswith("External data used: none") for text in read.text)


def test_the_gallery_shows_the_most_and_the_least_consistent_posts_with_thumbnails(page, read, posts):
    ordered = posts.dropna(subset=["caption_title_similarity"]).sort_values("caption_title_similarity")
    gallery = page[page.index('id="gallery"') :]
    shown = re.findall(r"<dt>pid</dt><dd[^>]*>(\w+)</dd>", gallery)
    assert shown == [*ordered["pid"].tail(6)[::-1], *ordered["pid"].head(6)]
    assert gallery.count("data:image/jpeg;base64,") == 12


def test_a_page_without_gallery_shows_no_title_caption_or_picture(spark, filled, posts, monkeypatch):
    champion = trained("smp_popularity", "3", _results(posts), _oof(posts))
    monkeypatch.setattr(report_stage, "champion_results", lambda config: champion)
    monkeypatch.setattr(report_stage, "read_truth", lambda config: None)
    private = filled.model_copy(update={"report": filled.report.model_copy(update={"gallery": False})})
    page = Path(report(spark, private, run="run-4").message).read_text(encoding="utf-8")
    for part in ("secret title", "secret caption", "alert(", "Sunset", "image/jpeg"):
        assert part not in page
    assert _Reader(page).tables["predictions"][1][0] == ["pid", "predicted", "actual", "predicted − actual"]
    assert "oracle" not in page  # no truth.json, no oracle


def test_before_anything_ran_every_section_names_the_command_that_makes_it(spark, lakehouse):
    page = Path(report(spark, lakehouse.config, run="run-1").message).read_text(encoding="utf-8")
    for command in ("smp ingest", "smp run", "smp extract", "smp features", "smp train"):
        assert f"<code>{command}</code>" in page
    assert "oracle" not in page


def test_demo_models_are_warned_about_unless_the_posts_were_generated(tmp_path):
    demo = load_config(None, [f"source.path={tmp_path}"])
    assert "mean nothing here" in (demo_model_warning(demo) or "")
    real = [f"models.{name}.id=some/model" for name in ("caption", "clip", "language")]
    assert demo_model_warning(load_config(None, [f"source.path={tmp_path}", *real])) is None
    (tmp_path / "generated.json").write_text("{}")
    assert demo_model_warning(demo) is None


def test_a_truth_file_that_is_named_must_be_one(tmp_path):
    assert read_truth(load_config(None, [f"source.path={tmp_path}"])) is None
    with pytest.raises(ConfigError, match="does not exist"):
        read_truth(load_config(None, [f"report.truth={tmp_path}/other.json"]))
    (tmp_path / "truth.json").write_text('{"oracle": 3}')
    with pytest.raises(ConfigError, match="not a truth file"):
        read_truth(load_config(None, [f"source.path={tmp_path}"]))


def test_cells_read_as_people_write_numbers():
    assert show(1234567) == "1,234,567"
    assert show(-0.5) == "−0.500"
    assert show(float("nan")) == show(None) == "–"
    assert show(Interval(0.5, 0.25, 0.75, 0.95)) == "0.500 [0.250, 0.750]"
    assert show(Interval(2.0, float("nan"), float("nan"), 0.95)) == "2.000"


def test_untrusted_text_loses_control_and_direction_characters():
    assert short("a\u202eb\x00c\nd  e") == "a b c d e"
    assert short(" \n") == "(empty)"
    assert short("x" * 100) == "x" * 79 + "…"


def test_everything_on_a_page_is_escaped():
    bad = "<i>&\"'`<u>`"
    table = Table((bad,), ((bad,),), bad)
    page = render(Page(bad, bad, (bad,), ((bad, bad, bad),), (Section("a", bad, (table,)),)))
    assert "<i>" not in page and "<u>" not in page
