"""Contenders over the same contents, one after the other, each in a process of its own; their outputs compared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.bench import Bench
from benchmarks.contenders.protocol import Job, write_job
from benchmarks.contents import REPOSITORY, write_contents
from benchmarks.machine import cores
from smp_features.extractors.zoo import ZOO

KINDS = {"caption": "image", "clip_image": "image", "clip_text": "text", "perplexity": "text"}
"""What each extractor reads."""

MODELS = {"caption": "caption", "clip_image": "clip", "clip_text": "clip", "perplexity": "language"}
"""The section of `models` that each extractor's model is configured in."""

WARM_UP = {"caption": 12, "clip_image": 64, "clip_text": 512, "perplexity": 128}
"""Contents to warm up with: enough to reach every slot."""

PROBE = {"caption": 40, "clip_image": 256, "clip_text": 2048, "perplexity": 512}
"""Contents of the run that finds out how many fill the wanted minutes."""

MAX_BATCH = {"caption": 8, "clip_image": 32, "clip_text": 64, "perplexity": 32}
"""Most rows per call of the model."""

TIMEOUT_S = 1800.0


class ContenderFailed(Exception):  # noqa: N818 - what happened
    """A contender gave no figures; the message is the reason, in one line."""


def demo_models() -> dict[str, dict[str, Any]]:
    """Return the `models` section of the bundled demo models, as folders."""
    return {
        "caption": {"id": str(ZOO["caption"]), "max_new_tokens": 20},
        "clip": {"id": str(ZOO["clip"])},
        "language": {"id": str(ZOO["language"])},
    }


@dataclass(frozen=True)
class Race:
    """One extractor, one model, one set of contents.

    Attributes:
        bench: Where to work.
        extractor: Its name.
        models: The `models` section of a configuration, with folders for ids.
        label: Names the folder of outputs.
    """

    bench: Bench
    extractor: str
    models: Mapping[str, Mapping[str, Any]]
    label: str

    def contents(self, count: int) -> Path:
        """Write this many distinct contents, none of them among those of the warm-up."""
        kind = KINDS[self.extractor]
        path = self.bench.work / "contents" / f"{self.extractor}-{count}.parquet"
        return write_contents(kind, self.bench.source, count, path, start=WARM_UP[self.extractor])

    def job(self, contents: Path, name: str) -> Job:
        """Return a contender's job."""
        kind = KINDS[self.extractor]
        warm_up = self.bench.work / "contents" / f"{self.extractor}-warm-up.parquet"
        write_contents(kind, self.bench.source, WARM_UP[self.extractor], warm_up)
        folder = self.bench.work / "outputs" / self.label / self.extractor
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f"{name}.scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        model = self.models[MODELS[self.extractor]]
        return Job(
            extractor=self.extractor,
            contents=str(contents),
            warm_up=str(warm_up),
            model=str(model["id"]),
            max_batch=MAX_BATCH[self.extractor],
            max_new_tokens=int(model.get("max_new_tokens", 0)),
            cores=cores(),
            scratch=str(scratch),
            out=str(folder / f"{name}.parquet"),
        )

    def run(self, name: str, contents: Path, python: str | Path = sys.executable, timeout_s: float = TIMEOUT_S) -> Any:
        """Run a contender; return its timings, with the path of its outputs under `out`.

        Raises:
            ContenderFailed: It did not come through; says why.
        """
        module = name.removesuffix("-again")
        job = self.job(contents, name)
        timings = run_contender(module, job, python, timeout_s)
        shutil.rmtree(job.scratch, ignore_errors=True)
        said = f"{timings['rows']} rows in {timings['seconds']:.1f} s, after {timings['startup_s']:.1f} s of start-up"
        print(f"   {self.label} {self.extractor}: {name}: {said}", flush=True)
        return timings | {"out": job.out}

    def fill(self, minutes: float, by: str = "ceiling") -> Path:
        """Return contents that keep a contender busy for so many minutes, by a short probe."""
        probe = self.run(by, self.contents(PROBE[self.extractor]))
        return self.contents(max(PROBE[self.extractor], int(probe["rows"] / probe["seconds"] * minutes * 60)))


def run_contender(name: str, job: Job, python: str | Path = sys.executable, timeout_s: float = TIMEOUT_S) -> Any:
    """Run `benchmarks.contenders.<name>` on a job and return the timings it wrote.

    Raises:
        ContenderFailed: It ended with an error, or did not end in time.
    """
    job.timings.unlink(missing_ok=True)
    path = write_job(job, Path(job.scratch) / "job.json")
    log = Path(job.scratch) / "log.txt"
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(python), "-m", f"benchmarks.contenders.{name}", str(path)],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            raise ContenderFailed(f"not done after {timeout_s / 60:.0f} minutes") from None
    if process.returncode or not job.timings.exists():
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise ContenderFailed(lines[-1][:300] if lines else f"ended with status {process.returncode}")
    return json.loads(job.timings.read_text(encoding="utf-8"))


def differences(extractor: str, reference: str | Path, other: str | Path) -> dict[str, Any]:
    """Compare two contenders' outputs by key.

    Returns:
        `rows` in both, `missing` of the reference in the other, and `different` captions, or the `largest` absolute
        difference of a number (of any component of a vector).
    """
    one, two = (_outputs(path) for path in (reference, other))
    keys = [key for key in one if key in two]
    found: dict[str, Any] = {"rows": len(keys), "missing": len(one) - len(keys)}
    if extractor == "caption":
        return found | {"different": sum(one[key] != two[key] for key in keys)}
    if not keys:
        return found | {"largest": None}
    left, right = (np.array([values[key] for key in keys], dtype=np.float64) for values in (one, two))
    return found | {"largest": float(np.abs(left - right).max())}


def say_differences(found: dict[str, Any]) -> str:
    """Say in a table's cell what `differences` found."""
    if found["missing"]:
        return f"{found['missing']} of {found['missing'] + found['rows']} missing"
    if "different" in found:
        return "equal" if not found["different"] else f"{found['different']} of {found['rows']} captions differ"
    return f"at most {found['largest']:.0e}"


def _outputs(path: str | Path) -> dict[str, Any]:
    table = pq.read_table(path)
    return dict(zip(table["key"].to_pylist(), table["value"].to_pylist(), strict=True))
