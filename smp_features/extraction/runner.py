"""The stage `extract`: per extractor, plan what is missing, have it computed and published, account for every key."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from smp_features.config import Config
from smp_features.errors import ReconciliationError, SmpError, StageError
from smp_features.extraction import statuses
from smp_features.extraction.in_flight import Progress, check_device, compute_missing
from smp_features.extraction.plan import (
    Ledger,
    Plan,
    Scope,
    Work,
    changed_versions,
    keys_by_state,
    make_plan,
    make_plans,
    makers_for,
    read_versions,
    scope_of,
    take_stock,
)
from smp_features.extraction.staging import TEXT_KEY, forget_run, marked, publish, stage_work
from smp_features.extractors import build_extractors
from smp_features.extractors.base import Extractor
from smp_features.extractors.model_places import ModelPlaces
from smp_features.extractors.registry import chosen
from smp_features.lake.staging import running
from smp_features.lake.tables import Lakehouse, canonical_json
from smp_features.runs import Summary
from smp_features.session import has_other_machines
from smp_features.spark_failures import explained

logger = logging.getLogger(__name__)


class ExtractionFailed(StageError):  # noqa: N818 - what happened to the stage
    """One or more extractors failed; what was computed is published.

    Attributes:
        summaries: Of all extractors that ran, failed ones included.
    """

    def __init__(self, message: str, hint: str | None, summaries: Sequence[Summary]) -> None:
        super().__init__(message, hint)
        self.summaries = list(summaries)


def extract(session: SparkSession, config: Config, names: Sequence[str] | None = None, *, run: str) -> list[Summary]:
    """Compute every feature that is missing for the contents that current posts refer to.

    Stages that an earlier run completed are published first. Nothing missing: no model is loaded, no version written.

    Args:
        session: A Spark session with Delta.
        config: `models` decides the extractors, `extraction` how the work is spread.
        names: Only these extractors, or all of these models; None means all, those that make texts first.
        run: The run id, for `attempts` and staging.

    Returns:
        One summary per extractor, named `extract/caption` and so on.

    Raises:
        UsageError: There is no such extractor.
        ModelError: A needed model cannot be loaded; nothing was written.
        DeviceError: A GPU is configured and Spark schedules none; nothing was written.
        ExtractionFailed: Keys do not reconcile, jobs failed, a worker could not load its model or had no GPU, or too
            many inputs are in error; carries the summaries.
    """
    lakehouse = Lakehouse(session, config)
    with running(lakehouse.files, run):
        return _extract(lakehouse, config, names, run)


def _extract(lakehouse: Lakehouse, config: Config, names: Sequence[str] | None, run: str) -> list[Summary]:
    named = build_extractors(config.models)
    wanted = [each.name for each in chosen(named, names)]
    places = _model_places(lakehouse, config)
    configured = named | {name: named[name].pinned(places) for name in wanted}
    extractors = [configured[name] for name in wanted]
    check_device(lakehouse.session, config)

    waiting = marked(lakehouse, wanted)
    versions = read_versions(lakehouse, extractors, configured)
    max_attempts = config.extraction.max_attempts
    plans = make_plans(lakehouse, [scope_of(each, configured, versions, max_attempts) for each in extractors])
    needed = {name for name, plan in plans.items() if plan.ledger.to_compute}
    # New texts are new work for those that read them.
    needed |= {each.name for each in extractors if any(m.name in needed for m in makers_for(each, configured))}
    for extractor in extractors:
        if extractor.name in needed:
            extractor.check()
            _check_outputs(lakehouse, extractor)
    for extractor in extractors:
        if extractor.name in needed:
            extractor.ship()

    published = {marker.name for marker in waiting if publish(lakehouse, configured[marker.name], marker)}
    _describe(lakehouse, [each for each in extractors if each.name in needed])

    summaries: list[Summary] = []
    written = set(published)  # extractors whose tables have changed since the plans were made
    for extractor in extractors:
        plan = plans[extractor.name]
        if written & _may_change(plan, extractors, configured):
            versions = read_versions(lakehouse, [extractor], configured)
            plan = make_plan(lakehouse, scope_of(extractor, configured, versions, max_attempts))
        began, progress = datetime.now(UTC), Progress()
        try:
            with explained(extractor.stage):
                summary = _extract_one(lakehouse, config, plan, run, progress)
        except SmpError as error:
            # Rows as they stood before: what was published since is counted by the next run.
            failed = replace(
                _summarise(config, plan.scope, plan.ledger, progress, {}),
                outcome="failed",
                started_at=began,
                finished_at=datetime.now(UTC),
                message=error.message,
                details=(),
            )
            raise ExtractionFailed(error.message, error.hint, [*summaries, failed]) from error
        summary = replace(summary, started_at=began, finished_at=datetime.now(UTC))
        if extractor.name in published:
            summary = _with_recovered(summary)
        if summary.versions_written:
            written.add(extractor.name)
        summaries.append(summary)
    failures = [summary for summary in summaries if summary.outcome == "failed"]
    if failures:
        hint = "What was computed is published. See `smp errors`; then run the same command again."
        raise ExtractionFailed(" ".join(f"{s.stage}: {s.message}" for s in failures), hint, summaries)
    return summaries


def _may_change(plan: Plan, extractors: Iterable[Extractor], configured: Mapping[str, Extractor]) -> set[str]:
    """Return the extractors whose new rows make a plan out of date: itself, its twins, and those whose texts it reads.

    Twins have the same fingerprint and table, as when one model is configured under two names.
    """
    scope = plan.scope
    twins = {
        each.name
        for each in extractors
        if each.table == scope.extractor.table and each.fingerprint == scope.fingerprint
    }
    return twins | {maker.name for maker in makers_for(scope.extractor, configured)}


def _model_places(lakehouse: Lakehouse, config: Config) -> ModelPlaces:
    ships = config.extraction.ship_models
    if ships is None:
        ships = has_other_machines(lakehouse.session)
    return ModelPlaces(config.extraction.model_folders, lakehouse.files if ships else None)


# -- one extractor ------------------------------------------------------------------------------------------------


def _extract_one(lakehouse: Lakehouse, config: Config, plan: Plan, run: str, progress: Progress) -> Summary:
    scope, ledger, extractor = plan.scope, plan.ledger, plan.scope.extractor
    if not ledger.to_do:
        return _summarise(config, scope, ledger, progress, {})
    before = dict(scope.versions) | lakehouse.versions(["texts"])
    with progress.phases("plan"):
        work = _hold(lakehouse, plan, run)
    if ledger.refused:
        with progress.phases("publish"):
            _publish_refused(lakehouse, scope, work.refused)
        progress.refused += ledger.refused
    if ledger.to_compute:
        compute_missing(lakehouse, config, scope, ledger, work.to_compute, run, progress)
    after = lakehouse.versions(before)
    # Rows are never taken away, so what was done is done; what was left is looked up again in what is there now.
    results = dict(scope.versions) | {table: after[table] for table in (extractor.table, "attempts")}
    with progress.phases("reconcile"):
        states = keys_by_state(lakehouse, replace(scope, versions=results), work)
        final = ledger.after(take_stock(states, listing=False).ledger)
    forget_run(lakehouse, extractor.name, run)
    if final.wanted != ledger.wanted or final.duplicates:
        raise ReconciliationError(
            f"{extractor.name}: {ledger.wanted} keys were wanted, {final.wanted} are accounted for in "
            f"{extractor.table}, and {final.duplicates} of them twice.",
            f"Look for duplicates: SELECT {extractor.key}, extractor, count(*) FROM {extractor.table} GROUP BY ALL.",
        )
    return _summarise(config, scope, final, progress, changed_versions(before, after))


def _hold(lakehouse: Lakehouse, plan: Plan, run: str) -> Work:
    """Return what is to be done; of many keys, worked out anew and written down."""
    if plan.stock.unfinished is not None:
        return Work.of_few(lakehouse.session, plan.stock.unfinished)
    return Work(stage_work(lakehouse, plan.scope.extractor.name, run, plan.unfinished))


def _publish_refused(lakehouse: Lakehouse, scope: Scope, keys: DataFrame) -> None:
    """Give images that were unusable when they were read in their row, with the status found then."""
    extractor = scope.extractor
    spec = lakehouse.spec(extractor.table)
    contents = lakehouse.read(extractor.contents, scope.versions[extractor.contents]).select(
        extractor.key, "status", "error"
    )
    rows = contents.join(keys.withColumnRenamed("key", extractor.key), extractor.key, "left_semi")
    rows = rows.withColumn("extractor", F.lit(scope.fingerprint)).withColumn("computed_at", F.current_timestamp())
    for column in spec.columns:
        if column.name not in (*rows.columns, "shard"):
            rows = rows.withColumn(column.name, F.lit(None).cast(column.sql_type))
    lakehouse.insert_new(extractor.table, rows)


def _describe(lakehouse: Lakehouse, extractors: Sequence[Extractor]) -> None:
    """Note what is behind each fingerprint, the first time it is used."""
    if not extractors:
        return
    known = {row["extractor"] for row in lakehouse.read("extractors").select("extractor").collect()}
    now = datetime.now(UTC)
    rows = [
        (extractor.fingerprint, extractor.name, canonical_json(extractor.description()), now)
        for extractor in extractors
        if extractor.fingerprint not in known
    ]
    if rows:
        lakehouse.insert_new("extractors", lakehouse.session.createDataFrame(rows, lakehouse.schema("extractors")))


def _summarise(config: Config, scope: Scope, ledger: Ledger, progress: Progress, written: Mapping[str, int]) -> Summary:
    extractor = scope.extractor
    wrong = sum(count for status, count in ledger.done.items() if extractor.is_error(status))
    # What timed out or lost its worker has no row: without it, a stage that computed nothing would count no error.
    unresolved = ledger.given_up + ledger.to_compute
    limit = config.extraction.max_error_share
    message = _message(extractor, ledger, progress)
    failed = False
    if ledger.unknown:
        failed = True
        message += f"; {ledger.unknown:,} keys that posts refer to are not in {extractor.contents}: run `smp ingest`"
    if wrong + unresolved > limit * ledger.wanted:
        failed = True
        message += f"; {wrong + unresolved:,} of {ledger.wanted:,} in error"
        message += f" ({unresolved:,} timed out, ran out of memory or lost their worker)" if unresolved else ""
        message += f", more than extraction.max_error_share {limit:g}"
    computed = progress.rows + progress.refused
    worked = bool(computed or written)
    return Summary(
        stage=extractor.stage,
        outcome="failed" if failed else "done" if worked else "nothing_to_do",
        wanted=ledger.wanted,
        ok=ledger.ok,
        failed=ledger.failed,
        left=ledger.to_do,
        given_up=ledger.given_up,
        computed=computed,
        model_loads=progress.loads,
        seconds=progress.phases.seconds,
        versions_read=dict(scope.versions),
        versions_written=dict(written),
        message=message + ".",
        details=tuple(f"{n:,} {status}" for status, n in sorted(ledger.done.items()) if status != statuses.OK),
    )


def _message(extractor: Extractor, ledger: Ledger, progress: Progress) -> str:
    if progress.rows:
        said = f"{extractor.counted(progress.rows)} computed at {progress.rows / progress.computing_s:,.1f} rows/s"
        said += f", {progress.loads} model {'load' if progress.loads == 1 else 'loads'}"
    elif progress.refused:
        said = f"{progress.refused:,} unusable inputs noted"
    else:
        said = f"nothing to do, {extractor.counted(ledger.ok)} {'is' if ledger.ok == 1 else 'are'} there"
    if ledger.failed:
        said += f"; {ledger.failed:,} {'input' if ledger.failed == 1 else 'inputs'} cannot be used"
    if ledger.to_compute:
        said += f"; {ledger.to_compute:,} left after transient failures, run again to try them"
    if ledger.given_up:
        said += f"; {ledger.given_up:,} given up, `smp retry --stage {extractor.name}` to try them again"
    return said


def _with_recovered(summary: Summary) -> Summary:
    outcome = "done" if summary.outcome == "nothing_to_do" else summary.outcome
    return replace(summary, outcome=outcome, message="published what an earlier run had computed; " + summary.message)


def _check_outputs(lakehouse: Lakehouse, extractor: Extractor) -> None:
    given = {"shard", extractor.key, "extractor", TEXT_KEY, "status", "error", "computed_at"}
    expected = tuple(name for name in lakehouse.spec(extractor.table).column_names if name not in given)
    returned = tuple(column.name for column in extractor.outputs)
    if returned != expected:
        raise SmpError(f"Extractor {extractor.name} returns {returned}, and table {extractor.table} holds {expected}.")
