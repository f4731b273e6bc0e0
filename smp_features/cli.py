"""`smp`: one subcommand per stage, and the commands that look at the tables. No logic lives here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from smp_features.config import Config, SplitName
from smp_features.console import explaining, say, show, show_rows, start_logging
from smp_features.errors import UsageError, nearest
from smp_features.options import Engine, Format, Settings, Verbose, configured

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

app = typer.Typer(
    name="smp",
    help="Turn social-media posts into features and a popularity model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line: exit status 0 done, 1 a stage failed, 2 wrong usage, refused before anything is written."""
    _run(None)


def run_job(stage: str, arguments: Sequence[str] | None = None) -> None:
    """Run `smp STAGE`, as the file of that name in `jobs/` does.

    Args:
        stage: A stage's name.
        arguments: Those of the subcommand; None takes the process's.
    """
    try:
        _run([stage, *(sys.argv[1:] if arguments is None else arguments)])
    except SystemExit as end:
        if end.code:  # some schedulers take any SystemExit for a failure, also one with status 0
            raise


def _run(arguments: Sequence[str] | None) -> None:
    with explaining():
        app(arguments, prog_name="smp")


# -- stages -----------------------------------------------------------------------------------------------------------


@app.command()
def demo(
    posts: Annotated[int, typer.Option(help="How many posts to make up.")] = 3000,
    seed: Annotated[int, typer.Option(help="Decides the posts.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder for the posts and the lakehouse.")] = Path("demo"),
    overrides: Settings = None,
    verbose: Verbose = False,
) -> None:
    """Make up posts, run every stage on them, and say what came out and where to look."""
    from smp_features.demo.walkthrough import walk

    start_logging(verbose)
    walk(posts, seed, out, overrides or [], _session, say)


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
    say(
        f"{made.posts:,} posts ({made.train:,} train, {made.test:,} test) of {made.users:,} users in {made.out}; "
        f"{made.unseen_user_share:.0%} of test posts are by users not in train."
    )
    say(f"Next: smp run --conf conf/demo.yaml --set source.path={out} --root lake")


@app.command()
@configured(reads_source=True)
def run(config: Config) -> None:
    """Run every stage in order; running it again continues where it was, or finds nothing to do."""
    from smp_features.preflight import check_before_writing
    from smp_features.stages import run_all

    check_before_writing(config)
    _warn(config)
    summaries = run_all(_session(config), config, show)
    if all(summary.outcome == "nothing_to_do" for summary in summaries if summary.stage != "report"):
        say("Nothing to do: no model was loaded, no feature table got a version, nothing was trained.")
    say(f'Next: smp status --root {config.root}   smp sql --root {config.root} "SELECT … FROM post_features"')


@app.command()
@configured(reads_source=True)
def ingest(
    config: Config,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the source, say what was found, write nothing.")] = (
        False
    ),
) -> None:
    """Read, validate and hash posts, labels, user profiles and images."""
    _stage(config, "ingest", **({"dry_run": True} if dry_run else {}))


@app.command()
@configured()
def extract(
    config: Config,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Extractors, as `smp status` names them, or models of `models`; none means all."),
    ] = None,
) -> None:
    """Caption, embed and score the contents that have no row yet."""
    _stage(config, "extract", names=names)


@app.command()
@configured()
def features(config: Config) -> None:
    """Bring the table post_features up to date."""
    _stage(config, "features")


@app.command("training-set")
@configured()
def training_set(config: Config) -> None:
    """Join features with labels, as known when each post was made."""
    _stage(config, "training-set")


@app.command()
@configured()
def train(
    config: Config,
    force: Annotated[bool, typer.Option("--force", help="Train although a finished model has this key.")] = False,
) -> None:
    """Train and validate the adapter and the regressor; register the model."""
    _stage(config, "train", force=force)


@app.command()
@configured()
def score(
    config: Config,
    where: Annotated[
        str | None,
        typer.Option(help="Posts that meet this condition over post_features, labelled or not: \"uid = '7@N'\"."),
    ] = None,
) -> None:
    """Predict every unlabelled post with the champion, or the posts of a condition."""
    _stage(config, "score", where=where)


@app.command()
@configured()
def report(config: Config) -> None:
    """Write the HTML report."""
    _stage(config, "report")


# -- looking ----------------------------------------------------------------------------------------------------------


@app.command()
@configured()
def status(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    engine: Engine = "auto",
) -> None:
    """Show, per stage: total, done, failed, left, last run."""
    from smp_features.status import status_of

    show_rows(status_of(_reading(config, engine), config), "json" if as_json else "table")


@app.command()
@configured()
def errors(
    config: Config,
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    format: Format = "table",
    engine: Engine = "auto",
) -> None:
    """Show typed errors, counted, with example keys."""
    from smp_features.status import errors_of

    show_rows(errors_of(_reading(config, engine), config, stage), format)


