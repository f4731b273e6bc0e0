"""What tests share: one Spark session, and lakehouses in temporary folders."""

from __future__ import annotations

import fcntl
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from smp_features.config import Config, load_config
from smp_features.lake.tables import Lakehouse
from smp_features.session import get_session

DOUBLES = Path(__file__).parent / "doubles"
sys.path.insert(0, str(DOUBLES))

from extraction_bench import Bench  # noqa: E402 - found by the line above

# A suite of many minutes is worth compiling for, unlike the short jobs that conf/demo.yaml is tuned to. Delta keeps the
# logs of 10,000 tables and Spark the plans of 1,000 queries: of thousands of tables in temporary folders that fills the
# heap. Of 26 minutes, 3 and 5 went into emptying it in the two processes.
SPARK = {
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -Ddelta.log.cacheSize=64",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.ui.retainedExecutions": "5",
    "spark.ui.retainedJobs": "20",
    "spark.ui.retainedStages": "20",
    "spark.ui.retainedTasks": "100",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the Spark session, and begin with the longest file.

    `make test-fast` leaves the marked ones out. Of two processes, one runs all stages, which takes as long as all
    of the other's fast tests and some of its slow ones; begun last, it would keep one process waiting for it.
    """
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker("spark")
    items.sort(key=lambda item: (item.path.name != "test_end_to_end.py", item.get_closest_marker("spark") is not None))


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """The one Spark session of a test process."""
    # The first start fetches Delta's jars into a shared cache, which two processes must not do at once.
    with (Path(tempfile.gettempdir()) / "smp-test-session.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config = load_config(None, ["spark.master=local[2,4]", "spark.driver_memory=3g"])
        spark = config.spark.model_copy(update={"conf": SPARK})
        session = get_session(config.model_copy(update={"spark": spark}))
    yield session
    session.stop()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration whose root is a temporary folder."""
    return load_config(None, [], root=str(tmp_path / "lake"))


@pytest.fixture(scope="session")
def empty_tables(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all tables, created once; a Delta table may be copied with its folder."""
    root = tmp_path_factory.mktemp("empty")
    Lakehouse(spark, load_config(None, [], root=str(root))).create()
    return root / "tables"


@pytest.fixture
def lakehouse(spark: SparkSession, config: Config, empty_tables: Path) -> Lakehouse:
    """An empty lakehouse with all tables."""
    shutil.copytree(empty_tables, Path(config.root) / "tables")
    return Lakehouse(spark, config)


@pytest.fixture
def frame(spark: SparkSession, lakehouse: Lakehouse) -> Callable[..., object]:
    """Make a data frame for a table from dictionaries; missing columns are null."""

    def make(table: str, *rows: dict[str, object]) -> object:
        schema = lakehouse.schema(table)
        return spark.createDataFrame([tuple(row.get(name) for name in schema.names) for row in rows], schema)

    return make


@pytest.fixture(scope="session")
def workers(spark: SparkSession) -> SparkSession:
    """The session, with the fake extractors importable in its Python workers."""
    spark.sparkContext.addPyFile(str(DOUBLES / "extraction_fakes.py"))
    return spark


@pytest.fixture
def bench(workers: SparkSession, lakehouse: Lakehouse, tmp_path: Path) -> Bench:
    """An empty lakehouse on which fake extractors run."""
    return Bench(lakehouse, tmp_path)
