"""Laws of parameters: all are trained, saved and restored, and drawn without changing other initial weights.

Models are compared with the same initial weights everywhere except in the scheme.
"""

import pytest
import torch
import torch.nn.functional as F
from variants import SCHEMES, SHAPE, TRAIN_LEN, VOCABULARY, Variant, each_scheme, model_of, tokens

from posbench.instantiate import instantiate
from posbench.position.scheme import PositionScheme


@each_scheme
def test_every_parameter_is_trained(variant: Variant) -> None:
    model = model_of(variant)
    ids = tokens(2, TRAIN_LEN)
    logits = model.head(model(ids)[0])
    F.cross_entropy(logits[:, :-1].reshape(-1, VOCABULARY), ids[:, 1:].reshape(-1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@each_scheme
def test_state_dict_restores_the_model(variant: Variant) -> None:
    ids = tokens(2, TRAIN_LEN)
    trained, restored = model_of(variant), model_of(variant, seed=1)
    assert not torch.equal(restored(ids)[0], trained(ids)[0])
    restored.load_state_dict(trained.state_dict(), strict=True)
    assert torch.equal(restored(ids)[0], trained(ids)[0])
    held = {name for name, _ in trained.named_parameters()}
    assert set(trained.state_dict()) == held, "constants are not part of the checkpoint"


@each_scheme
def test_parameters_depend_on_the_seed_if_any_are_drawn(variant: Variant) -> None:
    """A scheme may start from constants alone; then no seed changes it."""
    one, again, other = (variant.inner(seed=seed).state_dict() for seed in (0, 0, 1))
    for name, value in one.items():
        assert torch.equal(value, again[name])
    with torch.random.fork_rng(devices=[]):
        before = torch.random.get_rng_state()
        instantiate(SCHEMES[variant.scheme] or {}, PositionScheme, SHAPE)
        draws = not torch.equal(torch.random.get_rng_state(), before)
    assert any(not torch.equal(value, other[name]) for name, value in one.items()) == draws


@each_scheme
def test_building_a_scheme_keeps_the_random_state(variant: Variant) -> None:
    before = torch.random.get_rng_state()
    variant.inner()
    assert torch.equal(torch.random.get_rng_state(), before)


@each_scheme
def test_scheme_changes_no_other_weight(variant: Variant) -> None:
    reference = model_of(Variant("nope")).state_dict()
    drawn = model_of(variant).state_dict()
    for name, value in reference.items():
        assert torch.equal(drawn[name], value), name
    assert {name for name in drawn if not name.startswith("scheme.")} == set(reference)


@pytest.mark.parametrize("seed", [0, 1])
def test_seeds_draw_different_models(seed: int) -> None:
    one, other = model_of(Variant("nope"), seed), model_of(Variant("nope"), seed + 1)
    assert not torch.equal(one.embedding.weight, other.embedding.weight)
