"""What Spark says when a job fails, told in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from smp_features.errors import SmpError, StageError
from smp_features.interrupts import CONTINUE
from smp_features.jvm import SPARK_FAILURES, jvm_has_ended

JVM_GONE = "Spark's JVM is gone: it was killed, or the machine ran out of memory."


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn a failure of Spark within this block into a `StageError` that names its cause.

    Args:
        what: The stage or step, for the message.
    """
    try:
        yield
    except SmpError:
        raise
    except Exception as error:
        if jvm_has_ended():
            raise StageError(f"{what}: {JVM_GONE}", CONTINUE) from error
        if isinstance(error, SPARK_FAILURES):
            if found := damage(str(error)):
                raise StageError(f"{what}: {found[0]}", found[1]) from error
            raise StageError(f"{what}: a Spark job failed: {cause(str(error))}", CONTINUE) from error
        raise


_FILE = re.compile(r"/tables/(?P<table>\w+)/(?P<file>[^\s,;'\"`()]+)")
_HARMED = re.compile(
    r"FileNotFound|FILE_NOT_EXIST|[Nn]o such file|does not exist|ChecksumException|is not a Parquet file|[Ff]ooter"
    r"|JsonParse|JsonEOF|JsonMapping|TRUNCATED_TRANSACTION_LOG|MISSING_TRANSACTION_LOG|LOG_FILE_NOT_FOUND"
)


def damage(text: str) -> tuple[str, str] | None:
    """Say which file of a table is gone or damaged, and what to do about it, where that is what Spark complains of.

    Args:
        text: Of the error, stack trace included.

    Returns:
        Message and hint, or None where the error is of another kind.

    Example:
        >>> damage("java.io.FileNotFoundException: File file:/lake/tables/texts/part-0.parquet does not exist")[0]
        'a file of table texts is gone or damaged: tables/texts/part-0.parquet.'
    """
    found = _FILE.search(text)
    if found is None or not _HARMED.search(text):
        return None
    table, file = found["table"], found["file"].rstrip(".:")
    rest = "run `smp run`, which makes again what is missing"
    if file.startswith("_delta_log") and file.endswith(".json"):
        hint = f"Restore it from a copy; or remove this commit and those after it, and {rest}."
    else:
        hint = f"Restore it from a copy; or remove the folder tables/{table}, and {rest}."
    return f"a file of table {table} is gone or damaged: tables/{table}/{file}.", hint


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
