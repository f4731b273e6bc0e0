"""The command line: wrong input is one clear line, exit status 2, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smp_features.cli import app, run_job
from smp_features.demo.generate import generate
from smp_features.lake.lock import writing

SMP = [sys.executable, "-m", "smp_features.cli"]
DEMO = Path(__file__).parents[1] / "conf" / "demo.yaml"


def _smp(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SMP, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


@pytest.fixture(scope="module")
def posts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "posts"
    generate(50, folder, seed=1)
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--conf", str(DEMO), "--set", "source.path=nowhere"], "The source folder nowhere does not exist"),
        (["run", "--conf", str(DEMO), "--set", "sorce.path=x"], "Did you mean 'source'?"),
        (["run", "--conf", "none.yaml"], "Configuration file none.yaml does not exist"),
        (["run"], "No source folder is configured"),
        (["run", "--conf", str(DEMO), "--set", "source.path=."], "holds no posts in the SMPD layout"),
        (["run", "--conf", str(DEMO), "--set", "source.path=POSTS", "--root", "file/lake"], "file is a file"),
        (["run", "--conf", str(DEMO), "--set", "source.path=POSTS", "--set", "models.caption.id=./empty"], "empty"),
        (["generate", "--posts", "10", "--out", "posts"], "posts"),
        (["evaluate", "--predictions", "file", "--labels", "file"], "file holds no scores"),
    ],
    ids=["source", "key", "conf", "no source", "layout", "root", "model", "posts", "scores"],
)
def test_wrong_input_is_one_line_and_exit_status_two(tmp_path, posts, arguments, said):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = _smp(*(argument.replace("POSTS", str(posts)) for argument in arguments), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_misaligned_files_are_refused_by_file_and_line_before_anything_is_written(tmp_path, posts):
    source = tmp_path / "posts"
    shutil.copytree(posts, source)
    path = source / "train_allmetadata_json" / "train_text.json"
    records = json.loads(path.read_text())
    records[3], records[4] = records[4], records[3]
    path.write_text(json.dumps(records))
    done = _smp("run", "--conf", str(DEMO), "--set", f"source.path={source}", "--root", "lake", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("smp: ")]
    assert "train_text.json" in line and "4" in line
    assert not (tmp_path / "lake").exists()


def test_an_unwritable_root_is_refused(tmp_path, posts):
    if os.geteuid() == 0:  # root may write everywhere but to kernel file systems
        target = "/proc/lake"
    else:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        target = str(locked / "lake")
    done = _smp("run", "--conf", str(DEMO), "--set", f"source.path={posts}", "--root", target, cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize("command", [["ablate"], ["retry", "--stage", "caption"]])
def test_a_root_that_another_process_writes_is_left_alone(tmp_path, command):
    with writing(str(tmp_path / "lake")):
        done = _smp(*command, "--conf", str(DEMO), "--root", "lake", cwd=tmp_path)
    assert done.returncode == 1
    assert f"written by process {os.getpid()}" in done.stderr and "Traceback" not in done.stderr


def test_predictions_are_evaluated_without_a_lakehouse_in_every_output_format(tmp_path, posts):
    truth = json.loads((posts / "truth.json").read_text())["test_labels"]
    guesses = tmp_path / "guesses.json"
    guesses.write_text(json.dumps({pid: label + 1 for pid, label in truth.items()} | {"none": 3.0}))
    evaluate = ["evaluate", "--predictions", str(guesses), "--labels", str(posts / "truth.json")]
    plain = _smp(*evaluate, "--format", "json", cwd=tmp_path)
    assert plain.returncode == 0, plain.stderr
    [row] = json.loads(plain.stdout)
    assert row["src"] == pytest.approx(1) and row["mae"] == pytest.approx(1) == row["bias"]
    assert "without a label, not scored: 1" in plain.stderr
    as_csv = _smp(*evaluate, "--posts", str(posts), "--format", "csv", cwd=tmp_path).stdout.splitlines()
    assert as_csv[0] == "segment,which,n,users,src,src_low,src_high,mae,mae_low,mae_high,bias"
    assert as_csv[1].startswith(f"all,all,{len(truth)},") and any(line.startswith("users,unseen,") for line in as_csv)
    assert "unseen" in _smp(*evaluate, "--posts", str(posts), cwd=tmp_path).stdout
    assert not [path for path in tmp_path.iterdir() if path != guesses]


def test_every_subcommand_explains_itself(tmp_path):
    done = _smp("--help", cwd=tmp_path)
    for name in (
        "demo",
        "generate",
        "run",
        "ingest",
        "extract",
        "features",
        "training-set",
        "train",
        "score",
        "report",
    ):
        assert name in done.stdout


@pytest.mark.parametrize("command", ["run", "ingest", "extract", "train", "status", "sql", "promote", "ablate"])
def test_every_command_takes_the_common_options_and_says_what_they_are_for(command):
    said = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())
    for option in ("--conf FILE", "--root DIR", "--set KEY=VALUE", "--verbose"):
        assert option in said
    for option in ("--limit N", "--allow-removal"):
        assert (option in said) == (command in ("run", "ingest"))


def test_help_lists_no_extractor_since_the_configuration_makes_them():
    for command in ("extract", "retry"):
        said = CliRunner().invoke(app, [command, "--help"]).output
        assert "smp status" in said
        assert not [name for name in ("clip", "perplexity", "language") if name in said.lower()]


def test_a_job_file_is_the_subcommand_with_its_options_and_exit_statuses(tmp_path):
    def job(name: str, *arguments: str) -> tuple[int, str, str]:
        file = DEMO.parents[1] / "jobs" / f"{name}.py"
        done = subprocess.run([sys.executable, str(file), *arguments], capture_output=True, text=True, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    def smp(*arguments: str) -> tuple[int, str, str]:
        done = _smp(*arguments, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    assert job("train", "--help") == smp("train", "--help")
    assert "--force" in job("train", "--help")[1]
    refused = job("extract", "caption", "clip", "--conf", "none.yaml", "--set", "root=x")
    assert refused == smp("extract", "caption", "clip", "--conf", "none.yaml", "--set", "root=x")
    assert refused[0] == 2 and "none.yaml does not exist" in refused[2]
    assert job("ingest", "--forse")[0] == 2


def test_an_interrupted_command_says_what_stays(monkeypatch, capsys):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("smp_features.options.start_logging", lambda verbose: None)
    monkeypatch.setattr("smp_features.stages.run_stage", interrupt)
    monkeypatch.setattr("smp_features.cli._session", lambda config: None)
    monkeypatch.setattr("smp_features.preflight.check_before_writing", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        run_job("features", [])
    assert ended.value.code == 130
    assert "What was published stays; run the same command to continue." in capsys.readouterr().err
