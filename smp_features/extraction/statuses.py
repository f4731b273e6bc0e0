"""The words for how one input came out: usable, refused for good, or to be tried again."""

from __future__ import annotations

OK = "ok"

NOT_FINITE = "not_finite"
"""The model returned NaN or infinity for this input."""

MODEL_ERROR = "model_error"
"""The model raised an error for this input, alone."""

PREPARE_ERROR = "prepare_error"
"""Decoding or tokenising raised something that is no refusal."""

TIMEOUT = "timeout"
"""The input outlived the deadline, alone."""

OUT_OF_MEMORY = "out_of_memory"
"""The input did not fit in memory, alone."""

WORKER_LOST = "worker_lost"
"""The worker died over the input, alone."""

TRANSIENT = (TIMEOUT, OUT_OF_MEMORY, WORKER_LOST)
"""A later try may succeed: these go to `attempts`, never into a feature table."""

RESET = "reset"
"""In `attempts`: forget what came before."""

SUSPECT = "suspect"
"""In staging only: was in flight when a worker died; is run again alone, which decides."""

MEASURED = "measured"
"""In staging only: a row without key that carries a task's measurements as JSON."""
