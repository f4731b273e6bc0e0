"""MLflow: the run of an experiment, the registered model's versions, and which of them is champion."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Metric, Param, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from smp_features import figures
from smp_features.config import Config
from smp_features.errors import StageError, UsageError
from smp_features.lake.files import open_store
from smp_features.lake.lock import writing
from smp_features.model.adapter_weights import Adapters
from smp_features.model.digests import digest_of
from smp_features.model.predictor import Predictor
from smp_features.redaction import redacted
from smp_features.session import workspace_tracking
from smp_features.training.digests import DIGESTS, DIGESTS_TAG, Digests, without_digests
from smp_features.training.promotion import is_better
from smp_features.training.records import (
    metrics,
    movement_metrics,
    parameters,
    requirements,
    searched,
    settings_of,
    signature,
)
from smp_features.training.relocation import ARTIFACTS, relocate, was_moved
from smp_features.training.served_code import served_code

logger = logging.getLogger(__name__)

CHAMPION = "champion"

TRAINING_KEY = "training_key"
INPUTS_KEY = "inputs_key"
DECISION = "decision"
PAIR_ADAPTERS = "pair_adapters.safetensors"
LABORATORY = "laboratory.json"
ADAPTATION = "adaptation.parquet"
OBJECTIVE = "identity_mse"
"""The metric of a search's trials."""
_HISTORY = "champion_history"
_SQLITE = "sqlite:///"
_FAILURES = (MlflowException, SQLAlchemyError, OSError)
_RESUME = "What was computed is kept; run `smp train` again when the server is reachable, and it goes on from there."


@dataclass(frozen=True)
class Version:
    """A registered model version.

    Attributes:
        model: The registered model.
        number: Its version.
        run: The MLflow run it came from.
        tags: Its tags.
    """

    model: str
    number: str
    run: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """What MLflow loads it by."""
        return f"models:/{self.model}/{self.number}"

    def __str__(self) -> str:
        return f"{self.model} version {self.number}"


