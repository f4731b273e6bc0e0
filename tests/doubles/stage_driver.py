"""One driver process for the tests that kill a stage when it has staged all that it will write."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent))

from extraction_fakes import fakes
from pyspark.sql import functions as F

from smp_features.config import load_config
from smp_features.lake.tables import Lakehouse
from smp_features.scoring import stage as scoring
from smp_features.session import get_session
from smp_features.stages import run_stage
from smp_features.training import registry


def main() -> None:
    """Run a stage up to its first table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("conf")
    parser.add_argument("log", help="where the fakes write what they do")
    parser.add_argument("stage")
    parser.add_argument("held", help="touch this file and stand still before a table is brought to what was staged")
    parser.add_argument("--source")
    arguments = parser.parse_args()

    def hold(*_: object, **__: object) -> None:
        Path(arguments.held).touch()
        time.sleep(600)

    overrides = [] if arguments.source is None else [f"source.path={arguments.source}"]
    config = load_config(arguments.conf, overrides).model_copy(update={"models": fakes(arguments.log)})
    session = get_session(config)
    if arguments.stage == "score":
        row = Lakehouse(session, config).read("post_features").head()
        assert row is not None
        champion = SimpleNamespace(model="fake", number="1", uri="models:/fake/1", tags=row.asDict())
        fake = SimpleNamespace(uri="", model="fake", champion=lambda: champion, fetched=lambda _: nullcontext(""))
        patch.object(registry, "Registry", lambda _: fake).start()
        predicted = lambda *given: given[-1].select("pid", "features_key", F.lit(1.0).alias("prediction"))  # noqa: E731
        patch.object(scoring, "_predicted", predicted).start()
    patch.object(Lakehouse, "synchronise", hold).start()
    run_stage(session, config, arguments.stage)


if __name__ == "__main__":
    main()
