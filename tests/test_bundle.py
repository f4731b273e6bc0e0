"""The Databricks bundle: its job is valid by Databricks' own strict models, and runs the stages in their order."""

from __future__ import annotations

import copy
import graphlib
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from databricks.bundles.jobs import Job

from smp_features.errors import EXIT_USAGE
from smp_features.stages import STAGES

ROOT = Path(__file__).resolve().parent.parent
RESOURCE = ROOT / "resources" / "smp_job.yml"

# Written out by hand from the data flow: what each task reads is written by the tasks named here.
READS_FROM = {
    "ingest": set(),
    "extract_caption": {"ingest"},
    "extract_clip": {"extract_caption"},
    "extract_perplexity": {"ingest"},
    "features": {"extract_clip", "extract_perplexity"},
    "training_set": {"features"},
    "train": {"training_set"},
    "score": {"train"},
    "report": {"score"},
}


@pytest.fixture(scope="module")
def bundle() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "databricks.yml").read_text(encoding="utf-8"))


@pytest.fixture()
def job() -> dict[str, Any]:
    jobs = yaml.safe_load(RESOURCE.read_text(encoding="utf-8"))["resources"]["jobs"]
    assert list(jobs) == ["smp_features"]
    return copy.deepcopy(jobs["smp_features"])


def test_the_job_is_valid_by_the_strict_models_of_databricks(job: dict[str, Any]) -> None:
    parsed = Job.from_dict(job)
    assert [task.task_key for task in parsed.tasks] == list(READS_FROM)


def test_a_misspelt_field_is_refused(job: dict[str, Any]) -> None:
    job["tasks"][1]["dependson"] = job["tasks"][1].pop("depends_on")
    with pytest.raises(ValueError, match="dependson"):
        Job.from_dict(job)


def test_a_value_that_databricks_does_not_know_is_refused(job: dict[str, Any]) -> None:
    job["schedule"]["pause_status"] = "RESTING"
    with pytest.raises(ValueError, match="RESTING"):
        Job.from_dict(job)


def test_tasks_wait_for_exactly_what_they_read(job: dict[str, Any]) -> None:
    waits = {task["task_key"]: {d["task_key"] for d in task.get("depends_on", [])} for task in job["tasks"]}
    assert waits == READS_FROM
    assert next(iter(graphlib.TopologicalSorter(waits).static_order())) == "ingest"


def test_every_task_runs_the_job_file_of_its_stage(job: dict[str, Any]) -> None:
    run = set()
    for task in job["tasks"]:
        python_task = task["spark_python_task"]
        extractor = task["task_key"].removeprefix("extract_")
        is_extraction = extractor != task["task_key"]
        assert [p for p in python_task["parameters"] if not p.startswith("--")] == [extractor] * is_extraction
        file = (RESOURCE.parent / python_task["python_file"]).resolve()
        assert file == ROOT / "jobs" / f"{'extract' if is_extraction else task['task_key']}.py"
        run.add(file)
    assert run == set((ROOT / "jobs").glob("*.py"))


def test_every_task_passes_arguments_that_its_file_understands(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for task in job["tasks"]:
        python_task = task["spark_python_task"]
        file = str((RESOURCE.parent / python_task["python_file"]).resolve())
        monkeypatch.setattr(sys, "argv", [file, *python_task["parameters"]])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(file, run_name="__main__")
        # The arguments were read: what is refused is the placeholder that only a deployment fills in.
        printed = "".join(capfd.readouterr())
        assert "workspace.file_path" in printed and "does not exist" in printed
        assert stopped.value.code == EXIT_USAGE


def test_every_job_file_runs_a_stage_that_there_is() -> None:
    called = {
        file.stem: re.findall(r'run_job\("([^"]+)"\)', file.read_text(encoding="utf-8"))
        for file in (ROOT / "jobs").glob("*.py")
    }
    assert called == {name.replace("-", "_"): [name] for name in STAGES}


def test_every_task_gets_the_same_settings(job: dict[str, Any]) -> None:
    settings = [[p for p in t["spark_python_task"]["parameters"] if p.startswith("--")] for t in job["tasks"]]
    assert all(one == settings[0] for one in settings)
    assert {p.split("=")[0] for p in settings[0]} == {"--conf", "--root", "--set"}


def test_models_run_on_gpu_clusters_and_all_clusters_on_the_15_4_lts_ml_runtime(job: dict[str, Any]) -> None:
    clusters = {c["job_cluster_key"]: c["new_cluster"] for c in job["job_clusters"]}
    for task in job["tasks"]:
        cluster = clusters[task["job_cluster_key"]]
        on_gpu = task["task_key"].startswith("extract")
        assert cluster["spark_version"] == f"15.4.x-{'gpu' if on_gpu else 'cpu'}-ml-scala2.12"
        gpu_per_task = cluster.get("spark_conf", {}).get("spark.task.resource.gpu.amount")
        assert gpu_per_task == ("1" if on_gpu else None)
    assert {task["job_cluster_key"] for task in job["tasks"]} == set(clusters)


def test_every_task_installs_the_wheel_that_the_bundle_builds(bundle: dict[str, Any], job: dict[str, Any]) -> None:
    built = bundle["artifacts"]["wheel"]
    assert built["type"] == "whl"
    assert "--wheel-dir dist " in built["build"]
    for task in job["tasks"]:
        assert task["libraries"] == [{"whl": "../dist/*.whl"}]


def test_only_declared_variables_are_used(bundle: dict[str, Any], job: dict[str, Any]) -> None:
    used = set(re.findall(r"\$\{var\.(\w+)\}", yaml.safe_dump([bundle, job])))
    assert used == set(bundle["variables"])
    for target in bundle["targets"].values():
        assert set(target.get("variables", {})) <= set(bundle["variables"])


def test_the_schedule_rests_in_development_and_runs_in_production(bundle: dict[str, Any], job: dict[str, Any]) -> None:
    assert job["schedule"]["pause_status"] == "UNPAUSED"
    targets = bundle["targets"]
    assert targets["dev"]["presets"]["trigger_pause_status"] == "PAUSED"
    assert (targets["dev"]["mode"], targets["prod"]["mode"]) == ("development", "production")
    assert [name for name, target in targets.items() if target.get("default")] == ["dev"]


def test_the_configuration_file_of_the_job_exists(bundle: dict[str, Any]) -> None:
    assert (ROOT / "conf" / bundle["variables"]["conf"]["default"]).is_file()
