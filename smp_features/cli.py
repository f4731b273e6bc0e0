"""`smp`: one subcommand per stage, and the commands that look at the tables. No logic lives here."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args

import typer
from rich.console import Console
from rich.logging import RichHandler

from smp_features.config import Config, SplitName, load_config
from smp_features.errors import EXIT_STAGE_FAILED, SmpError, UsageError, nearest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from smp_features.runs import Summary

app = typer.Typer(
    name="smp",
    help="Turn social-media posts into features and a popularity model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfOption = Annotated[Path | None, typer.Option("--conf", help="Configuration file, such as conf/demo.yaml.")]
RootOption = Annotated[str | None, typer.Option("--root", help="Where tables, reports and MLflow's store are.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="key.path=value, over the file; repeatable.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show details, and stack traces of errors.")]
LimitOption = Annotated[int | None, typer.Option("--limit", help="Only the first N posts of each split: a pilot.")]
FormatOption = Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="How rows are printed.")]

_out = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line: exit status 0 done, 1 a stage failed, 2 wrong usage, refused before anything is written."""
    with _explaining():
        app()


def run_job(stage: str, argv: Sequence[str] | None = None) -> None:
    """Run one stage as a scheduled job does: `--conf FILE [--set KEY=VALUE]… [--root DIR]`.

    Args:
        stage: A stage's name.
        argv: Arguments; None takes the process's.
    """
    parser = argparse.ArgumentParser(description=f"Run the stage {stage}.")
    if stage == "extract":
        parser.add_argument("names", nargs="*", help="extractors; none means all")
    parser.add_argument("--conf", required=True)
    parser.add_argument("--root")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args(argv)
    options = {"names": arguments.names or None} if stage == "extract" else {}
    with _explaining():
        _stage(stage, Path(arguments.conf), arguments.root, arguments.overrides, False, **options)


# -- stages -----------------------------------------------------------------------------------------------------------


