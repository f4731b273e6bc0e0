"""Real executors with pretend GPUs, killed and doubled: every key comes out once, on the GPU that Spark assigned."""

from __future__ import annotations

import pytest
from extraction_bench import slow

pytestmark = [pytest.mark.fleet, pytest.mark.slow]

TWO_EXECUTORS = "local-cluster[2,1,1024]"


def test_an_executor_killed_in_mid_job_changes_nothing(fleet):
    texts = slow(80)
    fleet.bench.post_titles(*texts)
    driver = fleet.start(master=TWO_EXECUTORS, spark=fleet.gpus("0"), device="gpu", slots=2)
    driver.wait_until(lambda: len(fleet.lines("run")) >= 3)
    victim = driver.executors()[0]
    victim.kill()
    (summary,) = driver.finish()
    assert (summary["ok"], summary["left"], summary["computed"]) == (80, 0, 80)
    fleet.bench.check_text_vectors(texts)
    loads = fleet.lines("load")  # one model per worker, also for those that replaced lost ones
    assert summary["model_loads"] == len(loads) == len({pid for _, _, pid in loads}) >= 3
    assert all(device == f"cuda:{assigned}" for _, _, device, assigned, _ in fleet.lines("run"))


def test_the_speculative_twin_of_a_stuck_task_takes_over_and_no_key_comes_twice(fleet, standalone, tmp_path):
    texts = [f"hang_once {tmp_path / 'hung'}", *slow(30)]
    fleet.bench.post_titles(*texts)
    # Spark starts a twin on another host only, which executors of a local cluster never are.
    settings = {
        "spark.speculation": "true",
        "spark.speculation.interval": "100ms",
        "spark.speculation.multiplier": "1.1",
        "spark.speculation.quantile": "0.5",
        "spark.executor.resource.gpu.amount": "1",
        "spark.task.resource.gpu.amount": "1",
    }
    driver = fleet.start(master=standalone.master, spark=settings, device="gpu", slots=2)
    (summary,) = driver.finish()
    assert (tmp_path / "hung").exists()
    assert (summary["ok"], summary["left"]) == (31, 0)
    fleet.bench.check_text_vectors(texts)
    # The stuck task lived while its twin ran: it accused nobody of having killed it.
    assert "suspects" not in driver.output()


def test_a_reused_worker_given_another_gpu_computes_on_that_one(fleet):
    texts = slow(24)
    fleet.bench.post_titles(*texts)
    driver = fleet.start(
        "--rounds", "8", master="local-cluster[1,2,1024]", spark=fleet.gpus("0", "1"), device="gpu", slots=2,
        first_chunk_rows=8,
    )  # fmt: skip
    summaries = driver.finish()
    assert [summary["ok"] for summary in summaries] == [24] * 8
    runs = fleet.lines("run")
    assert {assigned for _, _, _, assigned, _ in runs} == {"0", "1"}
    assert all(device == f"cuda:{assigned}" for _, _, device, assigned, _ in runs)
    devices_of: dict[str, set[str]] = {}
    for _, device, pid in fleet.lines("load"):
        devices_of.setdefault(pid, set()).add(device)
    assert any(len(devices) == 2 for devices in devices_of.values())  # it did happen
    assert sum(summary["model_loads"] for summary in summaries) == len(fleet.lines("load"))


SLOTS = "[slots_of(session, None), slots_of_machine(session, 4)]"
"""Tasks at a time, and how many of four would share one machine."""


def test_as_many_tasks_are_planned_for_as_there_are_gpus_and_cores(fleet):
    two_cores_each = "local-cluster[2,2,1024]"  # two executors on this machine
    assert fleet.ask(SLOTS, master=two_cores_each, spark=fleet.gpus("0")) == [2, 4]
    assert fleet.ask(SLOTS, master=two_cores_each, spark={"spark.task.cpus": "2"}) == [2, 4]


def test_tasks_share_the_cores_of_their_own_machine_only(fleet, standalone):
    assert fleet.ask(SLOTS, master=standalone.master, spark={}) == [2, 2]


def test_a_gpu_that_spark_does_not_schedule_is_an_error_before_anything_is_written(fleet):
    fleet.bench.post_titles("a title")
    versions = fleet.bench.versions()
    driver = fleet.start(device="gpu")
    assert driver.process.wait(120) == 1
    assert "schedules no GPUs" in driver.output()
    assert "Traceback" not in driver.output()
    after = fleet.bench.versions()
    assert {name for name in after if after[name] != versions[name]} <= {"runs"}
    assert fleet.bench.staging() == []
