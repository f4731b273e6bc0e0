"""Configuration: conf/*.yaml files, each extending another, become frozen models that refuse unknown keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator

from smp_features.config_values import check_value
from smp_features.errors import ConfigError, nearest
from smp_features.redaction import redacted, remember_secrets
from smp_features.strict_yaml import MOST_BYTES, read_yaml

Dtype = Literal["float32", "bfloat16", "float16"]
SplitName = Literal["identity", "chronological", "later_unseen", "rolling", "random_optimistic"]
AdapterForm = Literal["mixture", "bottleneck"]
AdapterLoss = Literal["mse", "huber", "intervals"]
MemberName = Literal["lightgbm", "catboost", "metadata"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _check_value(cls, value: Any, info: ValidationInfo) -> Any:
        return check_value(value, cls.model_fields[info.field_name or ""])


class KnownAtRules(_Frozen):
    """When the platform could have known each thing that the source itself does not date.

    Attributes:
        user_data: `event_ts`: a post's user record counts as known when the post was made. An assumption, shown as one.
        label_maturity_days: Days after a post at which its view count is taken as known.
        user_additional: The date the external profiles were crawled; null means later than every post.
    """

    user_data: Literal["event_ts"] = "event_ts"
    label_maturity_days: int = Field(default=30, ge=0, le=36_500)
    user_additional: date | None = Field(default=None, ge=date(1970, 1, 1), lt=date(2200, 1, 1))


class SourceConfig(_Frozen):
    """Where posts come from; a kind of source may have further settings, beside its code.

    Attributes:
        kind: What reads them: `smpd`, the SMP Challenge's image folder, or a kind that another package brings.
        path: Where they are: for `smpd` a folder.
        known_at: Time rules for what the source does not date.
        limit: Read only this many posts of each split (a pilot); null reads all.
        max_refused_share: Fail ingest when a larger share of source rows is quarantined.
        max_removed_share: Refuse a source that lacks a larger share of the stored posts, or of their pictures, when it
            is more than one of them.
        allow_removal: Take a source as it is although posts, pictures or fields are gone from it; `--allow-removal`.
        without: Fields that this source never had, as its files would call them, such as `canbuypro`.
    """

    kind: str = "smpd"
    path: str | None = None
    known_at: KnownAtRules = KnownAtRules()
    limit: int | None = Field(default=None, ge=1, le=10**12)
    max_refused_share: float = Field(default=0.05, ge=0, le=1)
    max_removed_share: float = Field(default=0.05, ge=0, le=1)
    allow_removal: bool = False
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """Where settings are from.

    Attributes:
        layers: What messages call a place, and the settings there; later ones replace earlier ones.
    """

    layers: tuple[tuple[str, Mapping[str, Any]], ...]

    def of(self, key: Sequence[str]) -> str | None:
        """Return where a setting is from, the nearest section's place if nothing sets it itself; None for nowhere."""
        for depth in range(len(key), 0, -1):
            for name, settings in reversed(self.layers):
                if _has(settings, key[:depth]):
                    return name
        return None


def _has(settings: Any, key: Sequence[str]) -> bool:
    for part in key:
        if not isinstance(settings, Mapping) or part not in settings:
            return False
        settings = settings[part]
    return True


Place = str | Path | Places | None
"""A file, or several places."""


def _in(place: Place, *key: str) -> str:
    """Return the end of a message that says where a setting is from."""
    found = place.of(key) if isinstance(place, Places) else place
    return "" if found is None else f" in {found}"


def read_source(given: Mapping[str, Any], place: Place = None) -> SourceConfig:
    """Return the section `source`, checked by the settings of its kind.

    Args:
        given: Keys and values.
        place: Where they are from, for messages: a file, or what says so of each setting.

    Raises:
        ConfigError: A kind that is not installed, an unknown key, a wrong value.
    """
    from smp_features import plugins

    kind = given.get("kind", SourceConfig().kind)
    settings: type[SourceConfig] = plugins.find(plugins.SOURCES, str(kind), "source.kind").Settings
    try:
        return settings.model_validate(given)
    except ValidationError as error:
        raise _explain(error, place, settings, ("source",)) from None


class ModelSettings(_Frozen):
    """One entry of `models`; every kind of extractor has settings of its own, beside its code.

    Attributes:
        kind: What it is: `caption`, `clip`, `perplexity`, or a kind that another package brings.
    """

    kind: str