@app.command()
def demo(
    posts: Annotated[int, typer.Option(help="How many posts to make up.")] = 3000,
    seed: Annotated[int, typer.Option(help="Decides the posts.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder for the posts and the lakehouse.")] = Path("demo"),
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Make up posts, run every stage on them, and say what came out and where to look."""
    from smp_features.demo.walkthrough import walk

    _log(verbose)
    walk(posts, seed, out, overrides or [], _session, _say)


@app.command()
def generate(
    posts: Annotated[int, typer.Option(help="How many posts to make up.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    seed: Annotated[int, typer.Option(help="The same seed makes the same posts.")] = 7,
    user_data: Annotated[
        Literal["records", "columns"], typer.Option(help="Form of user_data: schema A or schema B.")
    ] = "records",
) -> None:
    """Make up posts in the SMP Challenge's layout, with the truth behind them in truth.json."""
    from smp_features.demo.generate import generate as make
    from smp_features.progress import reporter

    with reporter("generate", posts) as bar:
        made = make(posts, out, seed, user_data, lambda done, _: bar.advance(done - bar.done))
    _say(
        f"{made.posts:,} posts ({made.train:,} train, {made.test:,} test) of {made.users:,} users in {made.out}; "
        f"{made.unseen_user_share:.0%} of test posts are by users not in train."
    )
    _say(f"Next: smp run --conf conf/demo.yaml --set source.path={out} --root lake")


@app.command()
def run(
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    limit: LimitOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Run every stage in order; running it again continues where it was, or finds nothing to do."""
    from smp_features.preflight import check_before_writing
    from smp_features.stages import run_all

    config = _configure(conf, root, overrides, verbose, limit)
    check_before_writing(config)
    _warn(config)
    summaries = run_all(_session(config), config, _show)
    if all(summary.outcome == "nothing_to_do" for summary in summaries if summary.stage != "report"):
        _say("Nothing to do: no model was loaded, no feature table got a version, nothing was trained.")
    _say(f'Next: smp status --root {config.root}   smp sql --root {config.root} "SELECT … FROM post_features"')


@app.command()
def ingest(
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    limit: LimitOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the folder, say what was found, write nothing.")] = (
        False
    ),
    verbose: VerboseOption = False,
) -> None:
    """Read, validate and hash posts, labels, user profiles and images."""
    options: dict[str, Any] = {"dry_run": True} if dry_run else {}
    _stage("ingest", conf, root, overrides, verbose, limit, **options)


@app.command()
def extract(
    names: Annotated[list[str] | None, typer.Argument(help="caption, clip_image, clip_text, perplexity.")] = None,
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Caption, embed and score the contents that have no row yet."""
    _stage("extract", conf, root, overrides, verbose, names=names)


@app.command()
def features(
    conf: ConfOption = None, root: RootOption = None, overrides: SetOption = None, verbose: VerboseOption = False
) -> None:
    """Bring the table post_features up to date."""
    _stage("features", conf, root, overrides, verbose)


@app.command("training-set")
def training_set(
    conf: ConfOption = None, root: RootOption = None, overrides: SetOption = None, verbose: VerboseOption = False
) -> None:
    """Join features with labels, as known when each post was made."""
    _stage("training-set", conf, root, overrides, verbose)


@app.command()
def train(
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    force: Annotated[bool, typer.Option("--force", help="Train although a finished model has this key.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Train and validate the adapter and the regressor; register the model."""
    _stage("train", conf, root, overrides, verbose, force=force)


@app.command()
def score(
    conf: ConfOption = None, root: RootOption = None, overrides: SetOption = None, verbose: VerboseOption = False
) -> None:
    """Predict every unlabelled post with the champion."""
    _stage("score", conf, root, overrides, verbose)


@app.command()
def report(
    conf: ConfOption = None, root: RootOption = None, overrides: SetOption = None, verbose: VerboseOption = False
) -> None:
    """Write the HTML report."""
    _stage("report", conf, root, overrides, verbose)


# -- looking ----------------------------------------------------------------------------------------------------------


@app.command()
def status(
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Show, per stage: total, done, failed, left, last run."""
    from smp_features.status import status_of

    config = _configure(conf, root, overrides, verbose)
    _rows(status_of(_session(config), config), "json" if as_json else "table")


@app.command()
def errors(
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Show typed errors, counted, with example keys."""
    from smp_features.status import errors_of

    config = _configure(conf, root, overrides, verbose)
    _rows(errors_of(_session(config), config, stage), format)


@app.command()
def retry(
    stage: Annotated[str, typer.Option(help="caption, clip_image, clip_text or perplexity.")],
    status: Annotated[
        list[str] | None, typer.Option(help="Also forget rows with this permanent status; repeatable.")
    ] = None,
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Forget a stage's transient failures, so that the next run tries them again."""
    from smp_features.extraction import retry as forget
    from smp_features.runs import new_run_id
    from smp_features.stages import locked

    config = _configure(conf, root, overrides, verbose)
    with locked(config):
        _say(forget(_session(config), config, stage, status or (), run=new_run_id()).message)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="A SELECT over the tables, such as post_features.")],
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """Ask the tables; only reading is allowed."""
    from smp_features.lake.query import ask

    config = _configure(conf, root, overrides, verbose)
    _rows(ask(_session(config), config, query), format)


@app.command()
def tables(
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    format: FormatOption = "table",
    verbose: VerboseOption = False,
) -> None:
    """List the tables: rows, version, and what one row is."""
    from smp_features.lake.query import describe_tables

    config = _configure(conf, root, overrides, verbose)
    _rows(describe_tables(_session(config), config), format)


@app.command()
def optimize(
    conf: ConfOption = None, root: RootOption = None, overrides: SetOption = None, verbose: VerboseOption = False
) -> None:
    """Compact small files in every table; contents stay the same."""
    from smp_features.lake.specs import SPECS
    from smp_features.lake.tables import Lakehouse
    from smp_features.stages import locked

    config = _configure(conf, root, overrides, verbose)
    with locked(config):
        lakehouse = Lakehouse(_session(config), config)
        for name in SPECS:
            lakehouse.optimize(name)
            _say(f"{name}: compacted")


# -- models -----------------------------------------------------------------------------------------------------------


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="Registered version to make champion.")],
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Make a registered version the champion."""
    from smp_features.training.registry import promote as make_champion

    _say(make_champion(_configure(conf, root, overrides, verbose), version))


@app.command()
def rollback(
    conf: ConfOption = None, root: RootOption = None, overrides: SetOption = None, verbose: VerboseOption = False
) -> None:
    """Make the previous champion the champion again."""
    from smp_features.training.registry import rollback as restore

    _say(restore(_configure(conf, root, overrides, verbose)))


@app.command()
def ablate(
    split: Annotated[
        list[str] | None, typer.Option(help="identity, chronological, later_unseen …; repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compute it although a finished run has these rows.")] = False,
    form: FormatOption = "table",
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Measure what each feature group is worth, left out and added, and each choice of adapter."""
    from smp_features.stages import locked
    from smp_features.training.ablate import ablate as measure
    from smp_features.training.ablate import table

    config = _configure(conf, root, overrides, verbose)
    for name in split or ():
        if name not in get_args(SplitName):
            raise UsageError(f"There is no split '{name}'.", nearest(name, get_args(SplitName)))
    with locked(config):
        found = measure(_session(config), config, split, force=force)
    _rows(table(found), form)
    if form == "table":
        _say(f"MLflow run {found.run}" + ("" if found.made_now else ", made before on these rows and settings"))


@app.command()
def submission(
    out: Annotated[Path, typer.Option(help="A .json or .csv file, in the challenge's formats.")],
    conf: ConfOption = None,
    root: RootOption = None,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Write the champion's predictions as a challenge submission."""
    from smp_features.scoring.submission import write_submission

    config = _configure(conf, root, overrides, verbose)
    written = write_submission(_session(config), config, out)
    _say(f"{written:,} predictions in {out}")


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Option(help="A submission, .json or .csv.")],
    labels: Annotated[Path, typer.Option(help="truth.json, a JSON of pid to score, a CSV, or …_label.txt.")],
    posts: Annotated[
        Path | None, typer.Option(help="The posts' SMPD folder: scores seen and unseen users, intervals, categories.")
    ] = None,
    format: FormatOption = "table",
) -> None:
    """Score a submission: SRC (Spearman), MAE and bias."""
    from smp_features.scoring.evaluation import evaluate as measure

    measured = measure(predictions, labels, posts)
    _rows(measured.rows, format)
    if measured.extra:
        typer.echo(f"Predictions without a label, not scored: {measured.extra:,}.", err=True)


# -- inside -----------------------------------------------------------------------------------------------------------


def _stage(
    name: str,
    conf: Path | None,
    root: str | None,
    overrides: list[str] | None,
    verbose: bool,
    limit: int | None = None,
    **options: Any,
) -> None:
    from smp_features.preflight import check_before_writing
    from smp_features.stages import run_stage

    config = _configure(conf, root, overrides, verbose, limit)
    check_before_writing(config, [name], options.get("names"))
    if name in ("extract", "train", "score", "report"):
        _warn(config)
    for summary in run_stage(_session(config), config, name, **options):
        _show(summary)


def _warn(config: Config) -> None:
    from smp_features.preflight import demo_model_warning

    warning = demo_model_warning(config)
    if warning is not None:
        _say(f"NOTE  {warning}")


def _configure(
    conf: Path | None, root: str | None, overrides: list[str] | None, verbose: bool, limit: int | None = None
) -> Config:
    _log(verbose)
    extra = [] if limit is None else [f"source.limit={limit}"]
    return load_config(conf, [*(overrides or []), *extra], root)


def _session(config: Config) -> SparkSession:
    from smp_features.session import get_session

    return get_session(config)


def _log(verbose: bool) -> None:
    if sys.stderr.isatty():
        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
        form = "%(message)s"
    else:
        handler = logging.StreamHandler()
        form = "%(asctime)s %(name)s %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form, datefmt="%H:%M:%S", handlers=[handler], force=True)
    logging.getLogger("smp_features").setLevel(logging.DEBUG if verbose else logging.INFO)


def _say(line: str) -> None:
    _out.print(line, markup=False)


def _show(summary: Summary) -> None:
    marks = {"done": "done", "nothing_to_do": "-", "failed": "FAILED"}
    _say(f"{summary.stage:<20} {marks[summary.outcome]:<7} {summary.message}")
    for line in summary.details:
        _say(f"{'':<28} {line}")


def _rows(rows: list[dict[str, Any]], form: str) -> None:
    from smp_features.lake.query import render

    typer.echo(render(rows, form), nl=False)


@contextmanager
def _explaining() -> Iterator[None]:
    try:
        yield
    except SmpError as error:
        _fail(error, error.exit_status)
    except KeyboardInterrupt:
        _fail(UsageError("Interrupted.", "What was published stays; run the same command to continue."), 130)
    except Exception as error:
        if logging.getLogger("smp_features").isEnabledFor(logging.DEBUG):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        hint = "What was published stays. Run again with --verbose for the whole trace."
        _fail(SmpError(f"{type(error).__name__}: {first}.", hint), EXIT_STAGE_FAILED)


def _fail(error: SmpError, status: int) -> NoReturn:
    if logging.getLogger("smp_features").isEnabledFor(logging.DEBUG):
        logging.getLogger(__name__).debug("the error in full", exc_info=error)
    typer.echo(f"smp: {error}", err=True)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
