"""Attention weights of the last query against a softmax computed pair by pair, and the metrics of the task."""

import cmath
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from posbench.data.associative_recall import num_records
from posbench.data.shard import Shard
from posbench.data.vocabulary import Vocabulary
from posbench.errors import UndefinedError
from posbench.extensions.rerope import ReRoPE
from posbench.instantiate import instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.attention_weights import AttentionWeightRecorder
from posbench.lm.interface import AttentionWeights
from posbench.lm.native import NativeLM
from posbench.model.gpt import GPT, Size
from posbench.position.extension import ExtensionContext
from posbench.position.geometry import Geometry
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme
from posbench.schemes.alibi import ALiBi
from posbench.schemes.cope import CoPE
from posbench.schemes.linear_attention import LinearAttention
from posbench.schemes.rope import RoPE
from posbench.schemes.shaw import Shaw
from posbench.schemes.softmax_one import SoftmaxOne
from posbench.schemes.t5 import T5Bias
from posbench.schemes.window import Window
from posbench.tasks.attention import KeyValueAttention, buckets, entropy
from posbench.tasks.key_value import KeyValue

SHAPE = ModelShape(n_layers=2, n_heads=2, head_dim=8, d_model=16, train_len=16)
TOKENS = 24


def dot(h, q, k, d):
    return float(q @ k)


def rotated(h, q, k, d):
    """RoPE by complex numbers: each pair of dimensions is rotated by the distance."""
    pairs = zip(q.view(-1, 2).tolist(), k.view(-1, 2).tolist(), strict=True)
    return sum(
        (complex(*a) * complex(*b).conjugate() * cmath.exp(1j * d * 10000 ** (-2 * m / 8))).real
        for m, (a, b) in enumerate(pairs)
    )


def scheme(cls, **settings):
    torch.manual_seed(0)
    return cls(SHAPE, **settings).double()


def shaw(own):
    return lambda h, q, k, d: float(q @ (k + own.key_LKD[0, min(d, own.max_relative_position)]))


def t5(own):
    return lambda h, q, k, d: float(q @ k) + 8**0.5 * float(own.bias_KH[d if d < 16 else None, h])


def cope(own):
    """Logits of a whole row, since the contextual position of a key depends on the keys after it."""

    def row(q, keys):
        content = [float(q @ k) / 8**0.5 for k in keys]
        logits = []
        for j in range(len(keys)):
            position = min(sum(1 / (1 + math.exp(-one)) for one in content[j:]), 63)
            low = int(min(position, 62))
            below, above = (float(q @ own.vector_LPD[0, low + up]) for up in (0, 1))
            logits.append(content[j] + below + (position - low) * (above - below))
        return logits

    return row


def softmax_by_pairs(logit, tokens, inputs, b, h, extra=0.0):
    """Softmax over the keys of the last query; `extra` is added to the normalizer, and None masks a pair."""
    q, keys = inputs.q_BHTD[b, h, -1], inputs.k_BHSD[b, h]
    logits = [logit(h, q, k, tokens - 1 - j) for j, k in enumerate(keys)]
    exps = [0.0 if one is None else math.exp(one / 8**0.5) for one in logits]
    return [one / (extra + sum(exps)) for one in exps]


CASES = {
    "rope": (lambda: scheme(RoPE), lambda own: rotated, TOKENS),
    "alibi": (
        lambda: scheme(ALiBi),
        lambda own: lambda h, q, k, d: float(q @ k) - 8**0.5 * d * 2.0 ** (-4 * (h + 1)),
        TOKENS,
    ),
    "t5": (lambda: scheme(T5Bias), t5, 16),
    "window": (
        lambda: scheme(Window, window=5),
        lambda own: lambda h, q, k, d: float(q @ k) if d < 5 else None,
        TOKENS,
    ),
    "rerope": (
        lambda: ReRoPE(scheme(RoPE), ExtensionContext(SHAPE, TOKENS), window=5),
        lambda own: lambda h, q, k, d: rotated(h, q, k, min(d, 5)),
        TOKENS,
    ),
    "shaw": (lambda: scheme(Shaw, max_relative_position=4), shaw, TOKENS),
    "softmax_one": (lambda: scheme(SoftmaxOne), lambda own: dot, TOKENS),
}


def attention_inputs(tokens, start=0):
    draw = torch.Generator().manual_seed(0)
    stream = torch.randn(2, tokens, SHAPE.d_model, generator=draw, dtype=torch.float64)
    q, k = torch.randn(2, 2, 2, tokens, SHAPE.head_dim, generator=draw, dtype=torch.float64)
    return AttentionInputs(
        0, Geometry.from_range(start, tokens), stream[:, start:], stream, q[:, :, start:], k
    )


def recorded(own, inputs):
    """(B, H, S) recorded weights of one layer; the recorder leaves attention to the shared implementation."""
    recorder = AttentionWeightRecorder(own)
    assert recorder.attention(inputs, torch.zeros_like(inputs.k_BHSD), KernelDispatcher("auto")) is None
    return recorder.weights_LBHS[0]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("start", [0, -2], ids=["all queries", "last two queries after a cache"])
@torch.no_grad()
def test_weights_are_the_softmax_of_the_logits(name, start):
    make, logit, tokens = CASES[name]
    own, inputs = make(), attention_inputs(tokens, start % tokens)
    weights, extra = recorded(own, inputs), 1.0 if name == "softmax_one" else 0.0
    for b, h in np.ndindex(2, 2):
        expected = softmax_by_pairs(logit(own), tokens, inputs, b, h, extra)
        torch.testing.assert_close(
            weights[b, h], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
        )
    total = weights.sum(-1)
    assert (total < 0.999).all() if extra else (total - 1).abs().max() < 1e-12


