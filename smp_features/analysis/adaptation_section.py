"""The report's section on adaptation: how far image and text moved, what it is worth, and the paper's figure 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from smp_features import figures
from smp_features.analysis.page import Block, Cell, Note, Section, drawn, table
from smp_features.metrics import Interval

NOTHING_ADAPTED = "No vectors were adapted yet. `smp train`, then `smp report`, makes this section."

_TITLE = "Adaptation of image and text features"
_MOVED_HEADERS = ("vector", "n", "moved [95 %]", "with shuffled labels [95 %]", "difference [95 %]")
_WORTH_HEADERS = ("vector", "n", "SRC raw [95 %]", "SRC adapted [95 %]", "gain [95 %]")
_UNITS = {"intervals": "nats"}
_LINES = {
    "training rows": "train_loss",
    "users held out to decide when to stop": "stopping_loss",
    "rows of no influence": "held_out_loss",
}


@dataclass(frozen=True)
class Moved:
    """What adaptation did to one modality.

    Attributes:
        modality: Vector column.
        n: Posts that have it.
        moved: Mean cosine distance of adapted from standardised vectors.
        shuffled: The same by adapters trained on shuffled labels.
        difference: The one less the other.
        src_raw: Spearman correlation of a ridge on the raw vector.
        src_adapted: Likewise on the adapted one.
        gain: The latter less the former.
    """

    modality: str
    n: int
    moved: Interval
    shuffled: Interval
    difference: Interval
    src_raw: Interval
    src_adapted: Interval
    gain: Interval

    @property
    def distances(self) -> tuple[Cell, ...]:
        """The row of how far it moved."""
        return (self.modality, self.n, self.moved, self.shuffled, self.difference)

    @property
    def worth(self) -> tuple[Cell, ...]:
        """The row of what that is worth."""
        return (self.modality, self.n, self.src_raw, self.src_adapted, self.gain)


@dataclass(frozen=True)
class Adaptation:
    """What a run recorded about its adapters.

    Attributes:
        adapter: The entry `adapter` of `results.json`.
        moved: By modality.
        placed: Coordinates of figure 5, as `laboratory/tsne.coordinates` gives them.
    """

    adapter: Mapping[str, Any]
    moved: Sequence[Moved]
    placed: pd.DataFrame


def adaptation_section(held: Adaptation | None, missing: str | None = None) -> Section:
    """Show how far each modality moved beyond what chance moves it, figure 5, and how the adapters were trained.

    Args:
        held: None before training, where nothing was adapted, or where it could not be measured.
        missing: Why it could not be measured.
    """
    if held is None:
        return Section("adaptation", _TITLE, missing=missing or NOTHING_ADAPTED)
    ratios = ", ".join(f"{ratio:g} for `{column}`" for column, ratio in held.adapter["ratios"].items())
    blocks: list[Block] = [
        table(_MOVED_HEADERS, [each.distances for each in held.moved], "How far vectors moved, cosine distance"),
        table(_WORTH_HEADERS, [each.worth for each in held.moved], "What each vector says alone, raw and adapted"),
        Note(
            "`moved`: mean cosine distance of the adapted vector from the standardised one. The ratios and the initial "
            f"weights alone move vectors (ratio {ratios}), so the same adapters were trained on the same labels dealt "
            "out to other posts; the difference is what the labels moved. SRC: of a ridge regression on this vector. "
            "All out of fold, no user on both sides; intervals: bootstrap over users."
        ),
    ]
    if len(held.placed):
        blocks.append(
            drawn(
                figures.adaptation(held.placed),
                "3-D t-SNE of image and text vectors before and after adaptation, coloured by density.",
                "The paper's figure 5. The same posts in every panel, drawn from one fold and adapted by the adapter "
                "that has not seen it. Density by a Gaussian kernel; directions, distances between clouds and sizes "
                "cannot be compared between panels.",
            )
        )
    lines = {name: held.adapter[key] for name, key in _LINES.items()}
    blocks.append(
        drawn(
            figures.adapter_curve(lines, held.adapter["kept"], _UNITS.get(held.adapter["loss"], "label variance = 1")),
            "Losses of the adapters by epoch.",
            f"Form {held.adapter['form']}, loss {held.adapter['loss']}, means over all adapters of the run. Each keeps "
            "the weights at which its loss on the users it held out was lowest.",
        )
    )
    return Section("adaptation", _TITLE, tuple(blocks))
