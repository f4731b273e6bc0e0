"""The stage that trains: one training set and one training configuration make one registered model."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from smp_features.catalogue import Catalogue
from smp_features.config import Config
from smp_features.errors import StageError
from smp_features.lake.staging import staged
from smp_features.lake.tables import Lakehouse, canonical_json
from smp_features.model.predictor import fingerprint_columns
from smp_features.runs import Phases, Summary
from smp_features.scratch import scratch_until_exit
from smp_features.training import computed
from smp_features.training import snapshot as snapshots
from smp_features.training.adapter import Arrays, Epoch
from smp_features.training.experiment import inputs_of, run_experiment
from smp_features.training.figures import write_figures
from smp_features.training.records import input_example
from smp_features.training.registry import INPUTS_KEY, PAIR_ADAPTERS, TRAINING_KEY, Registry, Version

logger = logging.getLogger(__name__)

CODE_VERSION = 3
"""Raised whenever this package trains differently on the same rows and configuration; models are then made anew."""

LIBRARIES = ("numpy", "pandas", "scipy", "scikit-learn", "torch", "lightgbm", "catboost", snapshots.READER)
_COMPUTED = "models"
"""The area of staging that holds models not yet registered."""

_REMAKE = "Run `smp features`, then `smp training-set`, for one configuration."


@staged
def train(session: SparkSession, config: Config, *, run: str, force: bool = False) -> Summary:
    """Train, validate, record and register one model, unless that very model is registered already.

    Args:
        session: A Spark session with Delta.
        config: Its `training`, `features` and `registry`.
        run: The run's id, a tag of the MLflow run.
        force: Train even if the model is there.

    Returns:
        wanted, ok, computed: rows of the training set.

    Raises:
        StageError: The tracking server is down (nothing computed is lost), or the training set cannot be used.
        SnapshotError: The rows read are not those of the snapshot.
    """
    lakehouse, phases = Lakehouse(session, config), Phases()
    snapshots.remove_unfinished(lakehouse)
    version = lakehouse.version("training_set")
    with phases("registry"):
        registry = Registry(config)
        inputs_key = hash_of([_table_id(lakehouse), version, training_recipe(config, lakehouse.catalogue)])
        found = None if force else registry.find(INPUTS_KEY, inputs_key)
    if found is not None:
        return _nothing_to_do(registry, found, version, phases)
    with phases("hash"):
        content = snapshots.content_key(lakehouse, version)
        training_key = hash_of([content, training_recipe(config, lakehouse.catalogue)])
    found = None if force else registry.find(TRAINING_KEY, training_key)
    if found is not None:
        registry.tag(found, INPUTS_KEY, inputs_key)
        return _nothing_to_do(registry, found, version, phases)

    work = scratch_until_exit("train") / "model"
    before = None if force else computed.find(lakehouse.files, _COMPUTED, training_key)
    if before is None:
        _compute(lakehouse, config, version, content, training_key, work, phases)
        with phases("stage"):  # so that nothing computed is lost while the tracking server is down
            computed.keep(lakehouse.files, _COMPUTED, run, training_key, work)
    else:
        logger.info("train: the model was computed before; only recording and registering are left")
        lakehouse.files.fetch_folder(before, work)
    results = json.loads((work / "results.json").read_text(encoding="utf-8"))
    tags = {
        TRAINING_KEY: training_key,
        INPUTS_KEY: inputs_key,
        "snapshot": content,
        "run": run,
        "training_set_version": str(results["versions"]["training_set"]),
        "time_rules": results["time_rules"],
        "external_used": str(results["external_used"]).lower(),
        **results["fingerprints"],
    }
    with phases("record"):
        registered = registry.publish(work, tags, anew=force)
        decision = registry.settle(registered)
    shutil.rmtree(work)
    computed.forget(lakehouse.files, _COMPUTED, run)
    rows = sum(results["rows"][name] for name in ("labelled", "gate"))
    return Summary(
        "train",
        wanted=rows,
        ok=rows,
        computed=rows,
        seconds=phases.seconds,
        versions_read={"training_set": version},
        message=f"{registered} ({decision}); {headline(results)}",
        details=details(results),
    )


def training_recipe(config: Config, catalogue: Catalogue) -> dict[str, Any]:
    """Return everything but the rows that decides a model: configuration, features, code and libraries."""
    searching = ("optuna",) if config.training.search.trials else ()
    return {
        "code": CODE_VERSION,
        "libraries": {name: library_version(name) for name in (*LIBRARIES, *searching)},
        "training": config.training.model_dump(mode="json"),
        "features": [(feature.name, feature.group, feature.kind) for feature in catalogue.features],
        "groups": config.features.groups,
        "time_rules": config.features.time_rules,
    }


def headline(results: Mapping[str, Any]) -> str:
    """Return the score that heads the report in one line, with its split and n."""
    return _line(results["headline"])


def details(results: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the other scores, the groups left out, and how to read them, a line each."""
    others = [_line(entry) for entry in results["scores"] if entry != results["headline"]]
    for change in results["leave_out"]:
        src, mae = change["delta_src"], change["delta_mae"]
        others.append(f"without {change['name']}: SRC {_change(src)}, MAE {_change(mae)}")
    if results["search"] is not None:
        others.append(
            f"settings are the best of {len(results['search']['trials'])} trials by out-of-fold error: scores are "
            "optimistic, except the gate's"
        )
    if results["external_used"]:
        others.append("external profiles were used")
    return tuple(others)


