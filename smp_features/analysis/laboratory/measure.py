"""Measures the adapters of a registered model, once: how far vectors moved, what that is worth, and figure 5."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smp_features.config import Config
from smp_features.errors import SmpError, SnapshotError
from smp_features.lake.tables import Lakehouse

if TYPE_CHECKING:
    from smp_features.training.registry import Registry, Version
    from smp_features.training.snapshot import Snapshot

logger = logging.getLogger(__name__)


def measure_champion(lakehouse: Lakehouse, config: Config) -> str | None:
    """Measure the champion's adapters and keep the result with its run, unless that was done before.

    Args:
        lakehouse: Holds the snapshot that the champion was trained on, or the training set to export it from.
        config: Its `registry` names the model.

    Returns:
        Why it could not be measured, or kept; None where it was, or where there is nothing to measure.

    Raises:
        StageError: The store cannot be reached.
    """
    from smp_features.training.registry import existing  # MLflow takes seconds to import

    registry = existing(config)
    champion = None if registry is None else registry.champion()
    if registry is None or champion is None or registry.laboratory(champion) is not None:
        return None
    try:
        return _measure(lakehouse, registry, champion)
    except SmpError as error:
        return str(error)


def _measure(lakehouse: Lakehouse, registry: Registry, version: Version) -> str | None:
    from smp_features.analysis.laboratory import movement, tsne
    from smp_features.config import AdapterConfig, TrainingConfig
    from smp_features.training import snapshot as snapshots
    from smp_features.training.nested import FoldAdapters, final_division, identity_divisions
    from smp_features.training.train import epochs_of

    results = registry.results(version)
    if results["adapter"] is None:
        return None
    pairs, predictor = registry.pair_adapters(version), registry.predictor(version)
    if pairs is None or predictor.adapters is None:
        return f"{version} was trained before its adapters were kept. `smp train --force`, then `smp report`, measures."
    logger.info("measuring the adapters of %s", version)
    snapshot = _snapshot(lakehouse, results["snapshot"], version)
    rows, inputs = snapshots.read(snapshot), predictor.inputs
    # As it was trained, whatever is configured now.
    recorded = results["training"]
    adapter = AdapterConfig.model_validate(recorded["adapter"])
    training = TrainingConfig(adapter=adapter, bootstrap=recorded["bootstrap"], seed=recorded["seed"])
    fold = rows["fold"].astype(np.int64)
    final = final_division(fold)
    kept = FoldAdapters(predictor.adapters, pairs, tuple(np.unique(fold[final.train]).tolist()))
    moved = movement.measure(
        rows,
        inputs,
        kept.of,
        lambda columns: epochs_of(snapshot, rows, columns),
        training,
        identity_divisions(fold),
        final,
    )
    placed = tsne.coordinates(rows, predictor.adapters, final.train, fold, training.seed)
    registry.keep_laboratory(version, moved, placed)
    return None


def _snapshot(lakehouse: Lakehouse, key: str, version: Version) -> Snapshot:
    """Return the snapshot that a version was trained on, exported again where the training set still has its rows."""
    from smp_features.training import snapshot as snapshots

    folder = Path(lakehouse.folder("snapshots", key))
    if (folder / snapshots.MANIFEST).exists():
        return snapshots.load(folder)
    present = lakehouse.version("training_set")
    if snapshots.content_key(lakehouse, present) != key:
        raise SnapshotError(
            f"The rows that {version} was trained on are gone: the snapshot {key} was deleted, and the training set "
            "holds other rows now.",
            "`smp train`, then `smp report`, measures a model of these.",
        )
    return snapshots.export(lakehouse, present, key)
