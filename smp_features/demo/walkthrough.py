"""`smp demo`: make up posts, run every stage on them, and say what came out, how good it is, and what to try next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from smp_features.config import Config, load_config
from smp_features.demo.generate import generate
from smp_features.errors import StageError, UsageError
from smp_features.lake.query import describe_tables
from smp_features.lake.tables import Lakehouse
from smp_features.metrics import mae, src
from smp_features.progress import reporter
from smp_features.runs import Summary
from smp_features.stages import run_all
from smp_features.status import errors_of
from smp_features.tabular import render


def walk(
    posts: int,
    seed: int,
    out: Path,
    overrides: list[str],
    start: Callable[[Config], SparkSession],
    say: Callable[[str], None],
) -> None:
    """Run the demo.

    Args:
        posts: How many posts to make up; the folder of an earlier demo is used again if it holds the same posts.
        seed: Decides the posts.
        out: Folder for `posts/` and `lake/`.
        overrides: `key.path=value` strings over `conf/demo.yaml`.
        start: Starts or returns the Spark session.
        say: Prints a line.

    Raises:
        UsageError: The folder holds other posts.
    """
    source, root = out / "posts", out / "lake"
    settings = [f"source.path={source}", *overrides]
    config = load_config(demo_configuration(), settings, str(root))
    _make_posts(posts, seed, source, say)
    session = start(config)

    def show(summary: Summary) -> None:
        say(f"  {summary.stage:<20} {summary.message}")

    say(f"Running every stage into {root}")
    run_all(session, config, show)
    say("")
    say("Tables")
    say(render(describe_tables(session, config), "table"))
    failures = errors_of(session, config)
    say("Failures by type (some posts are broken on purpose)")
    say(render(failures, "table"))
    say("Scores on the later test posts, by Spearman's rank correlation (SRC) and mean absolute error (MAE)")
    say(render(test_scores(session, config, source), "table"))
    say(f"Report   {root / 'reports' / 'report.html'}")
    say(f"Tables   {root / 'tables'}")
    say(f"MLflow   .venv/bin/mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///{root / 'mlflow.db'}")
    say("Try next")
    say(
        f'  .venv/bin/smp sql --root {root} "SELECT pid, caption, caption_title_similarity, title_log_perplexity '
        f'FROM post_features LIMIT 5"'
    )
    say(f"  .venv/bin/smp status --root {root}")
    say(f"  .venv/bin/smp errors --root {root}")
    say("  make demo                                    # again: finds nothing to do")


def demo_configuration() -> Path:
    """Return the demo's configuration file: of this checkout, or the one that travels in the wheel."""
    beside_package = Path(__file__).resolve().parents[2] / "conf" / "demo.yaml"
    return beside_package if beside_package.is_file() else Path(__file__).resolve().parents[1] / "conf" / "demo.yaml"


def test_scores(session: SparkSession, config: Config, source: Path) -> list[dict[str, Any]]:
    """Return SRC and MAE of the champion, the oracle and the median on the generated test posts.

    Args:
        session: A Spark session with Delta.
        config: Where the tables are.
        source: Folder with `truth.json`.
    """
    from smp_features.analysis.readings import predictions
    from smp_features.training.registry import Registry

    champion = Registry(config).champion()
    if champion is None:
        raise StageError("There is no champion.", "Run `smp train` first.")
    lakehouse = Lakehouse(session, config)
    truth = json.loads((source / "truth.json").read_text(encoding="utf-8"))
    labels = truth["test_labels"]
    predicted = predictions(lakehouse, champion.model, champion.number)
    predicted = predicted[predicted["pid"].isin(list(labels))]
    guess = predicted["predicted"].to_numpy(dtype=float)
    actual = predicted["pid"].map(labels).to_numpy(dtype=float)
    median = lakehouse.read("labels").approxQuantile("popularity", [0.5], 0.0)[0]
    oracle = truth["oracle"]
    model_src = src(actual, guess)
    return [
        {"who": "model", "posts": len(actual), "SRC": model_src, "MAE": mae(actual, guess),
         "of the oracle's SRC": f"{model_src / oracle['src']:.0%}"},
        {"who": "oracle: the formula, given what the files show", "posts": len(labels), "SRC": oracle["src"],
         "MAE": oracle["mae"], "of the oracle's SRC": "100%"},
        {"who": "median of the training labels", "posts": len(actual), "SRC": None,
         "MAE": mae(actual, np.full(len(actual), median)), "of the oracle's SRC": ""},
    ]  # fmt: skip


def _make_posts(posts: int, seed: int, source: Path, say: Callable[[str], None]) -> None:
    made = source / "generated.json"
    if made.is_file():
        present = json.loads(made.read_text(encoding="utf-8"))
        if (present["posts"], present["seed"]) != (posts, seed):
            raise UsageError(
                f"{source} holds {present['posts']} posts of seed {present['seed']}, not {posts} of seed {seed}.",
                "Name another folder with --out, or remove this one.",
            )
        say(f"Using the {posts:,} posts made before in {source}")
        return
    with reporter("making posts", posts) as bar:
        summary = generate(posts, source, seed, progress=lambda done, _: bar.advance(done - bar.done))
    say(
        f"Made up {posts:,} posts of {summary.users:,} users in {source} "
        f"({summary.train:,} to train on, {summary.test:,} later ones to predict)"
    )
