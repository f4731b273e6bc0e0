"""Writes the champion's predictions as a challenge submission, with the declaration of what they were made from."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from smp_features.config import Config
from smp_features.errors import StageError, UsageError
from smp_features.lake.tables import Lakehouse
from smp_features.model.predictor import fingerprint_columns
from smp_features.scoring.stage import unlabelled
from smp_features.sources.base import source_class

VERSION = "VERSION 1.2"
"""Of the submission format; stated by the challenge's page since 2018."""


@dataclass(frozen=True)
class Declaration:
    """What a submission's predictions were made from, beside the challenge's own data.

    Attributes:
        model: The model version.
        time_rules: What it was trained under.
        trained_on_external: External profile counts were among the rows it was trained on.
        predicted: Posts predicted.
        predicted_from_external: Those of them whose features, as far as the model reads them, hold such counts.
        crawled: Stated dates of the crawls the counts are from; empty when none is stated.
        pretrained: The frozen models behind the features that the model reads.
        external_name: What the source calls the external profiles.
    """

    model: str
    time_rules: str
    trained_on_external: bool
    predicted: int
    predicted_from_external: int
    crawled: Sequence[str]
    pretrained: Sequence[str]
    external_name: str

    @property
    def external(self) -> bool:
        """Whether external data had any part in the predictions."""
        return self.trained_on_external or self.predicted_from_external > 0

    def as_json(self) -> dict[str, Any]:
        """Return the challenge's `external_data`: `used` and `details`; pretrained models are named either way."""
        if self.external:
            dates = f"crawled {', '.join(self.crawled)}" if self.crawled else "of no stated crawl date"
            said = (
                f"{self.external_name}, profile counts of users, {dates}, under {self.time_rules} time rules: in the "
                f"features of {self.predicted_from_external:,} of {self.predicted:,} predicted posts; {self.model} was "
                f"{'' if self.trained_on_external else 'not '}trained on such counts."
            )
        else:
            said = "No data beside the challenge's own."
        frozen = f"Pretrained, not trained further: {', '.join(self.pretrained)}." if self.pretrained else ""
        return {"used": self.external, "details": f"{said} {frozen}".strip()}


def write_submission(session: SparkSession, config: Config, out: Path) -> int:
    """Write the champion's predictions in one of the challenge's formats.

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
    wanted = unlabelled(lakehouse, lakehouse.versions(("post_features", "labels")))
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
            declared = _declare(lakehouse, wanted, champion.uri, champion.tags, str(champion))
            text = json.dumps(submission(scores, declared), indent=1, ensure_ascii=False) + "\n"
            out.write_text(text, encoding="utf-8")
        else:
            with out.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["post_id", "popularity_score"])
                writer.writerows((f"post{pid}", value) for pid, value in scores.items())
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or type(error).__name__}.") from None
    return len(scores)


def submission(scores: Mapping[str, float], declared: Declaration) -> dict[str, Any]:
    """Return the JSON form of a submission.

    Args:
        scores: Pid to popularity.
        declared: What they were made from.
    """
    return {
        "version": VERSION,
        "result": [{"post_id": f"post{pid}", "popularity_score": value} for pid, value in scores.items()],
        "external_data": declared.as_json(),
    }


def _declare(lakehouse: Lakehouse, predicted: DataFrame, uri: str, tags: Mapping[str, str], model: str) -> Declaration:
    """Look up what the predictions of these rows of `post_features` were made from.

    The dates are those in `user_profiles`: a configuration may have changed since, or not be this lake's at all.
    """
    import mlflow

    read = set(mlflow.models.get_model_info(uri).signature.inputs.input_names())
    counts = [F.col(name).isNotNull() for name in lakehouse.catalogue.columns_of("external") if name in read]
    external = predicted.where(reduce(or_, counts)).count() if counts else 0
    profiles = lakehouse.read("user_profiles").where("origin = 'external' AND NOT assumed")
    dates = profiles.select(F.date_format("known_at", "yyyy-MM-dd").alias("date")).distinct().collect()
    content = not read.isdisjoint(lakehouse.catalogue.content_columns)
    return Declaration(
        model=model,
        time_rules=tags.get("time_rules", "unknown"),
        trained_on_external=tags.get("external_used") == "true",
        predicted=predicted.count(),
        predicted_from_external=external,
        crawled=sorted(row["date"] for row in dates),
        pretrained=_models_behind(lakehouse, [tags[name] for name in fingerprint_columns(tags)]) if content else (),
        external_name=source_class(lakehouse.config.source).external_name or "external profiles",
    )


def _models_behind(lakehouse: Lakehouse, fingerprints: Sequence[str]) -> list[str]:
    """Return the names of the models behind fingerprints, each once; the fingerprint where no name is recorded."""
    recorded = lakehouse.read("extractors").where(F.col("extractor").isin(list(fingerprints))).collect()
    described = {row["extractor"]: json.loads(row["description"]) for row in recorded}
    names = [_name(described[each]) if each in described else each for each in fingerprints]
    return list(dict.fromkeys(names))


def _name(description: Mapping[str, Any]) -> str:
    parts = [description.get(name) for name in ("architecture", "tag")]
    return " ".join(part for part in parts if part) or str(description["model"])