@app.command()
@configured()
def retry(
    config: Config,
    stage: Annotated[str, typer.Option(help="An extractor, as `smp status` names it.")],
    status: Annotated[
        list[str] | None, typer.Option(help="Also forget rows with this permanent status; repeatable.")
    ] = None,
) -> None:
    """Forget an extractor's transient failures, so that the next run tries them again."""
    from smp_features.extraction import retry as forget
    from smp_features.runs import new_run_id
    from smp_features.stages import locked

    with locked(config):
        say(forget(_session(config), config, stage, status or (), run=new_run_id()).message)


@app.command()
@configured()
def sql(
    config: Config,
    query: Annotated[str, typer.Argument(help="A SELECT over the tables, such as post_features.")],
    format: Format = "table",
    engine: Engine = "auto",
) -> None:
    """Ask the tables in Spark's SQL; only reading them is possible."""
    from smp_features.lake.query import ask

    show_rows(ask(_reading(config, engine), config, query), format)


@app.command()
@configured()
def tables(config: Config, format: Format = "table", engine: Engine = "auto") -> None:
    """List the tables: rows, version, and what one row is."""
    from smp_features.lake.query import describe_tables

    show_rows(describe_tables(_reading(config, engine), config), format)


@app.command()
@configured()
def optimize(config: Config) -> None:
    """Compact small files in every table; contents stay the same."""
    from smp_features.lake.tables import Lakehouse
    from smp_features.stages import locked

    with locked(config):
        lakehouse = Lakehouse(_session(config), config)
        for name in lakehouse.specs:
            lakehouse.optimize(name)
            say(f"{name}: compacted")


@app.command()
@configured()
def migrate(config: Config) -> None:
    """Bring tables of an earlier version to this one's layout; extracted content stays."""
    from smp_features.lake.migration import migrate as bring
    from smp_features.stages import locked

    with locked(config):
        say(bring(_session(config), config))


# -- models -----------------------------------------------------------------------------------------------------------


@app.command()
@configured()
def promote(
    config: Config, version: Annotated[str, typer.Argument(help="Registered version to make champion.")]
) -> None:
    """Make a registered version the champion."""
    from smp_features.training.registry import promote as make_champion

    say(make_champion(config, version))


@app.command()
@configured()
def rollback(config: Config) -> None:
    """Make the previous champion the champion again."""
    from smp_features.training.registry import rollback as restore

    say(restore(config))


@app.command()
@configured()
def ablate(
    config: Config,
    split: Annotated[
        list[str] | None, typer.Option(help="identity, chronological, later_unseen …; repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compute it although a finished run has these rows.")] = False,
    format: Format = "table",
) -> None:
    """Measure what each feature group is worth, left out and added, and each choice of adapter."""
    from smp_features.stages import locked
    from smp_features.training.ablate import ablate as measure
    from smp_features.training.ablate import table

    for name in split or ():
        if name not in get_args(SplitName):
            raise UsageError(f"There is no split '{name}'.", nearest(name, get_args(SplitName)))
    with locked(config):
        found = measure(_session(config), config, split, force=force)
    show_rows(table(found), format)
    if format == "table":
        say(f"MLflow run {found.run}" + ("" if found.made_now else ", made before on these rows and settings"))


@app.command()
@configured()
def submission(
    config: Config, out: Annotated[Path, typer.Option(help="A .json or .csv file, in the challenge's formats.")]
) -> None:
    """Write the champion's predictions as a challenge submission."""
    from smp_features.scoring.submission import write_submission

    written = write_submission(_session(config), config, out)
    say(f"{written:,} predictions in {out}")


@app.command()
@configured()
def evaluate(
    config: Config,
    predictions: Annotated[Path, typer.Option(help="A submission, .json or .csv.")],
    labels: Annotated[Path, typer.Option(help="truth.json, a JSON of pid to score, a CSV, or …_label.txt.")],
    posts: Annotated[
        str | None,
        typer.Option(help="The posts' folder: scores seen and unseen users, intervals and categories too."),
    ] = None,
    format: Format = "table",
) -> None:
    """Score a submission: SRC (Spearman), MAE and bias."""
    from smp_features.scoring.evaluation import evaluate as measure
    from smp_features.scoring.evaluation import posts_at

    with posts_at(config, posts) as source:
        measured = measure(predictions, labels, source)
    show_rows(measured.rows, format)
    if measured.extra:
        typer.echo(f"Predictions without a label, not scored: {measured.extra:,}.", err=True)


# -- inside -----------------------------------------------------------------------------------------------------------


def _stage(config: Config, name: str, **options: Any) -> None:
    from smp_features.preflight import check_before_writing
    from smp_features.stages import run_stage

    check_before_writing(config, [name], options.get("names"))
    if name in ("extract", "train", "score", "report"):
        _warn(config)
    for summary in run_stage(_session(config), config, name, **options):
        show(summary)


def _warn(config: Config) -> None:
    from smp_features.analysis.demo_models import demo_model_warning

    warning = demo_model_warning(config)
    if warning is not None:
        say(f"NOTE  {warning}")


def _session(config: Config) -> SparkSession:
    from smp_features.session import get_session

    return get_session(config)


def _reading(config: Config, engine: Engine) -> SparkSession | None:
    from smp_features.lake.readers import session_for

    return session_for(config, engine, _session)


if __name__ == "__main__":
    main()
