"""What Spark says when a job fails, told in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from smp_features.errors import StageError
from smp_features.jvm import SPARK_FAILURES


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn a failure of Spark within this block into a `StageError` that names its cause.

    Args:
        what: The stage or step, for the message.
    """
    try:
        yield
    except SPARK_FAILURES as error:
        raise StageError(
            f"{what}: a Spark job failed: {cause(str(error))}", "Published rows stay; run the same command to continue."
        ) from error


def cause(text: str) -> str:
    """Return the line of a Spark error that tells most: of a worker's traceback the last, else the innermost cause."""
    for pattern in (
        r"Traceback \(most recent call last\):\n(?:[ \t].*\n)+(\S.*)",
        r"Caused by: (.+)",
        r"An error occurred while calling .+\n: (.+)",
    ):
        found = re.findall(pattern, text)
        if found:
            return str(found[-1])[:300]
    return (text.strip() or "no message").splitlines()[0][:300]