class Registry:
    """The tracking store and registry of a configuration.

    Args:
        config: `registry`, and `root` for the default store.

    Raises:
        StageError: The store cannot be reached.
        UsageError: The default store is a SQLite file, and the root is no folder to put it in.
        RootLockedError: The root was moved, so the store must be put right, and another process is writing.
    """

    def __init__(self, config: Config) -> None:
        _quiet()
        self.config = config
        self.model = config.registry.model
        self._digests: dict[tuple[str, str], Digests] = {}
        self.uri = tracking_uri(config)
        with reachable(self.uri):
            mlflow.set_tracking_uri(self.uri)
            self.client = MlflowClient(self.uri)
            self.experiment = self._experiment()

    def _experiment(self) -> str:
        name = self.config.registry.experiment
        artifacts = None
        folder = open_store(self.config.root).local_folder(ARTIFACTS)
        if self.uri.startswith(_SQLITE) and self.config.registry.tracking_uri is None and folder is not None:
            artifacts = folder.as_uri()
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return str(self.client.create_experiment(name, artifact_location=artifacts))
        if artifacts is not None and was_moved(found.artifact_location, artifacts):
            with writing(self.config.root, self.config.catalog):
                relocate(Path(self.uri.removeprefix(_SQLITE)), found.artifact_location, artifacts)
        return str(found.experiment_id)

    # -- versions -----------------------------------------------------------------------------------------------

    def versions(self) -> list[Version]:
        """Return all registered versions of the model, the newest first."""
        with reachable(self.uri):
            found = self.client.search_model_versions(f"name = '{self.model}'")
            return sorted((_version(each) for each in found), key=lambda each: -int(each.number))

    def find(self, tag: str, value: str) -> Version | None:
        """Return the newest version with a tag whose run is finished and whose digests are recorded.

        Versions without digests, which an earlier version of this package registered, cannot be served: they do not
        count, so that their models are made anew.
        """
        for version in self.versions():
            version = self._whole(version)
            if version.tags.get(tag) == value and DIGESTS_TAG in version.tags and self._finished(version):
                return version
        return None

    def _whole(self, version: Version) -> Version:
        """Return a version with the tags of its run, where it was cut off between registering and tagging it."""
        if TRAINING_KEY in version.tags:
            return version
        with reachable(self.uri):
            tags = self.client.get_run(version.run).data.tags if version.run else {}
            if TRAINING_KEY not in tags or DIGESTS_TAG not in tags:  # not this package's
                return version
            missing = {k: v for k, v in tags.items() if not k.startswith("mlflow.") and k not in version.tags}
            for name, value in missing.items():
                self.client.set_model_version_tag(version.model, version.number, name, value)
        return replace(version, tags={**missing, **version.tags})

    def _finished(self, version: Version) -> bool:
        with reachable(self.uri):
            return bool(self.client.get_run(version.run).info.status == RunStatus.to_string(RunStatus.FINISHED))

    def champion(self) -> Version | None:
        """Return the version with the champion alias; None when there is none."""
        with reachable(self.uri):
            try:
                return _version(self.client.get_model_version_by_alias(self.model, CHAMPION))
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def tag(self, version: Version, name: str, value: str) -> None:
        """Set a tag of a version."""
        with reachable(self.uri):
            self.client.set_model_version_tag(version.model, version.number, name, value)

    # -- artifacts ----------------------------------------------------------------------------------------------

    def results(self, version: Version) -> dict[str, Any]:
        """Return `results.json` of a version's run; its form is described in `experiment.py`."""
        with self._artifact(version, "results.json") as path:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found

    def predictions(self, version: Version, which: str = "oof") -> pd.DataFrame:
        """Return `oof_predictions.parquet` (or `gate_predictions.parquet`) of a version's run."""
        with self._artifact(version, f"{which}_predictions.parquet") as path:
            return pd.read_parquet(path)

    def pair_adapters(self, version: Version) -> Adapters | None:
        """Return the adapters of a version's cross-validation, `FoldAdapters.pairs`; None where none were kept."""
        if PAIR_ADAPTERS not in self._artifacts(version):
            return None
        described = self.results(version)["adapter"]
        if DIGESTS_TAG not in version.tags:
            raise without_digests(str(version))
        with self._artifact(version, PAIR_ADAPTERS) as path:
            return Adapters.load(path.read_bytes(), described["form"], described["ratios"])

    def laboratory(self, version: Version) -> tuple[list[dict[str, Any]], pd.DataFrame] | None:
        """Return what the laboratory measured of a version; None where it has not yet.

        Returns:
            What `movement.measure` and `tsne.coordinates` found.
        """
        there = self._artifacts(version)
        if ADAPTATION not in there:
            return None
        if LABORATORY in there:
            with self._artifact(version, LABORATORY) as path:
                moved = json.loads(path.read_text(encoding="utf-8"))["movement"]
        else:  # measured while it was trained, as earlier versions of this package did
            moved = self.results(version).get("movement")
            if moved is None:
                return None
        with self._artifact(version, ADAPTATION) as path:
            return moved, pd.read_parquet(path)

    def keep_laboratory(self, version: Version, moved: Sequence[Mapping[str, Any]], placed: pd.DataFrame) -> None:
        """Keep what was measured of a version with its run: metrics, a figure, and what `laboratory` returns."""
        with tempfile.TemporaryDirectory() as folder, reachable(self.uri):
            self.client.log_batch(version.run, metrics=movement_metrics(moved))
            if len(placed):
                drawn = Path(folder) / "adaptation.png"
                figures.adaptation(placed).savefig(drawn, dpi=110)
                self.client.log_artifact(version.run, str(drawn), "figures")
            placed.to_parquet(Path(folder) / ADAPTATION)
            self.client.log_artifact(version.run, str(Path(folder) / ADAPTATION))
            text = json.dumps({"movement": list(moved)}, indent=1, allow_nan=False) + "\n"
            (Path(folder) / LABORATORY).write_text(text, encoding="utf-8")
            self.client.log_artifact(version.run, str(Path(folder) / LABORATORY))

    def _artifacts(self, version: Version) -> set[str]:
        with reachable(self.uri):
            return {each.path for each in self.client.list_artifacts(version.run)}

    def predictor(self, version: Version) -> Predictor:
        """Return a version's model, for use in this process.

        Raises:
            ModelError: As `fetched`.
        """
        with self.fetched(version) as folder:
            return Predictor.load(folder / "artifacts" / "model")

    @contextmanager
    def fetched(self, version: Version) -> Iterator[Path]:
        """Give a copy of a version's model folder whose every file is the one that was registered.

        It is private to this process and goes afterwards: what MLflow loads from it is what was compared.

        Raises:
            ModelError: A file was changed, added or lost, no digests were recorded, or it is no model of this package.
        """
        recorded = self._recorded(version)
        if recorded is None:
            raise without_digests(str(version))
        with tempfile.TemporaryDirectory() as scratch:
            with reachable(self.uri):
                folder = Path(mlflow.artifacts.download_artifacts(version.uri, dst_path=scratch))
            recorded.check_model(folder, str(version))
            yield folder

    def check(self, version: Version) -> None:
        """Refuse a version that could not be served.

        Raises:
            ModelError: As `fetched`.
        """
        with self.fetched(version):
            pass

    def _recorded(self, version: Version) -> Digests | None:
        """Return the digests of a version, read once; None where its tags name none."""
        tag = version.tags.get(DIGESTS_TAG)
        if tag is None:
            return None
        if (version.run, tag) not in self._digests:
            with tempfile.TemporaryDirectory() as folder, reachable(self.uri):
                content = Path(self.client.download_artifacts(version.run, DIGESTS, folder)).read_bytes()
                self._digests[version.run, tag] = Digests.read(content, tag, str(version))
        return self._digests[version.run, tag]

    @contextmanager
    def _artifact(self, version: Version, name: str) -> Iterator[Path]:
        recorded = self._recorded(version)
        with tempfile.TemporaryDirectory() as folder, reachable(self.uri):
            path = Path(self.client.download_artifacts(version.run, name, folder))
            if recorded is not None:
                recorded.check_file(path, str(version))
            yield path

    # -- publishing ---------------------------------------------------------------------------------------------

    def publish(self, work: Path, tags: Mapping[str, str], *, anew: bool = False) -> Version:
        """Log an experiment's folder as one run, and register its model.

        One key is one version: where another process published it meanwhile, that version is returned.

        Args:
            work: Holds `model/`, `results.json`, the predictions and `figures/`.
            tags: Of run and version; `training_key` is among them.
            anew: Register it beside a version that has the same key.

        Raises:
            StageError: The store was lost; the folder is kept, and the same call may be made again.
        """
        there = None if anew else self.find(TRAINING_KEY, tags[TRAINING_KEY])
        if there is not None:
            return there
        results = json.loads((work / "results.json").read_text(encoding="utf-8"))
        with reachable(self.uri, _RESUME):
            self._end_unfinished(tags[TRAINING_KEY])
            with mlflow.start_run(experiment_id=self.experiment, tags=dict(tags)) as run:
                mlflow.log_params(parameters(self.config) | searched(results))
                self.client.log_batch(run.info.run_id, metrics=metrics(results))
                self._log_dataset(results)
                self._log_trials(run.info.run_id, results, tags)
                for path in sorted(work.iterdir()):
                    if path.is_file():
                        mlflow.log_artifact(str(path))
                mlflow.log_artifacts(str(work / "figures"), "figures")
                logged = _log_model(work / "model", work / "input_example.parquet")
                tags = {**tags, DIGESTS_TAG: _record_digests(logged, work)}
                mlflow.set_tag(DIGESTS_TAG, tags[DIGESTS_TAG])
            self._create_model()
            made = _version(
                self.client.create_model_version(
                    self.model, logged.model_uri, run.info.run_id, tags=dict(tags), model_id=logged.model_id
                )
            )
        return made if anew else self._first(made)

    def _first(self, made: Version) -> Version:
        """Return the oldest version of a key, and remove the one just made where another process was first."""
        same = [
            each
            for each in self.versions()
            if each.tags.get(TRAINING_KEY) == made.tags[TRAINING_KEY] and DIGESTS_TAG in each.tags
        ]
        first = min(same, key=lambda each: int(each.number), default=made)
        if int(first.number) < int(made.number):
            logger.info("%s was registered by another process meanwhile; version %s goes", first, made.number)
            with reachable(self.uri):
                self.client.delete_model_version(self.model, made.number)
            return first
        return made

    def _create_model(self) -> None:
        try:
            self.client.create_registered_model(self.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _end_unfinished(self, key: str) -> None:
        """Mark what an interrupted call left running, so that nobody waits for it."""
        query = f"tags.{TRAINING_KEY} = '{key}' and attributes.status = 'RUNNING'"
        for run in self.client.search_runs([self.experiment], query):
            self.client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.KILLED))

    def _log_dataset(self, results: Mapping[str, Any]) -> None:
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        source = CodeDatasetSource({"table": "training_set", "version": str(results["versions"]["training_set"])})
        mlflow.log_input(MetaDataset(source, name="training_set", digest=results["snapshot"][:8]), context="training")

    def _log_trials(self, parent: str, results: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Log every trial of a search as a run below the model's."""
        if results["search"] is None:
            return
        described = {**tags, "kind": "search trial", "mlflow.parentRunId": parent}
        for trial in results["search"]["trials"]:
            made = self.client.create_run(self.experiment, tags=described, run_name=f"trial {trial['number']}")
            self.client.log_batch(
                made.info.run_id,
                metrics=[Metric(OBJECTIVE, trial["value"], 0, 0)],
                params=[Param(name, value) for name, value in settings_of(trial).items()],
            )
            self.client.set_terminated(made.info.run_id, RunStatus.to_string(RunStatus.FINISHED))

    # -- the champion -------------------------------------------------------------------------------------------

    def settle(self, version: Version) -> str:
        """Decide whether a version becomes champion, unless that was decided before; return the decision in words."""
        if DECISION in version.tags:
            return version.tags[DECISION]
        champion = self.champion()
        if champion is None:
            self.appoint(version)
            decision = "champion: the first version"
        elif champion.number == version.number:
            decision = "champion"
        elif DIGESTS_TAG not in champion.tags:
            self.appoint(version)
            decision = f"champion: version {champion.number} was registered without digests, so nothing can score by it"
        else:
            better, reason = is_better(
                self.predictions(version, "gate"), self.predictions(champion, "gate"), self.config
            )
            if better:
                self.appoint(version)
            decision = (
                f"champion: {reason}" if better else f"challenger: {reason}; version {champion.number} stays champion"
            )
        self.tag(version, DECISION, decision)
        return decision

    def appoint(self, version: Version) -> None:
        """Give a version the champion alias, and remember the one that had it."""
        champion = self.champion()
        with reachable(self.uri):
            if champion is not None and champion.number != version.number:
                history = [*self._history(), champion.number]
                self.client.set_registered_model_tag(self.model, _HISTORY, json.dumps(history))
            self.client.set_registered_model_alias(self.model, CHAMPION, version.number)

    def restore(self) -> Version:
        """Give the alias back to the version that had it before.

        Raises:
            UsageError: There was none before.
            ModelError: It cannot be served, as `fetched` says; nothing is changed.
        """
        with reachable(self.uri):
            history = self._history()
            if not history:
                raise UsageError(f"{self.model} has no earlier champion.", "Use `smp promote VERSION`.")
            self.check(_version(self.client.get_model_version(self.model, history[-1])))
            self.client.set_registered_model_alias(self.model, CHAMPION, history[-1])
            self.client.set_registered_model_tag(self.model, _HISTORY, json.dumps(history[:-1]))
            return _version(self.client.get_model_version(self.model, history[-1]))

    def _history(self) -> list[str]:
        found: list[str] = json.loads(self.client.get_registered_model(self.model).tags.get(_HISTORY, "[]"))
        return found


def _log_model(folder: Path, example: Path) -> Any:
    """Log a saved model and the code that serves it to the active run."""
    predictor = Predictor.load(folder)
    with served_code(folder) as code:
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code.model),
            code_paths=[str(code.package)],
            artifacts={"model": str(folder)},
            signature=signature(predictor),
            input_example=pd.read_parquet(example),
            pip_requirements=requirements(predictor),
        )


