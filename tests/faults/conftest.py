"""Drivers as processes of their own, which tests may kill with everything below them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from extraction_bench import Bench

DRIVER = Path(__file__).parents[1] / "doubles" / "extraction_driver.py"
DEMO = Path(__file__).parents[2] / "conf" / "demo.yaml"
PATIENCE_S = 180.0


class Driver:
    """A running `smp extract` with fake extractors.

    Args:
        conf: Its configuration file.
        log: Where its fakes write.
        arguments: Further arguments of the driver.
        prefix: A command that the driver is started by.
    """

    def __init__(self, conf: Path, log: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        self._log = log
        self._output = conf.with_suffix(f".{time.monotonic_ns()}.out")
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, str(DRIVER), str(conf), str(log), *arguments],
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
        """Wait for a good end, and return what it said of each round."""
        status = self.process.wait(PATIENCE_S)
        assert status == 0, self.output()
        return [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]

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
        settings = {
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            "spark.executor.memory": "512m",
            "spark.sql.shuffle.partitions": "2",
            **(spark or {}),
        }
        conf = self._folder / f"fleet-{len(self._drivers)}.yaml"
        values = {
            "extends": str(DEMO),
            "root": self.bench.config.root,
            "spark": {"master": master, "driver_memory": "1g", "conf": settings},
            "extraction": extraction,
        }
        conf.write_text(yaml.safe_dump(values))
        driver = Driver(conf, self.log, "clip_text", *arguments, prefix=prefix)
        self._drivers.append(driver)
        return driver

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