ROLES = {"caption": "caption", "clip": "clip", "language": "perplexity"}
"""The models that the paper's measures are made with, and their kinds unless another is configured. Those that are not
configured are the bundled demo models."""

_MODEL_NAME = re.compile(r"[a-z][a-z0-9_]*")


def read_models(given: Mapping[str, Any], place: Place = None) -> dict[str, ModelSettings]:
    """Return the entries of a section `models`, each checked by the settings of its kind; the roles come first.

    Args:
        given: Name to settings, as keys and values.
        place: Where they are from, for messages: a file, or what says so of each setting.

    Raises:
        ConfigError: An entry without a kind, a kind that is not installed, an unknown key, a wrong value.
    """
    demo = {role: {"id": f"zoo:{role}"} for role in ROLES}
    return {name: _read_model(name, values, place) for name, values in (demo | dict(given)).items()}


def _read_model(name: str, values: Any, place: Place) -> ModelSettings:
    from smp_features import plugins

    key, where = f"models.{name}", _in(place, "models", name)
    if isinstance(values, ModelSettings):
        return values
    if not isinstance(name, str) or not _MODEL_NAME.fullmatch(name):
        raise ConfigError(
            f"Configuration key '{key}'{where}: a model's name becomes part of column names.",
            "Write it in small letters, digits and underscores, a letter first.",
        )
    if not isinstance(values, Mapping):
        raise ConfigError(f"Configuration key '{key}'{where}: input should be keys and values.")
    kind = values.get("kind", ROLES.get(name))
    if not isinstance(kind, str):
        raise ConfigError(
            f"Configuration key '{key}'{where}: a model beside {', '.join(ROLES)} must say its kind.",
            f"{nearest(name, ROLES)} Kinds: {', '.join(plugins.kinds(plugins.EXTRACTORS))}.",
        )
    settings: type[ModelSettings] = plugins.find(plugins.EXTRACTORS, kind, f"{key}.kind").Settings
    try:
        return settings.model_validate({**values, "kind": kind})
    except ValidationError as error:
        raise _explain(error, place, settings, ("models", name)) from None


class ExtractionConfig(_Frozen):
    """How extraction is spread and what it tolerates.

    Attributes:
        device: `cpu`, or `gpu` for one task per GPU as scheduled by Spark.
        slots: Tasks at a time; null takes all that the executors have cores and GPUs for.
        chunk_minutes: Work between two publishes, so the most that a kill can lose.
        first_chunk_rows: Rows per slot of the first chunks, from which the speed is measured; null takes 32 pictures
            or 256 texts, and up to 16 times as many if at the last run's speed they are `chunk_minutes` of work.
        chunks_in_flight: Chunks computed at once, so that each hides the other's tail.
        max_error_share: Fail the stage when a larger share of all wanted keys has a permanent error, failed
            transiently, or was given up.
        deadline_s: Seconds a micro-batch may take before its worker is ended.
        max_attempts: Transient failures after which a key is given up until `smp retry`.
        model_folders: Folders of models, or of folders of models, where a worker that has no model at the driver's
            path looks for one with the same digest.
        ship_models: Copy models through the root to workers that find them nowhere else; null does so where workers are
            on other machines than the driver.
    """

    device: Literal["cpu", "gpu"] = "cpu"
    slots: int | None = Field(default=None, ge=1, le=100_000)
    chunk_minutes: float = Field(default=5.0, gt=0, le=10_000)
    first_chunk_rows: int | None = Field(default=None, ge=1, le=10**9)
    chunks_in_flight: int = Field(default=2, ge=1, le=8)
    max_error_share: float = Field(default=0.2, ge=0, le=1)
    deadline_s: float = Field(default=600.0, gt=0, le=10**7)
    max_attempts: int = Field(default=3, ge=1, le=1_000)
    model_folders: tuple[str, ...] = ()
    ship_models: bool | None = None


class FeaturesConfig(_Frozen):
    """Which features a model may see.

    Attributes:
        time_rules: `strict` shows a post only what was known when it was made; `challenge` also the external
            profiles, whatever their date, as the SMP Challenge allows when declared.
        groups: Feature groups that models are trained on, by the names of `catalogue.py` and of the extractors; null
            means all.
    """

    time_rules: Literal["strict", "challenge"] = "strict"
    groups: tuple[str, ...] | None = None


