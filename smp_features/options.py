"""The options of the command line that several commands share, and the decorator that gives them to a command."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from smp_features.config import Config, load_config
from smp_features.console import explaining, start_logging

Format = Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="How rows are printed.")]
Engine = Annotated[
    Literal["auto", "duckdb", "spark"],
    typer.Option(
        "--engine", help="What reads the tables: DuckDB those of a folder, without a JVM; Spark also other roots."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, over the file's, such as source.path=DIR; repeatable."),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show details, and stack traces of errors.")]


def configure(
    conf: Annotated[
        Path | None, typer.Option("--conf", metavar="FILE", help="Configuration file, such as conf/demo.yaml.")
    ] = None,
    root: Annotated[
        str | None, typer.Option("--root", metavar="DIR", help="Where tables, reports and MLflow's store are.")
    ] = None,
    overrides: Settings = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Only the first N posts of each split: a pilot.")
    ] = None,
    allow_removal: Annotated[
        bool,
        typer.Option("--allow-removal", help="Take the source as it is although posts, pictures or fields are gone."),
    ] = False,
    verbose: Verbose = False,
) -> Config:
    """Start logging, and return the configuration that the options make.

    Raises:
        ConfigError: A file, key or value cannot be used.
    """
    start_logging(verbose)
    pilot = [] if limit is None else [f"source.limit={limit}"]
    meant = ["source.allow_removal=true"] if allow_removal else []
    return load_config(conf, [*(overrides or ()), *pilot, *meant], root)


def configured(*, reads_source: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `configure`, and hand it the configuration they make as its first argument.

    Args:
        reads_source: Whether `--limit` and `--allow-removal`, which say how the source is read, are among them.
    """
    common = dict(signature(configure, eval_str=True).parameters)
    if not reads_source:
        del common["limit"], common["allow_removal"]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            with explaining():  # in here, since typer ends an interrupted command without a word
                config = configure(**{name: given.pop(name) for name in common})
                command(config, **given)

        _, *own = signature(command, eval_str=True).parameters.values()
        options = [option.replace(kind=Parameter.KEYWORD_ONLY) for option in (*own, *common.values())]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {option.name: option.annotation for option in options}
        run.__signature__ = Signature(options)  # type: ignore[attr-defined]
        return run

    return decorate
