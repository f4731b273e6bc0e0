"""What each group of features is worth, left out and added one after the other, and what each choice of adapter is.

`ablation.json`, as `run_ablation` returns it under `splits`, has for each split a list of cells:
`{table, cell, columns, adapted, form, loss, against, n, users, src, mae, bias, delta_src, delta_mae}`. `table` is
`left out`, `added` or `adapter`; `columns` are those of `post_features` that the booster saw, `adapted` the vectors
among them that went through an adapter of this `form` and `loss`, null without such vectors; `src`, `mae`, `bias` and
the paired differences `delta_…` to the cell named by `against` are `{value, low, high, level, excludes_zero}`
(bootstrap over users), the differences null without such a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from smp_features.catalogue import PICTURE, Catalogue
from smp_features.config import AdapterConfig, AdapterForm, AdapterLoss, TrainingConfig
from smp_features.metrics import Bootstrap, undefined
from smp_features.model.adapter_weights import Floats
from smp_features.model.inputs import Columns, Inputs, Use
from smp_features.progress import reporter
from smp_features.training.adapter import Epoch
from smp_features.training.experiment import check_rows
from smp_features.training.nested import MEDIAN, Division, Nest, cross_fit, divisions_of, held_out_of, medians

ALL = "all"
AS_CONFIGURED = "as configured"
METADATA = "metadata"
TEXTS = ("text", "caption")


@dataclass(frozen=True)
class Cell:
    """One model of the table.

    Attributes:
        table: `left out`: all groups but one; `added`: one step more than the cell before; `adapter`: all groups, and
            another adapter than configured.
        name: Its row's heading.
        inputs: What it sees; None predicts the median of its training labels.
        adapter: What adapts its vectors, if it has vectors to adapt.
        against: The cell of the same table that it is compared with.
    """

    table: Literal["left out", "added", "adapter"]
    name: str
    inputs: Inputs | None
    adapter: AdapterConfig
    against: str | None

    @property
    def identity(self) -> str:
        """Equal for cells that predict the same."""
        if self.inputs is None:
            return MEDIAN
        seen = self.inputs
        uses = {name: seen.uses.get(name, "both") for name in seen.dims}
        adapter = self.adapter if seen.adapted else None
        return repr((seen.numbers, tuple(seen.vocabularies), tuple(seen.buckets), sorted(uses.items()), adapter))


def cells(inputs: Inputs, adapter: AdapterConfig, catalogue: Catalogue) -> list[Cell]:
    """Return all tables for the columns and the adapter that a configuration gives a model.

    Groups without columns among them, and steps that would change nothing, are left away; so is the table `adapter`
    where there is no vector to adapt.
    """
    found = [Cell("left out", ALL, inputs, adapter, None)]
    for group in (*catalogue.groups, PICTURE):
        less = inputs.without(catalogue.columns_of(group))
        if less != inputs and less.columns:
            found.append(Cell("left out", f"without {group}", less, adapter, ALL))
    return [*found, *_steps(inputs, adapter, catalogue), *_adapters(inputs, adapter)]


def _adapters(inputs: Inputs, adapter: AdapterConfig) -> list[Cell]:
    """Return the cells that differ from the configured adapter in one choice each."""
    if not inputs.adapted:
        return []
    forms = [name for name in get_args(AdapterForm) if name != adapter.form]
    losses = [name for name in get_args(AdapterLoss) if name != adapter.loss]
    changed = {f"form {name}": adapter.model_copy(update={"form": name}) for name in forms}
    changed |= {f"loss {name}": adapter.model_copy(update={"loss": name}) for name in losses}
    frozen = replace(inputs, uses=dict.fromkeys(inputs.dims, "raw"))
    return [
        Cell("adapter", AS_CONFIGURED, inputs, adapter, None),
        *(Cell("adapter", name, inputs, other, AS_CONFIGURED) for name, other in changed.items()),
        Cell("adapter", "without an adapter", frozen, adapter, AS_CONFIGURED),
    ]


def _steps(inputs: Inputs, adapter: AdapterConfig, catalogue: Catalogue) -> list[Cell]:
    def only(*groups: str, **uses: Use) -> Inputs:
        """Return the columns of some groups, vectors as they are but for those of the groups named in `uses`."""
        less = inputs.without([feature.name for feature in catalogue.features if feature.group not in groups])
        as_they_are: dict[str, Use] = dict.fromkeys(less.dims, "raw")
        changed = {
            column: use for group, use in uses.items() for column in catalogue.columns_of(group) if column in less.dims
        }
        return replace(less, uses=as_they_are | changed)

    plain = tuple(group for group in catalogue.groups if group not in catalogue.content_groups)
    inconsistency = (*plain, "similarity", "perplexity")
    adapted: dict[str, Use] = dict.fromkeys(("image", *TEXTS), "adapted")
    named = (*inconsistency, "image", *TEXTS)
    further = [group for group in catalogue.content_groups if group not in named]
    steps = [
        (METADATA, only(*plain)),
        ("+ similarity", only(*plain, "similarity")),
        ("+ perplexity", only(*inconsistency)),
        ("+ image", only(*inconsistency, "image")),
        ("+ text", only(*named)),
        ("adapted image instead of raw", only(*named, image="adapted")),
        ("adapted text instead of raw", only(*named, **adapted)),
        *((f"+ {group}", only(*named, *further[: place + 1], **adapted)) for place, group in enumerate(further)),
        (ALL, inputs),
    ]
    found = [Cell("added", MEDIAN, None, adapter, None)]
    for name, seen in steps:
        if seen.columns and seen != found[-1].inputs:
            found.append(Cell("added", name, seen, adapter, found[-1].name))
    return found


def run_ablation(
    rows: Columns,
    inputs: Inputs,
    config: TrainingConfig,
    catalogue: Catalogue,
    epochs: Callable[[Sequence[str]], Epoch],
    names: Sequence[str],
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Fit and score every cell on some splits.

    Args:
        rows: Columns of the snapshot.
        inputs: Those a model sees.
        config: Of adapter, booster, bootstrap and seed.
        catalogue: Names the groups of columns.
        epochs: Makes the source of adapter epochs for some vector columns.
        names: Splits.

    Returns:
        The results, as the module describes, and the predictions: `row_id`, `fold`, `actual`, and a column
        `<split>/<table>/<cell>` each, null for rows not held out.

    Raises:
        StageError: The rows cannot be divided so, or nothing can be learned of them.
    """
    check_rows(rows)
    length = len(rows["fold"])
    fold, target = rows["fold"].astype(np.int64), rows["popularity"].astype(np.float64)
    users = rows["user"].astype(np.int64)
    divisions = {name: divisions_of(name, rows, config.seed) for name in names}
    held_out = {name: held_out_of(found) for name, found in divisions.items()}
    every = [division for found in divisions.values() for division in found]
    todo = cells(inputs, config.adapter, catalogue)
    nests = {
        adapter: Nest(rows, epochs, config.model_copy(update={"adapter": adapter}))
        for adapter in {cell.adapter for cell in todo}
    }
    table: dict[str, Any] = {"row_id": rows["row_id"], "fold": fold, "actual": target}
    made: dict[str, dict[str, Floats]] = {}
    with reporter("ablate", len(todo)) as bar:
        for cell in todo:
            if cell.identity not in made:
                made[cell.identity] = _predict(nests[cell.adapter], cell.inputs, divisions, every, target, length)
            bar.advance(1)
    results: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        kept = held_out[name]
        drawn = Bootstrap(users[kept], config.bootstrap, config.seed)
        results[name] = []
        for cell in todo:
            predicted = made[cell.identity][name][kept]
            table[f"{name}/{cell.table}/{cell.name}"] = made[cell.identity][name]
            scores = drawn.scores(target[kept], predicted)
            if cell.inputs is None:
                scores["src"] = undefined()  # one constant per division orders nothing
            adapted = () if cell.inputs is None else cell.inputs.adapted
            entry = {
                "table": cell.table,
                "cell": cell.name,
                "columns": [] if cell.inputs is None else list(cell.inputs.columns),
                "adapted": list(adapted),
                "form": cell.adapter.form if adapted else None,
                "loss": cell.adapter.loss if adapted else None,
                "against": cell.against,
                "n": int(kept.sum()),
                "users": drawn.users,
                **{measure: interval.as_json() for measure, interval in scores.items()},
                "delta_src": None,
                "delta_mae": None,
            }
            if cell.against is not None:
                other = next(each for each in todo if (each.table, each.name) == (cell.table, cell.against))
                change = drawn.differences(target[kept], predicted, made[other.identity][name][kept])
                if other.inputs is None:
                    change["src"] = undefined()
                entry |= {f"delta_{measure}": interval.as_json() for measure, interval in change.items()}
            results[name].append(entry)
    return {"splits": results}, pd.DataFrame(table)


def _predict(
    nest: Nest,
    inputs: Inputs | None,
    divisions: Mapping[str, Sequence[Division]],
    every: Sequence[Division],
    target: Floats,
    length: int,
) -> dict[str, Floats]:
    """Return a model's held-out predictions by split, NaN elsewhere."""
    if inputs is None:
        return {name: medians(target, parts) for name, parts in divisions.items()}
    nest.prepare(inputs, every)
    return {name: cross_fit(nest, inputs, parts, length)[0] for name, parts in divisions.items()}