class AdapterConfig(_Frozen):
    """The CLIP-adapter, trained on popularity over frozen features (Gao et al., arXiv 2110.04544).

    Attributes:
        form: `mixture`: a learned vector mixed with the frozen one by fixed ratios (DSN); `bottleneck`: CLIP-Adapter.
        image_ratio: Share of the adapted vector in the image branch.
        text_ratio: Share of the adapted vector in the text branch.
        loss: Mean squared or Huber on the label; `intervals`: cross-entropy over unit intervals of popularity, whose
            score is the mean of the intervals' centres weighted by their probabilities.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        batch: Rows per step.
        epochs: Most passes over the training rows.
        min_steps: Fewest optimiser steps before `epochs` ends training; a small training set is passed over more often.
        stopping_share: Share of each adapter's own training users who are not trained on and decide when it stops; 0
            trains on all of them to the end.
        patience: Epochs without a lower loss on those users after which an adapter stops; it keeps its best weights.
    """

    form: AdapterForm = "mixture"
    image_ratio: float = Field(default=0.2, ge=0, le=1)
    text_ratio: float = Field(default=0.6, ge=0, le=1)
    loss: AdapterLoss = "mse"
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    weight_decay: float = Field(default=1e-4, ge=0, le=10)
    batch: int = Field(default=512, ge=1, le=10**7)
    epochs: int = Field(default=15, ge=1, le=100_000)
    min_steps: int = Field(default=100, ge=0, le=10**9)
    stopping_share: float = Field(default=0.1, ge=0, le=0.5)
    patience: int = Field(default=5, ge=1, le=100_000)


class RegressorConfig(_Frozen):
    """Gradient boosting over PCA vectors, adapter scores and scalar features.

    Attributes:
        members: Boosters that are blended by their out-of-fold predictions: `lightgbm` and `catboost` on all columns,
            `metadata`, which is LightGBM without any column made by a frozen model.
        inner_folds: Folds of users, within the training rows, on which rounds and blend are chosen; null takes all
            of them below 20,000 rows, else one.
        rounds: Most boosting rounds; early stopping on the inner folds picks the number.
        learning_rate: Shrinkage.
        leaves: Leaves per tree.
        min_leaf_rows: Fewest rows in a leaf.
        feature_fraction: Share of features tried per tree.
        bagging_fraction: Share of rows per tree.
        l2: L2 regularisation of leaf values.
        catboost_learning_rate: Shrinkage of CatBoost; rounds, shares, l2 and early stopping are common to both.
        catboost_depth: Depth of CatBoost's trees.
        early_stopping: Rounds without improvement before stopping.
        target_prior_rows: Each category's mean label, made from other folds, is drawn towards the overall mean as if by
            so many rows; null leaves these columns out.
        word_components: Most components of the SVD of hashed words by TF-IDF, fitted in the fold; 0 leaves them out.
        pca_components: Most components per raw vector, fitted in the fold.
        adapted_components: The same for adapted vectors, whose score is a feature of its own; 0 leaves them out.
    """

    members: tuple[MemberName, ...] = Field(default=("lightgbm", "metadata"), min_length=1)
    inner_folds: int | None = Field(default=None, ge=1, le=100)
    rounds: int = Field(default=2000, ge=1, le=10**6)
    learning_rate: float = Field(default=0.03, gt=0, le=10)
    leaves: int = Field(default=31, ge=2, le=131_072)
    min_leaf_rows: int = Field(default=20, ge=1, le=10**9)
    feature_fraction: float = Field(default=0.6, gt=0, le=1)
    bagging_fraction: float = Field(default=0.8, gt=0, le=1)
    l2: float = Field(default=5.0, ge=0, le=10**9)
    catboost_learning_rate: float = Field(default=0.05, gt=0, le=10)
    catboost_depth: int = Field(default=6, ge=1, le=12)
    early_stopping: int = Field(default=100, ge=1, le=10**6)
    target_prior_rows: float | None = Field(default=20.0, ge=0, le=10**9)
    word_components: int = Field(default=16, ge=0, le=100_000)
    pca_components: int = Field(default=64, ge=1, le=100_000)
    adapted_components: int = Field(default=16, ge=0, le=100_000)


