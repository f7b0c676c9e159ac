"""Laws of extensions: no effect at `noop_settings`, an effect otherwise, no parameters, and early refusal.

A scaling that silently has no effect, and a patch that changes more than the extension names, are common errors of
implementations of context extensions.
"""

import pytest
import torch
from variants import (
    EXTENDED,
    EXTENSIONS,
    INCOMPATIBLE,
    LENGTH,
    SCHEMES,
    SHAPE,
    TRAIN_LEN,
    Variant,
    build,
    each_extended,
    model_of,
    tokens,
)

from posbench.errors import IncompatibleError
from posbench.instantiate import instantiate, locate
from posbench.position.extension import Extension, ExtensionContext


@each_extended
def test_noop_settings_change_nothing(variant: Variant) -> None:
    """At 3.5 times the training length, or at the training length if the scheme is undefined beyond: 1e-12."""
    settings = EXTENSIONS[variant.extension or ""]
    noop = locate(settings["_target_"]).noop_settings(LENGTH)
    extended = build(variant, **noop)
    ids = tokens(2, extended.length)
    plain = build(Variant(variant.scheme), extended.length)
    assert plain.length == extended.length
    torch.testing.assert_close(extended(ids), plain(ids), rtol=0, atol=1e-12)


# The scheme has no rotation by the slow frequencies that the extension changes, in heads of 8 dimensions.
UNCHANGED = {"scale_invariant+clipped_rope"}


@each_extended
def test_changes_outputs_past_the_training_length(variant: Variant) -> None:
    extended, plain = build(variant), build(Variant(variant.scheme))
    if plain.length == TRAIN_LEN:
        pytest.skip(f"{variant.scheme} alone is undefined past its training length")
    ids = tokens(2, extended.length)
    assert ((extended(ids) - plain(ids)).abs().max() > 1e-6) == (str(variant) not in UNCHANGED)


# Schemes whose logits depend on token indices, or on tokens before the chunk, beside the mask and positions.
ACROSS_CHUNKS = {
    *("asentmax", "bigbird", "hwfa", "irope", "llama4", "log_n", "longformer", "path", "selective_attention"),
    *("selective_rope", "ssmax", "swan", "tupe", "tupe_r"),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_chunks_are_read_alone(scheme: str) -> None:
    """Fault: random positions were drawn for the whole text, with an index error past their range."""
    variant = Variant(scheme, "chunked")
    if variant in INCOMPATIBLE:
        pytest.skip("incompatible")
    model, length = model_of(variant), 3 * TRAIN_LEN
    ids = tokens(1, length)
    with torch.no_grad():
        alone = torch.cat([model(chunk)[0] for chunk in ids.split(TRAIN_LEN, 1)], 1)
        whole = model.with_scheme(variant.around(model.scheme, length))(ids)[0]
    assert ((whole - alone).abs().max() < 1e-12) == (scheme not in ACROSS_CHUNKS)


@pytest.mark.parametrize("extension", ["chunked", "streaming_llm", "lm_infinite"])
def test_extensions_that_count_tokens_refuse_random_positions(extension: str) -> None:
    """Fault: sinks at counted positions lay nearer than most of a window at random ones."""
    assert {one.scheme for one in INCOMPATIBLE if one.extension == extension} >= {
        scheme for scheme in SCHEMES if scheme.startswith("randomized")
    }


@each_extended
def test_adds_no_parameters_and_does_not_change_the_model(variant: Variant) -> None:
    model = model_of(variant)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scheme = variant.around(model.scheme, LENGTH)
    assert isinstance(scheme, Extension)
    assert [id(p) for p in scheme.parameters()] == [id(p) for p in model.scheme.parameters()]
    ids = tokens(1, TRAIN_LEN)
    model.with_scheme(scheme)(ids)
    assert model.state_dict().keys() == before.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_incompatible_schemes_raise_at_construction(extension: str) -> None:
    """In one line that names both classes, and only for a requirement that the extension declares.

    Or for a rotation by one frequency, which is a quarter of the heads of these small models.
    """
    settings = EXTENSIONS[extension]
    target = locate(settings["_target_"])
    for variant in INCOMPATIBLE:
        if variant.extension != extension:
            continue
        inner = variant.inner()
        with pytest.raises(IncompatibleError) as caught:
            instantiate(settings, Extension, inner, ExtensionContext(SHAPE, LENGTH))
        assert "\n" not in str(caught.value)
        assert target.__name__ in str(caught.value)
        assert type(inner).__name__ in str(caught.value)
        lacks = target.requires - inner.traits.capabilities
        one_frequency = "spreads a factor over frequencies" in str(caught.value)
        assert lacks or one_frequency or (target.requires_relative and not inner.traits.relative)


def test_schemes_without_what_an_extension_requires_are_incompatible() -> None:
    """Fault: extensions that refuse no scheme passed unnoticed, since INCOMPATIBLE is what they refuse."""
    all_traits = {scheme: Variant(scheme).inner().traits for scheme in SCHEMES}
    targets = {extension: locate(settings["_target_"]) for extension, settings in EXTENSIONS.items()}
    expected = {
        Variant(scheme, extension)
        for scheme, traits in all_traits.items()
        for extension, target in targets.items()
        if target.requires - traits.capabilities or (target.requires_relative and not traits.relative)
    }
    assert expected <= set(INCOMPATIBLE)
    assert expected >= {
        *(Variant("alibi", "yarn"), Variant("nope", "pi"), Variant("fire", "drope")),
        *(Variant("linear_attention", "window"), Variant("window", "window"), Variant("tapa", "log_n")),
    }


def test_every_extension_supports_some_scheme() -> None:
    assert {variant.extension for variant in EXTENDED} == set(EXTENSIONS)
