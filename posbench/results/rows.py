"""Schema of result rows, one number each, and the store with one parquet file of rows per cell."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from posbench import checksums
from posbench.errors import DataError
from posbench.files import raise_if_transient, set_aside, write_bytes
from posbench.results import older_versions

SCHEMA_VERSION = 3
STATUSES = ("ok", "not_learned", "undefined", "out_of_memory", "diverged")  # from best to worst
NULLABLE = ("position", "depth", "layer", "head", "value_sum")
_TYPES: dict[str, pa.DataType] = {
    "cell_id": pa.string(),
    "model_id": pa.string(),
    "scheme": pa.string(),
    "extension": pa.string(),  # "none": the scheme as it was trained
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
    "doc_id": pa.string(),  # of a document or context: the cluster of an interval
    "example": pa.int64(),
    "position": pa.int64(),  # of a token, the end of a bucket of tokens, or the index of the queried record
    "depth": pa.float64(),  # relative position of the queried record: 0 first, 1 last
    "layer": pa.int64(),  # from 0; layer and head are empty for numbers of the whole model
    "head": pa.int64(),
    "metric": pa.string(),
    "value_sum": pa.float64(),  # sum over n items, also for fractions; null without a number
    "n": pa.int64(),
    "unit": pa.string(),
    "status": pa.string(),
    "kernel": pa.string(),
    "dtype": pa.string(),
}
COLUMNS = tuple(_TYPES)
_NULLABLE_INTEGERS = [name for name in NULLABLE if _TYPES[name] == pa.int64()]
_STRINGS = [name for name, kind in _TYPES.items() if kind == pa.string()]
SCHEMA = pa.schema(
    [pa.field(name, kind, nullable=name in NULLABLE) for name, kind in _TYPES.items()],
    metadata={"posbench.rows": str(SCHEMA_VERSION)},
)

_CATEGORICAL = pa.schema(
    [
        field.with_type(pa.dictionary(pa.int32(), pa.string())) if field.name in _STRINGS else field
        for field in SCHEMA
    ]
)

AGAIN = "run posbench sweep again to make it"
_UNREADABLE = (pa.ArrowException, OSError, ValueError)  # torn, gone, or with bytes that are no text


class RowStore:
    """The finished cells of a folder. Files are written atomically: an existing file is complete."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def path(self, cell: str) -> Path:
        return self.root / f"{cell}.parquet"

    def has(self, cell: str) -> bool:
        """Returns whether the cell is finished; a damaged or outdated file is set aside with a warning."""
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

    def write(
        self, cell: str, rows: list[dict[str, Any]] | pd.DataFrame, run_metadata: dict[str, Any]
    ) -> None:
        """Writes the rows of a cell, and `run_metadata` (times, versions, dates) to a json file beside them.

        Rows are a function of the cell, to rounding; everything that differs between runs belongs to the metadata.

        Raises:
            DataError: rows violate the schema.
            ConfigError: the folder cannot be written.
        """
        table = _table_of(rows)
        # Earlier rows go first, so that none is left beside a sidecar that is not its own; then the sidecar is written, so
        # that a cell that is there has one.
        if self.path(cell).exists():
            self.path(cell).unlink()
        sidecar = dict(sorted(run_metadata.items()))
        write_bytes(self.path(cell).with_suffix(".json"), checksums.dump_json(sidecar))
        _write(table, self.path(cell))

    def read(self, cell: str) -> pd.DataFrame:
        return _frame(_read(self.path(cell)))

    def is_of_kernel(self, cell: str, kernel: str) -> bool:
        """Returns whether the rows of a cell come from a kernel, which is not a part of its identity.

        Args:
            kernel: as in runtime.kernel; rows of every kernel are of "auto", and rows without attention of every kernel;
                rows that cannot be read are of no other.
        """
        if kernel == "auto":
            return True
        try:
            ran = set(pq.read_table(self.path(cell), columns=["kernel"])["kernel"].to_pylist())
        except _UNREADABLE as error:
            _reason(self.path(cell), error)
            return False
        return ran <= {kernel, "none", "transformers"}

    def run_metadata(self, cell: str) -> dict[str, Any]:
        """Returns the metadata of the run that computed a cell, or an empty dictionary if the file is missing."""
        try:
            return checksums.read_json(self.path(cell).with_suffix(".json"))
        except (OSError, ValueError):
            return {}

    def collect(self, cells: Iterable[str], remedy: str = "") -> tuple[pd.DataFrame, list[int]]:
        """Returns the rows of several cells in the given order, and the number of rows of each; `remedy` as in `_read`."""
        tables = [_read(self.path(cell), remedy=remedy) for cell in cells]
        return _frame(pa.concat_tables([SCHEMA.empty_table(), *tables])), [len(table) for table in tables]


def write_rows(rows: pd.DataFrame, path: Path | str) -> None:
    """Writes collected rows, such as the rows.parquet of an experiment."""
    _write(_table_of(rows), Path(path))


def read_rows(path: Path | str, categorical: bool = False, remedy: str = AGAIN) -> pd.DataFrame:
    """Reads the rows of a file, which stays as it is.

    Args:
        categorical: return strings as sorted categories, which are faster to group and compare.
        remedy: what to do about a missing or damaged file, for the message.

    Raises:
        DataError: the file is missing or unreadable.
    """
    frame = _frame(_read(Path(path), _CATEGORICAL if categorical else SCHEMA, remedy))
    if categorical:
        for name in _STRINGS:
            column = frame[name].astype("category").cat
            frame[name] = column.reorder_categories(column.categories.sort_values())
    return frame


