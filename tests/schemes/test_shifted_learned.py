"""Randomly shifted learned positions against a table of ordinary learned positions. Tolerance 1e-12."""

import pytest
import torch
from calls import SHAPE
from torch import distributed

from posbench.errors import ConfigError, UndefinedError
from posbench.position.geometry import Geometry
from posbench.schemes.learned import Learned
from posbench.schemes.shifted_learned import ShiftedLearned


def scheme(max_position: int | None = None) -> ShiftedLearned:
    torch.manual_seed(0)
    return ShiftedLearned(SHAPE, max_position).double()


def test_evaluation_is_that_of_learned_positions() -> None:
    shifted, plain = scheme(), Learned(SHAPE).double()
    with torch.no_grad():
        plain.row_NW.copy_(shifted.row_NW[: SHAPE.train_len])
    x_BTW, geo = (
        torch.randn(3, SHAPE.train_len, SHAPE.d_model).double(),
        Geometry.from_range(0, SHAPE.train_len),
    )
    assert not shifted.training
    for layer in (0, 1):
        torch.testing.assert_close(
            shifted.embed(x_BTW, geo, layer), plain.embed(x_BTW, geo, layer), rtol=0, atol=1e-12
        )


def test_rows_begin_at_init_std() -> None:
    """Rows began at a standard deviation of 1, and copies past the trained lengths failed twice as often."""
    torch.manual_seed(0)
    rows_NW = ShiftedLearned(SHAPE, 1000, init_std=0.02).row_NW
    assert abs(float(rows_NW.detach().std()) / 0.02 - 1) < 0.05


def test_sequences_of_a_batch_begin_at_uniform_rows() -> None:
    """Each sequence has consecutive rows; the first one is uniform over those that leave room for the sequence."""
    shifted = scheme(20).train()
    length = 12
    with torch.no_grad():
        shifted.row_NW.copy_(torch.arange(20.0)[:, None].expand(20, SHAPE.d_model))
    torch.manual_seed(1)
    added = shifted.embed(
        torch.zeros(4000, length, SHAPE.d_model).double(), Geometry.from_range(0, length), 0
    )
    first = added[:, 0, 0]
    assert torch.equal(added[:, :, 0], first[:, None] + torch.arange(length))
    shares = torch.bincount(first.long(), minlength=20)[:9] / 4000
    assert set(first.tolist()) == set(range(9))
    assert (shares - 1 / 9).abs().max() < 0.03


def test_training_draws_from_the_global_generator() -> None:
    shifted, geo = scheme().train(), Geometry.from_range(0, 8)
    x_BTW = torch.zeros(2, 8, SHAPE.d_model).double()
    torch.manual_seed(3)
    one, two = shifted.embed(x_BTW, geo, 0), shifted.embed(x_BTW, geo, 0)
    torch.manual_seed(3)
    assert torch.equal(shifted.embed(x_BTW, geo, 0), one)
    assert not torch.equal(one, two)


def test_lengths_and_settings() -> None:
    shifted = scheme()
    shifted.check(4 * SHAPE.train_len)
    with pytest.raises(UndefinedError, match=f"{4 * SHAPE.train_len} rows"):
        shifted.check(4 * SHAPE.train_len + 1)
    with pytest.raises(
        ConfigError, match=f"max_position 3: give at least the training length, {SHAPE.train_len}"
    ):
        scheme(3)
    assert "positions" not in shifted.traits.capabilities


def test_ranks_draw_different_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: all ranks of a data-parallel training have one seed, and drew the same offsets for other sequences."""
    shifted, geo, x_BTW = scheme(500).train(), Geometry.from_range(0, 8), torch.zeros(6, 8, SHAPE.d_model)

    def embedded(rows: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return shifted.embed(rows.double(), geo, 0)

    whole = embedded(x_BTW)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        parts.append(embedded(x_BTW[:3]))
    assert torch.equal(torch.cat(parts), whole)