class SearchConfig(_Frozen):
    """A seeded search for the boosters' settings (Optuna's TPE), made before a model is trained; off by default.

    It looks for the least squared error of out-of-fold predictions under `identity`, so the scores on these rows are
    optimistic for settings found by it; the gate's rows have no part in it. `smp ablate` does not search.

    Attributes:
        trials: Settings tried, `training.regressor` itself first, the next nine at random; 0 takes `training.regressor`
            as it is. Each costs one cross-validation of the boosters, about what one entry of `leave_out` costs beyond
            its adapters; adapters are trained once for all trials and the model.
    """

    trials: int = Field(default=0, ge=0, le=100_000)


class TrainingConfig(_Frozen):
    """What is trained and how it is validated.

    Attributes:
        split: The validation split whose scores head the report.
        folds: Folds of the identity-isolated cross-validation.
        bootstrap: Resamples of users behind every interval.
        history_blank_share: Share of training users whose history is blanked, so that boosters learn what to do
            without: most posts of the challenge's test are of users never seen.
        leave_out: Feature groups (or sets, such as `picture`) whose absence is measured by a paired bootstrap.
        adapter: The adapter.
        regressor: The booster.
        search: For the booster's settings; the best replace those of `regressor`.
        seed: Decides folds, initial weights, shuffles, bagging, bootstrap and search.
    """

    split: SplitName = "identity"
    folds: int = Field(default=5, ge=3, le=100)
    bootstrap: int = Field(default=1000, ge=100, le=10**6)
    history_blank_share: float = Field(default=0.5, ge=0, le=1)
    leave_out: tuple[str, ...] = ("picture", "user")
    adapter: AdapterConfig = AdapterConfig()
    regressor: RegressorConfig = RegressorConfig()
    search: SearchConfig = SearchConfig()
    seed: int = Field(default=7, ge=0, lt=2**32)


class GateConfig(_Frozen):
    """The rows on which a new model must beat the champion.

    Attributes:
        share: Share of users, by hash, never trained on.
        confidence: The new model's advantage must exclude zero at this level.
    """

    share: float = Field(default=0.1, ge=0, lt=0.5)
    confidence: float = Field(default=0.9, gt=0.5, lt=1)


class RegistryConfig(_Frozen):
    """Where runs and models are recorded.

    Attributes:
        tracking_uri: MLflow's; null is a SQLite file under the root (on Databricks: the workspace).
        experiment: The experiment's name.
        model: The registered model's name.
        gate: The promotion rule.
    """

    tracking_uri: str | None = None
    experiment: str = "smp_popularity"
    model: str = "smp_popularity"
    gate: GateConfig = GateConfig()


class ReportConfig(_Frozen):
    """What the HTML report shows.

    Attributes:
        gallery: Show thumbnails and titles of single posts; switch off for private data.
        truth: A `truth.json` beside generated posts, for the oracle's score; null looks in the source folder.
        perplexity_quantile: Titles beyond this quantile of the training titles' perplexity count as gibberish in the
            analysis; predictions are made for them all the same.
    """

    gallery: bool = True
    truth: str | None = None
    perplexity_quantile: float = Field(default=0.95, gt=0, lt=1)


class SparkConfig(_Frozen):
    """The local Spark session; on Databricks none of this is used.

    Attributes:
        master: `local[*]` retries no task; the default gives every core one slot and four tries.
        driver_memory: Of the JVM that plans, and on local masters also computes.
        jars: Comma-separated Delta jars to use instead of fetching them from the Maven repository.
        conf: Further Spark settings.
    """

    master: str = "local[*,4]"
    driver_memory: str = "3g"
    jars: str | None = None
    conf: dict[str, str] = Field(default_factory=dict)


