"""A seeded search for the boosters' settings, by the error of out-of-fold predictions; the gate has no part in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from smp_features.config import RegressorConfig, TrainingConfig
from smp_features.model.adapter_weights import Floats
from smp_features.model.inputs import Inputs
from smp_features.training.nested import Division, Nest, cross_fit, held_out_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Range:
    """Where a setting is looked for.

    Attributes:
        low: The least value; the configured one, if that is less.
        high: The greatest value; the configured one, if that is greater.
        log: Drawn evenly on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False


ALL_MEMBERS = {"feature_fraction": Range(0.2, 1.0), "bagging_fraction": Range(0.5, 1.0), "l2": Range(0.0, 20.0)}
LIGHTGBM = {
    "learning_rate": Range(0.01, 0.2, log=True),
    "leaves": Range(4, 127, log=True),
    "min_leaf_rows": Range(5, 100, log=True),
}
CATBOOST = {"catboost_learning_rate": Range(0.01, 0.2, log=True), "catboost_depth": Range(4, 8)}
RAW_VECTORS = {"pca_components": Range(4, 64, log=True)}
ADAPTED_VECTORS = {"adapted_components": Range(0, 32)}


def search(
    nest: Nest,
    inputs: Inputs,
    folds: Sequence[Division],
    target: Floats,
    config: TrainingConfig,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any] | None:
    """Try settings one after the other by Optuna's TPE, the configured ones first.

    Args:
        nest: Its adapters serve every trial.
        inputs: Columns to use.
        folds: Identity-isolated divisions.
        target: (n,) labels.
        config: Of search and seed; its `regressor` is the first trial.
        advance: Called after each trial.

    Returns:
        `{trials, best}`: `[{number, value, parameters}]` in order, and the one with the least value, the earliest of
        equal ones. `value` is the mean squared error of out-of-fold predictions, in squared units of log2(views + 1);
        `parameters` are keys of `training.regressor`. None when there are no trials to make.
    """
    if not config.search.trials:
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges = ranges_of(inputs, config.regressor)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=config.seed))
    study.enqueue_trial({name: getattr(config.regressor, name) for name in ranges})
    distributions = {name: _distribution(name, found) for name, found in ranges.items()}
    scored = held_out_of(folds)
    trials: list[dict[str, Any]] = []
    for number in range(config.search.trials):
        asked = study.ask(distributions)
        tried = nest.with_regressor(_with(config.regressor, asked.params))
        predicted, _ = cross_fit(tried, inputs, folds, len(target))
        value = float(np.mean((predicted[scored] - target[scored]) ** 2))
        study.tell(asked, value)
        trials.append({"number": number, "value": value, "parameters": dict(asked.params)})
        logger.info("search: trial %d of %d, mean squared error %.4f", number + 1, config.search.trials, value)
        advance()
    return {"trials": trials, "best": min(trials, key=lambda trial: trial["value"])}


def chosen(found: Mapping[str, Any] | None, config: RegressorConfig) -> RegressorConfig:
    """Return the configured settings with the best ones of a search in their place; None is no search."""
    return config if found is None else _with(config, found["best"]["parameters"])


def ranges_of(inputs: Inputs, config: RegressorConfig) -> dict[str, Range]:
    """Return the settings that decide anything for these members and columns, and where each is looked for."""
    found = dict(ALL_MEMBERS)
    if {"lightgbm", "metadata"} & set(config.members):
        found |= LIGHTGBM
    if "catboost" in config.members:
        found |= CATBOOST
    if inputs.raw:
        found |= RAW_VECTORS
    if inputs.adapted:
        found |= ADAPTED_VECTORS
    now = {name: getattr(config, name) for name in found}
    return {name: Range(min(each.low, now[name]), max(each.high, now[name]), each.log) for name, each in found.items()}


def _distribution(name: str, found: Range) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    if RegressorConfig.model_fields[name].annotation is int:
        return IntDistribution(int(found.low), int(found.high), log=found.log)
    return FloatDistribution(found.low, found.high, log=found.log)


def _with(config: RegressorConfig, parameters: Mapping[str, Any]) -> RegressorConfig:
    return RegressorConfig.model_validate(config.model_dump() | dict(parameters))
