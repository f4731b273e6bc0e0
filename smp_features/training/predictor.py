"""The trained model as plain numbers: post features in, popularity out, without torch, Spark or pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from smp_features.errors import FingerprintError, ModelError, SmpError
from smp_features.features.vectors import filled
from smp_features.training.adapter_weights import Adapters, Floats, Rows

Columns = dict[str, NDArray[np.generic]]
Projections = Mapping[str, tuple[Floats, Floats]]
"""Name (`<column>`, or `<column>_adapted`) to mean (d,) and components (k, d)."""

FORMAT = 1
DECIMALS = 6
"""Computed features are rounded, so that a last bit that depends on how rows were batched cannot cross a threshold."""

BLOCK = 20_000  # rows held in float64 at once
ADAPTED = "_adapted"

EXTRACTORS = ("caption_extractor", "clip_image_extractor", "clip_text_extractor", "perplexity_extractor")
"""Columns of `post_features` with the fingerprints that a model refuses to mix."""


Use = Literal["raw", "adapted", "both"]


@dataclass(frozen=True)
class Inputs:
    """The columns of `post_features` that a model sees.

    Attributes:
        numbers: Numeric columns.
        dims: Vector columns to their widths.
        vocabularies: Category columns to their values; the code of a value is its position, −1 if it is not there.
        uses: Vector columns to the form in which the booster sees them, if it is not both: the frozen vector, or what
            the adapter makes of it.
    """

    numbers: tuple[str, ...]
    dims: Mapping[str, int]
    vocabularies: Mapping[str, list[str]]
    uses: Mapping[str, Use] = field(default_factory=dict)

    @property
    def raw(self) -> tuple[str, ...]:
        """Vector columns that the booster sees as they are."""
        return tuple(name for name in self.dims if self.uses.get(name) != "adapted")

    @property
    def adapted(self) -> tuple[str, ...]:
        """Vector columns that go through an adapter."""
        return tuple(name for name in self.dims if self.uses.get(name) != "raw")

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in the order of the signature."""
        return (*self.numbers, *self.vocabularies, *self.dims)

    def encode(self, frame: pd.DataFrame) -> Columns:
        """Turn rows of `post_features` into the arrays that models are trained on.

        Args:
            frame: Numbers may be null, categories null or unseen, vectors null.

        Returns:
            float64 numbers with NaN for null, int64 codes, float32 vectors with zeros for null, `has_<vector>`.

        Raises:
            ModelError: A column is missing, or a vector has another width.
        """
        missing = [name for name in self.columns if name not in frame.columns]
        if missing:
            raise ModelError(
                f"The model needs the column {missing[0]} of post_features, and {len(missing) - 1} more are missing."
                if len(missing) > 1
                else f"The model needs the column {missing[0]} of post_features.",
                "Pass rows of the table post_features with all its columns.",
            )
        rows: Columns = {
            name: pd.to_numeric(frame[name]).to_numpy(np.float64, na_value=np.nan) for name in self.numbers
        }
        for name, values in self.vocabularies.items():
            rows[name] = (
                pd.Index(values, dtype=object).get_indexer(pd.Index(frame[name], dtype=object)).astype(np.int64)
            )
        for name, width in self.dims.items():
            try:
                vectors = [None if _absent(value) else value for value in frame[name]]
                rows[name], rows[f"has_{name}"] = filled(vectors, width)
            except ValueError as error:
                raise ModelError(
                    f"{name}, {error}: other extractors made these features.", "Run `smp train` on them first."
                ) from None
        return rows


