"""Rows, one number each: their schema, and the store that keeps the rows of a cell in one parquet file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from posbench import checksums
from posbench.errors import DataError
from posbench.files import set_aside, write_bytes

SCHEMA_VERSION = 3
STATUSES = ("ok", "not_learned", "undefined", "out_of_memory", "diverged")  # from harmless to worst
NULLABLE = ("position", "depth", "layer", "head", "value_sum")
# Columns that rows of an older version lack; they are read as empty.
_ADDED = {"1": ("layer", "head"), "2": ()}
# What rows of versions 1 and 2 call otherwise: columns, and values of a column.
_OLD_COLUMNS = {
    "cell_id": "cell",
    "model_id": "model",
    "model_size": "size",
    "doc_id": "document",
    "value_sum": "value",
}
_OLD_VALUES = {
    "task": {"adjacent": "position_resolution", "long_perplexity": "longppl"},
    "protocol": {"records": "synthetic_records"},
    "unit": {"share": "fraction"},
    "metric": {
        "hit": "token_accuracy",
        "first_hit": "first_period_token_accuracy",
        "first_nll": "first_period_nll",
        "adjacent": "position_accuracy",
        "context_guess": "random_in_context",
        "in_context": "predicted_in_context",
        "log_ratio": "log_likelihood_ratio",
        "key": "key_token_fraction",
        "key_nll": "key_token_nll",
        "gold": "answer_attention",
        "entropy": "attention_entropy",
        "first_tokens": "sink_attention",
        "last_quarter": "last_quarter_attention",
        "distance": "attention_at_distance",
    },
}

_TYPES: dict[str, pa.DataType] = {
    "cell_id": pa.string(),
    "model_id": pa.string(),
    "scheme": pa.string(),
    "extension": pa.string(),  # "none" where the scheme runs as it was trained
    "model_size": pa.string(),
    "n_params": pa.int64(),
    "train_len": pa.int64(),
    "train_tokens": pa.int64(),
    "train_seed": pa.int64(),
    "corpus": pa.string(),
    "task": pa.string(),
    "variant": pa.string(),
    "protocol": pa.string(),
    "eval_len": pa.int64(),
    "eval_seed": pa.int64(),
    "doc_id": pa.string(),  # or the id of a context: the cluster of the bootstrap
    "example": pa.int64(),
    "position": pa.int64(),  # of a token, the end of a bucket of tokens, or the index of the gold record
    "depth": pa.float64(),  # of the gold record: 0 the first, 1 the last
    "layer": pa.int64(),  # 0 the first block; layer and head are empty where a number is of the whole model
    "head": pa.int64(),
    "metric": pa.string(),
    "value_sum": pa.float64(),  # the sum over n things, of a fraction too; null if there is none
    "n": pa.int64(),
    "unit": pa.string(),
    "status": pa.string(),
    "kernel": pa.string(),
    "dtype": pa.string(),
}
COLUMNS = tuple(_TYPES)
_WHOLE = [name for name in NULLABLE if _TYPES[name] == pa.int64()]
_WORDS = [name for name, kind in _TYPES.items() if kind == pa.string()]
SCHEMA = pa.schema(
    [pa.field(name, kind, nullable=name in NULLABLE) for name, kind in _TYPES.items()],
    metadata={"posbench.rows": str(SCHEMA_VERSION)},
)

_CATEGORICAL = pa.schema(
    [
        field.with_type(pa.dictionary(pa.int32(), pa.string())) if field.name in _WORDS else field
        for field in SCHEMA
    ]
)

_UNREADABLE = (pa.ArrowException, OSError, ValueError)  # torn, gone, or with bytes that are no text


class RowStore:
    """The finished cells of a folder: a cell whose file is there is whole and is never computed again."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def path(self, cell: str) -> Path:
        return self.root / f"{cell}.parquet"

    def has(self, cell: str) -> bool:
        """Whether the cell is done; a damaged file or one of another version is set aside, with a warning."""
        path = self.path(cell)
        if not path.exists():
            return False
        sidecar = path.with_suffix(".json")
        if fault := _fault(path):
            set_aside(path, fault)
        elif sidecar.exists() and (fault := _sidecar_fault(sidecar)):
            set_aside(sidecar, fault)
            set_aside(path, fault)
        return not fault

    def write(self, cell: str, rows: list[dict[str, Any]], run_metadata: dict[str, Any]) -> None:
        """The rows are a pure function of the cell; what is not (times, versions, dates) is the sidecar's."""
        table = _table_of(rows)
        # The sidecar goes first, so that a cell that is there has one.
        sidecar = dict(sorted(run_metadata.items()))
        write_bytes(self.path(cell).with_suffix(".json"), checksums.dump_json(sidecar))
        _write(table, self.path(cell))

    def read(self, cell: str) -> pd.DataFrame:
        return read_rows(self.path(cell))

    def run_metadata(self, cell: str) -> dict[str, Any]:
        """What was true of the run that made a cell; nothing if its file is gone."""
        try:
            return checksums.read_json(self.path(cell).with_suffix(".json"))
        except (OSError, ValueError):
            return {}

    def collect(self, cells: Iterable[str]) -> tuple[pd.DataFrame, list[int]]:
        """The rows of several cells in their order, and how many each has."""
        tables = [_read(self.path(cell)) for cell in cells]
        return _frame(pa.concat_tables([SCHEMA.empty_table(), *tables])), [len(table) for table in tables]


