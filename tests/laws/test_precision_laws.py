"""Law of precision: positions stay exact in a bfloat16 model and under autocast.

bfloat16 has 8 significant bits: it represents not every integer above 256, so that position 4097 would become 4096.
"""

import copy

import torch
from torch import Tensor
from variants import SIZE, Variant, each_variant

from posbench.model.gpt import GPT
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, PositionScheme
from posbench.schemes.nope import NoPE

SHAPE = SIZE.shape(8192)
FIRST, LAST = 4092, 4100
ROUNDING = 2.0**-6  # a few roundings to 8 bits


def numbers(scheme: PositionScheme, dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns the results of all hooks for eight queries around position 4096 over all earlier keys."""
    draw = torch.Generator().manual_seed(0)
    geo = scheme.assign_positions(Geometry.from_range(FIRST, LAST, 2 * SHAPE.train_len))

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).bfloat16().to(dtype)

    stream_BSW = random(1, LAST, SHAPE.d_model)
    q_BHTD = random(1, SHAPE.n_heads, LAST - FIRST, SHAPE.head_dim)
    k_BHSD = random(1, SHAPE.n_heads, LAST, SHAPE.head_dim)
    found = {"embed": scheme.embed(stream_BSW[:, FIRST:], geo, 0)}
    inputs = AttentionInputs(0, geo, stream_BSW[:, FIRST:], stream_BSW, q_BHTD, k_BHSD)
    for number, region in enumerate(scheme.regions(inputs)):
        here = AttentionInputs(0, region.geo, inputs.x_BTW, inputs.x_BSW, q_BHTD, k_BHSD)
        found[f"q {number}"], found[f"k {number}"] = scheme.qk(here)
        logit_scale, bias, values = (
            scheme.logit_scale(here),
            scheme.attention_bias(here),
            scheme.relative_values(here),
        )
        if logit_scale is not None:
            found[f"logit_scale {number}"] = logit_scale
        if bias is not None:
            found[f"bias {number}"] = bias.value(region.geo, slice(None))
        if values is not None:
            found[f"values {number}"] = values.index(region.geo.distance().clamp(min=0))
    return found


def assert_close(rounded: dict[str, Tensor], exact: dict[str, Tensor]) -> None:
    assert rounded.keys() == exact.keys()
    for name, value in exact.items():
        torch.testing.assert_close(
            rounded[name].double(),
            value.double(),
            rtol=ROUNDING,
            atol=ROUNDING,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@each_variant
def test_cast_to_bfloat16_keeps_positions(variant: Variant) -> None:
    inner = variant.inner(SHAPE).to(torch.bfloat16)
    exact = copy.deepcopy(inner).double()  # the same parameters, so that only constants can differ
    with torch.no_grad():
        assert_close(
            numbers(variant.around(inner, 2 * SHAPE.train_len, SHAPE), torch.bfloat16),
            numbers(variant.around(exact, 2 * SHAPE.train_len, SHAPE), torch.float64),
        )


@each_variant
def test_autocast_keeps_positions(variant: Variant) -> None:
    inner = variant.inner(SHAPE)
    exact = copy.deepcopy(inner).double()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = numbers(variant.around(inner, 2 * SHAPE.train_len, SHAPE), torch.float32)
    with torch.no_grad():
        assert_close(rounded, numbers(variant.around(exact, 2 * SHAPE.train_len, SHAPE), torch.float64))


def test_rounded_positions_break_the_law() -> None:
    """A scheme that casts positions to bfloat16 fails."""

    class Careless(PositionScheme):
        def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
            return x_BTW + torch.sin(geo.q_pos_T.to(x_BTW.dtype))[:, None].to(x_BTW.dtype)

    try:
        assert_close(numbers(Careless(), torch.bfloat16), numbers(Careless(), torch.float64))
    except AssertionError:
        return
    raise AssertionError("positions rounded to bfloat16 passed the law")


def test_the_residual_stream_stays_in_float32_under_autocast() -> None:
    """Projections are in bfloat16 there; added in place, they would round the residual stream to 8 bits."""
    model = GPT(SIZE, 64, NoPE(SHAPE), seed=0)
    seen: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(out[0]))
        block.down.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.arange(8)[None])
    streams, projections = seen[1::2], seen[::2]
    assert {x.dtype for x in projections} == {torch.bfloat16}
    assert {x.dtype for x in streams} == {torch.float32}
