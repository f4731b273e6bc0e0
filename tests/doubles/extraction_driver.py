"""One driver process for the tests that kill them: the stage `extract` with the fake extractors, by a configuration."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent))

from extraction_fakes import fakes

from smp_features.config import load_config
from smp_features.console import explaining
from smp_features.extraction import in_flight
from smp_features.session import get_session
from smp_features.stages import run_stage


def main() -> None:
    """Run the stage; summaries are printed as one JSON object, errors as the command line prints them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("conf")
    parser.add_argument("log", help="where the fakes write what they do")
    parser.add_argument("name", help="the extractor")
    parser.add_argument("--hold", help="touch this file and stand still before anything is published")
    parser.add_argument("--rounds", type=int, default=1, help="runs in this session, each with another fake model")
    arguments = parser.parse_args()

    def hold(*_: object, **__: object) -> None:
        Path(arguments.hold).touch()
        time.sleep(600)

    if arguments.hold:
        patch.object(in_flight, "publish", hold).start()
    config = load_config(arguments.conf, [])
    session = get_session(config)
    session.sparkContext.addPyFile(str(Path(__file__).parent / "extraction_fakes.py"))
    for number in range(1, arguments.rounds + 1):
        faked = config.model_copy(update={"models": fakes(arguments.log, seed=str(number))})
        (summary,) = run_stage(session, faked, "extract", names=[arguments.name])
        sys.stdout.write(json.dumps(dataclasses.asdict(summary), default=str) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    with explaining():
        main()