def _absent(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def feature_names(inputs: Inputs, projections: Projections, adapted: bool) -> list[str]:
    """Return the booster's columns, in the order of `matrix`."""
    names = [*inputs.numbers, *inputs.vocabularies, *(f"has_{name}" for name in inputs.dims)]
    if adapted:
        names.append("adapter_score")
    for name, (_, components) in projections.items():
        names += [f"{name}_pca_{number}" for number in range(len(components))]
    return names


def matrix(
    inputs: Inputs,
    projections: Projections,
    rows: Rows,
    adapted: Mapping[str, NDArray[np.floating]] | None,
    score: Floats | None,
) -> Floats:
    """Return what the booster reads, (n, features) float64.

    Args:
        inputs: Which columns.
        projections: Fitted in the fold.
        rows: The columns.
        adapted: Adapted vectors by column, or None without an adapter.
        score: The adapter's score, or None without an adapter.
    """
    parts: list[NDArray[Any]] = [
        rows[name].astype(np.float64)[:, None] for name in (*inputs.numbers, *inputs.vocabularies)
    ]
    parts += [rows[f"has_{name}"].astype(np.float64)[:, None] for name in inputs.dims]
    if score is not None:
        parts.append(np.round(score, DECIMALS)[:, None])
    for name, (mean, components) in projections.items():
        column = name.removesuffix(ADAPTED)
        if name.endswith(ADAPTED):
            assert adapted is not None, "a projection of adapted vectors comes with an adapter"
            vectors = adapted[column]
        else:
            vectors = rows[column].astype(np.float64)
        there = rows[f"has_{column}"].astype(np.float64)[:, None]
        parts.append(np.round(there * ((vectors - mean) @ components.T), DECIMALS))
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class Predictor:
    """A trained model.

    Attributes:
        inputs: Its columns.
        adapters: One per fold, whose means are taken; None when no vector is adapted.
        projections: PCA of raw and adapted vectors.
        booster: A `lightgbm.Booster`.
        low: Least label it was trained on; predictions are clipped to it.
        high: Greatest label it was trained on.
        fingerprints: `*_extractor` column to the only value that is accepted.
    """

    inputs: Inputs
    adapters: Adapters | None
    projections: Projections
    booster: object
    low: float
    high: float
    fingerprints: Mapping[str, str]

    def predict(self, frame: pd.DataFrame) -> Floats:
        """Predict popularity for rows of `post_features`.

        Args:
            frame: Rows with the columns of the signature; vectors may be null, categories unseen, numbers null.

        Returns:
            (n,) float64, log2(views + 1).

        Raises:
            FingerprintError: Rows were made by other extractors than the training rows.
            ModelError: A column is missing or a vector has another width.
        """
        self.check_fingerprints(frame)
        if not len(frame):
            return np.empty(0)
        return self.predict_rows(self.inputs.encode(frame))

    def predict_rows(self, rows: Rows) -> Floats:
        """Predict from encoded columns, as `Inputs.encode` or a snapshot gives them; (n,) float64."""
        length = len(next(iter(rows.values())))
        blocks = []
        for start in range(0, length, BLOCK):
            block = {name: values[start : start + BLOCK] for name, values in rows.items()}
            adapted, score = self.adapters.mean_forward(block) if self.adapters is not None else (None, None)
            blocks.append(matrix(self.inputs, self.projections, block, adapted, score))
        # One thread: a Spark executor runs one task per core already.
        raw = self.booster.predict(np.concatenate(blocks), num_threads=1)  # type: ignore[attr-defined]
        return np.clip(np.asarray(raw, dtype=np.float64), self.low, self.high)

    def check_fingerprints(self, frame: pd.DataFrame) -> None:
        """Refuse rows that other extractors made.

        Raises:
            FingerprintError: Names the column, what was found and what was expected.
        """
        for column, expected in self.fingerprints.items():
            if column not in frame.columns:
                raise FingerprintError(
                    f"The rows lack the column {column}, so nothing says which model made them.",
                    "Pass rows of the table post_features.",
                )
            others = sorted({str(value) for value in frame[column].unique()} - {expected})
            if others:
                raise FingerprintError(
                    f"The model was trained on {column} {expected}, and rows were made by {', '.join(others[:3])}.",
                    "Run `smp train` on the new features, or configure the models that this one was trained with.",
                )

    def save(self, folder: Path) -> None:
        """Write the model into a new folder: `model.json`, `adapters.safetensors`, `pca.safetensors`, `booster.txt`."""
        folder.mkdir(parents=True)
        described = {
            "format": FORMAT,
            "numbers": list(self.inputs.numbers),
            "dims": dict(self.inputs.dims),
            "vocabularies": dict(self.inputs.vocabularies),
            "uses": dict(self.inputs.uses),
            "adapter": None
            if self.adapters is None
            else {"form": self.adapters.form, "ratios": list(self.adapters.ratios.items())},
            "projections": list(self.projections),
            "low": self.low,
            "high": self.high,
            "fingerprints": dict(self.fingerprints),
        }
        (folder / "model.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        (folder / "booster.txt").write_text(self.booster.model_to_string(), encoding="utf-8")  # type: ignore[attr-defined]
        if self.adapters is not None:
            save_file(
                {name: np.ascontiguousarray(value) for name, value in self.adapters.weights.items()},
                folder / "adapters.safetensors",
            )
        arrays: dict[str, Floats] = {}
        for name, (mean, components) in self.projections.items():
            arrays |= {
                f"{name}.mean": np.ascontiguousarray(mean),
                f"{name}.components": np.ascontiguousarray(components),
            }
        save_file(arrays, folder / "pca.safetensors")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Predictor:
        """Read a model that `save` wrote.

        Raises:
            ModelError: A file is missing, or the folder was written by a newer format.
        """
        import lightgbm

        place = Path(folder)
        try:
            described = json.loads((place / "model.json").read_text(encoding="utf-8"))
            if described["format"] != FORMAT:
                raise ModelError(
                    f"The model in {place} has format {described['format']}, and this package reads {FORMAT}.",
                    "Install the version of smp_features that trained it.",
                )
            arrays = load_file(place / "pca.safetensors")
            adapter = described["adapter"]
            return cls(
                inputs=Inputs(
                    tuple(described["numbers"]),
                    described["dims"],
                    described["vocabularies"],
                    described.get("uses", {}),  # models saved before there was a choice see both forms
                ),
                adapters=None
                if adapter is None
                else Adapters(adapter["form"], dict(adapter["ratios"]), load_file(place / "adapters.safetensors")),
                projections={n: (arrays[f"{n}.mean"], arrays[f"{n}.components"]) for n in described["projections"]},
                booster=lightgbm.Booster(model_str=(place / "booster.txt").read_text(encoding="utf-8")),
                low=described["low"],
                high=described["high"],
                fingerprints=described["fingerprints"],
            )
        except SmpError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{place} is not a model of smp_features: {type(error).__name__}.") from error
