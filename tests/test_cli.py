"""The command line: wrong input is one clear line, exit status 2, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SMP = [sys.executable, "-m", "smp_features.cli"]
DEMO = Path(__file__).parents[1] / "conf" / "demo.yaml"


def _smp(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SMP, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--conf", str(DEMO), "--set", "source.path=nowhere"], "The source folder nowhere does not exist"),
        (["run", "--conf", str(DEMO), "--set", "sorce.path=x"], "Did you mean 'source'?"),
        (["run", "--conf", "none.yaml"], "Configuration file none.yaml does not exist"),
        (["run"], "No source folder is configured"),
        (["run", "--conf", str(DEMO), "--set", "source.path=.", "--root", "file/lake"], "file is a file"),
        (["run", "--conf", str(DEMO), "--set", "source.path=.", "--set", "models.caption.id=./empty"], "empty"),
        (["generate", "--posts", "10", "--out", "posts"], "posts"),
    ],
    ids=["source", "key", "conf", "no source", "root", "model", "posts"],
)
def test_wrong_input_is_one_line_and_exit_status_two(tmp_path, arguments, said):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = _smp(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unwritable_root_is_refused(tmp_path):
    if os.geteuid() == 0:  # root may write everywhere but to kernel file systems
        target = "/proc/lake"
    else:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        target = str(locked / "lake")
    done = _smp("run", "--conf", str(DEMO), "--set", f"source.path={tmp_path}", "--root", target, cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


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
