"""One training experiment: every score the report shows, and the final model, from one snapshot's columns.

`results.json`, as `run_experiment` returns it:

- `rows`: `{labelled, users, gate, gate_users}`; `label`: `{median, low, high}` over the rows trained on
- `headline`: the entry of `scores` for the configured split
- `scores`: `[{split, model, segment, n, users, src, mae, bias}]`, where `src`, `mae` and `bias` are
  `{value, low, high, level, excludes_zero}` (bootstrap over users); split: `identity`, `chronological`,
  `later_unseen`, `rolling`, `random_optimistic` or `gate`; model: `model`, `adapter only`, `metadata only` or `median`;
  segment: `all`, `seen users` or `unseen users`
- `folds`: `[{fold, n, src, mae, bias, members}]` of split `identity`; `members`: booster to `{weight, rounds}`
- `intervals`: `[{low, high, n, mae, bias}]` by popularity, split `identity`; `high` is null for the merged tail
- `leave_out`: `[{name, columns, src, mae, delta_src, delta_mae}]`; deltas are without the group minus with it
- `members`: those of the final model
- `importance`: `[{feature, group, gain}]` of the final model, shares of the gain, largest first
- `adapter`: `{form, loss, ratios, count, kept, train_loss, stopping_loss, held_out_loss}`, losses by epoch, as
  `adapter.Curve` describes them over all adapters of the run; `kept`: the epoch each of them kept; null without vectors
- `search`: `{trials, best}` as `search.search` describes them, null without a search. The best settings are those of
  every model of the experiment, so the scores of all splits but `gate`, whose rows no choice has seen, are optimistic
- `training`: the configuration of training
- `external_used`: whether any external profile was among the rows trained on; `time_rules`; `fingerprints`
- `versions`: table to Delta version; `snapshot`; `training_key`
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smp_features.catalogue import BUCKETS, Catalogue, Lookup
from smp_features.config import Config, TrainingConfig
from smp_features.errors import StageError
from smp_features.metrics import Bootstrap, by_interval, finite, points, undefined
from smp_features.model.adapter_weights import Adapters, Floats
from smp_features.model.encoders import ADAPTER_SCORE, source_of
from smp_features.model.inputs import Columns, Inputs
from smp_features.model.predictor import Predictor
from smp_features.model.regressor import Regressor
from smp_features.progress import reporter
from smp_features.training import search
from smp_features.training.adapter import Epoch
from smp_features.training.nested import (
    MEDIAN,
    Division,
    Fitted,
    Nest,
    cross_fit,
    divisions_of,
    final_division,
    held_out_of,
    identity_divisions,
    medians,
    seen_of,
)
from smp_features.training.snapshot import Snapshot

logger = logging.getLogger(__name__)

LEAST_USERS = 10
"""Users below which nothing can be validated."""


@dataclass(frozen=True)
class Experiment:
    """What came out.

    Attributes:
        results: As the module describes, without what only the caller knows.
        out_of_fold: One row per row trained on: `row_id`, `fold`, `actual`, `predicted`, `adapter_score`,
            `metadata_only`, `chronological` (null for rows not held out there) and `without_<name>`.
        gate: One row per gate row: `row_id`, `user`, `actual`, `predicted` by the final model.
        predictor: The final model.
        pairs: Adapters of the cross-validation, `FoldAdapters.pairs`; None when no vector is adapted.
    """

    results: dict[str, Any]
    out_of_fold: pd.DataFrame
    gate: pd.DataFrame
    predictor: Predictor
    pairs: Adapters | None


def inputs_of(config: Config, catalogue: Catalogue, snapshot: Snapshot, leave_out: Sequence[str] = ()) -> Inputs:
    """Return the columns that the configured feature groups, less those left out, give a model."""
    features = catalogue.selected(config.features.groups, leave_out)
    return Inputs(
        numbers=tuple(feature.name for feature in features if feature.kind == "number"),
        dims={feature.name: snapshot.dims[feature.name] for feature in features if feature.kind == "vector"},
        vocabularies={f.name: snapshot.vocabularies[f.name] for f in features if f.kind == "category"},
        buckets={f.name: BUCKETS for f in features if f.kind == "buckets"},
        content=frozenset(feature.name for feature in features if feature.made is not None),
        images=frozenset(f.name for f in features if isinstance(f.made, Lookup) and f.made.of == "image"),
    )


def check_rows(rows: Columns) -> None:
    """Refuse rows of which nothing can be learned or validated.

    Raises:
        StageError: Too few users outside the gate, or all their labels are equal.
    """
    trained = rows["fold"].astype(np.int64) >= 0
    users = len(np.unique(rows["user"][trained]))
    if users < LEAST_USERS:
        raise StageError(
            f"The training set holds {int(trained.sum())} rows of {users} users outside the gate; "
            f"at least {LEAST_USERS} users are needed.",
            "Ingest more labelled posts.",
        )
    if np.ptp(rows["popularity"][trained].astype(np.float64)) == 0:
        raise StageError(
            "All labels of the training set are equal, so there is nothing to learn.",
            "Ingest posts whose labels differ.",
        )


def run_experiment(
    rows: Columns,
    inputs: Inputs,
    config: Config,
    catalogue: Catalogue,
    epochs: Callable[[Sequence[str]], Epoch],
    fingerprints: Mapping[str, str],
) -> Experiment:
    """Validate on every split, measure the groups left out, and fit the final model.

    Args:
        rows: Columns of the snapshot.
        inputs: Those a model sees.
        config: Of training.
        catalogue: Names the groups of columns.
        epochs: Makes the source of adapter epochs for some vector columns.
        fingerprints: `*_extractor` to its value, for the model to refuse others.

    Raises:
        StageError: Too few users or labels to validate on.
    """
    work = _Work(rows, inputs, config, epochs)
    left_out = {name: inputs.without(catalogue.columns_of(name)) for name in config.training.leave_out}
    left_out = {name: less for name, less in left_out.items() if less != inputs}
    with reporter("train", 6 + len(left_out) + config.training.search.trials) as bar:
        work.nest.prepare(inputs, [*work.folds, work.final, *(each for found in work.later.values() for each in found)])
        bar.advance(1)
        work.search(lambda: bar.advance(1))
        pooled, fitted = cross_fit(work.nest, inputs, work.folds, work.length)
        work.identity(pooled, fitted)
        bar.advance(1)
        metadata = inputs.without(list(inputs.content))
        if metadata.columns:
            work.table["metadata_only"], _ = cross_fit(work.nest, metadata, work.folds, work.length)
            work.add_score("identity", "metadata only", "all", work.trained, work.table["metadata_only"])
        bar.advance(1)
        for name in work.later:
            work.later_rows(name, metadata)
        bar.advance(1)
        changes = []
        for name, less in left_out.items():
            changes.append(work.left_out(name, less, pooled))
            bar.advance(1)
        last = work.nest.fit(inputs, work.final)
        predictor = work.nest.predictor(inputs, work.final, last, fingerprints)
        gate = work.gate(predictor)
        bar.advance(2)
    results = work.results | {
        "scores": work.scores,
        "headline": next(
            each
            for each in work.scores
            if (each["split"], each["model"], each["segment"]) == (config.training.split, "model", "all")
        ),
        "folds": [
            {"fold": int(number)}
            | _plain(points(work.target[d.held_out], each.predictions))
            | {"members": _members(each.regressor)}
            for number, (d, each) in enumerate(zip(work.folds, fitted, strict=True))
        ],
        "intervals": by_interval(work.target[work.trained], pooled[work.trained]),
        "leave_out": changes,
        "members": _members(last.regressor),
        "importance": _importance(last.regressor.importance(), catalogue),
        "adapter": work.adapter_description(predictor),
        "training": config.training.model_dump(mode="json"),
        "external_used": work.external_used(catalogue.columns_of("external")),
        "time_rules": config.features.time_rules,
        "fingerprints": dict(fingerprints),
    }
    out_of_fold = pd.DataFrame(work.table)[work.trained].reset_index(drop=True)
    return Experiment(results, out_of_fold, gate, predictor, work.nest.pair_adapters(inputs))


class _Work:
    """The pieces of one experiment, and the scores gathered so far."""

    def __init__(self, rows: Columns, inputs: Inputs, config: Config, epochs: Callable[[Sequence[str]], Epoch]) -> None:
        self.rows, self.inputs, self.config = rows, inputs, config
        self.target = rows["popularity"].astype(np.float64)
        self.fold = rows["fold"].astype(np.int64)
        self.users = rows["user"].astype(np.int64)
        self.length = len(self.target)
        self.trained = self.fold >= 0
        check_rows(rows)
        count = len(np.unique(self.users[self.trained]))
        self.nest = Nest(rows, epochs, config.training)
        self.folds = identity_divisions(self.fold)
        self.final = final_division(self.fold)
        self.later = self._later(config.training)
        self.scores: list[dict[str, Any]] = []
        self.table: dict[str, NDArray[Any]] = {"row_id": rows["row_id"], "fold": self.fold, "actual": self.target}
        self.results: dict[str, Any] = {
            "rows": {
                "labelled": int(self.trained.sum()),
                "users": count,
                "gate": int((~self.trained).sum()),
                "gate_users": len(np.unique(self.users[~self.trained])),
            },
            "label": {
                "median": float(np.median(self.target[self.trained])),
                "low": float(self.target[self.trained].min()),
                "high": float(self.target[self.trained].max()),
            },
        }

    def _later(self, training: TrainingConfig) -> dict[str, list[Division]]:
        """Return the divisions by time, where the rows allow them, and those of another split that is asked for."""
        found: dict[str, list[Division]] = {}
        for name in dict.fromkeys(("chronological", training.split)):
            try:
                if name != "identity":
                    found[name] = divisions_of(name, self.rows, training.seed)
            except StageError as error:
                if name == training.split:
                    raise
                logger.warning("no scores of split %s: %s", name, error.message)
        return found

    def search(self, advance: Callable[[], None]) -> None:
        """Search for the boosters' settings, if that is configured, and go on with the best."""
        found = search.search(self.nest, self.inputs, self.folds, self.target, self.config.training, advance)
        self.nest = self.nest.with_regressor(search.chosen(found, self.config.training.regressor))
        self.results["search"] = found

    def identity(self, pooled: Floats, fitted: Sequence[Fitted]) -> None:
        """Score the cross-validation, its adapters alone, and the median of each fold's training labels."""
        alone = np.full(self.length, np.nan)
        for division, each in zip(self.folds, fitted, strict=True):
            if each.adapter_scores is not None:
                alone[division.held_out] = each.adapter_scores
        self.table |= {"predicted": pooled, "adapter_score": alone}
        self.add_score("identity", "model", "all", self.trained, pooled)
        if self.inputs.adapted:
            self.add_score("identity", "adapter only", "all", self.trained, alone)
        self.add_score("identity", MEDIAN, "all", self.trained, medians(self.target, self.folds))

    def later_rows(self, name: str, metadata: Inputs) -> None:
        """Score a split by time (or at random), seen and unseen users apart."""
        divisions = self.later[name]
        rows, seen = held_out_of(divisions), seen_of(divisions, self.users)
        predicted, _ = cross_fit(self.nest, self.inputs, divisions, self.length)
        self.table[name] = predicted
        self.add_score(name, "model", "all", rows, predicted)
        for segment, part in (("seen users", seen), ("unseen users", rows & ~seen)):
            if part.any():
                self.add_score(name, "model", segment, part, predicted)
        if metadata.columns:
            plain, _ = cross_fit(self.nest, metadata, divisions, self.length)
            self.add_score(name, "metadata only", "all", rows, plain)
        self.add_score(name, MEDIAN, "all", rows, medians(self.target, divisions))

    def left_out(self, name: str, less: Inputs, pooled: Floats) -> dict[str, Any]:
        """Cross-validate without a group; return its scores and the paired differences."""
        predicted, _ = cross_fit(self.nest, less, self.folds, self.length)
        self.table[f"without_{name}"] = predicted
        rows = self.trained
        drawn = self.bootstrap(rows)
        change = drawn.differences(self.target[rows], predicted[rows], pooled[rows])
        scored = points(self.target[rows], predicted[rows])
        return {
            "name": name,
            "columns": sorted(set(self.inputs.columns) - set(less.columns)),
            "src": finite(scored["src"]),
            "mae": finite(scored["mae"]),
            "delta_src": change["src"].as_json(),
            "delta_mae": change["mae"].as_json(),
        }

    def gate(self, predictor: Predictor) -> pd.DataFrame:
        """Predict the gate rows by the final model, exactly as it will serve, and score them."""
        rows = ~self.trained
        predicted = np.full(self.length, np.nan)
        if rows.any():
            predicted[rows] = predictor.predict_rows({name: values[rows] for name, values in self.rows.items()})
            self.add_score("gate", "model", "all", rows, predicted)
            median = np.full(self.length, np.median(self.target[self.trained]))
            self.add_score("gate", MEDIAN, "all", rows, median)
        return pd.DataFrame(
            {
                "row_id": self.rows["row_id"][rows],
                "user": self.users[rows],
                "actual": self.target[rows],
                "predicted": predicted[rows],
            }
        )

    def bootstrap(self, rows: NDArray[np.bool_]) -> Bootstrap:
        """Return the resamples of the users of some rows."""
        return Bootstrap(self.users[rows], self.config.training.bootstrap, self.config.training.seed)

    def add_score(
        self,
        split: str,
        model: str,
        segment: str,
        rows: NDArray[np.bool_],
        predicted: NDArray[Any],
    ) -> None:
        """Append an entry of `scores`; a median has no correlation, see `medians`."""
        drawn = self.bootstrap(rows)
        found = drawn.scores(self.target[rows], predicted[rows].astype(np.float64))
        if model == MEDIAN:
            found["src"] = undefined()
        entry = {"split": split, "model": model, "segment": segment, "n": int(rows.sum()), "users": drawn.users}
        self.scores.append(entry | {name: value.as_json() for name, value in found.items()})

    def adapter_description(self, predictor: Predictor) -> dict[str, Any] | None:
        """Return the adapter's entry of the results."""
        if predictor.adapters is None:
            return None
        curve = self.nest.curves[self.inputs.adapted]
        return {
            "form": predictor.adapters.form,
            "loss": self.config.training.adapter.loss,
            "ratios": dict(predictor.adapters.ratios),
            "count": predictor.adapters.count,
            "kept": list(curve.kept),
            "train_loss": [finite(value) for value in curve.train],
            "stopping_loss": [finite(value) for value in curve.stopping],
            "held_out_loss": [finite(value) for value in curve.held_out],
        }

    def external_used(self, columns: Sequence[str]) -> bool:
        """Whether any external value was among the rows trained on."""
        external = [name for name in columns if name in self.inputs.numbers]
        return any(bool(np.isfinite(self.rows[name][self.trained].astype(np.float64)).any()) for name in external)


def _importance(gains: Mapping[str, float], catalogue: Catalogue) -> list[dict[str, Any]]:
    group_of = {feature.name: feature.group for feature in catalogue.features} | {ADAPTER_SCORE: "adapter"}
    return [
        {"feature": name, "group": group_of[source_of(name)], "gain": float(gain)}
        for name, gain in sorted(gains.items(), key=lambda item: (-item[1], item[0]))
    ]


def _members(regressor: Regressor) -> dict[str, dict[str, float]]:
    return {member.name: {"weight": member.weight, "rounds": member.rounds} for member in regressor.members}


def _plain(values: Mapping[str, float | bool]) -> dict[str, Any]:
    return {name: finite(value) for name, value in values.items()}
