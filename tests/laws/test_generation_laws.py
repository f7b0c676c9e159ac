"""Laws of generation: a KV cache and a shared prefill change no score and no generated token.

Positions can go wrong in a cache (keys rotated at another length, an offset by the context), which changes results
silently.
"""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from variants import Variant, VariantModel, build, each_variant, tokens

from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.interface import Prompt
from posbench.lm.native import NativeLM
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.scheme import PositionScheme

QUESTIONS, SUFFIX, NEW = 3, 2, 4


def lm_of(built: VariantModel, max_tokens_per_batch: int = 10_000) -> NativeLM:
    return NativeLM(built.model, 16, KernelDispatcher("auto"), nullcontext, max_tokens_per_batch)


def prompt_of(length: int, answer: int = 0, max_new_tokens: int = 0, seed: int = 1) -> Prompt:
    """Returns three questions over one context, `length` tokens as the model reads them."""
    context = tokens(length + 1 - SUFFIX - max_new_tokens, seed=seed).numpy()
    return Prompt(
        context, tokens(QUESTIONS, SUFFIX, seed=seed + 100).numpy(), answer, max_new_tokens=max_new_tokens
    )


def singles(prompt: Prompt) -> list[Prompt]:
    return [replace(prompt, continuations=continuation[None]) for continuation in prompt.continuations]


def recomputed(built: VariantModel, prompt: Prompt) -> np.ndarray:
    """Returns (N, max_new_tokens) greedy ids without a cache: reads all tokens again for every new token."""
    rows = []
    with torch.inference_mode():
        for continuation in prompt.continuations:
            ids = torch.from_numpy(np.concatenate([prompt.context, continuation]))[None]
            for _ in range(prompt.max_new_tokens):
                logits = built.model.head(built(ids, length=prompt.length)[:, -1])
                ids = torch.cat([ids, logits.float().argmax(-1, keepdim=True)], 1)
            rows.append(ids[0, -prompt.max_new_tokens :].numpy())
    return np.stack(rows)


@each_variant
def test_questions_over_one_context_score_as_alone(variant: Variant) -> None:
    """With `shared_prefill` or without: 1e-6, because logits are rounded to float32."""
    built = build(variant)
    prompt = prompt_of(built.length, answer=SUFFIX)
    (together,) = lm_of(built).loglikelihood([prompt])
    apart = list(lm_of(built).loglikelihood(singles(prompt)))
    np.testing.assert_allclose(together.logprob, np.concatenate([one.logprob for one in apart]), atol=1e-6)
    np.testing.assert_array_equal(together.greedy_ids, np.concatenate([one.greedy_ids for one in apart]))


@each_variant
def test_generation_equals_recomputation(variant: Variant) -> None:
    """All questions of a prompt in one call, and each as a prompt of its own, give the same ids."""
    built = build(variant)
    prompt = prompt_of(built.length, max_new_tokens=NEW)
    expected = recomputed(built, prompt)
    (together,) = lm_of(built).generate([prompt])
    np.testing.assert_array_equal(together.ids, expected)
    apart = list(lm_of(built).generate(singles(prompt)))
    np.testing.assert_array_equal(np.concatenate([one.ids for one in apart]), expected)


class Unshared(Extension):
    """Embeddings that depend on all tokens of a call, so that a cache would be wrong."""

    def __init__(self, inner: PositionScheme, context: ExtensionContext) -> None:
        super().__init__(inner, context)
        self.traits = replace(inner.traits, shared_prefill=False, prefix_stable=False)

    def embed(self, x_BTW: torch.Tensor, geo: Geometry, layer: int) -> torch.Tensor:
        return x_BTW + x_BTW.mean(1, keepdim=True)


def test_scheme_without_shared_prefill_is_not_cached() -> None:
    built = build(Variant("rope"))
    context = ExtensionContext(built.model.architecture.shape(16), built.length)
    built.model = built.model.with_scheme(Unshared(built.scheme, context))
    prompt = prompt_of(built.length, max_new_tokens=NEW)
    (generated,) = lm_of(built).generate([prompt])
    np.testing.assert_array_equal(generated.ids, recomputed(built, prompt))
    # With a false trait the cache gives other scores, so that the test can fail.
    false_traits = replace(built.scheme.traits, shared_prefill=True)
    scored = prompt_of(built.length, answer=SUFFIX)
    (honest,) = lm_of(built).loglikelihood([scored])
    built.scheme.traits = false_traits
    (shared,) = lm_of(built).loglikelihood([scored])
    assert np.abs(shared.logprob - honest.logprob).max() > 1e-3


@pytest.mark.parametrize("max_tokens_per_batch", [1, 40, 10_000])
def test_batches_of_prompts_of_any_shapes(max_tokens_per_batch: int) -> None:
    """Sequences are not padded to a common length, so that results do not depend on the batch."""
    built = build(Variant("t5"))
    many = [prompt_of(length, max_new_tokens=NEW, seed=length) for length in (20, 31, 31, 9)]
    many[1:1] = singles(many[0]) + singles(many[3])[:1]
    generated = list(lm_of(built, max_tokens_per_batch).generate(many))
    assert len(generated) == len(many)
    for prompt, one in zip(many, generated, strict=True):
        np.testing.assert_array_equal(one.ids, recomputed(built, prompt))


def test_lowest_id_of_equal_logits_is_generated() -> None:
    built = build(Variant("nope"))
    with torch.no_grad():
        built.model.head.weight[7:] = built.model.head.weight[3]
        built.model.head.weight[:3] = 0
        built.model.head.weight[4:7] = 0
    prompt = prompt_of(20, max_new_tokens=NEW)
    (generated,) = lm_of(built).generate([prompt])
    assert set(generated.ids.ravel()) <= {0, 3}
    assert 3 in generated.ids
