"""What MLflow is told of a run: parameters, metrics, a model's signature, an example of its input, what it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Metric
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Schema

from smp_features.config import Config
from smp_features.model.boosters import KINDS
from smp_features.model.inputs import Inputs
from smp_features.model.predictor import Predictor
from smp_features.redaction import redacted_values

_REQUIREMENTS = ("mlflow", "numpy", "pandas", "safetensors", "scipy")


def signature(predictor: Predictor) -> ModelSignature:
    """Return the columns a model reads; all but the fingerprints may be null. Vectors are Array(double)."""
    inputs = [ColSpec(DataType.double, name, required=False) for name in predictor.inputs.numbers]
    inputs += [ColSpec(DataType.string, name, required=False) for name in predictor.inputs.vocabularies]
    inputs += [ColSpec(Array(DataType.long), name, required=False) for name in predictor.inputs.buckets]
    inputs += [ColSpec(Array(DataType.double), name, required=False) for name in predictor.inputs.dims]
    inputs += [ColSpec(DataType.string, name) for name in sorted(predictor.fingerprints)]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([ColSpec(DataType.double)]))


def input_example(
    inputs: Inputs, rows: Mapping[str, Any], fingerprints: Mapping[str, str], count: int = 3
) -> pd.DataFrame:
    """Turn a few encoded rows back into rows of `post_features`; no title or id is among the columns."""
    columns: dict[str, Any] = {name: np.asarray(rows[name][:count], dtype=np.float64) for name in inputs.numbers}
    for name, values in inputs.vocabularies.items():
        columns[name] = [values[code] if code >= 0 else None for code in rows[name][:count]]
    for name in inputs.buckets:
        columns[name] = [[int(bucket) for bucket in buckets if bucket >= 0] for buckets in rows[name][:count]]
    for name in inputs.dims:
        there = rows[f"has_{name}"][:count]
        columns[name] = [list(map(float, v)) if has else None for v, has in zip(rows[name][:count], there, strict=True)]
    length = len(rows["row_id"][:count])
    return pd.DataFrame(columns | {name: [value] * length for name, value in fingerprints.items()})


def requirements(predictor: Predictor) -> list[str]:
    """Return the packages that a registered model needs to predict, at the versions that trained it.

    This package is not among them: its code travels with the model (`served_code.py`), and no index has it.
    """
    from importlib.metadata import version

    needed = dict.fromkeys([*_REQUIREMENTS, *(KINDS[member.name].library for member in predictor.regressor.members)])
    return [f"{name}=={version(name)}" for name in needed]


def parameters(config: Config) -> dict[str, str]:
    """Return the configuration that decides features and models as MLflow's parameters, one per key."""
    kept = redacted_values(config.model_dump(mode="json", include={"models", "features", "training", "registry"}))
    kept["registry"].pop("tracking_uri")  # where it is recorded is known there
    found: dict[str, str] = {}

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, below in value.items():
                flatten(f"{prefix}.{name}" if prefix else name, below)
        else:
            found[prefix] = json.dumps(value) if isinstance(value, list) else str(value)

    flatten("", kept)
    return found


def searched(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters that a search decided in place of the configuration."""
    return {} if results["search"] is None else settings_of(results["search"]["best"])


def settings_of(trial: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of one trial of a search, as parameters."""
    return {f"training.regressor.{name}": str(value) for name, value in trial["parameters"].items()}


def metrics(results: Mapping[str, Any]) -> list[Metric]:
    """Return the numbers of `results.json` as MLflow's metrics; its form is described in `experiment.py`."""
    named: list[tuple[str, float | None, int]] = []
    for entry in results["scores"]:
        place = [entry["split"], *([] if entry["model"] == "model" else [entry["model"]])]
        place += [] if entry["segment"] == "all" else [entry["segment"]]
        prefix = "_".join(place).replace(" ", "_")
        named.append((f"{prefix}_n", float(entry["n"]), 0))
        for measure in ("src", "mae", "bias"):
            named += _with_ends(f"{prefix}_{measure}", entry[measure])
    for fold in results["folds"]:
        named += [(f"fold_{name}", fold[name], fold["fold"]) for name in ("n", "src", "mae", "bias")]
        for member, described in fold["members"].items():
            named += [(f"fold_{member}_{what}", described[what], fold["fold"]) for what in ("weight", "rounds")]
    for change in results["leave_out"]:
        for measure in ("delta_src", "delta_mae"):
            named.append((f"without_{change['name']}_{measure}", change[measure]["value"], 0))
    if results["adapter"] is not None:
        for curve in ("train_loss", "stopping_loss", "held_out_loss"):
            named += [(f"adapter_{curve}", value, epoch) for epoch, value in enumerate(results["adapter"][curve])]
    return _as_metrics(named)


def movement_metrics(movement: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Return what `movement.measure` found as MLflow's metrics."""
    named: list[tuple[str, float | None, int]] = []
    for moved in movement:
        prefix = f"moved_{moved['modality']}"
        named += [(f"{prefix}_{count}", float(moved[count]), 0) for count in ("n", "users")]
        named += _with_ends(prefix, moved["moved"])
        for measure in ("shuffled", "difference", "src_raw", "src_adapted", "gain"):
            named += _with_ends(f"{prefix}_{measure}", moved[measure])
    return _as_metrics(named)


def _as_metrics(named: Sequence[tuple[str, float | None, int]]) -> list[Metric]:
    now = 0
    return [Metric(name, float(value), now, step) for name, value, step in named if value is not None]


def _with_ends(name: str, interval: Mapping[str, Any]) -> list[tuple[str, float | None, int]]:
    """Return a value and the ends of its interval, by the names of their metrics."""
    return [(name, interval["value"], 0), (f"{name}_low", interval["low"], 0), (f"{name}_high", interval["high"], 0)]
