"""Our own extraction: the stage `extract` on Spark, from planning to published tables.

Start-up is the session, the tables, and a first extraction over the warm-up contents, by which workers load the model;
the seconds that count are a second `extract` after more posts came in, as in daily use.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F

from benchmarks.contenders.protocol import Job, answer, read_job
from benchmarks.lake import Lake
from benchmarks.slots import event_log_settings, use_of_slots
from smp_features.extractors import build_extractors
from smp_features.session import slots_of

VALUE = {"caption": "caption", "clip_image": "embedding", "clip_text": "embedding", "perplexity": "log_perplexity"}


def main() -> None:
    """Extract, and answer with the rows in the feature table."""
    job = read_job()
    began = time.perf_counter()
    events = Path(job.scratch) / "events"
    spark = {"driver_memory": "4g", "conf": event_log_settings(events)}
    lake = Lake(Path(job.scratch) / "lake", models_of(job), spark=spark)
    _add(lake, job, job.warm_up)
    lake.extract(job.extractor)
    ready = time.perf_counter()
    _add(lake, job, job.contents)
    filled = time.perf_counter()
    began_at = time.time()
    (summary,), seconds = lake.extract(job.extractor)
    slots = slots_of(lake.session, lake.config.extraction.slots)
    extractor = build_extractors(lake.config.models)[job.extractor]
    wanted = lake.session.read.parquet(job.contents).select(F.col("key").alias(extractor.key))
    found = (
        lake.lakehouse.read(extractor.table)
        .join(wanted, extractor.key, "left_semi")
        .select(extractor.key, VALUE[job.extractor])
        .toPandas()
    )
    lake.close()
    phases = {name: round(spent, 2) for name, spent in summary.seconds.items()}
    answer(
        job,
        list(found[extractor.key]),
        list(found[VALUE[job.extractor]]),
        seconds=seconds,
        startup_s=ready - began,
        filling_s=filled - ready,
        model_loads=summary.model_loads,
        phases=phases,
        slots=use_of_slots(events, slots, began_at, began_at + seconds),
    )


def models_of(job: Job) -> dict[str, dict[str, Any]]:
    """Return the `models` section of the configuration that a job asks for."""
    common = {"id": job.model, "max_batch": job.max_batch}
    if job.extractor == "caption":
        return {"caption": common | {"max_new_tokens": job.max_new_tokens}}
    return {"language" if job.extractor == "perplexity" else "clip": common}


def _add(lake: Lake, job: Job, contents: str) -> None:
    lake.add(**{"pictures" if job.reads_images else "titles": Path(contents)})


if __name__ == "__main__":
    main()