def _line(entry: Mapping[str, Any]) -> str:
    segment = "" if entry["segment"] == "all" else f", {entry['segment']}"
    return (
        f"{entry['split']}{segment}, {entry['model']}: SRC {_value(entry['src'])} "
        f"MAE {_value(entry['mae'])} (n {entry['n']:,})"
    )


def _value(interval: Mapping[str, Any]) -> str:
    return "undefined" if interval["value"] is None else f"{interval['value']:.3f}"


def _change(interval: Mapping[str, Any]) -> str:
    if interval["value"] is None or interval["low"] is None:
        return "undefined"
    noise = "" if interval["excludes_zero"] else ", within noise"
    return f"{interval['value']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f}{noise})"


def _compute(
    lakehouse: Lakehouse, config: Config, version: int, content: str, training_key: str, work: Path, phases: Phases
) -> None:
    with phases("export"):
        snapshot = snapshots.export(lakehouse, version, content)
        fingerprints = fingerprints_of(lakehouse, version)
    with phases("read"):
        rows = snapshots.read(snapshot)
    catalogue = lakehouse.catalogue
    inputs = inputs_of(config, catalogue, snapshot)
    with phases("train"):
        made = run_experiment(
            rows, inputs, config, catalogue, lambda columns: epochs_of(snapshot, rows, columns), fingerprints
        )
    results = made.results | {
        "versions": {"training_set": snapshot.version},
        "snapshot": content,
        "training_key": training_key,
    }
    with phases("stage"):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        made.predictor.save(work / "model")
        names = lakehouse.read("training_set", version).select("row_id", "pid", "uid").toPandas()
        for name, frame in (("oof", made.out_of_fold), ("gate", made.gate)):
            frame.merge(names, on="row_id", validate="one_to_one").to_parquet(work / f"{name}_predictions.parquet")
        input_example(inputs, rows, fingerprints).to_parquet(work / "input_example.parquet")
        (work / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        if made.pairs is not None:
            made.pairs.save(work / PAIR_ADAPTERS)
        write_figures(results, made.out_of_fold, work / "figures")


def epochs_of(snapshot: snapshots.Snapshot, rows: snapshots.Columns, columns: Sequence[str]) -> Epoch:
    """Give the rows of a snapshot, and compare their ids with the snapshot's after every epoch."""
    chunk = {name: rows[name] for column in columns for name in (column, f"has_{column}")}
    positions = pd.RangeIndex(len(rows["row_id"])).to_numpy()

    def epoch() -> Iterator[Arrays]:
        yield {"position": positions, **chunk}
        snapshots.verify(snapshot, rows["row_id"][positions].astype("int64"))

    return epoch


def fingerprints_of(lakehouse: Lakehouse, version: int) -> dict[str, str]:
    """Return `*_extractor` to its one value in a version of the training set.

    Raises:
        StageError: It mixes extractors, or was made under other time rules than configured.
    """
    table = lakehouse.read("training_set", version)
    # The table may hold columns of extractors that have left the configuration, which say nothing of its rows.
    columns = fingerprint_columns(lakehouse.spec("training_set").column_names)
    found = table.agg(*(F.collect_set(name).alias(name) for name in (*columns, "time_rules"))).collect()[0]
    for name in columns:
        if len(found[name]) != 1:
            raise StageError(f"The training set mixes {len(found[name])} values of {name}.", _REMAKE)
    configured = lakehouse.config.features.time_rules
    if found["time_rules"] != [configured]:
        raise StageError(
            f"The training set was made under time rules {', '.join(found['time_rules'])}, not {configured}.", _REMAKE
        )
    return {name: str(found[name][0]) for name in columns}


def _nothing_to_do(registry: Registry, found: Version, version: int, phases: Phases) -> Summary:
    decision = registry.settle(found)
    return Summary(
        "train",
        outcome="nothing_to_do",
        seconds=phases.seconds,
        versions_read={"training_set": version},
        message=f"{found} was trained on these rows with this configuration already ({decision})",
    )


def _table_id(lakehouse: Lakehouse) -> str:
    described = (
        lakehouse.session.sql(f"DESCRIBE DETAIL {lakehouse.identifier('training_set')}").select("id").collect()[0]
    )
    return str(described["id"])


def hash_of(parts: Sequence[Any]) -> str:
    """Return a key made of what decides a result: 32 hex digits."""
    return hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()[:32]
