"""Known effects, with wide margins, on one model that is trained as in the demo."""

import pandas as pd
import pytest

pytestmark = pytest.mark.slow


def test_rope_breaks_where_rerope_does_not_and_a_window_keeps_loss_but_not_retrieval(script, tmp_path):
    result = script(
        "sweep",
        "experiment=demo",
        "runtime.launcher=inline",
        "grid.scheme=[rope]",
        "grid.extension=[rerope,window]",
        "~evaluate.prefix",
        "~evaluate.non_overlapping",
        "evaluate.fixed_targets.length_multiples=[1,4]",
        "evaluate.key_value.length_multiples=[1,4]",
        "figures=[]",
    )
    assert result.code == 0, result
    rows = pd.read_parquet(tmp_path / "results" / "demo" / "rows.parquet")

    def bits(extension: str, length: int) -> float:
        here = rows[(rows["extension"] == extension) & (rows["eval_len"] == length)]
        sums = here[here["protocol"] == "fixed_targets"].groupby("metric")["value_sum"].sum()
        return float(sums["nll"] / sums["bytes"]) / 0.6931

    def accuracy(extension: str, length: int, depth: tuple[float, float] = (0, 1)) -> float:
        here = rows[(rows["extension"] == extension) & (rows["eval_len"] == length)]
        here = here[(here["metric"] == "exact_match") & here["depth"].between(*depth)]
        return float(here["value_sum"].mean())

    assert accuracy("none", 64) > 0.9
    assert bits("none", 256) > bits("none", 64) + 0.3
    assert abs(bits("window", 256) - bits("none", 64)) < 0.1
    assert abs(bits("rerope", 256) - bits("none", 64)) < 0.1
    assert accuracy("none", 256) < 0.4
    assert accuracy("rerope", 256) > 0.8
    # A window of 64 tokens has 18 of 73 records; three layers extend it a little.
    assert accuracy("window", 256, (0.3, 0.6)) < 0.2
    assert accuracy("window", 256, (0.9, 1)) > 0.8
