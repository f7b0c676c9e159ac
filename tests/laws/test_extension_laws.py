"""An extension changes what it says and nothing else, and refuses at once what it cannot carry."""

import pytest
import torch
from variants import (
    EXTENDED,
    EXTENSIONS,
    LENGTH,
    REFUSED,
    SHAPE,
    TRAIN_LEN,
    Variant,
    each_extended,
    model_of,
    run,
    tokens,
)

from posbench.errors import IncompatibleError
from posbench.instantiate import instantiate, locate
from posbench.position.extension import Extension, ExtensionContext


@each_extended
def test_its_identity_setting_changes_nothing(variant: Variant) -> None:
    """At three and a half times the training length, or as far as the scheme goes: 1e-12."""
    settings = EXTENSIONS[variant.extension or ""]
    identity = locate(settings["_target_"]).noop_settings(LENGTH)
    extended = run(variant, **identity)
    ids = tokens(2, extended.length)
    plain = run(Variant(variant.scheme), extended.length)
    assert plain.length == extended.length
    torch.testing.assert_close(extended(ids), plain(ids), rtol=0, atol=1e-12)


@each_extended
def test_it_changes_something_past_the_training_length(variant: Variant) -> None:
    """A scaling that silently takes no effect is the classic fault of these."""
    extended, plain = run(variant), run(Variant(variant.scheme))
    if plain.length == TRAIN_LEN:
        pytest.skip(f"{variant.scheme} alone is undefined past its training length")
    ids = tokens(2, extended.length)
    assert (extended(ids) - plain(ids)).abs().max() > 1e-6


@each_extended
def test_it_adds_no_parameters_and_leaves_the_model_alone(variant: Variant) -> None:
    model = model_of(variant)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scheme = variant.around(model.scheme, LENGTH)
    assert isinstance(scheme, Extension)
    assert [id(p) for p in scheme.parameters()] == [id(p) for p in model.scheme.parameters()]
    ids = tokens(1, TRAIN_LEN)
    model(ids, scheme=scheme)
    assert model.state_dict().keys() == before.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("variant", REFUSED, ids=str)
def test_what_it_cannot_carry_it_refuses_at_construction(variant: Variant) -> None:
    """In one line that names both, and for a reason that it declares."""
    settings = EXTENSIONS[variant.extension or ""]
    target, inner = locate(settings["_target_"]), variant.inner()
    with pytest.raises(IncompatibleError) as caught:
        instantiate(settings, inner, ExtensionContext(SHAPE, LENGTH))
    assert "\n" not in str(caught.value)
    assert target.__name__ in str(caught.value)
    assert type(inner).__name__ in str(caught.value)
    lacks = target.requires - inner.traits.capabilities
    assert lacks or (target.requires_relative and not inner.traits.relative)


def test_every_extension_is_carried_by_some_scheme() -> None:
    assert {variant.extension for variant in EXTENDED} == set(EXTENSIONS)
