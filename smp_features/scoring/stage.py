"""The stage that scores: unlabelled posts, or those of a condition, predicted by the champion, kept up row by row."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from smp_features.config import Config
from smp_features.errors import FingerprintError, StageError, UsageError
from smp_features.lake.staging import staged
from smp_features.lake.tables import Lakehouse
from smp_features.model.predictor import fingerprint_columns
from smp_features.runs import Phases, Summary
from smp_features.session import slots_of
from smp_features.spark_failures import cause

if TYPE_CHECKING:
    from smp_features.training.registry import Version

logger = logging.getLogger(__name__)


@staged
def score(session: SparkSession, config: Config, *, run: str, where: str | None = None) -> Summary:
    """Predict posts with the champion, through `spark_udf`; only rows whose prediction is missing or out of date.

    Args:
        session: A Spark session with Delta.
        config: Its `registry` names the model.
        run: The run's id, for its staging folder.
        where: A condition in Spark SQL over the columns of `post_features`, such as `uid = '7@N'`: the posts that meet
            it are predicted, labelled or not. None predicts every unlabelled post.

    Returns:
        wanted: these posts; ok: those with a prediction; computed: predicted by this run.

    Raises:
        UsageError: `where` is no condition over `post_features`.
        StageError: There is no champion, or a prediction is missing or not finite.
        ModelError: The champion's files are not those that were registered, or it is no model of this package.
        FingerprintError: The features were made by other models, or under other time rules, than the champion's.
    """
    from smp_features.training.registry import Registry

    lakehouse, phases = Lakehouse(session, config), Phases()
    versions = lakehouse.versions(("post_features", "labels"))
    wanted = unlabelled(lakehouse, versions) if where is None else meeting(lakehouse, versions, where)
    posts = "unlabelled posts" if where is None else f"posts where {where}"
    with phases("registry"):
        registry = Registry(config)
        champion = registry.champion()
    if champion is None:
        raise StageError(f"{registry.model} has no champion to score with.", "Run `smp train` first.")
    with phases("plan"):
        todo = _without_prediction(lakehouse, wanted, champion)
        count, left = wanted.count(), todo.count()
    if not left:
        return Summary(
            "score",
            outcome="nothing_to_do",
            wanted=count,
            ok=count,
            seconds=phases.seconds,
            versions_read=versions,
            message=f"all {count:,} {posts} have predictions of {champion}" if count else f"there are no {posts}",
        )
    _check_made_under(todo, champion.tags, str(champion))
    tasks = min(slots_of(session, config.extraction.slots), left)
    staging = lakehouse.folder("staging", "predictions", run, "rows")
    before = lakehouse.version("predictions")
    try:
        with phases("predict"), registry.fetched(champion) as folder:
            predicted = _predicted(session, registry.uri, str(folder), todo.repartition(tasks, "pid"))
            predicted.withColumns(
                {
                    "model": F.lit(champion.model),
                    "model_version": F.lit(champion.number),
                    "scored_at": F.current_timestamp(),
                }
            ).write.mode("overwrite").parquet(staging)
        with phases("write"):
            rows = session.read.parquet(staging)
            finite = rows.where(F.col("prediction").isNotNull() & ~F.isnan("prediction")).select("pid").distinct()
            if finite.count() != left:
                raise StageError(
                    f"{champion} gave {finite.count()} finite predictions for {left} posts.",
                    "Nothing was written; run `smp score` again.",
                )
            lakehouse.synchronise("predictions", rows, "features_key")
    finally:
        lakehouse.files.delete_prefix(f"staging/predictions/{run}")
    after = lakehouse.version("predictions")
    return Summary(
        "score",
        wanted=count,
        ok=count,
        computed=left,
        model_loads=tasks,
        seconds=phases.seconds,
        versions_read=versions,
        versions_written={"predictions": after} if after != before else {},
        message=f"{left:,} posts scored by {champion}, {count:,} {posts} have predictions",
    )


def unlabelled(lakehouse: Lakehouse, versions: Mapping[str, int]) -> DataFrame:
    """Return the rows of `post_features` without a label.

    Args:
        lakehouse: The tables.
        versions: Of `post_features` and `labels`.
    """
    labelled = lakehouse.read("labels", versions["labels"]).select("pid")
    return lakehouse.read("post_features", versions["post_features"]).join(labelled, "pid", "left_anti")


def _without_prediction(lakehouse: Lakehouse, wanted: DataFrame, model: Version) -> DataFrame:
    done = lakehouse.read("predictions").where(
        (F.col("model") == model.model) & (F.col("model_version") == model.number)
    )
    return wanted.join(done.select("pid", "features_key"), ["pid", "features_key"], "left_anti")


def meeting(lakehouse: Lakehouse, versions: Mapping[str, int], where: str) -> DataFrame:
    """Return the rows of `post_features` that meet a condition, labelled or not.

    Args:
        lakehouse: The tables.
        versions: Of `post_features`.
        where: A condition in Spark SQL.

    Raises:
        UsageError: It does not parse, is not true or false, or names a column that is not there.
    """
    try:
        return lakehouse.read("post_features", versions["post_features"]).where(where)
    except PySparkException as error:
        raise UsageError(
            f"'{where}' is no condition over post_features: {cause(str(error))}", "Such as --where \"uid = '7@N'\"."
        ) from None


def _check_made_under(todo: DataFrame, tags: Mapping[str, str], model: str) -> None:
    """Refuse rows whose columns do not say what the model's tags say of the models and rules behind them."""
    names = [*fingerprint_columns(tags), "time_rules"]
    gone = sorted(set(names) - set(todo.columns))
    if gone:
        raise FingerprintError(
            f"{model} was trained on {gone[0]} {tags.get(gone[0])}, and post_features has no such column.",
            "Configure the models of the champion, or run `smp train` on the new features.",
        )
    # A set holds no null, and a null says that the model's extractor has left the configuration.
    values = {name: F.coalesce(name, F.lit("nothing")) for name in names}
    found = todo.agg(*(F.sort_array(F.collect_set(value)).alias(name) for name, value in values.items())).collect()[0]
    for name in names:
        others = [value for value in found[name] if value != tags.get(name)]
        if others:
            raise FingerprintError(
                f"{model} was trained on {name} {tags.get(name)}, and post_features holds {', '.join(others[:3])}.",
                "Run `smp train` on the new features (and `smp promote` if it stays a challenger), "
                "or configure the models of the champion.",
            )


def _predicted(session: SparkSession, tracking: str, model: str, todo: DataFrame) -> DataFrame:
    import mlflow

    mlflow.set_tracking_uri(tracking)
    predict = mlflow.pyfunc.spark_udf(session, model_uri=model, result_type="double", env_manager="local")
    names = mlflow.models.get_model_info(model).signature.inputs.input_names()
    return todo.select("pid", "features_key", predict(F.struct(*names)).alias("prediction"))
