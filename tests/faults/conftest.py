"""Drivers as processes of their own, which tests may kill with everything below them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyspark
import pytest
import yaml
from extraction_bench import Bench

from smp_features.session import find_java

DRIVER = Path(__file__).parents[1] / "doubles" / "extraction_driver.py"
STAGE_DRIVER = DRIVER.with_name("stage_driver.py")
DEMO = Path(__file__).parents[2] / "conf" / "demo.yaml"
DISCOVERY = DEMO.parent / "discover_gpus.sh"
PATIENCE_S = 180.0  # for one event, or one round of a driver


class Driver:
    """A running `smp extract` with fake extractors.

    Args:
        conf: Its configuration file.
        log: Where its fakes write.
        arguments: Further arguments of the driver.
        prefix: A command that the driver is started by.
        script: What it runs.
    """

    def __init__(
        self, conf: Path, log: Path, *arguments: str, prefix: tuple[str, ...] = (), script: Path = DRIVER
    ) -> None:
        self._log = log
        self._output = conf.with_suffix(f".{time.monotonic_ns()}.out")
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, str(script), str(conf), str(log), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, happened: Callable[[], object]) -> None:
        """Wait for something while the driver runs."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert self.process.poll() is None, f"the driver ended early:\n{self.output()}"
            assert time.monotonic() < deadline, f"it did not happen:\n{self.output()}"
            time.sleep(0.05)

    def executors(self) -> list[psutil.Process]:
        """The executor JVMs below this driver."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in below if _is_executor(each)]

    def kill(self) -> None:
        """End the driver and all that it started, at once."""
        below = []
        if self.process.poll() is None:
            below = psutil.Process(self.process.pid).children(recursive=True)
            os.killpg(self.process.pid, signal.SIGKILL)
        for each in below:  # Python workers have a process group of their own
            with_pid_gone(each)
        self.process.wait()

    def finish(self) -> list[dict[str, Any]]:
        """Wait for a good end, with patience for each round, and return what it said of each."""
        ended, deadline = 0, time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            if len(self._said_of_rounds()) > ended:
                ended, deadline = ended + 1, time.monotonic() + PATIENCE_S
            assert time.monotonic() < deadline, f"round {ended + 1} did not end:\n{self.output()}"
            time.sleep(0.05)
        assert self.process.returncode == 0, self.output()
        return [json.loads(line) for line in self._said_of_rounds()]

    def _said_of_rounds(self) -> list[str]:
        return [line for line in self.output().splitlines() if line.startswith("{")]

    def output(self) -> str:
        """All that it printed."""
        return self._output.read_text()


def with_pid_gone(process: psutil.Process) -> None:
    """Kill a process that may be gone already."""
    try:
        process.kill()
        process.wait(10)
    except psutil.NoSuchProcess:
        pass


def _is_executor(process: psutil.Process) -> bool:
    try:
        return any("CoarseGrainedExecutorBackend" in word for word in process.cmdline())
    except psutil.Error:
        return False


class Standalone:
    """A standalone Spark cluster of one machine: a master, and workers that take themselves for machines of their own.

    Args:
        folder: For the workers' files.
        workers: How many, with one core and one pretend GPU each, found by the script that the repository ships.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.master = f"spark://127.0.0.1:{port}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("deploy.master.Master", "127.0.0.1", {}, "--port", str(port), "--webui-port", "0")
        for number in range(1, workers + 1):
            host = f"127.0.0.{number}"
            gpu = f"-Dspark.worker.resource.gpu.amount=1 -Dspark.worker.resource.gpu.discoveryScript={DISCOVERY}"
            self._start(
                "deploy.worker.Worker", host, {"CUDA_VISIBLE_DEVICES": "7", "SPARK_WORKER_OPTS": gpu},
                "--cores", "1", "--memory", "1g", "--webui-port", "0", "--work-dir", str(folder / host), self.master,
            )  # fmt: skip

    def _start(self, name: str, host: str, environment: dict[str, str], *arguments: str) -> None:
        java = find_java()
        settings = {**os.environ, "SPARK_LOCAL_IP": host, **environment}
        if java is not None:
            settings["JAVA_HOME"] = str(java)
        command = Path(pyspark.__file__).parent / "bin" / "spark-class"
        with (self._folder / f"{name}-{host}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [str(command), f"org.apache.spark.{name}", "--host", host, *arguments],
                    env=settings,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def close(self) -> None:
        """End it."""
        for process in self._processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Fleet:
    """Starts drivers on a bench's root."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.log = folder / "fleet.log"
        self.log.touch()
        self._folder = folder
        self._drivers: list[Driver] = []

    def start(
        self,
        *arguments: str,
        master: str = "local[2,4]",
        spark: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        **extraction: Any,
    ) -> Driver:
        """Start a driver for `clip_text`."""
        conf = self._configure(master, spark, extraction)
        driver = Driver(conf, self.log, "clip_text", *arguments, prefix=prefix)
        self._drivers.append(driver)
        return driver

    def start_stage(self, *arguments: str) -> Driver:
        """Start a driver that runs one stage and stands still before the first table is brought to what it staged."""
        driver = Driver(self._configure("local[2,4]", None, {}), self.log, *arguments, script=STAGE_DRIVER)
        self._drivers.append(driver)
        return driver

    def ask(self, question: str, *, master: str, spark: dict[str, str]) -> Any:
        """Evaluate an expression over `session` in a session of its own, whose executors have all come."""
        conf = self._configure(master, spark, {})
        script = f"""
import json, time
from smp_features.config import load_config
from smp_features.session import get_session, slots_of, slots_of_machine
session = get_session(load_config({str(conf)!r}, []))
while session.sparkContext._jsc.sc().getExecutorMemoryStatus().size() < 3:  # the driver is one of them
    time.sleep(0.1)
print(json.dumps({question}))
"""
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _configure(self, master: str, spark: dict[str, str] | None, extraction: dict[str, Any]) -> Path:
        settings = {
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            "spark.executor.memory": "512m",
            "spark.sql.shuffle.partitions": "2",
            **(spark or {}),
        }
        conf = self._folder / f"fleet-{uuid.uuid4().hex}.yaml"
        values = {
            "extends": str(DEMO),
            "root": self.bench.config.root,
            "spark": {"master": master, "driver_memory": "1g", "conf": settings},
            "extraction": extraction,
        }
        conf.write_text(yaml.safe_dump(values))
        return conf

    def lines(self, word: str) -> list[list[str]]:
        """What the fakes wrote under a word, split: `load device pid`, `run rows device assigned pid`."""
        return [line.split()[1:] for line in self.log.read_text().splitlines() if line.split()[1] == word]

    def gpus(self, *addresses: str) -> dict[str, str]:
        """Settings for pretend GPUs at these addresses, as many on every executor, one for each task."""
        script = self._folder / "discover.sh"
        listed = ",".join(f'"{address}"' for address in addresses)
        script.write_text(f"""#!/bin/sh\necho '{{"name": "gpu", "addresses": [{listed}]}}'\n""")
        script.chmod(0o755)
        return {
            "spark.worker.resource.gpu.amount": str(len(addresses)),
            "spark.worker.resource.gpu.discoveryScript": str(script),
            "spark.executor.resource.gpu.amount": str(len(addresses)),
            "spark.executor.resource.gpu.discoveryScript": str(script),
            "spark.task.resource.gpu.amount": "1",
        }

    def close(self) -> None:
        """Leave no process behind."""
        for driver in self._drivers:
            driver.kill()


@pytest.fixture
def fleet(bench: Bench, tmp_path: Path) -> Iterator[Fleet]:
    """Drivers on an empty bench."""
    fleet = Fleet(bench, tmp_path)
    yield fleet
    fleet.close()


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[Standalone]:
    """A standalone cluster of two machines with a pretend GPU each."""
    cluster = Standalone(tmp_path, 2)
    yield cluster
    cluster.close()