def _record_digests(logged: Any, work: Path) -> str:
    """Log the digests of all that the active run holds of a model; return the SHA-256 of that record."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=f"{scratch}/model"))
        files = [path for path in sorted(work.iterdir()) if path.is_file()]
        written = Path(scratch) / DIGESTS
        written.write_text(Digests.of(folder, files).as_json(), encoding="utf-8")
        mlflow.log_artifact(str(written))
        return digest_of(written.read_bytes())


def existing(config: Config) -> Registry | None:
    """Return the registry; None where the default store was never made, since opening it would make it.

    Raises:
        StageError: The store cannot be reached.
    """
    try:
        store = tracking_uri(config)
    except UsageError:  # no place for a store, so nothing was trained
        return None
    if store.startswith(_SQLITE) and not Path(store.removeprefix(_SQLITE)).exists():
        return None
    return Registry(config)


def promote(config: Config, version: str) -> str:
    """Make a registered version the champion; return what was done.

    Raises:
        UsageError: There is no such version.
        ModelError: Its files are not those that were registered, or it is no model of this package.
    """
    registry = Registry(config)
    known = {each.number: each for each in registry.versions()}
    if version not in known:
        listed = ", ".join(sorted(known, key=int)) or "none"
        raise UsageError(f"{registry.model} has no version {version}.", f"Registered: {listed}.")
    registry.check(known[version])
    before = registry.champion()
    registry.appoint(known[version])
    was = f" in place of version {before.number}" if before is not None and before.number != version else ""
    return f"{known[version]} is champion{was}. Run `smp score` to score with it."


def rollback(config: Config) -> str:
    """Make the previous champion the champion again; return what was done.

    Raises:
        UsageError: There was none before.
    """
    return f"{Registry(config).restore()} is champion again. Run `smp score` to score with it."


def tracking_uri(config: Config) -> str:
    """Return where runs are recorded: as configured, the workspace on Databricks, else a SQLite file under the root.

    Raises:
        UsageError: The root is no local folder.
    """
    if config.registry.tracking_uri is not None:
        return config.registry.tracking_uri
    workspace = workspace_tracking()
    if workspace is not None:
        return workspace
    store = open_store(config.root).local_folder("mlflow.db")
    if store is None:
        raise UsageError(
            f"MLflow's default store is a SQLite file, which cannot lie under {config.root}.",
            "Set registry.tracking_uri.",
        )
    return f"{_SQLITE}{store}"


@contextmanager
def reachable(
    uri: str, hint: str = "Start it, or set registry.tracking_uri; then run the same command again."
) -> Iterator[None]:
    """Turn the failures of an MLflow store into one line, without the passwords of its address."""
    try:
        yield
    except _FAILURES as error:
        reason = (redacted(str(error)).strip() or type(error).__name__).splitlines()[0][:200]
        raise StageError(f"MLflow at {redacted(uri)} failed: {reason.rstrip('.')}.", hint) from error


def _quiet() -> None:
    for name in ("mlflow", "alembic", "mlflow.utils.environment", "mlflow.store", "mlflow.pyfunc"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _version(found: Any) -> Version:
    return Version(str(found.name), str(found.version), str(found.run_id), dict(found.tags))
