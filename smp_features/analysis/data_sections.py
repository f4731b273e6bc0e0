"""The report's sections about data and features: plain values in, sections out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from smp_features.analysis.page import (
    Block,
    Card,
    Cell,
    Folded,
    Gallery,
    Note,
    Section,
    Table,
    short,
    show,
    table,
)
from smp_features.analysis.readings import PERPLEXITY, SIMILARITIES, Extreme
from smp_features.config import Config, ModelSettings
from smp_features.extractors import build_extractors
from smp_features.lake.specs import KNOWN_LATE

STAGE_OF_TABLE = {
    "posts": "ingest: pictures",
    "quarantine": "ingest: source rows refused",
    "attempts": "extract: transient failures, tried again",
}

_LATE = f"{KNOWN_LATE:%Y-%m-%d}"


def data_section(
    config: Config,
    posts: pd.DataFrame,
    coverage: pd.DataFrame,
    profiles: pd.DataFrame,
    trained_on_external: bool | None,
) -> Section:
    """Say which posts there are, what the configuration asked for, when things count as known, what is external.

    Args:
        config: The configuration of this run.
        posts: As of `readings.post_counts`.
        coverage: As of `readings.feature_coverage`.
        profiles: As of `readings.profile_origins`.
        trained_on_external: Whether the champion saw external data; None before training.
    """
    if posts.empty:
        return Section("data", "Data and time rules", missing="No posts yet. `smp ingest` makes this section.")
    columns = ("split", "posts", "labels", "users", "with_picture", "first", "last")
    headers = ("split", "posts", "labels", "users", "with a usable picture", "first post (UTC)", "last post (UTC)")
    return Section(
        "data",
        "Data and time rules",
        (
            table(headers, _rows(posts, columns)),
            table(("setting", "value"), _settings(config), "What the configuration asked for"),
            table(("what", "known at", "basis"), _time_rules(config, profiles), "When each thing counts as known"),
            Note(external_data(config, coverage, trained_on_external)),
        ),
    )


def external_data(config: Config, coverage: pd.DataFrame, trained_on: bool | None) -> str:
    """Return the declaration of external data that the challenge asks for.

    Args:
        config: The configuration of this run.
        coverage: As of `readings.feature_coverage`.
        trained_on: Whether the champion saw external data; None before training.
    """
    shown = int(coverage["external"].sum()) if len(coverage) else 0
    words = {
        None: "No model is trained yet.",
        True: "The champion was trained on some.",
        False: "The champion saw none.",
    }
    if not shown and not trained_on:
        return f"External data used: none; no features hold an external profile count ({_rules(config)} time rules)."
    crawled = config.source.known_at.user_additional
    dated = f"crawled {crawled}" if crawled else "of no stated crawl date"
    return (
        f"External data used: `user_additional.txt`, profile counts {dated}, in the features of {shown:,} of "
        f"{int(coverage['posts'].sum()):,} posts ({_rules(config)} time rules). {words[trained_on]} "
        "Total views crawled after a post contain the views being predicted."
    )


def models_section(config: Config, used: pd.DataFrame) -> Section:
    """Name the frozen models behind the features, with their fingerprints.

    Args:
        config: The configuration of this run.
        used: As of `readings.extractors_in_use`.
    """
    extractors = build_extractors(config.models).values()
    configured = {extractor.name: _in_words(config.models[extractor.model]) for extractor in extractors}
    if used.empty:
        rows: list[list[Cell]] = [[name, text, None, None] for name, text in configured.items()]
        blocks: list[Block] = [table(("extractor", "configured model", "fingerprint", "posts"), rows)]
        return Section(
            "models", "Models", (*blocks, Note("No features yet. `smp extract` and `smp features` make them."))
        )
    rows = []
    folded: list[Block] = []
    for row in _records(used):
        name = row["name"] or "unknown"
        rows.append([name, configured.get(name), row["extractor"], row["posts"]])
        if row["description"]:
            described = json.dumps(json.loads(row["description"]), indent=1, ensure_ascii=False, sort_keys=True)
            folded.append(Folded(f"{name} {row['extractor']}: everything that decides its output", described))
    headers = ("extractor", "configured model", "fingerprint in the features", "posts")
    return Section("models", "Models", (table(headers, rows), *folded))


def coverage_section(
    runs: pd.DataFrame, errors: pd.DataFrame, coverage: pd.DataFrame, names: Mapping[str, str]
) -> Section:
    """Show what every stage was asked for and did, and every error by type.

    Args:
        runs: As of `readings.last_runs`.
        errors: As of `readings.error_counts`.
        coverage: As of `readings.feature_coverage`.
        names: Fingerprint to extractor name.
    """
    if runs.empty:
        return Section("coverage", "Coverage and errors", missing="No stage has run yet. `smp run` runs them all.")
    columns = ("stage", "outcome", "seconds", "wanted", "ok", "failed", "left", "given_up", "computed", "model_loads")
    headers = (
        "stage",
        "last run",
        "s",
        "wanted",
        "ok",
        "permanent errors",
        "left",
        "given up",
        "computed",
        "model loads",
    )
    blocks: list[Block] = [
        table(
            headers,
            _rows(runs.assign(seconds=runs["seconds"].round().astype(int)), columns),
            "Wanted = ok + permanent errors + left + given up, after the last run; computed and loads over all runs",
        )
    ]
    found = [
        [_where(row["table"], row["extractor"], names), _of(row["extractor"], names), row["status"], row["n"]]
        for row in _records(errors)
    ]
    if found:
        blocks.append(table(("where", "extractor", "error", "n"), found, "Everything that is not ok, by type"))
    else:
        blocks.append(Note("No errors: every picture, source row and text could be used."))
    if len(coverage):
        blocks.append(_measure_table(coverage))
    return Section("coverage", "Coverage and errors", tuple(blocks))


def gallery_section(
    most: Sequence[Extreme], least: Sequence[Extreme], thumbnails: Mapping[str, str], shown: bool
) -> Section:
    """Show the posts whose picture and title agree most and least.

    Args:
        most: Most consistent posts.
        least: Least consistent posts.
        thumbnails: Image key to `data:` URI.
        shown: Whether the configuration allows titles and pictures of single posts.
    """
    title = "Most and least consistent posts"
    if not shown:
        return Section("gallery", title, (Note("Switched off by the configuration (`report.gallery`)."),))
    if not most:
        return Section("gallery", title, missing="No similarities yet. `smp extract`, then `smp features` make them.")
    return Section(
        "gallery",
        title,
        (
            Gallery("Most consistent: caption and title say the same", tuple(_card(post, thumbnails) for post in most)),
            Gallery("Least consistent", tuple(_card(post, thumbnails) for post in least)),
        ),
    )


def _card(post: Extreme, thumbnails: Mapping[str, str]) -> Card:
    popularity = "no label" if post.popularity is None else f"popularity {show(post.popularity, 2)}"
    lines = (("title", short(post.title)), ("caption", short(post.caption)), ("pid", post.pid))
    heading = f"similarity {show(post.similarity, 3)} · {popularity}"
    return Card(heading, thumbnails.get(post.image_key or ""), lines)


def _measure_table(coverage: pd.DataFrame) -> Table:
    headers = ("split", "posts", "caption", *SIMILARITIES.values(), "title log-perplexity", "user profile", "external")
    columns = ("split", "posts", "caption", *SIMILARITIES, PERPLEXITY, "user_photo_count", "external")
    return table(headers, _rows(coverage, columns), "Posts that have each measure")


def _settings(config: Config) -> list[list[Cell]]:
    source = f"{config.source.kind}: {config.source.path or 'no path configured'}"
    if config.source.limit is not None:
        source += f" (a pilot: at most {config.source.limit:,} posts of each split)"
    groups = "all" if config.features.groups is None else ", ".join(config.features.groups)
    training = config.training
    return [
        ["source", source],
        ["tables", config.root if config.catalog is None else f"{config.catalog}.{config.schema_name}"],
        ["feature groups trained on", groups],
        ["validation split", f"{training.split}, {training.folds} folds, seed {training.seed}"],
        ["registered model", config.registry.model],
    ]


def _time_rules(config: Config, profiles: pd.DataFrame) -> list[list[Cell]]:
    known_at = config.source.known_at
    crawl = known_at.user_additional
    rows: list[list[Cell]] = [
        ["title, tags, picture, place", "the post's own time", "stated by the source"],
        ["user record (user_data)", "the post's own time", "assumed: the source does not date it"],
        ["label", f"the post's own time + {known_at.label_maturity_days} days", "assumed maturity"],
        [
            "external profile counts (user_additional.txt)",
            str(crawl) if crawl else "later than every post",
            "crawl date, as configured" if crawl else "assumed: no crawl date is configured",
        ],
        ["shown to a post", _rules_in_words(config), f"features.time_rules: {_rules(config)}"],
    ]
    for row in _records(profiles):
        basis = "assumed times" if row["assumed"] else "stated times"
        late = row["first"] >= _LATE
        between = "later than every post" if late else f"{row['first']} … {row['last']}"
        rows.append([f"profiles of origin {row['origin']}", between, f"{row['profiles']:,} rows, {basis}"])
    return rows


def _rules(config: Config) -> str:
    return config.features.time_rules


def _rules_in_words(config: Config) -> str:
    if config.features.time_rules == "strict":
        return "only what was known when it was made"
    return "that, and external profiles whatever their date"


def _in_words(settings: ModelSettings) -> str:
    parts = (getattr(settings, name, None) for name in ("id", "pretrained", "revision", "dtype"))
    return " · ".join(part for part in parts if part) or settings.kind


def _where(table: str, extractor: str, names: Mapping[str, str]) -> str:
    """Return the stage that found an error; a fingerprint that the features are not made with only names its table."""
    return STAGE_OF_TABLE.get(table) or (f"extract/{names[extractor]}" if extractor in names else table)


def _of(extractor: str, names: Mapping[str, str]) -> str:
    return f"{names[extractor]} {extractor}" if extractor in names else extractor or "–"


def _rows(frame: pd.DataFrame, columns: Sequence[str]) -> list[list[Cell]]:
    return [[row[column] for column in columns] for row in _records(frame)]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
