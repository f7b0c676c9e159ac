"""Learned absolute positions against GPT-2's. Tolerance 1e-12 in float64."""

import pytest
import torch
from calls import SHAPE
from transformers import GPT2Config, GPT2Model

from posbench.errors import ConfigError, UndefinedError
from posbench.position.geometry import Geometry
from posbench.schemes.learned import Learned

LEN = SHAPE.train_len


def added(scheme: Learned, positions: list[float], length: int = LEN) -> torch.Tensor:
    """Returns what the scheme adds at positions, integers or not, (T, W)."""
    pos = torch.tensor(positions, dtype=torch.float64)
    index = torch.arange(len(positions))
    zeros = torch.zeros(1, len(positions), SHAPE.d_model, dtype=torch.float64)
    return scheme.embed(zeros, Geometry(index, index, pos, pos, length, None), 0)[0]


def learned(out_of_range: str = "undefined") -> Learned:
    torch.manual_seed(0)
    return Learned(SHAPE, out_of_range).double()


def test_equals_gpt2() -> None:
    scheme = learned()
    config = GPT2Config(
        n_embd=SHAPE.d_model, n_head=4, n_layer=0, n_positions=LEN, vocab_size=9, embd_pdrop=0
    )
    gpt2 = GPT2Model(config).double()
    with torch.no_grad():
        gpt2.wpe.weight.copy_(scheme.row_NW)
    x_BTW = torch.randn(2, LEN, SHAPE.d_model, dtype=torch.float64)
    expected = gpt2(inputs_embeds=x_BTW).last_hidden_state  # without layers: the final norm only
    mine = gpt2.ln_f(scheme.embed(x_BTW, Geometry.from_range(0, LEN), 0))
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)

    probe = torch.randn_like(mine)
    mine_grad = torch.autograd.grad((mine * probe).sum(), scheme.row_NW)[0]
    expected_grad = torch.autograd.grad((expected * probe).sum(), gpt2.wpe.weight)[0]
    torch.testing.assert_close(mine_grad, expected_grad, rtol=0, atol=1e-12)


def test_is_added_once() -> None:
    x_BTW = torch.randn(1, 4, SHAPE.d_model)
    assert learned().embed(x_BTW, Geometry.from_range(0, 4), 1) is x_BTW


def test_past_its_length_it_is_undefined() -> None:
    scheme = learned()
    scheme.check(LEN)
    with pytest.raises(
        UndefinedError, match=r"16 rows has no position 16: evaluate at most 16 .*clamp, wrap"
    ):
        scheme.check(LEN + 1)
    moved = added(scheme, [15.9, 16, 19])  # positions moved by another scheme
    assert moved.isnan().all(-1).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("out_of_range", "length", "row"),
    [
        ("clamp", 40, lambda p: min(p, LEN - 1)),
        ("wrap", 40, lambda p: p % LEN),
        ("interpolate", 32, lambda p: p / 2),
        ("interpolate", 8, lambda p: p),
    ],
)
def test_positions_past_the_table(out_of_range: str, length: int, row) -> None:  # type: ignore[no-untyped-def]
    scheme = learned(out_of_range)
    scheme.check(length)
    table = scheme.row_NW
    rows = []
    for p in range(length):
        below, above = int(row(p)), min(int(row(p)) + 1, LEN - 1)
        part = row(p) - below
        rows.append((1 - part) * table[below] + part * table[above])
    mine = added(scheme, list(range(length)), length)
    torch.testing.assert_close(mine, torch.stack(rows), rtol=0, atol=1e-12)


def test_positions_between_rows_are_interpolated() -> None:
    scheme = learned()
    table = scheme.row_NW
    mine = added(scheme, [0.25, 14.5, 15.75])
    expected = [0.75 * table[0] + 0.25 * table[1], 0.5 * table[14] + 0.5 * table[15], table[15]]
    torch.testing.assert_close(mine, torch.stack(expected), rtol=0, atol=1e-12)
    between = added(learned("wrap"), [15.5])[0]
    torch.testing.assert_close(between, 0.5 * table[15] + 0.5 * table[0], rtol=0, atol=1e-12)


def test_only_interpolation_over_the_length_is_not_prefix_stable() -> None:
    stable = {
        rule: learned(rule).traits.prefix_stable for rule in ("undefined", "clamp", "wrap", "interpolate")
    }
    assert stable == {"undefined": True, "clamp": True, "wrap": True, "interpolate": False}


def test_an_unknown_rule_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'clip'.*clamp, interpolate, undefined, wrap"):
        Learned(SHAPE, "clip")
