"""What tests share: one Spark session, and lakehouses in temporary folders."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from smp_features.config import Config, load_config
from smp_features.session import get_session
from smp_features.tables import Lakehouse


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the Spark session, so that `make test-fast` can leave it out."""
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker("spark")


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """The one Spark session of a test process."""
    demo = Path(__file__).parents[1] / "conf" / "demo.yaml"
    # The first start fetches Delta's jars into a shared cache, which two processes must not do at once.
    with (Path(tempfile.gettempdir()) / "smp-test-session.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        session = get_session(load_config(demo, ["spark.master=local[2,4]", "spark.driver_memory=2g"]))
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
