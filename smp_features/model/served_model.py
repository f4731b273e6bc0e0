"""The registered model's code, as MLflow stores it: a file, not a pickle. The model itself is the folder `model`."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

PACKAGE = "smp_features"
CODE: dict[str, str] = {}
MANIFEST: str | None = None
"""Written anew for each model by `training/served_code.py`: the package that serves it, the SHA-256 of that package's
files, and that of the manifest of the folder `model`. Both are compared before any of it is imported or loaded."""


def check_code() -> None:
    """Refuse a package whose files are not those that were registered, before it is imported.

    Raises:
        RuntimeError: A file of it was changed, added or removed.
    """
    if not CODE or PACKAGE in sys.modules:  # what a process has imported, it compared then
        return
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise RuntimeError(f"The package {PACKAGE} that serves this model is missing. Run `smp train` again.")
    root = Path(found.origin).parent
    there = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    for name in sorted(CODE.keys() | there.keys()):
        if name not in there or hashlib.sha256(there[name].read_bytes()).hexdigest() != CODE.get(name):
            raise RuntimeError(
                f"{name} of {PACKAGE}, the code of this model, was changed after it was registered. "
                "Run `smp train` again, or restore the files as they were registered."
            )


check_code()

from smp_features.model.predictor import Predictor  # noqa: E402  # not before its files are compared

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow advises type hints that would refuse null vectors

    class PopularityModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        """Predicts popularity from rows of `post_features`."""

        def load_context(self, context: Any) -> None:
            """Read the model's folder."""
            self._predictor = Predictor.load(context.artifacts["model"], MANIFEST)

        def predict(
            self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
        ) -> NDArray[np.float64]:
            """Return (n,) popularity, log2(views + 1); errors are those of `Predictor.predict`."""
            return self._predictor.predict(model_input)


mlflow.models.set_model(PopularityModel())
