"""Laws of positions and lengths: `relative`, `prefix_stable` and `shared_prefill` hold if and only if they are True.

Evaluation relies on these traits to score all lengths in one pass and to share the cache of a context. A trait that
holds and is False fails as well: evaluation would be slower for no reason.
"""

import pytest
import torch
from variants import (
    LENGTH,
    TRAIN_LEN,
    Variant,
    assert_trait,
    build,
    each_variant,
    is_defined,
    model_of,
    tokens,
)

from posbench.errors import LengthError, UndefinedError
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.scheme import PositionScheme


class Shifted(Extension):
    """Adds a number of tokens to all positions."""

    def __init__(self, inner: PositionScheme, context: ExtensionContext, by: int) -> None:
        super().__init__(inner, context)
        self.by = by

    def assign_positions(self, geo: Geometry) -> Geometry:
        placed = self.inner.assign_positions(geo)
        return placed.with_positions(
            placed.q_pos_T + self.by, placed.k_pos_S + self.by, placed.position_offset
        )


@each_variant
def test_relative_if_and_only_if_shift_invariant(variant: Variant) -> None:
    """A shift by 5 tokens within the training length: 1e-10. For relative schemes also by 1000 at full length: 1e-9."""
    built = build(variant)
    relative = built.scheme.traits.relative

    def shifted(by: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        scheme = Shifted(built.scheme, ExtensionContext(built.model.architecture.shape(TRAIN_LEN), count), by)
        ids = tokens(2, count)
        return built(ids), built.model.with_scheme(scheme)(ids)[0]

    assert_trait(relative, *shifted(5, 8), 1e-10)
    if relative:
        assert_trait(True, *shifted(1000, built.length), 1e-9)


@each_variant
def test_prefix_stable_if_and_only_if_independent_of_what_follows(variant: Variant) -> None:
    """A prefix alone, a prefix with the full declared length, and the full text: 1e-10."""
    long = build(variant)
    prefix = 3 * TRAIN_LEN // 2 if long.length == LENGTH else TRAIN_LEN // 2
    short = build(variant, prefix)
    ids = tokens(2, long.length)
    alone, within = short(ids[:, :prefix]), long(ids)[:, :prefix]
    assert_trait(long.scheme.traits.prefix_stable, alone, within, 1e-10)
    # At the same declared length, later tokens change nothing, whatever the trait.
    torch.testing.assert_close(long(ids[:, :prefix], length=long.length), within, rtol=0, atol=1e-10)


@each_variant
def test_shared_prefill_if_and_only_if_caches_are_exact(variant: Variant) -> None:
    """Suffixes over a shared cache equal each prompt alone and token-by-token decoding: 1e-10."""
    built = build(variant)
    question = 5
    context = built.length - question
    shared, questions = tokens(1, context), tokens(3, question, seed=2)
    shareable = built.scheme.traits.shared_prefill

    def read(ids: torch.Tensor, cache=None):  # type: ignore[no-untyped-def]
        return built.model(ids, cache=cache, length=built.length, use_cache=True)

    _, prefilled = read(shared)
    suffixes, _ = read(questions, prefilled)
    for row in range(3):
        prompt = torch.cat((shared, questions[row : row + 1]), 1)
        assert_trait(shareable, suffixes[row], built(prompt)[0, context:], 1e-10)
    cache, steps = prefilled, []
    for t in range(question):
        hidden, cache = read(questions[:1, t : t + 1], cache)
        steps.append(hidden)
    assert cache.length == built.length
    assert_trait(shareable, torch.cat(steps, 1)[0], suffixes[0], 1e-10)


class Short(PositionScheme):
    """Defined for at most four tokens."""

    def check(self, length: int) -> None:
        if length > 4:
            raise LengthError(f"{length} tokens: give at most 4")


def test_model_checks_lengths_before_it_computes() -> None:
    """The tokens given, the tokens of the cache and the declared length all count."""
    model = model_of(Variant("nope")).with_scheme(Short())
    _, cache = model(tokens(1, 4), use_cache=True)
    for settings in ({"ids_BT": tokens(1, 5)}, {"ids_BT": tokens(1, 1), "cache": cache}):
        with pytest.raises(LengthError, match="5 tokens"):
            model(**settings)
    with pytest.raises(LengthError, match="9 tokens"):
        model(tokens(1, 4), length=9)


@each_variant
def test_finite_to_eight_times_the_training_length_or_undefined(variant: Variant) -> None:
    length = 8 * TRAIN_LEN
    trained = model_of(variant).float()
    model = trained.with_scheme(variant.around(trained.scheme, length))
    ids = tokens(1, length)
    if is_defined(model.scheme, length):
        assert model(ids)[0].isfinite().all()
    else:
        with pytest.raises((UndefinedError, LengthError), match=r"^[^\n]+$"):
            model(ids)