def read_foreign_rows(path: Path) -> pd.DataFrame:
    """Reads rows of another person, of this or an older version of the schema; the file stays as it is.

    Raises:
        DataError: if the file is missing, damaged, no rows, or of a newer version.
    """
    table = _read(
        path, remedy=f"give rows of schema {SCHEMA_VERSION} or older, as posbench results export writes them"
    )
    _check(table)
    return _frame(table)


def _table_of(rows: list[dict[str, Any]] | pd.DataFrame) -> pa.Table:
    """Returns a table of the schema; raises a DataError for other columns or types."""
    if isinstance(rows, list):
        given: set[str] = set().union(*rows) if rows else set(COLUMNS)
        columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in COLUMNS}
    else:
        columns = {name: rows[name] for name in rows}
        given = set(columns)
    if unknown := sorted(given - set(COLUMNS)):
        raise DataError(f"rows have unknown columns {', '.join(unknown)}: use only {', '.join(COLUMNS)}")
    if missing := [name for name in COLUMNS if name not in given and name not in NULLABLE]:
        raise DataError(f"rows lack the columns {', '.join(missing)}: every row must have them")
    blank = [None] * max((len(column) for column in columns.values()), default=0)
    table = pa.table({name: _array(name, columns.get(name, blank)) for name in COLUMNS}, schema=SCHEMA)
    _check(table)
    return table


def _array(name: str, values: list[Any] | pd.Series) -> pa.Array:
    try:
        array = pa.array(values, _TYPES[name], from_pandas=name in NULLABLE)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"row column {name!r} must hold {_TYPES[name]}: {reason}") from None
    if array.null_count and name not in NULLABLE:
        raise DataError(f"row column {name!r} has empty values: only {', '.join(NULLABLE)} may have some")
    return array


def _check(table: pa.Table) -> None:
    """Raises a DataError for unknown statuses, and for status 'ok' without a finite number, which would spoil means."""
    finite = pc.fill_null(pc.is_finite(table["value_sum"]), False)
    others = ", ".join(STATUSES[1:])
    for status in sorted(pc.unique(table["status"]).to_pylist()):
        if status not in STATUSES:
            raise DataError(f"row status {status!r} is unknown: use one of {', '.join(STATUSES)}")
    if pc.any(pc.and_not(pc.equal(table["status"], "ok"), finite)).as_py():
        raise DataError(f"a row is 'ok' without a finite value: set its status to one of {others}")


def _frame(table: pa.Table) -> pd.DataFrame:
    frame = table.to_pandas()
    return frame.astype(dict.fromkeys(_NULLABLE_INTEGERS, "Int64"))


def _write(table: pa.Table, path: Path) -> None:
    content = pa.BufferOutputStream()
    with pq.ParquetWriter(content, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({checksums.KEY: checksums.BLANK})
    write_bytes(path, checksums.seal(content.getvalue().to_pybytes()))


def _read(path: Path, schema: pa.Schema = SCHEMA, remedy: str = "") -> pa.Table:
    """Reads a table; a damaged file is renamed unless there is a remedy for the message, as where a command only reads."""
    if not path.exists():
        raise DataError(f"no rows at {path}: {remedy or AGAIN}")
    fault = _fault(path)
    if not fault:
        try:
            if pq.read_schema(path).metadata[b"posbench.rows"] == str(SCHEMA_VERSION).encode():
                encoded = None if schema is SCHEMA else _STRINGS
                return pq.read_table(
                    path, schema=schema, read_dictionary=encoded, page_checksum_verification=True
                )
            return older_versions.convert(pq.read_table(path, page_checksum_verification=True), SCHEMA)
        except _UNREADABLE as error:
            fault = _reason(path, error)
    if remedy:
        raise DataError(f"{path} cannot be used ({fault}): {remedy}")
    set_aside(path, fault, report=lambda line: None)
    raise DataError(f"{path} cannot be used ({fault}): it was set aside; {AGAIN}")


def _fault(path: Path) -> str:
    """Returns the problem with a file according to its checksum and its footer; '' if there is none."""
    try:
        checksums.verify(path)
        schema = pq.read_schema(path)
    except _UNREADABLE as error:
        return _reason(path, error)
    version = (schema.metadata or {}).get(b"posbench.rows", b"none").decode(errors="replace")
    missing = {str(SCHEMA_VERSION): (), **older_versions.ADDED}.get(version)
    if missing is None:
        return f"row schema {version}, this is {SCHEMA_VERSION}"
    older = version != str(SCHEMA_VERSION)
    known = [
        older_versions.COLUMNS.get(name, name) if older else name for name in COLUMNS if name not in missing
    ]
    return "" if schema.names == known else "other columns than the schema's"


def _sidecar_fault(path: Path) -> str:
    """Returns the problem with the metadata of a run; '' if there is none."""
    try:
        checksums.read_json(path)
    except (OSError, ValueError) as error:
        return _reason(path, error)
    return ""


def _reason(path: Path, error: Exception) -> str:
    """Returns an error of reading in one line; raises DataError for one that may pass, after which the file may be whole."""
    raise_if_transient(path, error)
    return str(error).splitlines()[0]
