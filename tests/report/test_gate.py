"""The gate: a task that was not learned at the training length is not judged at longer contexts."""

import pandas as pd
import pytest
from synthetic_rows import synthetic_rows

from posbench.report.tables import gate_caption
from posbench.results import gate


def rows(*lines: tuple[str, str, int, float]) -> pd.DataFrame:
    """Exact-match rows of (model, extension, length, accuracy) over ten questions, and a row of perplexity."""
    frame = pd.DataFrame(
        [(model, extension, length, 10 * accuracy, 10) for model, extension, length, accuracy in lines],
        columns=["model_id", "extension", "eval_len", "value_sum", "n"],
    )
    frame = frame.assign(
        metric="exact_match",
        task="key_value",
        protocol="synthetic_records",
        variant="",
        train_len=64,
        status="ok",
    )
    text = frame.iloc[:1].assign(metric="nll", task="perplexity", value_sum=1e3)
    return pd.concat([frame, text], ignore_index=True)


@pytest.mark.parametrize(("accuracy", "closed"), [(0.89, True), (0.9, False)])
def test_a_model_and_its_extensions_are_judged_by_its_training_length(accuracy, closed):
    given = rows(
        ("a", "none", 64, accuracy), ("a", "none", 256, 0.5), ("a", "pi", 256, 1.0), ("b", "none", 64, 0.95)
    )
    found = gate.apply_gate(given)["status"].tolist()
    assert found == ["not_learned" if closed else "ok"] * 3 + ["ok", "ok"]


def test_fine_tuned_model_is_judged_with_its_extension():
    found = gate.apply_gate(rows(("tuned", "drop", 64, 0.5), ("tuned", "drop", 256, 0.1)))["status"].tolist()
    assert found == ["not_learned", "not_learned", "ok"]


def test_extensions_of_a_model_that_is_never_plain_are_judged_apart():
    """Fault: .99 with the scaling of a pretrained model and .60 with another extension were one accuracy of .80."""
    given = rows(("own", "llama3", 64, 0.99), ("own", "pi", 64, 0.6), ("own", "llama3", 256, 0.9))
    assert gate.apply_gate(given)["status"].tolist() == ["ok", "not_learned", "ok", "ok"]


def test_models_without_the_training_length_are_not_judged():
    assert set(gate.apply_gate(rows(("a", "none", 256, 0.1)))["status"]) == {"ok"}


def test_failing_extension_does_not_affect_its_model():
    given = rows(("a", "none", 64, 0.95), ("a", "pi", 64, 0.2), ("a", "none", 256, 0.5))
    assert set(gate.apply_gate(given)["status"]) == {"ok"}


def test_protocols_and_variants_are_judged_separately():
    given = rows(("a", "none", 64, 0.95), ("a", "none", 256, 0.5))
    other = rows(("a", "none", 64, 0.3), ("a", "none", 256, 0.2))
    for change in ({"protocol": "json_uuid"}, {"variant": "query_aware"}):
        found = gate.apply_gate(pd.concat([given, other.assign(**change)], ignore_index=True))
        assert found["status"].tolist() == ["ok"] * 3 + ["not_learned"] * 2 + ["ok"]


@pytest.mark.parametrize(("exact", "status"), [(None, "not_learned"), (0.95, "ok")])
def test_substring_match_decides_without_exact_match(exact, status):
    contained = (
        rows(("a", "none", 64, 0.5), ("a", "none", 256, 0.5)).iloc[:2].assign(metric="substring_match")
    )
    exactly = rows(("a", "none", 64, exact or 1.0)).iloc[: int(exact is not None)]
    found = gate.apply_gate(pd.concat([contained, exactly], ignore_index=True))
    assert set(found["status"]) == {status}


@pytest.mark.parametrize(("accuracy", "status"), [(0.5, "not_learned"), (0.95, "ok")])
def test_recall_decides_where_it_is_the_only_accuracy(accuracy, status):
    """Fault: no test noticed that tasks of RULER, which have no other accuracy, were never judged."""
    lines = ("a", "none", 64, accuracy), ("a", "none", 256, 0.4)
    given = rows(*lines).iloc[:2].assign(metric="recall", task="multi_value")
    assert set(gate.apply_gate(given)["status"]) == {status}


def test_the_gate_is_applied_again_to_rows_that_have_been_judged():
    """Fault: an export had rows of cells, never judged, beside rows of experiments that were."""
    given = rows(
        ("a", "none", 64, 0.5), ("a", "none", 256, 0.4), ("b", "none", 256, 0.4), ("c", "none", 64, 0.95)
    )
    half = given.assign(status=["not_learned", "ok", "not_learned", "not_learned", "ok"])
    assert gate.apply_gate(half)["status"].tolist() == ["not_learned"] * 3 + ["ok", "ok"]


def test_the_caption_is_about_models_with_a_number():
    """Fault: "all models reach an accuracy of 0.90" beside a model that diverged."""
    some = synthetic_rows(documents=2, contexts=2, schemes=("alibi", "kerple_log")).query(
        "task == 'key_value'"
    )
    diverged = (some["scheme"] == "alibi").to_numpy()
    assert "Gate: all models reach an accuracy of 0.90 at the training length." in gate_caption.gate(
        [some], False
    )
    some = some.assign(
        status=some["status"].mask(diverged, "diverged"), value_sum=some["value_sum"].mask(diverged)
    )
    assert "Gate: all models with a number reach" in gate_caption.gate([some], False)