class Config(_Frozen):
    """Everything a stage needs to know."""

    root: str = "./lakehouse"
    catalog: str | None = None
    schema_name: str = Field(default="smp", alias="schema", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    source: SerializeAsAny[SourceConfig] = SourceConfig()
    models: dict[str, SerializeAsAny[ModelSettings]] = Field(default_factory=lambda: read_models({}))
    extraction: ExtractionConfig = ExtractionConfig()
    features: FeaturesConfig = FeaturesConfig()
    training: TrainingConfig = TrainingConfig()
    registry: RegistryConfig = RegistryConfig()
    report: ReportConfig = ReportConfig()
    spark: SparkConfig = SparkConfig()

    @field_validator("source", mode="before")
    @classmethod
    def _read_source(cls, value: Any, info: ValidationInfo) -> Any:
        return read_source(value, (info.context or {}).get("place")) if isinstance(value, Mapping) else value

    @field_validator("models", mode="before")
    @classmethod
    def _read_models(cls, value: Any, info: ValidationInfo) -> Any:
        return read_models(value, (info.context or {}).get("place")) if isinstance(value, Mapping) else value


def load_config(path: str | Path | None = None, overrides: list[str] | None = None, root: str | None = None) -> Config:
    """Read a configuration file, the files it extends, and command-line overrides.

    Args:
        path: A YAML file; its `extends` key names another, relative to it. None takes the built-in defaults.
        overrides: `key.path=value` strings; values are read as YAML.
        root: Replaces the `root` key.

    Raises:
        ConfigError: A file is missing or not YAML, a key is unknown (the nearest known one is named), a value is wrong.

    Example:
        >>> config = load_config(None, ["training.folds=3"], root="lake")
        >>> config.training.folds, config.root
        (3, 'lake')
    """
    layers = [] if path is None else _read_chain(Path(path))
    values: dict[str, Any] = {}
    for _, layer in layers:
        values = _merge(values, layer)
    for override in overrides or []:
        given: dict[str, Any] = {}
        _set(given, override)
        layers.append(("--set", given))
        _set(values, override)
    if root is not None:
        values["root"] = root
        layers.append(("--root", {"root": root}))
    remember_secrets(values)
    place = Places(tuple(layers))
    try:
        return Config.model_validate(values, context={"place": place})
    except ValidationError as error:
        raise _explain(error, place) from None


MOST_FILES = 20
"""Configuration files that extend each other."""


def _read_chain(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[str, dict[str, Any]]]:
    """Return a configuration file's settings after those of the files it extends, each with its path."""
    resolved = path.resolve()
    if resolved in seen:
        raise ConfigError(f"Configuration file {path} extends itself.", "Remove one `extends`.")
    if len(seen) >= MOST_FILES:
        raise ConfigError(f"Configuration file {path} is extended by {len(seen)} others.", f"At most {MOST_FILES} may.")
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1).decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"Configuration file {path} does not exist.", "See conf/ for examples.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"Configuration file {path} is not a text in UTF-8.", "See conf/ for examples.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no path"
        raise ConfigError(f"Configuration file {path} cannot be read: {reason}.", "See conf/ for examples.") from None
    loaded = read_yaml(text, str(path))
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"Configuration file {path} must hold keys and values, not a {type(loaded).__name__}.")
    parent = loaded.pop("extends", None)
    if parent is None:
        return [(str(path), loaded)]
    if not isinstance(parent, str):
        raise ConfigError(f"Configuration key 'extends' in {path}: must be the path of another file.")
    return [*_read_chain(path.parent / parent, (*seen, resolved)), (str(path), loaded)]


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {redacted(override)}: expected key.path=value.", "Example: --set source.path=posts")
    try:
        value = read_yaml(text, f"--set {key}")
    except ConfigError as error:
        raise ConfigError(error.message, "Quote it, if it is a text.") from None
    *parents, last = key.split(".")
    at = values
    for parent in parents:
        below = at.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {key}: '{parent}' is a value, not a section.")
        at = below
    at[last] = value


def _explain(
    error: ValidationError,
    place: Place,
    model: type[BaseModel] | None = None,
    section: tuple[str, ...] = (),
) -> ConfigError:
    """Return the first error in words.

    Args:
        error: Of `model`.
        place: Where the values are from.
        model: What was validated; None is the whole configuration.
        section: Where in the configuration that stands.
    """
    first = error.errors()[0]
    names = [str(part) for part in first["loc"]]
    key = ".".join((*section, *names))
    where = _in(place, *section, *names)
    if first["type"] == "extra_forbidden":
        known = _known_keys(model or Config, names[:-1])
        return ConfigError(f"Unknown configuration key '{key}'{where}.", nearest(names[-1], known))
    reason = redacted(first["msg"].removeprefix("Value error, "))
    end = "" if reason.endswith((".", "?")) else "."
    return ConfigError(f"Configuration key '{key}'{where}: {reason[0].lower()}{reason[1:]}{end}")


def _known_keys(model: Any, section: list[str]) -> list[str]:
    for name in section:
        fields = {info.alias or key: info for key, info in model.model_fields.items()}
        model = fields[name].annotation if name in fields else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
    return [info.alias or key for key, info in model.model_fields.items()]