def write_rows(rows: pd.DataFrame, path: Path | str) -> None:
    """Write collected rows, such as an experiment's rows.parquet."""
    _write(_table_of({name: rows[name].tolist() for name in rows}), Path(path))


def read_rows(path: Path | str, categorical: bool = False) -> pd.DataFrame:
    """Rows of a file; words as categories in their order if asked for, by which rows are grouped and compared faster."""
    frame = _frame(_read(Path(path), _CATEGORICAL if categorical else SCHEMA))
    if categorical:
        for name in _WORDS:
            words = frame[name].astype("category").cat
            frame[name] = words.reorder_categories(words.categories.sort_values())
    return frame


def _table_of(rows: list[dict[str, Any]] | dict[str, list[Any]]) -> pa.Table:
    """A table of the schema's columns and types, from a list of rows or from columns."""
    if isinstance(rows, list):
        given: set[str] = set().union(*rows) if rows else set(COLUMNS)
        columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    else:
        given, columns = set(rows), rows
    if unknown := sorted(given - set(COLUMNS)):
        raise DataError(f"rows have unknown columns {', '.join(unknown)}: use only {', '.join(COLUMNS)}")
    if missing := [name for name in COLUMNS if name not in given and name not in NULLABLE]:
        raise DataError(f"rows lack the columns {', '.join(missing)}: every row must have them")
    blank = [None] * max((len(column) for column in columns.values()), default=0)
    table = pa.table({name: _array(name, columns.get(name, blank)) for name in COLUMNS}, schema=SCHEMA)
    _check(table)
    return table


def _array(name: str, values: list[Any]) -> pa.Array:
    try:
        array = pa.array(values, _TYPES[name], from_pandas=name in NULLABLE)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"row column {name!r} must hold {_TYPES[name]}: {reason}") from None
    if array.null_count and name not in NULLABLE:
        raise DataError(f"row column {name!r} has empty values: only {', '.join(NULLABLE)} may have some")
    return array


def _check(table: pa.Table) -> None:
    """Statuses are of the list, and 'ok' means a finite number: a NaN must not slip into a mean."""
    finite = pc.fill_null(pc.is_finite(table["value_sum"]), False)
    others = ", ".join(STATUSES[1:])
    for status in sorted(pc.unique(table["status"]).to_pylist()):
        if status not in STATUSES:
            raise DataError(f"row status {status!r} is unknown: use one of {', '.join(STATUSES)}")
    if pc.any(pc.and_not(pc.equal(table["status"], "ok"), finite)).as_py():
        raise DataError(f"a row is 'ok' without a finite value: set its status to one of {others}")


def _frame(table: pa.Table) -> pd.DataFrame:
    frame = table.to_pandas()
    return frame.astype(dict.fromkeys(_WHOLE, "Int64"))


def _write(table: pa.Table, path: Path) -> None:
    content = pa.BufferOutputStream()
    with pq.ParquetWriter(content, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({checksums.KEY: checksums.BLANK})
    write_bytes(path, checksums.seal(content.getvalue().to_pybytes()))


def _read(path: Path, schema: pa.Schema = SCHEMA) -> pa.Table:
    if not path.exists():
        raise DataError(f"no rows at {path}: run the sweep that makes them")
    fault = _fault(path)
    if not fault:
        try:
            if pq.read_schema(path).metadata[b"posbench.rows"] == str(SCHEMA_VERSION).encode():
                encoded = None if schema is SCHEMA else _WORDS
                return pq.read_table(
                    path, schema=schema, read_dictionary=encoded, page_checksum_verification=True
                )
            return _renamed(pq.read_table(path, page_checksum_verification=True))
        except _UNREADABLE as error:
            fault = str(error).splitlines()[0]
    set_aside(path, fault, report=lambda line: None)
    raise DataError(f"{path} cannot be used ({fault}): it was set aside; run posbench sweep again to make it")


def _renamed(old: pa.Table) -> pa.Table:
    """Rows of version 1 or 2 under the names of this version."""
    columns = []
    for name, kind in _TYPES.items():
        given = _OLD_COLUMNS.get(name, name)
        column = old[given] if given in old.schema.names else pa.nulls(len(old), kind)
        if name in _OLD_VALUES:
            found = pc.unique(column)
            now = pa.array([_OLD_VALUES[name].get(value, value) for value in found.to_pylist()], kind)
            column = pc.take(now, pc.index_in(column, found))
        columns.append(column)
    return pa.table(columns, schema=SCHEMA)


def _fault(path: Path) -> str:
    """What is wrong with a file, from its checksum and its footer; '' if nothing is."""
    try:
        checksums.verify(path)
        schema = pq.read_schema(path)
    except _UNREADABLE as error:
        return str(error).splitlines()[0]
    version = (schema.metadata or {}).get(b"posbench.rows", b"none").decode(errors="replace")
    lacking = {str(SCHEMA_VERSION): (), **_ADDED}.get(version)
    if lacking is None:
        return f"row schema {version}, this is {SCHEMA_VERSION}"
    older = version != str(SCHEMA_VERSION)
    known = [_OLD_COLUMNS.get(name, name) if older else name for name in COLUMNS if name not in lacking]
    return "" if schema.names == known else "other columns than the schema's"


def _sidecar_fault(path: Path) -> str:
    """What is wrong with the metadata of a run; '' if nothing is."""
    try:
        checksums.read_json(path)
    except (OSError, ValueError) as error:
        return str(error)
    return ""
