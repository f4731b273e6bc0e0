"""The stage `report`: reads the tables and the champion's results, and writes one self-contained HTML page."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession

from smp_features import __version__
from smp_features.analysis import data_sections, measure_sections, model_sections, readings
from smp_features.analysis.adaptation_section import adaptation_section
from smp_features.analysis.demo_models import demo_model_warning
from smp_features.analysis.laboratory.measure import measure_champion
from smp_features.analysis.model_sections import MISSES, Score, Truth
from smp_features.analysis.page import Page, Section, render, show, thumbnail
from smp_features.analysis.results import Trained, champion_results
from smp_features.config import Config
from smp_features.errors import ConfigError
from smp_features.lake.tables import Lakehouse
from smp_features.metrics import Interval
from smp_features.runs import Phases, Summary
from smp_features.summaries import largest_misses

logger = logging.getLogger(__name__)

GALLERY_POSTS = 6
"""Posts at each end of the gallery."""

PAGE = "reports/report.html"
"""The page, under the root."""

_VERSIONED = ("posts", "labels", "post_features", "predictions")


def report(session: SparkSession, config: Config, *, run: str) -> Summary:
    """Write the report to `<root>/reports/report.html`; what was not made yet is replaced by the command that makes it.

    Args:
        session: A Spark session with Delta.
        config: Where the tables are; its `report` section decides on single posts and on the oracle.
        run: The run it belongs to.

    Returns:
        One page wanted, one written; the message is its path.

    Raises:
        ConfigError: `report.truth` names a file that is not a truth file.
        FilesError: The page cannot be written.
    """
    phases = Phases()
    lakehouse = Lakehouse(session, config)
    versions = lakehouse.versions(_VERSIONED)
    truth = read_truth(config)
    with phases("laboratory"):
        unmeasured = measure_champion(lakehouse, config)
    with phases("read_results"):
        trained = champion_results(config)
    with phases("read_tables"):
        page = _compose(lakehouse, config, trained, unmeasured, truth, run, versions)
    with phases("write"):
        path = lakehouse.folder(*PAGE.split("/"))
        lakehouse.files.put(PAGE, render(page))
    logger.info("report written path=%s sections=%d", path, len(page.sections))
    return Summary(
        stage="report", wanted=1, ok=1, computed=1, seconds=phases.seconds, versions_read=versions, message=path
    )


def read_truth(config: Config) -> Truth | None:
    """Read what generated posts know of themselves, where that exists.

    Returns:
        The content of `report.truth`, else of `truth.json` in the source folder, else None.

    Raises:
        ConfigError: `report.truth` does not exist, or the file is not a truth file.
    """
    if config.report.truth is not None:
        path = Path(config.report.truth)
        if not path.is_file():
            raise ConfigError(
                f"report.truth names {path}, which does not exist.", "Leave it out to look in the source."
            )
    elif config.source.path is not None:
        path = Path(config.source.path) / "truth.json"
        if not path.is_file():
            return None
    else:
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        labels = {str(pid): float(label) for pid, label in held["test_labels"].items()}
        return Truth(float(held["oracle"]["src"]), float(held["oracle"]["mae"]), labels)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a truth file: {type(error).__name__}.", "`smp generate` writes one beside the posts."
        ) from error


def _compose(
    lakehouse: Lakehouse,
    config: Config,
    trained: Trained | None,
    unmeasured: str | None,
    truth: Truth | None,
    run: str,
    versions: dict[str, int],
) -> Page:
    posts = readings.post_counts(lakehouse)
    coverage = readings.feature_coverage(lakehouse)
    extractors = readings.extractors_in_use(lakehouse)
    names = dict(zip(extractors["extractor"], extractors["name"], strict=True))
    tested = _test_scores(lakehouse, config, trained, truth)
    external = None if trained is None else trained.external_used
    sections = [
        data_sections.data_section(config, posts, coverage, readings.profile_origins(lakehouse), external),
        data_sections.models_section(config, extractors),
        data_sections.coverage_section(
            readings.last_runs(lakehouse), readings.error_counts(lakehouse), coverage, names
        ),
        *_measure_sections(lakehouse, config),
        *_model_sections(lakehouse, config, trained, unmeasured),
        *([model_sections.truth_section(tested, truth)] if truth is not None else []),
        _gallery(lakehouse, config),
    ]
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    at = ", ".join(f"{table} {version}" for table, version in versions.items())
    warning = demo_model_warning(config)
    return Page(
        title="Social-media popularity: features and model",
        subtitle=f"Made {made} by smp_features {__version__}, run {run}; table versions: {at}.",
        warnings=() if warning is None else (warning,),
        tiles=_tiles(posts, trained, tested, truth),
        sections=tuple(sections),
    )


def _measure_sections(lakehouse: Lakehouse, config: Config) -> list[Section]:
    draws = (config.training.bootstrap, config.training.seed)
    quantile = config.report.perplexity_quantile
    measures = readings.measures(lakehouse)
    flags, threshold = measure_sections.cleaned(measures, quantile)
    return [
        measure_sections.cleaning_section(measures, flags, threshold, quantile),
        measure_sections.similarity_section(measures, draws),
        measure_sections.perplexity_section(measures, draws),
        measure_sections.correlation_section(measures, flags, draws),
    ]


def _model_sections(
    lakehouse: Lakehouse, config: Config, trained: Trained | None, unmeasured: str | None
) -> list[Section]:
    shown = config.report.gallery
    if trained is None:
        return [
            model_sections.scores_section([], ""),
            model_sections.leave_out_section({}, 0),
            model_sections.ablation_section({}),
            adaptation_section(None),
            model_sections.prediction_section(None, {}, shown),
            model_sections.calibration_section(None),
            model_sections.importance_section(None, {}),
        ]
    worst = largest_misses(trained.oof, MISSES)["pid"]
    titles = readings.titles(lakehouse, worst) if shown else {}
    return [
        model_sections.scores_section(trained.scores, trained.note),
        model_sections.leave_out_section(trained.leave_out, len(trained.oof)),
        model_sections.ablation_section(trained.ablations),
        adaptation_section(trained.adaptation, unmeasured),
        model_sections.prediction_section(trained.oof, titles, shown),
        model_sections.calibration_section(trained.oof),
        model_sections.importance_section(trained.importance, trained.group_of),
    ]


def _test_scores(lakehouse: Lakehouse, config: Config, trained: Trained | None, truth: Truth | None) -> list[Score]:
    if trained is None or truth is None:
        return []
    made = readings.predictions(lakehouse, trained.model, trained.version)
    draws = (config.training.bootstrap, config.training.seed)
    return model_sections.test_scores(made, truth, trained.label_median, draws)


def _gallery(lakehouse: Lakehouse, config: Config) -> Section:
    if not config.report.gallery:
        return data_sections.gallery_section((), (), {}, False)
    most, least = (readings.extremes(lakehouse, GALLERY_POSTS, consistent) for consistent in (True, False))
    keys = [post.image_key for post in (*most, *least) if post.image_key is not None]
    return data_sections.gallery_section(most, least, readings.pictures(lakehouse, keys, thumbnail), True)


def _tiles(
    posts: pd.DataFrame, trained: Trained | None, tested: list[Score], truth: Truth | None
) -> tuple[tuple[str, str, str], ...]:
    tiles = []
    if len(posts):
        labelled = int(posts["labels"].sum())
        tiles.append(("posts", show(int(posts["posts"].sum())), f"{labelled:,} with a label"))
    if trained is not None:
        tiles += _score_tiles(trained.head, trained.head.split, f"n\u00a0=\u00a0{trained.head.n:,}")
    if tested and truth is not None:
        tiles += _score_tiles(tested[0], "test", f"oracle: {show(truth.oracle_src)} and {show(truth.oracle_mae)}")
    return tuple(tiles)


def _score_tiles(score: Score, split: str, note: str) -> list[tuple[str, str, str]]:
    values = {f"SRC, {split}": score.src, f"MAE, {split}": score.mae}
    return [
        (name, show(value.value if isinstance(value, Interval) else value), f"{_between(value)}{note}")
        for name, value in values.items()
    ]


def _between(value: Interval | float | None) -> str:
    return f"95 %: {show(value.low)} to {show(value.high)}; " if isinstance(value, Interval) else ""
