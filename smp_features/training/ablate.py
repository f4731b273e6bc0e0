"""`smp ablate`: a training set's tables of feature groups and adapters, each cell an MLflow run below one for all."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunStatus, RunTag
from pyspark.sql import SparkSession

from smp_features.config import Config
from smp_features.lake.staging import running
from smp_features.lake.tables import Lakehouse
from smp_features.runs import new_run_id
from smp_features.scratch import scratch_until_exit
from smp_features.training import computed
from smp_features.training import snapshot as snapshots
from smp_features.training.ablation import run_ablation
from smp_features.training.experiment import inputs_of
from smp_features.training.records import parameters
from smp_features.training.registry import Registry, reachable
from smp_features.training.train import epochs_of, fingerprints_of, hash_of, training_recipe

logger = logging.getLogger(__name__)

ABLATION_KEY = "ablation_key"
RESULTS = "ablation.json"
PREDICTIONS = "ablation_predictions.parquet"
_COMPUTED = "ablations"
"""The area of staging that holds tables not yet recorded."""

_RESUME = "What was computed is kept; run `smp ablate` again when the server is reachable, and it goes on from there."

MEASURES = ("src", "mae", "bias", "delta_src", "delta_mae")


@dataclass(frozen=True)
class Ablation:
    """A finished table.

    Attributes:
        run: The MLflow run that holds it.
        results: `{splits, versions, snapshot, fingerprints, time_rules}`; `splits` as `ablation.py` describes it, each
            cell with the id of its own `run`.
        made_now: Whether it was computed by this call.
    """

    run: str
    results: dict[str, Any]
    made_now: bool


def ablate(
    session: SparkSession, config: Config, splits: Sequence[str] | None = None, *, force: bool = False
) -> Ablation:
    """Measure what each feature group of the present training set, and each choice of adapter, is worth.

    Nothing is computed where a finished run has the same rows, configuration, code and splits.

    Args:
        session: A Spark session with Delta.
        config: Its `training`, `features` and `registry`.
        splits: On which splits; None takes `training.split`.
        force: Compute it even if there is such a run.

    Raises:
        StageError: There is no training set, it cannot be used, or the tracking server is down (nothing computed is
            lost).
    """
    lakehouse, registry = Lakehouse(session, config), Registry(config)
    names = list(dict.fromkeys(splits or [config.training.split]))
    version = lakehouse.version("training_set")
    content = snapshots.content_key(lakehouse, version)
    key = hash_of([content, training_recipe(config, lakehouse.catalogue), names])
    if not force and (found := next(find(registry, ABLATION_KEY, key), None)) is not None:
        return found
    files, run, work = lakehouse.files, new_run_id(), scratch_until_exit("ablate")
    with running(files, run):
        before = None if force else computed.find(files, _COMPUTED, key)
        if before is None:
            _compute(lakehouse, config, version, content, names, work)
            computed.keep(files, _COMPUTED, run, key, work)  # hours, which a tracking server that dies must not cost
        else:
            logger.info("ablate: the tables were computed before; only recording them is left")
            files.fetch_folder(before, work)
        results = json.loads((work / RESULTS).read_text(encoding="utf-8"))
        recorded = _record(registry, key, results, work / PREDICTIONS)
        computed.forget(files, _COMPUTED, run)
    return Ablation(recorded, results, True)


def _compute(
    lakehouse: Lakehouse, config: Config, version: int, content: str, names: Sequence[str], work: Path
) -> None:
    """Write the results, which know nothing of MLflow's runs yet, and the predictions into a folder."""
    snapshot = snapshots.export(lakehouse, version, content)
    fingerprints = fingerprints_of(lakehouse, version)
    rows = snapshots.read(snapshot)
    results, predictions = run_ablation(
        rows,
        inputs_of(config, lakehouse.catalogue, snapshot),
        config.training,
        lakehouse.catalogue,
        lambda columns: epochs_of(snapshot, rows, columns),
        names,
    )
    results |= {
        "versions": {"training_set": version},
        "snapshot": content,
        "fingerprints": fingerprints,
        "time_rules": config.features.time_rules,
    }
    posts = lakehouse.read("training_set", version).select("row_id", "pid", "uid").toPandas()
    predictions.merge(posts, on="row_id", validate="one_to_one").to_parquet(work / PREDICTIONS)
    (work / RESULTS).write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def find(registry: Registry, tag: str, value: str) -> Iterator[Ablation]:
    """Yield the finished tables with a tag, such as `snapshot`, newest first."""
    query = f"tags.{tag} = '{value}' and tags.kind = 'ablation' and attributes.status = 'FINISHED'"
    with reachable(registry.uri):
        for run in registry.client.search_runs([registry.experiment], query, order_by=["attributes.start_time DESC"]):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(registry.client.download_artifacts(run.info.run_id, RESULTS, folder))
                yield Ablation(run.info.run_id, json.loads(path.read_text(encoding="utf-8")), False)


