"""Rows of earlier versions of the schema, under the names of this one."""

import pyarrow as pa
import pyarrow.compute as pc

# Columns that older versions of the schema lack; they are read as empty.
ADDED = {"1": ("layer", "head"), "2": ()}
# Names of columns, and values of a column, in versions 1 and 2 of the schema.
COLUMNS = {
    "cell_id": "cell",
    "model_id": "model",
    "model_size": "size",
    "doc_id": "document",
    "value_sum": "value",
}
VALUES = {
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


def convert(old: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns rows of schema version 1 or 2 in the schema of this version."""
    columns = []
    for field in schema:
        old_name = COLUMNS.get(field.name, field.name)
        column = old[old_name] if old_name in old.schema.names else pa.nulls(len(old), field.type)
        if field.name in VALUES:
            values = pc.unique(column)
            renamed = [VALUES[field.name].get(value, value) for value in values.to_pylist()]
            column = pc.take(pa.array(renamed, field.type), pc.index_in(column, values))
        columns.append(column)
    return pa.table(columns, schema=schema)
