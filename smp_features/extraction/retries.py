"""Forgetting failures, so that the next run tries them again."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from smp_features.config import Config
from smp_features.errors import UsageError, nearest
from smp_features.extraction import statuses
from smp_features.extraction.attempts import next_moment
from smp_features.extraction.plan import changed_versions
from smp_features.extractors import build_extractors
from smp_features.extractors.registry import chosen
from smp_features.lake.tables import Lakehouse
from smp_features.runs import Summary


def retry(session: SparkSession, config: Config, stage: str, named: Sequence[str] = (), *, run: str) -> Summary:
    """Forget an extractor's transient failures, and permanent ones of named statuses.

    Args:
        session: A Spark session with Delta.
        config: Decides the fingerprint whose rows are meant.
        stage: Extractor name, with or without `extract/`.
        named: Permanent statuses whose rows are deleted, such as `model_error`.
        run: The run id.

    Raises:
        UsageError: There is no such extractor, or `ok` is named.
    """
    meant = chosen(build_extractors(config.models), [stage.removeprefix("extract/")])
    if len(meant) > 1:
        raise UsageError(f"'{stage}' names several extractors.", nearest("", [each.name for each in meant]))
    (extractor,) = meant
    if statuses.OK in named:
        raise UsageError("Rows with status 'ok' are not failures and are not forgotten.")
    lakehouse = Lakehouse(session, config)
    lakehouse.check_layout()
    fingerprint = extractor.fingerprint
    before = lakehouse.versions([extractor.table, "attempts"])
    reset = {"stage": extractor.name, "status": statuses.RESET, "run": run, "at": next_moment(lakehouse)}
    lakehouse.append("attempts", [reset])
    if named:
        lakehouse.delete(extractor.table, (F.col("extractor") == fingerprint) & F.col("status").isin(*named))
    written = changed_versions(before, lakehouse.versions(before))
    what = f"transient failures and rows with status {', '.join(named)}" if named else "transient failures"
    message = f"{extractor.name}: {what} are forgotten; run `smp extract {extractor.name}` to try them again."
    return Summary(f"retry/{extractor.name}", versions_read=before, versions_written=written, message=message)
