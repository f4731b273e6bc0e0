"""Set-up: a second call installs nothing, and every outside cause becomes one line that says what to do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture()
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The set-up script, pointed at an empty folder that holds a lock, and refusing to start any installer."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("requirements.lock", "setup.py", "pyproject.toml"):
        (tmp_path / name).write_text("uv==1.0\n", encoding="utf-8")
    venv = tmp_path / ".venv"
    paths = {"ROOT": tmp_path, "VENV": venv, "PYTHON": venv / "bin" / "python", "LOCK": tmp_path / "requirements.lock"}
    paths |= {"STAMP": venv / "stamp", "LOG": venv / "log"}
    for name, path in paths.items():
        monkeypatch.setattr(module, name, path)

    def refuse(command: list[object], *_: object) -> None:
        raise AssertionError("started " + " ".join(str(part) for part in command[1:]))

    monkeypatch.setattr(module, "run", refuse)
    return module


def finish(bootstrap: ModuleType) -> None:
    bootstrap.PYTHON.parent.mkdir(parents=True)
    bootstrap.PYTHON.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    bootstrap.PYTHON.chmod(0o755)
    bootstrap.STAMP.write_text(bootstrap.wanted_stamp(), encoding="utf-8")


def test_a_second_call_installs_nothing(bootstrap: ModuleType) -> None:
    finish(bootstrap)
    assert bootstrap.main() == 0


@pytest.mark.parametrize(
    ("change", "first_step"),
    [
        ("requirements.lock", "-m pip .*install .*uv==2.0"),
        ("setup.py", "-m pip .*install .*uv==1.0"),
        ("pyproject.toml", "-m pip .*install .*uv==1.0"),
        ("moved", "-m venv --clear"),
        ("broken", "-m venv --clear"),
    ],
)
def test_a_change_installs_again(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, change: str, first_step: str
) -> None:
    finish(bootstrap)
    if change == "moved":
        stamp = bootstrap.wanted_stamp().replace(str(bootstrap.ROOT), "/elsewhere")
        bootstrap.STAMP.write_text(stamp, encoding="utf-8")
    elif change == "broken":
        bootstrap.PYTHON.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    else:
        (bootstrap.ROOT / change).write_text("uv==2.0\n", encoding="utf-8")
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: SimpleNamespace(free=100e9))
    with pytest.raises(AssertionError, match=f"started {first_step}"):
        bootstrap.install()
    assert not bootstrap.STAMP.exists()


def test_a_full_disk_is_refused_before_anything_is_written(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: SimpleNamespace(free=11.9e9))
    assert bootstrap.main() == 1
    assert "12 GB of disk are needed" in capsys.readouterr().err
    assert not bootstrap.VENV.exists()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "error: Failed to fetch: `index`\n  cause: tcp connect error\n  cause: Connection refused (os error 111)",
            "reached",
        ),
        ("WARNING: Retrying ... NewConnectionError\nERROR: No matching distribution found for uv==0.1", "reached"),
        ("ERROR: No matching distribution found for uv==0.1", "lacks a package"),
        ("error: failed to write: No space left on device (os error 28)", "disk is full"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "certificate is not trusted"),
        ("Error: HTTP status client error (403 Forbidden) for url (index)", "credentials"),
        ("The virtual environment was not created because ensurepip is not available.", "python3.11-venv"),
        ("Resolved 3 packages\nerror: something new\n  with a detail\n", "error: something new."),
        ("", "the installer failed"),
    ],
)
def test_an_installers_failure_becomes_one_line(bootstrap: ModuleType, output: str, expected: str) -> None:
    line = bootstrap.diagnose(output)
    assert expected in line
    assert "\n" not in line


def test_uv_is_told_about_the_index_that_pip_uses(bootstrap: ModuleType) -> None:
    config = ":env:.index-url='first'\nglobal.cert='ca.pem'\nglobal.index-url='second'\nglobal.timeout='9'\n"
    environment = bootstrap.uv_environment(config + "global.extra-index-url='a\\nb'\n", {"HOME": "home"})
    assert environment == {
        "HOME": "home",
        "SSL_CERT_FILE": "ca.pem",
        "UV_DEFAULT_INDEX": "first",
        "UV_HTTP_TIMEOUT": "300",
        "UV_INDEX": "a b",
    }


def test_a_setting_made_for_uv_itself_is_kept(bootstrap: ModuleType) -> None:
    environment = bootstrap.uv_environment("global.index-url='pips'\n", {"UV_DEFAULT_INDEX": "uvs"})
    assert environment["UV_DEFAULT_INDEX"] == "uvs"


def test_another_python_is_refused_in_one_line(tmp_path: Path) -> None:
    other = tmp_path / "python3.12"
    other.write_text("#!/bin/sh\necho 3.12\n", encoding="utf-8")
    other.chmod(0o755)
    # The tests run under make, which would tell this one that it is not the first.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "setup", f"PYTHON={other}"], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith(f"Set-up stopped: Python 3.11 is needed, {other} is 3.12.")
    assert done.stdout == ""
