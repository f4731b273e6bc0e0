"""The code that serves a model, copied to travel with it: the registered model then needs no installed smp_features.

The copy is a package of its own name, which ends in a digest of its files. Under the name `smp_features` it would hide
the installed package from whatever else runs in the process, such as a Spark worker; and models that were registered by
two versions can be loaded side by side. The file that MLflow runs is given the digests of the package's files and of
the model's manifest, and compares both before it imports the one and loads the other.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import smp_features
from smp_features.model.digests import MANIFEST, digest_of

_ROOT = Path(smp_features.__file__).parent
_SERVED_MODEL = "served_model.py"
_IMPORT = "from smp_features.model."
_GIVEN = """PACKAGE = "smp_features"
CODE: dict[str, str] = {}
MANIFEST: str | None = None
"""
"""What `served_model.py` has in place of what it is given here."""


@dataclass(frozen=True)
class ServedCode:
    """Where the copy is.

    Attributes:
        model: The file that MLflow runs, its `python_model`.
        package: The folder of the package that this file imports, for MLflow's `code_paths`.
    """

    model: Path
    package: Path


@contextmanager
def served_code(model: Path) -> Iterator[ServedCode]:
    """Copy `model/` and what it imports into a temporary folder, from which this process can import it meanwhile.

    Args:
        model: The saved model that the code will serve, and no other.
    """
    files = {
        "errors.py": _ROOT / "errors.py",
        **{f"model/{path.name}": path for path in sorted((_ROOT / "model").glob("*.py")) if path.name != _SERVED_MODEL},
    }
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    name = f"smp_served_{digest.hexdigest()[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        package, runs = Path(folder) / name, Path(folder) / _SERVED_MODEL
        (package / "model").mkdir(parents=True)
        text = f'"""What of smp_features {smp_features.__version__} serves this model."""\n'
        (package / "__init__.py").write_text(text, encoding="utf-8")
        for inside, path in files.items():
            shutil.copyfile(path, package / inside)
        copied = {path.relative_to(package).as_posix(): path for path in sorted(package.rglob("*.py"))}
        given = {
            "PACKAGE": name,
            "CODE": {inside: digest_of(path.read_bytes()) for inside, path in copied.items()},
            "MANIFEST": digest_of((model / MANIFEST).read_bytes()),
        }
        content = (_ROOT / "model" / _SERVED_MODEL).read_text(encoding="utf-8")
        lines = "".join(f"{constant} = {value!r}\n" for constant, value in given.items())
        runs.write_text(content.replace(_GIVEN, lines).replace(_IMPORT, f"from {name}.model."), encoding="utf-8")
        # MLflow runs the file before it copies the package, and only a copy is put on the path by loading it.
        sys.path.insert(0, folder)
        try:
            yield ServedCode(runs, package)
        finally:
            sys.path.remove(folder)