@torch.no_grad()
def test_weights_of_a_row_wise_bias():
    own, inputs = scheme(CoPE), attention_inputs(TOKENS)
    weights = recorded(own, inputs)
    for b, h in np.ndindex(2, 2):
        logits = torch.tensor(cope(own)(inputs.q_BHTD[b, h, -1], inputs.k_BHSD[b, h]), dtype=torch.float64)
        torch.testing.assert_close(weights[b, h], logits.softmax(-1), rtol=0, atol=1e-12)


def test_attention_without_weights_is_undefined():
    with pytest.raises(UndefinedError, match="without weights") as error:
        recorded(scheme(LinearAttention), attention_inputs(TOKENS))
    assert "\n" not in str(error.value)


class Text:
    """A corpus of one test document."""

    name = "numbers"
    vocabulary = Vocabulary("numbers", 100)

    @property
    def evaluated(self):
        return self.split("test")

    def split(self, name):
        return Shard("test", np.arange(200) % 100, np.array([0, 200]), ["d0"])


@pytest.mark.parametrize("shared", [True, False])
def test_native_lm_returns_weights_in_order_with_and_without_a_shared_prefill(shared):
    size = Size(n_layers=2, d_model=16, n_heads=2)
    own = instantiate({"_target_": "posbench.schemes.rope.RoPE"}, PositionScheme, SHAPE)
    model = GPT(size, Text.vocabulary.vocab_size, own, 0).double()
    traits = replace(own.traits, shared_prefill=shared)
    own.traits = traits
    task = KeyValueAttention(num_contexts=2, num_questions=3)
    prompts = list(task.prompts(24, Text(), 16, 0))
    lm = NativeLM(model, 16, KernelDispatcher("auto"), partial(torch.autocast, "cpu", enabled=False), 50)
    answers = list(lm.attention_weights(prompts))
    assert len(answers) == 2
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.weight_NLHS.shape == (3, 2, 2, 24)
        for row, continuation in enumerate(prompt.continuations):
            ids = torch.from_numpy(np.concatenate([prompt.context, continuation[:-1]]))[None]
            observed = AttentionWeightRecorder(own)
            with torch.no_grad():
                model.with_scheme(observed)(ids, length=24)
            alone = torch.stack(observed.weights_LBHS)[:, 0]
            torch.testing.assert_close(torch.from_numpy(answer.weight_NLHS[row]), alone, rtol=0, atol=1e-12)


def test_contexts_and_questions_are_those_of_key_value():
    retrieval = list(KeyValue(num_contexts=2).prompts(64, Text(), 16, 3))
    for prompt, other in zip(KeyValueAttention(2, 4).prompts(64, Text(), 16, 3), retrieval, strict=True):
        assert np.array_equal(prompt.context, other.context)
        assert np.array_equal(prompt.continuations, other.continuations[prompt.doc["records"]])


def metrics(weight_NLHS, prompt, task):
    values = task.process_results(prompt, AttentionWeights(weight_NLHS))
    return {(one.metric, one.layer, one.head, one.position): one.value_sum / one.n for one in values}


def test_metrics_of_known_weights():
    task, length = KeyValueAttention(num_contexts=1, num_questions=4), 64
    (prompt,) = task.prompts(length, Text(), 16, 0)
    records = num_records(length, Text.vocabulary.num_keys)
    queried = prompt.doc["records"].tolist()
    assert queried[0] == 0
    assert queried[-1] == records - 1
    assert len(queried) == 4
    weight = np.zeros((4, 2, 3, length))
    weight[:, 0, 0] = 1 / length  # uniform
    weight[np.arange(4), 0, 1, prompt.doc["gold_index"]] = 1  # only the answer
    weight[:, 0, 2, 0] = 0.5  # half on the first token, half missing
    weight[:, 1] = weight[:, 0, ::-1]
    for row, continuation in enumerate(prompt.continuations):
        assert prompt.context[prompt.doc["gold_index"][row]] == continuation[1]
        assert prompt.context[prompt.doc["gold_index"][row] - 1] == continuation[0]
    found = metrics(weight, prompt, task)
    assert found["attention_entropy", 0, 0, None] == pytest.approx(math.log(length))
    assert found["attention_entropy", 0, 1, None] == 0
    assert found["attention_entropy", 0, 2, None] == pytest.approx(math.log(2))
    assert [found["sink_attention", 0, head, None] for head in range(3)] == [4 / 64, 0, 0.5]
    assert found["last_quarter_attention", 0, 0, None] == 0.25
    assert [found["answer_attention", 0, head, queried[0]] for head in range(3)] == [1 / 64, 1, 0]
    ends = [key[3] for key in found if key[:3] == ("attention_at_distance", 0, 0)]
    assert ends == [64, 32, 16, 8, 4, 2, 1]
    assert found["attention_at_distance", 0, 0, 64] == 0.5
    assert found["attention_at_distance", 0, 2, 64] == 0.5
    for head, total in enumerate((1, 1, 0.5)):
        assert sum(found["attention_at_distance", 0, head, end] for end in ends) == pytest.approx(total)
    # Fault: no test noticed numbers of the first layer in place of those of the second.
    first = {(metric, head, at): one for (metric, layer, head, at), one in found.items() if layer == 0}
    second = {(metric, 2 - head, at): one for (metric, layer, head, at), one in found.items() if layer == 1}
    assert second == pytest.approx(first)


def test_buckets_double_in_size_and_distance_zero_has_its_own():
    assert buckets(9)[::-1].tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 4]
    assert entropy(np.array([0.5, 0.25])) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))
