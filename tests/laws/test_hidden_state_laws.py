"""Hidden states are read, and kept in a cache, exactly by the schemes that declare it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from variants import SHAPE, SIZE, Variant, VariantModel, build, each_variant, tokens

from posbench.model import attention
from posbench.model.gpt import KVCache
from posbench.position.compose import Layered, Stack
from posbench.position.scheme import AttentionInputs
from posbench.schemes.fox import FoX
from posbench.schemes.rope import RoPE

TOKENS = 12


def hidden_states_replaced(
    subject: VariantModel, ids: Tensor, value: float, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """(B, T, W) final hidden states where hooks read `value` in place of every hidden state."""

    def inputs(layer, geo, x_BTW, x_BSW, q_BHTD, k_BHSD) -> AttentionInputs:
        x_BSW = torch.full((len(k_BHSD), k_BHSD.shape[2], SIZE.d_model), value, dtype=k_BHSD.dtype)
        return AttentionInputs(layer, geo, x_BSW[:, -q_BHTD.shape[2] :], x_BSW, q_BHTD, k_BHSD)

    with monkeypatch.context() as patch:
        patch.setattr(attention, "AttentionInputs", inputs)
        return subject(ids)


@each_variant
@torch.no_grad()
def test_hidden_states_are_read_by_those_that_declare_it(variant: Variant, monkeypatch) -> None:
    """NaN in place of hidden states changes nothing without the declaration; with it, other values change the output.

    An extension may leave no effect to what is read (a bias that is the same for all keys, once distances are dropped):
    then the values are NaN too.
    """
    subject = build(variant)
    ids = tokens(2, subject.length)
    if subject.scheme.traits.reads_hidden_states:
        value = 1.0 if variant.extension is None else torch.nan
        changed = hidden_states_replaced(subject, ids, value, monkeypatch)
        assert not (changed - subject(ids)).abs().max() <= 1e-6, "declared, and not read: take the trait back"
    else:
        changed = hidden_states_replaced(subject, ids, torch.nan, monkeypatch)
        assert torch.equal(changed, subject(ids)), "read, and not declared: set reads_hidden_states"


def memory(cache: KVCache) -> int:
    """Bytes of all storage that a cache keeps alive."""
    kept = [x for layer in cache.layers for x in vars(layer).values() if x is not None]
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept}.values())


@each_variant
@torch.no_grad()
def test_a_cache_holds_what_is_read_and_no_more(variant: Variant) -> None:
    """Keys and values, and hidden states only where they are read: after a prefill, and after a suffix."""
    subject = build(variant)
    ids, reads = tokens(3, TOKENS), subject.scheme.traits.reads_hidden_states
    per_token = SIZE.n_layers * SIZE.d_model * (3 if reads else 2) * 8
    _, cache = subject.model(ids[:1, :-2], length=subject.length, use_cache=True)
    assert memory(cache) == (TOKENS - 2) * per_token
    _, cache = subject.model(ids[:, -2:], cache=cache, length=subject.length, use_cache=True)
    assert memory(cache) == 3 * TOKENS * per_token
    assert all((layer.x_BSW is not None) == reads for layer in cache.layers)


@pytest.mark.parametrize("composition", [Stack, Layered])
def test_a_composition_reads_what_a_member_reads(composition: type[Stack | Layered]) -> None:
    assert composition(SHAPE, [RoPE(SHAPE), FoX(SHAPE)]).traits.reads_hidden_states
    assert not composition(SHAPE, [RoPE(SHAPE), RoPE(SHAPE)]).traits.reads_hidden_states


def test_a_scheme_that_does_not_declare_what_it_reads_fails_at_once() -> None:
    class Undeclared(FoX):
        traits = replace(FoX.traits, reads_hidden_states=False)

    model = build(Variant("fox")).model.with_scheme(Undeclared(SHAPE).double())
    with pytest.raises(AssertionError):
        model(tokens(1, 4))
