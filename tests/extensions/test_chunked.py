"""Independent chunks against a whole model that reads each chunk alone. Tolerance 1e-12 in float64."""

from collections.abc import Callable

import pytest
import torch
from extended import Llama, attention, attention_inputs, by_pairs, context, rotary, values

from posbench.errors import ConfigError, UndefinedError
from posbench.extensions.chunked import Chunked
from posbench.model.gpt import GPT, Size
from posbench.position.extension import ExtensionContext
from posbench.position.scheme import ModelShape, PositionScheme
from posbench.schemes.alibi import ALiBi
from posbench.schemes.learned import Learned
from posbench.schemes.nope import NoPE
from posbench.schemes.shaw import Shaw
from posbench.schemes.sinusoidal import Sinusoidal

SIZE = Size(n_layers=2, d_model=16, n_heads=2)
SHAPE = SIZE.shape(16)


@pytest.mark.parametrize("scheme", [NoPE, Sinusoidal, Learned, Llama, ALiBi, Shaw])
@pytest.mark.parametrize(("chunk", "length"), [(16, 56), (5, 56), (1, 9), (16, 12)])
def test_equals_each_chunk_alone(
    scheme: Callable[[ModelShape], PositionScheme], chunk: int, length: int
) -> None:
    torch.manual_seed(0)
    model = GPT(SIZE, 50, scheme(SHAPE), 0).double()
    ids = torch.randint(50, (2, length))
    alone = [model(part)[0] for part in ids.split(chunk, 1)]
    around = Chunked(model.scheme, ExtensionContext(SHAPE, length), chunk)
    torch.testing.assert_close(model.with_scheme(around)(ids)[0], torch.cat(alone, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("first", [0, 21])
def test_equals_a_mask_over_pairs(first: int) -> None:
    inputs, v = attention_inputs(24, start=first), values(24)
    expected = by_pairs(
        inputs, v, lambda h, q, k, i, j: rotary(q, k, i - j), visible=lambda i, j: i // 5 == j // 5
    )
    actual = attention(Chunked(Llama(SHAPE), context(24), 5), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_a_learned_table_must_hold_one_chunk() -> None:
    Chunked(Learned(SHAPE), ExtensionContext(SHAPE, 1000)).check(1000)
    with pytest.raises(UndefinedError):
        Chunked(Learned(SHAPE), ExtensionContext(SHAPE, 1000), 17).check(1000)


def test_interpolated_tables_are_read_at_the_length_of_a_chunk() -> None:
    """Fault: the declared length of a chunk was that of the whole text, so that every chunk was squeezed."""
    model = GPT(SIZE, 50, Learned(SHAPE, out_of_range="interpolate"), 0).double()
    ids = torch.randint(50, (1, 48))
    alone = torch.cat([model(part)[0] for part in ids.split(16, 1)], 1)
    around = Chunked(model.scheme, ExtensionContext(SHAPE, 48))
    torch.testing.assert_close(model.with_scheme(around)(ids)[0], alone, rtol=0, atol=1e-12)


def test_bad_settings() -> None:
    for chunk in (0, -4, 1.5, True):
        with pytest.raises(ConfigError, match="whole number of tokens of at least 1"):
            Chunked(Llama(SHAPE), context(64), chunk)  # type: ignore[arg-type]
