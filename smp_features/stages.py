"""The stages in order, and what surrounds each of them: the lock, the tables, the row in `runs`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession

from smp_features.config import Config
from smp_features.errors import SmpError, UsageError, nearest
from smp_features.jvm import SPARK_FAILURES, jvm_has_ended
from smp_features.lake.files import open_store
from smp_features.lake.lock import writing
from smp_features.lake.staging import running
from smp_features.lake.tables import Lakehouse
from smp_features.runs import Summary, new_run_id
from smp_features.spark_failures import cause, explained

logger = logging.getLogger(__name__)

Stage = Callable[..., Summary | list[Summary]]


def _ingest(session: SparkSession, config: Config, **options: Any) -> Summary | list[Summary]:
    from smp_features.ingest.stage import ingest

    return ingest(session, config, **options)


def _extract(session: SparkSession, config: Config, **options: Any) -> Summary | list[Summary]:
    from smp_features.extraction import extract

    return extract(session, config, **options)


def _features(session: SparkSession, config: Config, **options: Any) -> Summary | list[Summary]:
    from smp_features.features.post_features import features

    return features(session, config, **options)


def _training_set(session: SparkSession, config: Config, **options: Any) -> Summary | list[Summary]:
    from smp_features.features.training_set import training_set

    return training_set(session, config, **options)


def _train(session: SparkSession, config: Config, **options: Any) -> Summary | list[Summary]:
    from smp_features.training.train import train

    return train(session, config, **options)


def _score(session: SparkSession, config: Config, **options: Any) -> Summary | list[Summary]:
    from smp_features.scoring.stage import score

    return score(session, config, **options)


def _report(session: SparkSession, config: Config, **options: Any) -> Summary | list[Summary]:
    from smp_features.analysis.report import report

    return report(session, config, **options)


STAGES: dict[str, Stage] = {
    "ingest": _ingest,
    "extract": _extract,
    "features": _features,
    "training-set": _training_set,
    "train": _train,
    "score": _score,
    "report": _report,
}
"""Every stage by its subcommand, in the order of `smp run`; imported when it runs, since torch and MLflow are slow."""


def locked(config: Config) -> AbstractContextManager[None]:
    """Return the right to write that a writing command holds; see `lake/lock.py`.

    Args:
        config: Its `root` and `catalog` say where tables are.
    """
    return writing(config.root, config.catalog)


def run_stage(
    session: SparkSession, config: Config, name: str, *, run: str | None = None, **options: Any
) -> list[Summary]:
    """Run one stage under the root's lock and record what it did in `runs`.

    Args:
        session: A Spark session with Delta.
        config: The configuration.
        name: A name of `STAGES`.
        run: The run it belongs to; None starts a new one.
        **options: Passed to the stage.

    Returns:
        One summary per recorded step; `extract` has one per extractor.

    Raises:
        UsageError: There is no such stage, or the input was refused; nothing was written, not even to `runs`.
        SmpError: What else the stage raised; a failed step is recorded too.

    Example:
        >>> from pathlib import Path
        >>> from smp_features.config import load_config
        >>> from smp_features.demo.generate import generate
        >>> posts = generate(60, Path(config.root).parent / "posts", seed=1)
        >>> config = load_config(None, [f"source.path={posts.out}"], config.root)
        >>> [summary.ok for summary in run_stage(spark, config, "ingest")]
        [60]
    """
    if name not in STAGES:
        raise UsageError(f"There is no stage '{name}'.", nearest(name, STAGES))
    run = run or new_run_id()
    if options.get("dry_run"):
        return _as_list(STAGES[name](session, config, run=run, **options))
    with locked(config), running(open_store(config.root), run):
        lakehouse = Lakehouse(session, config)
        with explained(name):
            lakehouse.check_layout()
        started = datetime.now(UTC)
        try:
            with explained(name):
                summaries = _as_list(STAGES[name](session, config, run=run, **options))
        except UsageError:
            raise
        except SmpError as error:
            # Extraction fails with what each extractor did; other stages fail as one step.
            failed = getattr(error, "summaries", None) or [Summary(name, "failed", message=error.message)]
            try:
                if not jvm_has_ended() and lakehouse.exists("runs"):
                    lakehouse.record(run, failed, started, datetime.now(UTC))
            except SPARK_FAILURES as another:  # such as a full disk, which is what failed the stage
                logger.warning("what failed could not be noted in runs: %s", cause(str(another)))
            raise
        lakehouse.record(run, summaries, started, datetime.now(UTC))
    return summaries


def run_all(
    session: SparkSession, config: Config, on_summary: Callable[[Summary], None] = lambda _: None
) -> list[Summary]:
    """Run every stage in order under one run id.

    Args:
        session: A Spark session with Delta.
        config: The configuration.
        on_summary: Called after each step, to show it.
    """
    run = new_run_id()
    done: list[Summary] = []
    with locked(config):
        for name in STAGES:
            for summary in run_stage(session, config, name, run=run):
                on_summary(summary)
                done.append(summary)
    return done


def _as_list(result: Summary | Iterable[Summary]) -> list[Summary]:
    return [result] if isinstance(result, Summary) else list(result)
