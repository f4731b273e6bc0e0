"""Scores unlabelled posts with the champion, writes them as a challenge submission, and evaluates submissions."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from smp_features.config import Config
from smp_features.errors import FingerprintError, SourceError, StageError, UsageError
from smp_features.runs import Phases, Summary, is_local
from smp_features.session import slots_of
from smp_features.tables import Lakehouse
from smp_features.training.metrics import mae, src
from smp_features.training.predictor import EXTRACTORS

logger = logging.getLogger(__name__)

MADE_UNDER = (*EXTRACTORS, "time_rules")
"""Columns of `post_features` that must say what the model's tags say."""

SUBMISSION_VERSION = "VERSION 1.0"


def score(session: SparkSession, config: Config, *, run: str) -> Summary:
    """Predict every unlabelled post with the champion, through `spark_udf`; only rows that are missing or changed.

    Args:
        session: A Spark session with Delta.
        config: Its `registry` names the model.
        run: The run's id, for its staging folder.

    Returns:
        wanted: unlabelled posts with features; ok: those with a prediction; computed: predicted by this run.

    Raises:
        StageError: There is no champion, or a prediction is missing or not finite.
        FingerprintError: The features were made by other models, or under other time rules, than the champion's.
    """
    from smp_features.training.registry import Registry

    lakehouse, phases = Lakehouse(session, config), Phases()
    versions = lakehouse.versions(("post_features", "labels"))
    with phases("registry"):
        registry = Registry(config)
        champion = registry.champion()
    if champion is None:
        raise StageError(f"{registry.model} has no champion to score with.", "Run `smp train` first.")
    with phases("plan"):
        wanted = _unlabelled(lakehouse, versions)
        done = lakehouse.read("predictions").where(
            (F.col("model") == champion.model) & (F.col("model_version") == champion.number)
        )
        todo = wanted.join(done.select("pid", "features_key"), ["pid", "features_key"], "left_anti")
        count, left = wanted.count(), todo.count()
    if not left:
        return Summary(
            "score",
            outcome="nothing_to_do",
            wanted=count,
            ok=count,
            seconds=phases.seconds,
            versions_read=versions,
            message=f"all {count:,} unlabelled posts have predictions of {champion}",
        )
    _check_made_under(todo, champion.tags, str(champion))
    tasks = min(slots_of(session, config.extraction.slots), left)
    staging = lakehouse.folder("staging", "predictions", run)
    before = lakehouse.version("predictions")
    try:
        with phases("predict"):
            predicted = _predicted(session, registry.uri, champion.uri, todo.repartition(tasks, "pid"))
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
        if is_local(staging):
            shutil.rmtree(staging, ignore_errors=True)
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
        message=f"{left:,} posts scored by {champion}, {count:,} unlabelled posts have predictions",
    )


def write_submission(session: SparkSession, config: Config, out: Path) -> int:
    """Write the champion's predictions in one of the challenge's formats (field.md, section 2).

    Args:
        session: A Spark session with Delta.
        config: Its `registry` names the model.
        out: A path ending in `.json` or `.csv`.

    Returns:
        Number of predictions written.

    Raises:
        UsageError: The path has another ending or cannot be written.
        StageError: There is no champion, or unlabelled posts lack a current prediction of it.
    """
    from smp_features.training.registry import Registry

    if out.suffix not in (".json", ".csv"):
        raise UsageError(f"{out} must end in .json or .csv, the challenge's two formats.")
    lakehouse = Lakehouse(session, config)
    champion = Registry(config).champion()
    if champion is None:
        raise StageError(f"{config.registry.model} has no champion.", "Run `smp train`, then `smp score`.")
    wanted = _unlabelled(lakehouse, lakehouse.versions(("post_features", "labels"))).select("pid", "features_key")
    made = lakehouse.read("predictions").where(
        (F.col("model") == champion.model) & (F.col("model_version") == champion.number)
    )
    joined = wanted.join(made.select("pid", "features_key", "prediction"), ["pid", "features_key"], "left")
    rows = sorted((row["pid"], row["prediction"]) for row in joined.select("pid", "prediction").collect())
    missing = sum(prediction is None for _, prediction in rows)
    if missing or not rows:
        raise StageError(
            f"{missing} of {len(rows)} unlabelled posts have no current prediction of {champion}.", "Run `smp score`."
        )
    scores = {pid: round(float(prediction), 4) for pid, prediction in rows}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".json":
            text = json.dumps(submission(scores, champion.tags), indent=1, ensure_ascii=False) + "\n"
            out.write_text(text, encoding="utf-8")
        else:
            with out.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["post_id", "popularity_score"])
                writer.writerows((f"post{pid}", value) for pid, value in scores.items())
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or type(error).__name__}.") from None
    return len(scores)


