"""Digests of all that is logged of a model: recorded when it is registered, compared before any of it is used.

They are a file of the run, `digests.json`: `{model, run}`, each a file's name to its SHA-256. The SHA-256 of that file
is a tag of the registered version. Code and boosters are run by libraries that trust them, so a folder is compared as a
whole, on a copy that nobody else writes, before MLflow is shown it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from smp_features.errors import ModelError
from smp_features.model.digests import digest_of, digest_of_file

DIGESTS = "digests.json"
"""The file of a run."""

DIGESTS_TAG = "digests"
"""The tag of a version and of its run, which holds the SHA-256 of that file."""

_INERT = frozenset({"registered_model_meta", "input_example.json", "serving_input_example.json"})
"""Files of a model's folder that nothing runs or loads; MLflow adds and leaves them out as it likes."""

_LOADER = "mlflow.pyfunc.loaders.code_model"
_AGAIN = "Run `smp train` to train and register it anew, or `smp promote` another version."


@dataclass(frozen=True)
class Digests:
    """What was recorded of one model.

    Attributes:
        model: Files of MLflow's model folder, by their paths in it.
        run: Files of the run.
    """

    model: Mapping[str, str]
    run: Mapping[str, str]

    @classmethod
    def of(cls, model: Path, files: Iterable[Path]) -> Digests:
        """Return those of a folder that MLflow logged, and of files of its run."""
        return cls(
            {name: digest_of_file(path) for name, path in _files(model).items()},
            {path.name: digest_of_file(path) for path in files},
        )

    def as_json(self) -> str:
        """Return the content of `digests.json`."""
        return json.dumps({"model": dict(self.model), "run": dict(self.run)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def read(cls, content: bytes, recorded: str, version: str) -> Digests:
        """Return what `as_json` wrote.

        Args:
            content: Of `digests.json`.
            recorded: Its SHA-256, by the version's tag.
            version: The version's name, for messages.

        Raises:
            ModelError: It is not the file that was recorded.
        """
        if digest_of(content) != recorded:
            raise ModelError(f"{DIGESTS} of {version} was changed after it was registered.", _AGAIN)
        found = json.loads(content)
        return cls(found["model"], found["run"])

    def check_model(self, folder: Path, version: str) -> None:
        """Compare a private copy of the model's folder with what was recorded, and refuse any other kind of model.

        Byte code that was compiled beside the sources is removed from the copy: no digest says what it does.

        Raises:
            ModelError: A file was changed, removed or added, or MLflow would not load it as this package's models are.
        """
        for compiled in list(folder.rglob("__pycache__")):
            shutil.rmtree(compiled)
        there = _files(folder)
        for name in sorted(self.model.keys() | there.keys()):
            if name not in there:
                raise ModelError(f"{version} lost its file {name} after it was registered.", _AGAIN)
            if name not in self.model:
                raise ModelError(f"{version} has the file {name}, which it was not registered with.", _AGAIN)
            if digest_of_file(there[name]) != self.model[name]:
                raise ModelError(f"{name} of {version} was changed after it was registered.", _AGAIN)
        check_flavour(folder, version)

    def check_file(self, path: Path, version: str) -> None:
        """Compare a file of the run with what was recorded; files that were added to the run later are not there.

        Raises:
            ModelError: It was changed.
        """
        if path.name in self.run and digest_of_file(path) != self.run[path.name]:
            raise ModelError(f"{path.name} of the run of {version} was changed after it was registered.", _AGAIN)


def check_flavour(folder: Path, version: str) -> None:
    """Refuse what is not a model of this package: a file of code and a folder, no pickle and no other flavour.

    Raises:
        ModelError: It says what it is.
    """
    try:
        flavours = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
        served = flavours["python_function"]
        loader, code = str(served["loader_module"]), str(served.get("model_code_path"))
        others = sorted(set(flavours) - {"python_function"})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ModelError(f"{version} is no model that MLflow can load ({type(error).__name__}).", _AGAIN) from None
    if others or loader != _LOADER or "python_model" in served or not code.endswith("served_model.py"):
        what = f"a model of the flavour {others[0]}" if others else f"loaded by {loader}"
        raise ModelError(f"{version} is {what}, not a model that `smp train` registered; it is not loaded.", _AGAIN)


def without_digests(version: str) -> ModelError:
    """Return the refusal of a version that no digests were recorded of."""
    return ModelError(
        f"{version} was registered without digests, by an earlier version of smp_features or by something else, so "
        "nothing says whether its files are those that were trained.",
        _AGAIN,
    )


def _files(folder: Path) -> dict[str, Path]:
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if name not in _INERT and "__pycache__" not in path.parts}
