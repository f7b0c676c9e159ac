"""Checks of numbers fail where a number is NaN: Python's max and a comparison with < drop it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from posbench import checksums
from posbench.benchmark.gpu_check import TOLERANCE, largest_error, verdict
from posbench.benchmark.line import Line
from posbench.benchmark.paired import of_pairs
from posbench.errors import IncompatibleError
from posbench.lm.hf_check import check_difference, largest_difference
from posbench.plan.lr_selection import best_rate
from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits
from posbench.properties import decay, linearity, relativity, uniqueness
from posbench.properties.bounds import bounds
from posbench.properties.card import COLUMNS
from posbench.properties.determinism import _difference
from posbench.properties.length_behavior import length_behavior
from posbench.properties.order import order_sensitivity
from posbench.properties.probe import SchemeProbe
from posbench.properties.qk_map import isometry
from posbench.properties.ratings import YES

NAN = math.nan
GRADIENTS = [torch.ones(3), torch.ones(2), torch.ones(4)]


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("side", ["found", "wanted"])
def test_a_gradient_that_is_nan_fails_the_gpu_check(at: int, side: str) -> None:
    """The largest error was taken with max(), which drops NaN unless it comes first."""
    broken = [one.clone() for one in GRADIENTS]
    broken[at][-1] = NAN
    sides = (broken, GRADIENTS) if side == "found" else (GRADIENTS, broken)
    error = largest_error(*sides)
    assert math.isnan(error)
    for dtype in TOLERANCE:
        assert verdict(dtype, 0.0, error).startswith("FAILED: gradients")
        assert verdict(dtype, NAN, 0.0).startswith("FAILED: values")
        assert verdict(dtype, 0.0, largest_error(GRADIENTS, GRADIENTS)) == "ok"
        assert verdict(dtype, 0.0, largest_error([], [])) == "ok"


@pytest.mark.parametrize("at", range(2))
@pytest.mark.parametrize("ours", [True, False])
def test_a_logit_that_is_nan_fails_the_check_of_a_converted_model(at: int, ours: bool) -> None:
    right = [torch.ones(2, 3), torch.ones(4, 3)]
    broken = [one.clone() for one in right]
    broken[at][-1, -1] = NAN
    difference = largest_difference(*((broken, right) if ours else (right, broken)))
    with pytest.raises(IncompatibleError):
        check_difference(difference, "float32", [2, 4], "a model")


@pytest.mark.parametrize("least", [True, False])
def test_a_measurement_that_is_nan_fails_its_line(least: bool) -> None:
    pairs = np.ones((9, 2))
    pairs[4, 0] = NAN
    assert not Line("step", "peer", 1.0, of_pairs(pairs), least=least).passed


def trained(losses: list[float], models: Path) -> list[list[str]]:
    """Writes a trained model for each loss; returns their names, one for each learning rate."""
    for index, loss in enumerate(losses):
        final = models / str(index) / "final"
        final.mkdir(parents=True)
        metadata = {"status": "ok", "log_history": [{"validation_loss": loss}]}
        (final / "metadata.json").write_bytes(checksums.dump_json(metadata))
    return [[str(index)] for index in range(len(losses))]


@pytest.mark.parametrize("losses", [[NAN, 2.0, 1.0], [2.0, NAN, 1.0], [math.inf, NAN, 1.0]])
def test_a_learning_rate_whose_loss_is_nan_is_not_selected(losses: list[float], tmp_path: Path) -> None:
    """NaN was the minimum where it came first."""
    assert best_rate(trained(losses, tmp_path), tmp_path) == 2


@pytest.mark.parametrize("losses", [[NAN], [NAN, math.inf], [math.inf, math.inf]])
def test_no_learning_rate_is_selected_where_all_diverged(losses: list[float], tmp_path: Path) -> None:
    """Fault: no test noticed that the first rate was selected if no loss was a number."""
    assert best_rate(trained(losses, tmp_path), tmp_path) is None


class Broken(PositionScheme):
    """Distances from 40 tokens on, and positions from 40 on, give NaN in one of the hooks."""

    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape, hook: str) -> None:
        super().__init__()
        self.hook, self.n_heads = hook, shape.n_heads

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias | None:
        if self.hook != "attention_bias":
            return None

        def bias(n: Tensor) -> Tensor:
            return torch.where(n < 40, -0.1 * n.double(), NAN).expand(self.n_heads, *n.shape)

        return DistanceBias(bias)

    def qk(self, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
        q, k = inputs.q_BHTD, inputs.k_BHSD
        if self.hook == "qk":
            q, k = (
                torch.where(pos[:, None] < 40, 2.0 * x, NAN)
                for pos, x in ((inputs.geo.q_pos_T, q), (inputs.geo.k_pos_S, k))
            )
        return q, k

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        if self.hook != "embed" or layer:
            return x_BTW
        position = geo.q_pos_T[:, None].double()
        return x_BTW + torch.where(position < 40, position.sin(), NAN)


def columns(hook: str) -> dict[str, str]:
    """Returns the sign of each column of the card of a broken scheme."""

    probe = SchemeProbe.of({"hook": hook})
    row = {
        "has_weights": False,
        "order_sensitivity": order_sensitivity(probe),
        "diagonal_spread": relativity.along_diagonals(probe),
        "shift_change": relativity.shifted(probe),
        "linear_embedding_missed": linearity.of_embeddings(probe),
        "linear_vector_missed": linearity.of_vectors(probe),
        **uniqueness.position_separation(probe),
        **uniqueness.embedded(probe),
        **isometry(probe),
        **bounds(probe),
        **length_behavior(probe),
        **decay.decay(decay.curves(probe)),
    }
    rated = {
        column.title.replace("\n", " "): column.of(row)
        for column in COLUMNS
        if "two" not in column.title and column.title not in ("source of\npositions", "parameters")
    }
    return {title: rating.sign for title, rating in rated.items()}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    ("hook", "independent"),
    [
        (
            "attention_bias",
            {"norm of q, k kept", "orthogonal map of q, k", "linear step", "distances in embeddings"},
        ),
        ("qk", {"distances in embeddings"}),
        ("embed", {"norm of q, k kept", "orthogonal map of q, k"}),
    ],
)
@torch.no_grad()
def test_a_scheme_whose_numbers_are_nan_has_no_good_property(
    hook: str, independent: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN was no change of order, not above a bound, a masked key, or a property that does not apply."""
    monkeypatch.setattr(
        "posbench.properties.probe.build_scheme", lambda settings, shape, _: Broken(shape, **settings)
    )
    good = {title for title, sign in columns(hook).items() if sign == YES}
    assert good <= independent


def test_two_evaluations_of_which_one_is_nan_differ() -> None:
    one = torch.tensor([0.0, 1.0, -math.inf])
    assert _difference(one, one) == 0
    assert _difference(one, torch.tensor([NAN, 1.0, -math.inf])) != 0
