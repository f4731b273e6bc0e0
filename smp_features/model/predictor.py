"""The trained model as plain numbers: post features in, popularity out, without torch, Spark or pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from ..errors import FingerprintError, ModelError, SmpError
from .adapter_weights import Adapters, Floats, Rows
from .blocks import Selection
from .boosters import KINDS
from .digests import read_saved, write_manifest
from .encoders import Encoders
from .inputs import Inputs
from .regressor import Member, Regressor

FORMAT = 3

_FINGERPRINT = "_extractor"


def fingerprint_columns(names: Iterable[str]) -> list[str]:
    """Return those of some columns of `post_features`, or tags of a model, that hold an extractor's fingerprint."""
    return sorted(name for name in names if name.endswith(_FINGERPRINT))


@dataclass(frozen=True)
class Predictor:
    """A trained model.

    Attributes:
        adapters: One per fold, whose means are taken; None when no vector is adapted.
        regressor: What predicts from columns and adapted vectors.
        fingerprints: `*_extractor` column to the only value that is accepted.
    """

    adapters: Adapters | None
    regressor: Regressor
    fingerprints: Mapping[str, str]

    @property
    def inputs(self) -> Inputs:
        """The columns that it reads."""
        return self.regressor.inputs

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
        adapters = self.adapters
        adapt = None if adapters is None else lambda block, where: adapters.mean_forward(block)
        selection = replace(Selection.all(rows), adapt=adapt)
        predictions = np.empty(len(selection))
        for places, block in selection.blocks():
            # One thread: a Spark executor runs one task per core already.
            predictions[places] = self.regressor.predict(block.rows, block.adapted, block.score, most_threads=1)
        return predictions

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
        """Write the model into a new folder.

        `model.json`, `encoders.safetensors`, `adapters.safetensors` if there are any, a file per booster, and the
        manifest of them all.
        """
        folder.mkdir(parents=True)
        encoders = self.regressor.encoders.arrays()
        described = {
            "format": FORMAT,
            "numbers": list(self.inputs.numbers),
            "dims": dict(self.inputs.dims),
            "vocabularies": dict(self.inputs.vocabularies),
            "uses": dict(self.inputs.uses),
            "buckets": dict(self.inputs.buckets),
            "images": sorted(self.inputs.images),
            "adapter": None
            if self.adapters is None
            else {"form": self.adapters.form, "ratios": list(self.adapters.ratios.items())},
            "encoders": list(encoders),
            "members": [
                {"name": member.name, "weight": member.weight, "rounds": member.rounds}
                for member in self.regressor.members
            ],
            "low": self.regressor.low,
            "high": self.regressor.high,
            "mean": self.regressor.mean,
            "fingerprints": dict(self.fingerprints),
        }
        (folder / "model.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        for member in self.regressor.members:
            member.booster.save(folder / member.name)
        if self.adapters is not None:
            self.adapters.save(folder / "adapters.safetensors")
        save_file(encoders, folder / "encoders.safetensors")
        write_manifest(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], manifest: str | None = None) -> Predictor:
        """Read a model that `save` wrote; every file is compared with the manifest before anything is made of it.

        Args:
            folder: Where it is.
            manifest: The SHA-256 of the manifest, as the served code has it; None where nothing recorded it.

        Raises:
            ModelError: A file is missing, was changed, or the folder was written in another format.
        """
        place = Path(folder)
        try:
            files = read_saved(place, manifest)
            described = json.loads(files["model.json"])
            if described["format"] != FORMAT:
                raise ModelError(
                    f"The model in {place} has format {described['format']}, and this package reads {FORMAT}.",
                    "Run `smp train` again, or install the version of smp_features that trained it.",
                )
            adapter = described["adapter"]
            regressor = Regressor(
                Inputs(
                    tuple(described["numbers"]),
                    described["dims"],
                    described["vocabularies"],
                    described["uses"],
                    described["buckets"],
                    images=frozenset(described.get("images", ())),
                ),
                Encoders.of_arrays(load(files["encoders.safetensors"]), described["encoders"]),
                tuple(
                    Member(**member, booster=kind.load(files[member["name"] + kind.suffix]))
                    for member in described["members"]
                    for kind in [KINDS[member["name"]]]
                ),
                described["low"],
                described["high"],
                described["mean"],
            )
            return cls(
                adapters=None
                if adapter is None
                else Adapters.load(files["adapters.safetensors"], adapter["form"], adapter["ratios"]),
                regressor=regressor,
                fingerprints=described["fingerprints"],
            )
        except SmpError:
            raise
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelError(f"{place} is not a model of smp_features: {type(error).__name__}.") from error
