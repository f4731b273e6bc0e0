"""The registered model's code, as MLflow stores it: a file, not a pickle. The model itself is the folder `model`."""

from __future__ import annotations

import warnings
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smp_features.model.predictor import Predictor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow advises type hints that would refuse null vectors

    class PopularityModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        """Predicts popularity from rows of `post_features`."""

        def load_context(self, context: Any) -> None:
            """Read the model's folder."""
            self._predictor = Predictor.load(context.artifacts["model"])

        def predict(
            self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
        ) -> NDArray[np.float64]:
            """Return (n,) popularity, log2(views + 1); errors are those of `Predictor.predict`."""
            return self._predictor.predict(model_input)


mlflow.models.set_model(PopularityModel())