def submission(scores: Mapping[str, float], tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON form of a submission, declaring external data as the model's tags say it was trained.

    Args:
        scores: Pid to popularity.
        tags: Of the model version: `external_used`, `time_rules`.
    """
    used = tags.get("external_used") == "true"
    details = (
        f"Crawled user profiles (user_additional.txt), under {tags.get('time_rules', 'unknown')} time rules."
        if used
        else "No data beside the challenge's own; pretrained vision-language and language models only."
    )
    return {
        "version": SUBMISSION_VERSION,
        "result": [{"post_id": f"post{pid}", "popularity_score": value} for pid, value in scores.items()],
        "external_data": {"used": used, "details": details},
    }


def evaluate(predictions: Path, labels: Path) -> dict[str, float]:
    """Score a submission against labels.

    Args:
        predictions: A submission, JSON or CSV; or any file that `labels` may be.
        labels: `truth.json` (its `test_labels`), a JSON object of pid to score, a CSV of two columns, or plain label
            lines (`…_label.txt`) with the aligned `…_img_filepath.txt` beside it.

    Returns:
        `src`: Spearman correlation; `mae`, in log2(views + 1); `n`: labelled posts; `extra`: predictions without label.

    Raises:
        SourceError: A file cannot be read, a post is there twice, a value is no finite number, or a labelled post has
            no prediction.
    """
    predicted, actual = _scores_of(Path(predictions)), _scores_of(Path(labels))
    missing = [pid for pid in actual if pid not in predicted]
    if missing:
        raise SourceError(
            f"{predictions} lacks {len(missing)} of the {len(actual)} posts in {labels}, {missing[0]} among them.",
            "Every labelled post needs a prediction.",
        )
    if len(actual) < 2:
        raise SourceError(f"{labels} holds {len(actual)} posts; at least two are needed.")
    wanted = np.array(list(actual.values()))
    given = np.array([predicted[pid] for pid in actual])
    return {
        "src": src(wanted, given),
        "mae": mae(wanted, given),
        "n": len(actual),
        "extra": len(predicted) - len(actual),
    }


def _unlabelled(lakehouse: Lakehouse, versions: Mapping[str, int]) -> DataFrame:
    labelled = lakehouse.read("labels", versions["labels"]).select("pid")
    return lakehouse.read("post_features", versions["post_features"]).join(labelled, "pid", "left_anti")


def _check_made_under(todo: DataFrame, tags: Mapping[str, str], model: str) -> None:
    found = todo.agg(*(F.sort_array(F.collect_set(name)).alias(name) for name in MADE_UNDER)).collect()[0]
    for name in MADE_UNDER:
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


def _scores_of(path: Path) -> dict[str, float]:
    scores: dict[str, float] = {}
    try:
        for place, pid, value in _pairs(path):
            pid = str(pid).strip().removeprefix("post")
            number = float(value)  # type: ignore[arg-type]
            if not pid or not np.isfinite(number):
                raise SourceError(f"{path}, {place}: expected a post and a finite score.")
            if pid in scores:
                raise SourceError(f"{path}, {place}: post {pid} is there twice.")
            scores[pid] = number
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise SourceError(
            f"{path} is not a file of scores: {type(error).__name__}.", "Expected a submission, JSON or CSV, or labels."
        ) from None
    if not scores:
        raise SourceError(f"{path} holds no scores.")
    return scores


def _pairs(path: Path) -> Iterator[tuple[str, object, object]]:
    if path.suffix == ".json":
        yield from _json_pairs(json.loads(path.read_text(encoding="utf-8")))
    elif path.suffix == ".txt":
        yield from _aligned_pairs(path)
    else:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file), 1):
                if number == 1 and not _is_number(row[1]):
                    continue  # a header
                if len(row) != 2:
                    raise SourceError(f"{path}, line {number}: {len(row)} columns where two are expected.")
                yield f"line {number}", row[0], row[1]


def _json_pairs(content: Any) -> Iterator[tuple[str, object, object]]:
    if "result" in content:
        for number, entry in enumerate(content["result"]):
            yield f"result {number}", entry["post_id"], entry["popularity_score"]
    else:
        for pid, value in content.get("test_labels", content).items():
            yield f"post {pid}", pid, value


def _aligned_pairs(path: Path) -> Iterator[tuple[str, object, object]]:
    beside = path.with_name(path.name.replace("_label", "_img_filepath"))
    if beside == path or not beside.exists():
        raise SourceError(
            f"{path} holds labels without posts, and {beside.name} is not beside it.",
            "Put the aligned file of image paths there, or pass a CSV of post and score.",
        )
    values = path.read_text(encoding="utf-8").split()
    posts = [line.strip().strip("\"'") for line in beside.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(values) != len(posts):
        raise SourceError(f"{path} holds {len(values)} labels and {beside} {len(posts)} paths; they must be aligned.")
    for number, (post, value) in enumerate(zip(posts, values, strict=True), 1):
        yield f"line {number}", PurePosixPath(post).stem, value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
