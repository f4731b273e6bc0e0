"""Drivers that are interrupted, terminated, or left by their JVM: one line, no hang, and the same command completes."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from extraction_bench import slow

from smp_features.interrupts import CONTINUE

pytestmark = [pytest.mark.fleet, pytest.mark.slow]


def _interrupt(driver):
    os.killpg(driver.process.pid, signal.SIGINT)  # as a terminal does, to the whole group


def _interrupt_twice(driver):
    _interrupt(driver)
    time.sleep(0.1)
    _interrupt(driver)


def _terminate(driver):
    os.killpg(driver.process.pid, signal.SIGTERM)


def _kill_the_jvm(driver):
    (java,) = (each for each in psutil.Process(driver.process.pid).children() if each.name() == "java")
    java.kill()


@pytest.mark.parametrize(
    ("disturb", "statuses", "said"),
    [
        (_interrupt, {130}, "smp: Interrupted. "),
        (_interrupt_twice, {130, -signal.SIGINT}, "smp: Interrupted"),  # the second may meet a process that ends
        (_terminate, {143}, "smp: Terminated. "),
        (_kill_the_jvm, {1}, "Spark's JVM is gone: it was killed, or the machine ran out of memory. "),
    ],
)
def test_a_disturbed_driver_says_in_one_line_what_stays_and_the_same_command_completes(fleet, disturb, statuses, said):
    texts = slow(40)
    fleet.bench.post_titles(*texts)
    settings = {"first_chunk_rows": 10, "chunk_minutes": 0.03}
    driver = fleet.start(**settings)
    driver.wait_until(lambda: fleet.lines("run"))
    disturb(driver)
    assert driver.process.wait(60) in statuses
    (line,) = driver.output().strip().splitlines()
    assert said in line
    assert line.endswith(CONTINUE)
    (summary,) = fleet.start(**settings).finish()
    assert (summary["ok"], summary["left"]) == (40, 0)
    fleet.bench.check_text_vectors(texts)
    assert fleet.bench.staging() == []
