"""Make .venv hold exactly what requirements.lock names, or say in one line why it cannot; run by `make` on 3.11."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV = VENV / "bin" / "uv"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "smp-setup.stamp"
LOG = VENV / "smp-setup.log"

# Everything installed is 8 GB, most of it torch's CUDA libraries; the rest is room for downloads and for a demo run.
FIRST_GB = 12
UPDATE_GB = 3

# uv does not read pip's configuration, so a machine that reaches its index through pip's settings needs them handed on.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}

# What an installer prints when a cause outside this repository stopped it, and what to do about it. First match wins.
CAUSES = (
    (
        r"No space left on device|os error 28|Errno 28|Disk quota exceeded",
        f"the disk is full. Free {FIRST_GB} GB here and in the user's cache folder",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|invalid peer certificate|UnknownIssuer",
        "the package index's certificate is not trusted. Name your certificate authority's file in PIP_CERT",
    ),
    (
        r"Connection refused|NewConnectionError|ConnectTimeout|Read timed out|[Tt]imed? ?out|ProxyError|Name or service"
        r" not known|name resolution|dns error|error sending request|tcp connect error|Network is unreachable",
        "the package index cannot be reached. Check the network, or name a reachable index in PIP_INDEX_URL",
    ),
    (
        r"\b40[13] (Client Error|Forbidden|Unauthorized)|HTTP status client error \(40[13]",
        "the package index refuses this machine. Check the credentials in PIP_INDEX_URL",
    ),
    (
        r"ensurepip is not available|No module named (venv|ensurepip)",
        "this Python cannot make virtual environments. On Debian or Ubuntu: apt-get install python3.11-venv",
    ),
    (
        r"No matching distribution found|was not found in the package registry|No solution found|has no wheels with",
        "the package index lacks a package of requirements.lock for this machine",
    ),
)


class SetupError(Exception):
    """Why the environment could not be made, in one line that says what to do."""


def diagnose(output: str) -> str:
    """Return the one line that explains a failed installer's output, with what to do next.

    Args:
        output: Everything the installer printed.
    """
    for pattern, advice in CAUSES:
        if re.search(pattern, output):
            return f"{advice}."
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if line.lower().startswith("error")), lines[-1] if lines else "")
    return f"the installer failed: {last[:200]}."


def uv_environment(pip_config: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for uv, with pip's index settings translated where uv has none of its own.

    Args:
        pip_config: What `pip config list` prints: a `section.key='value'` per line, the section `:env:` ranking first.
        environment: The variables of this process; a setting made for uv itself is kept.
    """
    translated: dict[str, str] = {}
    for line in sorted(pip_config.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        variable = PIP_TO_UV.get(name.rpartition(".")[2])
        if variable and value:
            translated[variable] = " ".join(str(ast.literal_eval(value)).split())
    # A slow mirror needs more than uv's 30 seconds for torch's 800 MB.
    return {"UV_HTTP_TIMEOUT": "300", **translated, **environment}


def wanted_stamp() -> str:
    """Return what the stamp file holds when nothing is left to install: this folder, and a hash of what decides."""
    content = b"".join((ROOT / name).read_bytes() for name in ("requirements.lock", "setup.py", "pyproject.toml"))
    return f"{ROOT}\n{hashlib.sha256(content).hexdigest()}\n"


def is_usable(python: Path) -> bool:
    """Return whether this interpreter runs and is 3.11; a copied or moved environment's often is not."""
    check: list[str | Path] = [python, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 11))"]
    return python.exists() and subprocess.run(check, capture_output=True, check=False).returncode == 0


def run(command: list[str | Path], environment: Mapping[str, str] | None = None) -> None:
    """Run one installer and show its progress; what a failed one printed is kept in the log.

    Raises:
        SetupError: The command failed.
    """
    output = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=None if environment is None else dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if line.lstrip().startswith(("Downloading", "Building", "Prepared", "Installed", "Uninstalled")):
                print(f"  {line.strip()}", flush=True)
    if process.returncode != 0:
        LOG.write_text("".join(output), encoding="utf-8")
        raise SetupError(f"{diagnose(''.join(output))} Then run the same command again; details: {LOG}")


def check_space(needed_gb: int) -> None:
    """Refuse before anything is written when the disk cannot hold the packages.

    Raises:
        SetupError: Less than `needed_gb` GB (10^9 bytes) are free.
    """
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < needed_gb:
        raise SetupError(f"{needed_gb} GB of disk are needed in {ROOT} and {free_gb:.1f} GB are free. Free some first.")


def install() -> None:
    """Bring .venv to what the lock says; return at once when its stamp shows that it is there already.

    Raises:
        SetupError: With the cause and what to do.
    """
    stamp = wanted_stamp()
    present = STAMP.read_text(encoding="utf-8") if STAMP.exists() else ""
    moved = bool(present) and present.splitlines()[0] != str(ROOT)
    usable = is_usable(PYTHON) and not moved
    if usable and present == stamp:
        return
    holds_torch = usable and any(VENV.glob("lib/python3.11/site-packages/torch/version.py"))
    check_space(UPDATE_GB if holds_torch else FIRST_GB)
    VENV.mkdir(exist_ok=True)
    STAMP.unlink(missing_ok=True)
    print(f"Setting up {VENV} (about 8 GB, one to seven minutes; once)", flush=True)
    if not usable:
        run([sys.executable, "-m", "venv", "--clear", VENV])
    pip: list[str | Path] = [PYTHON, "-m", "pip", "--disable-pip-version-check"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode != 0:
        run([PYTHON, "-m", "ensurepip"])
    uv_pin = re.search(r"^uv==\S+", LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if uv_pin is None:
        raise SetupError("requirements.lock names no uv. Restore the file, or write it again with `make lock`.")
    run([*pip, "install", "--quiet", "--retries", "2", uv_pin.group()])
    pip_config = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False).stdout
    environment = uv_environment(pip_config, os.environ)
    # The lock also binds the tools that build source packages, so that a later release of one changes nothing here.
    run([UV, "pip", "sync", "--python", PYTHON, "--build-constraints", LOCK, LOCK], environment)
    run([UV, "pip", "install", "--python", PYTHON, "--no-deps", "--no-build-isolation", "--editable", "."], environment)
    STAMP.write_text(stamp, encoding="utf-8")


def main() -> int:
    """Install, and return the exit status: 0 done, 1 not, with one line on standard error."""
    try:
        install()
    except SetupError as error:
        print(f"Set-up stopped: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Set-up stopped: {error.filename or ROOT} cannot be written: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Set-up interrupted; the same command continues it.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
