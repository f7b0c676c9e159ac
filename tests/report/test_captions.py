"""Captions once derived "the last N tokens" from sums: N was twice as large where a document gave two segments."""

import pandas as pd
from synthetic_rows import synthetic_rows

from posbench.report.tables.layout import build_tables


def caption(rows: pd.DataFrame) -> str:
    rows = rows[(rows["protocol"] == "fixed_targets") & (rows["scheme"] == "rope")]
    return next(table for table in build_tables(rows) if "bits_per_byte" in table.name).caption


def test_targets_of_a_document_with_two_segments_are_those_of_a_segment() -> None:
    rows = synthetic_rows(documents=4, contexts=2)
    assert "the last 16 tokens of each document are" in caption(rows)
    two = rows.assign(example=rows["doc_id"].map({f"doc{d:03d}": d for d in range(4)}).fillna(0).astype(int))
    two = two.assign(doc_id=two["doc_id"].replace({"doc001": "doc000", "doc003": "doc002"}))
    assert "the last 16 tokens of each segment of a document are" in caption(two)


def test_number_of_targets_is_left_out_where_it_differs() -> None:
    rows = synthetic_rows(documents=4, contexts=2)
    rows.loc[rows["doc_id"] == "doc001", "n"] = 15
    assert "the last tokens of each document are" in caption(rows)