def newest_by_split(registry: Registry, snapshot: str) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Return each split's newest table over a snapshot: its run, and its cells."""
    found: dict[str, tuple[str, list[dict[str, Any]]]] = {}
    for ablation in find(registry, "snapshot", snapshot):
        for split, cells in ablation.results["splits"].items():
            found.setdefault(split, (ablation.run, cells))
    return found


def table(ablation: Ablation) -> list[dict[str, Any]]:
    """Return the cells as rows to print: scores, and what each changes against the cell it is compared with."""
    return [
        {
            "split": split,
            "table": cell["table"],
            "features": cell["cell"],
            "n": cell["n"],
            "SRC": _number(cell["src"], ".3f"),
            "MAE": _number(cell["mae"], ".3f"),
            "against": cell["against"],
            "SRC change": _change(cell["delta_src"]),
            "MAE change": _change(cell["delta_mae"]),
        }
        for split, cells in ablation.results["splits"].items()
        for cell in cells
    ]


def _number(interval: Mapping[str, Any], form: str) -> str | None:
    return None if interval["value"] is None else format(interval["value"], form)


def _change(interval: Mapping[str, Any] | None) -> str | None:
    if interval is None or interval["value"] is None or interval["low"] is None:
        return None
    noise = "" if interval["excludes_zero"] else " within noise"
    return f"{interval['value']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]{noise}"


def _record(registry: Registry, key: str, results: dict[str, Any], predictions: Path) -> str:
    """Log the table as one run and its cells as runs below it; note the cells' runs in the results."""
    client, common = registry.client, _tags(key, results)
    with reachable(registry.uri, _RESUME):
        cut_off = f"tags.{ABLATION_KEY} = '{key}' and attributes.status = 'RUNNING'"
        for other in client.search_runs([registry.experiment], cut_off):
            client.set_terminated(other.info.run_id, RunStatus.to_string(RunStatus.KILLED))
        parent = client.create_run(registry.experiment, tags=common | {"kind": "ablation"}, run_name="ablation")
        run = str(parent.info.run_id)
        client.log_batch(run, params=[Param(name, value) for name, value in parameters(registry.config).items()])
        for split, cells in results["splits"].items():
            for cell in cells:
                name = f"{split}: {cell['table']}: {cell['cell']}"
                tags = common | {"kind": "ablation cell", "mlflow.parentRunId": run}
                cell["run"] = str(client.create_run(registry.experiment, tags=tags, run_name=name).info.run_id)
                client.log_batch(
                    cell["run"],
                    metrics=_metrics(cell),
                    params=[
                        Param("split", split),
                        Param("table", cell["table"]),
                        Param("cell", cell["cell"]),
                        Param("against", str(cell["against"])),
                        Param("adapted", json.dumps(cell["adapted"])),
                        Param("form", str(cell["form"])),
                        Param("loss", str(cell["loss"])),
                    ],
                    tags=[RunTag("columns", json.dumps(cell["columns"]))],
                )
                client.set_terminated(cell["run"], RunStatus.to_string(RunStatus.FINISHED))
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / RESULTS
            written.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            client.log_artifact(run, str(written))
        client.log_artifact(run, str(predictions))
        client.set_terminated(run, RunStatus.to_string(RunStatus.FINISHED))
    return run


def _tags(key: str, results: Mapping[str, Any]) -> dict[str, str]:
    return {
        ABLATION_KEY: key,
        "snapshot": results["snapshot"],
        "training_set_version": str(results["versions"]["training_set"]),
        "time_rules": results["time_rules"],
        **results["fingerprints"],
    }


def _metrics(cell: Mapping[str, Any]) -> list[Metric]:
    found = [("n", float(cell["n"])), ("users", float(cell["users"]))]
    for measure in MEASURES:
        for name, part in ((measure, "value"), (f"{measure}_low", "low"), (f"{measure}_high", "high")):
            if cell[measure] is not None and cell[measure][part] is not None:
                found.append((name, float(cell[measure][part])))
    return [Metric(name, value, 0, 0) for name, value in found]
