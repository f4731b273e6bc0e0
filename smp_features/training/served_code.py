"""The code that serves a model, copied to travel with it: the registered model then needs no installed smp_features.

The copy is a package of its own name, which ends in a digest of its files. Under the name `smp_features` it would hide
the installed package from whatever else runs in the process, such as a Spark worker; and models that were registered by
two versions can be loaded side by side.
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

_ROOT = Path(smp_features.__file__).parent
_SERVED_MODEL = "served_model.py"
_IMPORT = "from smp_features.model."


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
def served_code() -> Iterator[ServedCode]:
    """Copy `model/` and what it imports into a temporary folder, from which this process can import it meanwhile."""
    files = {
        "errors.py": _ROOT / "errors.py",
        **{f"model/{path.name}": path for path in sorted((_ROOT / "model").glob("*.py")) if path.name != _SERVED_MODEL},
    }
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    name = f"smp_served_{digest.hexdigest()[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        package, model = Path(folder) / name, Path(folder) / _SERVED_MODEL
        (package / "model").mkdir(parents=True)
        text = f'"""What of smp_features {smp_features.__version__} serves this model."""\n'
        (package / "__init__.py").write_text(text, encoding="utf-8")
        for inside, path in files.items():
            shutil.copyfile(path, package / inside)
        content = (_ROOT / "model" / _SERVED_MODEL).read_text(encoding="utf-8")
        model.write_text(content.replace(_IMPORT, f"from {name}.model."), encoding="utf-8")
        # MLflow runs the file before it copies the package, and only a copy is put on the path by loading it.
        sys.path.insert(0, folder)
        try:
            yield ServedCode(model, package)
        finally:
            sys.path.remove(folder)
