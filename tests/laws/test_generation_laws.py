"""What LMs owe on every scheme and extension: a cache changes no score and no generated token."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from variants import Run, Variant, each_variant, run, tokens

from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.interface import Prompt
from posbench.lm.native import NativeLM
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.scheme import PositionScheme

QUESTIONS, SUFFIX, NEW = 3, 2, 4


def lm_of(found: Run, max_tokens_per_batch: int = 10_000) -> NativeLM:
    return NativeLM(found.model, 16, KernelDispatcher("auto"), nullcontext(), max_tokens_per_batch)


def prompt_of(length: int, answer: int = 0, max_new_tokens: int = 0, seed: int = 1) -> Prompt:
    """Three questions over one context, read as `length` tokens."""
    context = tokens(length + 1 - SUFFIX - max_new_tokens, seed=seed).numpy()
    return Prompt(
        context, tokens(QUESTIONS, SUFFIX, seed=seed + 100).numpy(), answer, max_new_tokens=max_new_tokens
    )


def singles(prompt: Prompt) -> list[Prompt]:
    return [replace(prompt, continuations=continuation[None]) for continuation in prompt.continuations]


def recomputed(found: Run, prompt: Prompt) -> np.ndarray:
    """(N, max_new_tokens) ids: everything is read again for every token of every question."""
    rows = []
    with torch.inference_mode():
        for continuation in prompt.continuations:
            ids = torch.from_numpy(np.concatenate([prompt.context, continuation]))[None]
            for _ in range(prompt.max_new_tokens):
                logits = found.model.head(found(ids, length=prompt.length)[:, -1])
                ids = torch.cat([ids, logits.float().argmax(-1, keepdim=True)], 1)
            rows.append(ids[0, -prompt.max_new_tokens :].numpy())
    return np.stack(rows)


@each_variant
def test_questions_over_one_context_score_as_each_alone(variant: Variant) -> None:
    """Whether the scheme shares a prefill or not: 1e-6, since logits are rounded to float32."""
    found = run(variant)
    prompt = prompt_of(found.length, answer=SUFFIX)
    (together,) = lm_of(found).loglikelihood([prompt])
    apart = list(lm_of(found).loglikelihood(singles(prompt)))
    np.testing.assert_allclose(together.logprob, np.concatenate([one.logprob for one in apart]), atol=1e-6)
    np.testing.assert_array_equal(together.greedy_ids, np.concatenate([one.greedy_ids for one in apart]))


@each_variant
def test_generation_is_recomputation(variant: Variant) -> None:
    """All questions of a prompt at once, and each as a prompt of its own: the same ids."""
    found = run(variant)
    prompt = prompt_of(found.length, max_new_tokens=NEW)
    expected = recomputed(found, prompt)
    (together,) = lm_of(found).generate([prompt])
    np.testing.assert_array_equal(together.ids, expected)
    apart = list(lm_of(found).generate(singles(prompt)))
    np.testing.assert_array_equal(np.concatenate([one.ids for one in apart]), expected)


class Unshared(Extension):
    """What a token is depends on how many are read with it, so that nothing may be kept."""

    def __init__(self, inner: PositionScheme, context: ExtensionContext) -> None:
        super().__init__(inner, context)
        self.traits = replace(inner.traits, shared_prefill=False, prefix_stable=False)

    def embed(self, x_BTW: torch.Tensor, geo: Geometry, layer: int) -> torch.Tensor:
        return x_BTW + x_BTW.mean(1, keepdim=True)


def test_a_scheme_without_a_static_cache_takes_the_path_by_prompt() -> None:
    found = run(Variant("rope"))
    context = ExtensionContext(found.model.architecture.shape(16), found.length)
    found.model = found.model.with_scheme(Unshared(found.scheme, context))
    test = prompt_of(found.length, max_new_tokens=NEW)
    (generated,) = lm_of(found).generate([test])
    np.testing.assert_array_equal(generated.ids, recomputed(found, test))
    # The cache would have told otherwise.
    promised = Unshared(found.scheme, found.scheme.context)
    promised.traits = replace(promised.traits, shared_prefill=True)
    scored = prompt_of(found.length, answer=SUFFIX)
    (honest,) = lm_of(found).loglikelihood([scored])
    found.scheme.traits = promised.traits
    (shared,) = lm_of(found).loglikelihood([scored])
    assert np.abs(shared.logprob - honest.logprob).max() > 1e-3


@pytest.mark.parametrize("max_tokens_per_batch", [1, 40, 10_000])
def test_prompts_of_any_shapes_in_any_batches(max_tokens_per_batch: int) -> None:
    """No sequence is padded to the length of another, so the company that a prompt keeps changes nothing."""
    found = run(Variant("t5"))
    many = [prompt_of(length, max_new_tokens=NEW, seed=length) for length in (20, 31, 31, 9)]
    many[1:1] = singles(many[0]) + singles(many[3])[:1]
    generated = list(lm_of(found, max_tokens_per_batch).generate(many))
    assert len(generated) == len(many)
    for prompt, one in zip(many, generated, strict=True):
        np.testing.assert_array_equal(one.ids, recomputed(found, prompt))


def test_of_equal_logits_the_lowest_id_is_generated() -> None:
    found = run(Variant("nope"))
    with torch.no_grad():
        found.model.head.weight[7:] = found.model.head.weight[3]
        found.model.head.weight[:3] = 0
        found.model.head.weight[4:7] = 0
    prompt = prompt_of(20, max_new_tokens=NEW)
    (generated,) = lm_of(found).generate([prompt])
    assert set(generated.ids.ravel()) <= {0, 3}
    assert 3 in generated.ids
