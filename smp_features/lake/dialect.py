"""A user's SELECT, written in Spark's SQL, as DuckDB's SQL, or refused: what is not known to mean the same is not run.

Every node of the parsed query must be of a kind listed here. So a statement that writes, a file named as a table, and a
function whose results were not found to equal Spark's are refused alike, by one line that names Spark as the way out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from smp_features.errors import UsageError, nearest
from smp_features.tabular import one_line

try:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ErrorLevel, ParseError, SqlglotError, TokenError
except ImportError as error:
    raise UsageError(
        f"Asking a root without Spark needs the package sqlglot: {error}.",
        "pip install sqlglot, or ask Spark by `--engine spark`.",
    ) from None

logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # it warns of what is refused below

_WITH_SPARK = "`--engine spark` asks Spark."
_ONLY_READING = "Only reading is allowed: SELECT, SHOW TABLES or DESCRIBE."


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STRUCTURE = _words(
    """
    Select Subquery Union Intersect Except With CTE From Join Where Group Having Order Ordered Limit Offset
    Distinct Table TableAlias Alias Aliases Column Identifier Star Literal Boolean Null Paren Tuple Values Cube
    GroupingSets Window WindowSpec Filter Lateral Lambda Var DataType DataTypeParam Interval
    Add Sub Mul Div IntDiv Mod Neg And Or Not Is In Between EQ NEQ GT GTE LT LTE NullSafeEQ NullSafeNEQ DPipe
    Like ILike RegexpLike Case If Cast TryCast Bracket BitwiseAnd BitwiseOr BitwiseXor BitwiseNot
    """
)
"""Nodes that are no functions, and operators."""

_FUNCTIONS = _words(
    """
    Count CountIf Sum Avg Min Max Median Quantile Stddev StddevPop StddevSamp Variance VariancePop CovarPop CovarSamp
    LogicalAnd LogicalOr ArgMax ArgMin ArrayAgg ArrayUniqueAgg ApproxDistinct
    RowNumber Rank DenseRank PercentRank CumeDist Ntile Lag Lead FirstValue LastValue
    Upper Lower Length Trim Reverse Concat ConcatWs Substring Left Right Replace Translate Pad Repeat StrPosition
    StartsWith EndsWith Contains SplitPart Ascii Chr Levenshtein MD5 SHA2 Hex
    RegexpExtract RegexpExtractAll RegexpReplace RegexpSplit RegexpCount
    Coalesce Nullif Nvl2 Greatest Least EqualNull SafeDivide
    Abs Sqrt Cbrt Exp Ln Log Pow Round Sin Cos Tan Asin Acos Atan Atan2 Sinh Cosh Tanh Degrees Radians Pi IsNan
    Year Quarter Month Day DayOfMonth DayOfYear WeekOfYear Hour Minute Second Extract DateDiff LastDay CurrentDate
    TimestampTrunc TimeToStr TimeStrToTime TsOrDsToDate
    Array ArraySize ArrayContains ArrayMax ArrayMin ArraySlice ArraySort SortArray Transform ArrayFilter Reduce
    MapKeys Explode Posexplode Exists
    """
)
"""Functions found to answer as Spark does, by what sqlglot calls them; tests ask both."""

_OTHER_FUNCTIONS = _words("map_values mean")
"""The same, of functions that both have by one name."""

_UNITS = _words("YEAR QUARTER MONTH WEEK DAY HOUR MINUTE SECOND")
_TIME_FORMAT = re.compile(r"((%Y|%m|%d|%H|%M|%S)(strict)?|[-/:. ])+")
"""In the letters that sqlglot has for all engines; what it did not know, it left as it was."""

_FRACTIONS = _words("float double decimal binary array map struct")
"""Kinds of columns whose values the two engines write differently as text."""

_MAKE_FRACTIONS = (
    *(exp.Div, exp.Avg, exp.Median, exp.Quantile, exp.Stddev, exp.StddevPop, exp.StddevSamp, exp.Variance, exp.Sqrt),
    *(exp.VariancePop, exp.CovarPop, exp.CovarSamp, exp.Cbrt, exp.Exp, exp.Ln, exp.Log, exp.Pow, exp.Sin, exp.Cos),
    *(exp.Tan, exp.Asin, exp.Acos, exp.Atan, exp.Atan2, exp.Pi, exp.Degrees, exp.Radians, exp.PercentRank, exp.Array),
    *(exp.CumeDist, exp.Transform, exp.ArrayFilter, exp.ArrayAgg, exp.RegexpSplit, exp.MapKeys, exp.Bracket, exp.Star),
)


@dataclass(frozen=True)
class Question:
    """A query that may be run.

    Attributes:
        sql: In DuckDB's SQL.
        tables: The tables that it reads.
        describes: The table that it asks to be described, if that is all it asks.
        lists: Whether it asks which tables there are.
    """

    sql: str = ""
    tables: tuple[str, ...] = ()
    describes: str | None = None
    lists: bool = False


Kinds = Callable[[str], Mapping[str, str]]
"""Returns of a table its columns, and their types as Spark writes them."""


def understand(query: str, known: Collection[str], schema: str, kinds: Kinds = lambda _: {}) -> Question:
    """Return a query in Spark's SQL as one that DuckDB answers alike.

    Args:
        query: One statement.
        known: The tables that there are, in small letters.
        schema: The name under which Spark has them, which may stand before theirs.
        kinds: The columns of a table, with their types.

    Raises:
        UsageError: It does not parse, is more than one statement, does not only read, or uses what DuckDB answers
            otherwise or not at all.

    >>> understand("SELECT split(title, ' ')[0] AS word FROM posts", ["posts"], "smp").sql
    "SELECT STR_SPLIT_REGEX(title, ' ')[1] AS word FROM posts"
    >>> understand("DROP TABLE posts", ["posts"], "smp")
    Traceback (most recent call last):
    smp_features.errors.UsageError: Only reading is allowed: SELECT, SHOW TABLES or DESCRIBE.
    """
    tree = _parsed(query)
    if isinstance(tree, exp.Command) and tree.sql("spark").upper().split() == ["SHOW", "TABLES"]:
        return Question(lists=True)
    if isinstance(tree, exp.Describe) and isinstance(tree.this, exp.Table):
        return Question(describes=_table_name(tree.this, schema))
    if isinstance(tree, exp.Command) and tree.name.upper() in ("EXPLAIN", "SHOW"):
        raise UsageError(f"DuckDB, which reads this root, does not answer {tree.name.upper()}.", _WITH_SPARK)
    if not isinstance(tree, exp.Query | exp.Values):
        raise UsageError(_ONLY_READING)
    if re.search(r"(?i)\barray_size\b", query):  # parsed as `size`, which is -1 for null where this is null
        raise _refusal("`array_size`")
    _refuse_unknown(tree)
    tables = _tables_of(tree, known, schema)
    types: dict[str, set[str]] = {}
    for table in tables:
        for name, kind in kinds(table).items():
            types.setdefault(name.lower(), set()).add(re.split(r"[<(]", kind)[0])
    for node in list(tree.walk()):
        _refuse_other_meaning(node, types)
    _name_columns(tree)
    try:
        return Question(_adapted(tree).sql("duckdb", unsupported_level=ErrorLevel.RAISE), tables)
    except SqlglotError as error:
        raise UsageError(f"DuckDB, which reads this root, cannot answer this: {_line(error)}.", _WITH_SPARK) from None


def _parsed(query: str) -> exp.Expr:
    if "${" in query:
        raise UsageError("Spark would put settings or the environment in place of ${…}; a query may not hold that.")
    try:
        trees = [tree for tree in sqlglot.parse(query, read="spark") if tree is not None]
    except (ParseError, TokenError, RecursionError) as error:
        raise UsageError(f"The query is not valid SQL: {_line(error)}.") from None
    if len(trees) != 1:
        raise UsageError(f"The query must be one statement, and these are {len(trees)}.")
    return trees[0]


def _refusal(what: str) -> UsageError:
    return UsageError(f"DuckDB, which reads this root, is not known to answer {what} as Spark does.", _WITH_SPARK)


def _refuse_unknown(tree: exp.Expr) -> None:
    for node in tree.walk():
        kind = type(node).__name__
        if isinstance(node, exp.Anonymous):
            known = node.name.lower() in _OTHER_FUNCTIONS
        else:
            known = kind in _STRUCTURE or kind in _FUNCTIONS
        if not known:
            raise _refusal(f"`{one_line(node.name if isinstance(node, exp.Anonymous) else _written(node))}`")


def _refuse_other_meaning(node: exp.Expr, types: Mapping[str, Collection[str]]) -> None:
    """Refuse forms of known nodes that the two engines read differently."""
    refused = None
    if isinstance(node, exp.Bracket) and not all(isinstance(index, exp.Literal) for index in node.expressions):
        refused = "an index that is not a literal"  # Spark counts from 0, DuckDB from 1, and only a literal is shifted
    elif isinstance(node, exp.Like | exp.ILike) and not _is_plain_pattern(node.expression):
        refused = "LIKE with a pattern that is not a literal or has a backslash"
    elif isinstance(node, exp.Substring) and not _is_place(node.args.get("start")):
        refused = "a substring from a place that is not a literal, or 0"
    elif isinstance(node, exp.Transform | exp.ArrayFilter | exp.Exists) and isinstance(
        node.args.get("expression"), exp.Lambda
    ):
        if isinstance(node, exp.Exists) or len(node.expression.expressions) != 1:
            refused = "this use of a lambda"
    elif isinstance(node, exp.Reduce) and node.args.get("finish") is not None:
        refused = "`aggregate` with a last step"
    elif isinstance(node, exp.Lateral) and node.args.get("outer"):
        refused = "LATERAL VIEW OUTER"
    elif isinstance(node, exp.Extract | exp.TimestampTrunc) and not _is_unit(node):
        refused = "this unit of time"
    elif isinstance(node, exp.TimeToStr) and not _TIME_FORMAT.fullmatch(node.text("format")):
        refused = "this format of a time"
    elif isinstance(node, exp.DateDiff) and node.args.get("unit") is not None:
        refused = "a difference in a unit"
    elif isinstance(node, exp.ArrayAgg | exp.ArrayUniqueAgg) and isinstance(node.parent, exp.Window | exp.Filter):
        refused = "a collected list over a window or with a filter"
    elif isinstance(node, exp.Concat | exp.ConcatWs | exp.DPipe) and not _is_written_alike(node, types):
        refused = "fractions or lists put together with text"
    elif isinstance(node, exp.Cast | exp.TryCast) and not _casts_alike(node, types):
        refused = f"`{_written(node)}`"
    if refused is not None:
        raise _refusal(refused)


def _is_plain_pattern(pattern: exp.Expr) -> bool:
    return isinstance(pattern, exp.Literal) and pattern.is_string and "\\" not in pattern.name


def _is_place(start: exp.Expr | None) -> bool:
    number = start.this if isinstance(start, exp.Neg) else start
    return isinstance(number, exp.Literal) and not number.is_string and number.name.isdecimal() and int(number.name) > 0


def _is_unit(node: exp.Expr) -> bool:
    unit = node.this if isinstance(node, exp.Extract) else node.args.get("unit")
    return (
        unit is not None
        and unit.name.upper() in _UNITS
        and (isinstance(node, exp.TimestampTrunc) or unit.name.upper() != "SECOND")
    )


def _is_written_alike(node: exp.Expr, types: Mapping[str, Collection[str]]) -> bool:
    """Whether both engines write the values under a node as the same text: no fractions, lists or bytes among them."""
    for below in node.walk():
        if isinstance(below, _MAKE_FRACTIONS):
            return False
        if isinstance(below, exp.Literal) and not below.is_string and not below.name.isdecimal():
            return False
        if isinstance(below, exp.Column) and set(types.get(below.name.lower(), ["array"])) & _FRACTIONS:
            return False
    return True


def _casts_alike(node: exp.Expr, types: Mapping[str, Collection[str]]) -> bool:
    """Whether both engines make the same of a cast: Spark cuts fractions where DuckDB rounds."""
    to, value = node.args["to"], node.this
    columns = {kind for column in value.find_all(exp.Column) for kind in types.get(column.name.lower(), ["array"])}
    if to.is_type("double", "float", "decimal"):
        return not columns & _words("timestamp date array map struct binary boolean")
    if to.is_type("date", "timestamp", "timestamptz"):
        return columns <= _words("string timestamp date")
    if to.is_type("text", "varchar"):
        return _is_written_alike(value, types)
    if to.is_type("int", "bigint", "smallint", "tinyint"):
        whole = columns <= _words("int bigint smallint tinyint boolean") and not list(value.find_all(exp.Anonymous))
        literals = all(each.name.isdecimal() for each in value.find_all(exp.Literal))
        return whole and literals and _is_written_alike(value, types)
    return False


def _adapted(tree: exp.Expr) -> exp.Expr:
    """Return a query with what DuckDB answers otherwise put into other words."""
    for node in list(tree.walk(bfs=False))[::-1]:  # from the leaves up, so that what is replaced holds what was
        form = _FORMS.get(type(node))
        if form is None or node.parent is None:
            continue
        if isinstance(node, exp.Round) and isinstance(node.this, exp.Count | exp.Literal):
            continue
        parts = {
            "x": node.this,
            "y": node.args.get("expression"),
            "n": node.args.get("decimals") or exp.Literal.number(0),
        }
        parts["y"] = parts["y"] or node.args.get("quantile")
        made = sqlglot.parse_one(form, read="duckdb")
        for place in list(made.find_all(exp.Placeholder)):
            part = node if place.name == "itself" else parts[place.name]
            place.replace(part.copy())
        node.replace(exp.paren(made, copy=False) if isinstance(made, exp.Case) else made)
    return tree


_FORMS: dict[type[exp.Expr], str] = {
    exp.IsNan: "COALESCE($itself, FALSE)",
    exp.CountIf: "COALESCE($itself, 0)",
    exp.ArraySize: "COALESCE($itself, -1)",
    exp.ArrayAgg: "COALESCE($itself, [])",
    exp.ArrayUniqueAgg: "COALESCE($itself, [])",
    exp.Quantile: "QUANTILE_CONT($x, $y)",
    # Spark rounds what a number is written as, DuckDB its binary value: 2.55 is a little less.
    exp.Round: "COALESCE(CAST(ROUND(TRY_CAST(CAST($x AS TEXT) AS DECIMAL(38, 18)), $n) AS DOUBLE), $x)",
    # Whether a list with nulls in it holds what it does not show is not known.
    exp.ArrayContains: "CASE WHEN $itself THEN TRUE WHEN LIST_COUNT($x) < LEN($x) THEN NULL ELSE $itself END",
}
"""What DuckDB is asked in place of some functions; `itself` is the function as it stands."""


def _tables_of(tree: exp.Expr, known: Collection[str], schema: str) -> tuple[str, ...]:
    """Return the tables that a query reads, each called by its plain name from here on.

    Raises:
        UsageError: A name is none of a table and of none that the query defines.
    """
    defined = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    found: dict[str, None] = {}
    for table in list(tree.find_all(exp.Table)):
        name = _table_name(table, schema)
        if name.lower() in known:
            table.set("db", None)
            table.set("catalog", None)
            table.set("this", exp.to_identifier(name.lower()))
            if not table.alias and name != name.lower():  # so that `Posts.title` still names it
                table.set("alias", exp.TableAlias(this=exp.to_identifier(name)))
            found[name.lower()] = None
        elif name.lower() not in defined or table.db:
            hint = f"{nearest(name.lower(), known)} `smp tables` lists them."
            raise UsageError(f"There is no table '{name}'.", hint)
    return tuple(found)


def _table_name(table: exp.Table, schema: str) -> str:
    if not isinstance(table.this, exp.Identifier):
        raise UsageError(
            f"Only tables of this root can be read, not `{_written(table)}`.", "`smp tables` lists the tables."
        )
    if table.catalog not in ("", "spark_catalog") or table.db.lower() not in ("", schema.lower()):
        raise UsageError(
            f"Only tables of this root can be read, not `{_written(table)}`.", "`smp tables` lists the tables."
        )
    return str(table.name)


def _name_columns(tree: exp.Expr) -> None:
    """Give columns without a name the one that Spark gives them."""
    selects = [tree] if isinstance(tree, exp.Select) else []
    for select in selects:
        named: list[exp.Expr] = []
        for column in select.expressions:
            if isinstance(
                column, exp.Column | exp.Alias | exp.Aliases | exp.Star | exp.Explode | exp.Posexplode | exp.Dot
            ):
                named.append(column)
                continue
            name = column.sql("spark", normalize_functions="lower").replace("count(*)", "count(1)")
            name = f"({name})" if isinstance(column, exp.Binary) else name
            named.append(exp.alias_(column, name, quoted=True))
        select.set("expressions", named)


def _written(node: exp.Expr) -> str:
    return " ".join(node.sql("spark").split())[:80]


def _line(error: Exception) -> str:
    if isinstance(error, ParseError) and error.errors:
        first = error.errors[0]
        return f"{first['description'].rstrip('.')}, at line {first['line']}, column {first['col']}"
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
