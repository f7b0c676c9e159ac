"""Requests of lm-eval as prompts, and empty documents."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from posbench.errors import IncompatibleError

pytest.importorskip("lm_eval")

from posbench.tasks import lm_eval_requests
from posbench.tasks.lm_eval import LMEval


@pytest.fixture(autouse=True)
def by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are bytes."""

    def encoded(_: Any, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    monkeypatch.setattr(lm_eval_requests, "encode_text", encoded)


CORPUS: Any = SimpleNamespace(vocabulary=SimpleNamespace(bos=256))


def new_tokens(**options: Any) -> int:
    request = SimpleNamespace(
        request_type="generate_until", args=("a question", {"until": ["\n"], **options})
    )
    (prompt,) = lm_eval_requests.prompts_of(request, CORPUS, 1000)
    return prompt.max_new_tokens


def test_settings_of_generation() -> None:
    """Fault: LongBench's temperature 1 with do_sample false was refused, and names besides max_gen_toks were not read."""
    assert new_tokens() == lm_eval_requests.MAX_NEW_TOKENS
    for name in ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"):
        assert new_tokens(**{name: 7, "do_sample": False, "temperature": 1}) == 7
    for sampled in ({"do_sample": True, "temperature": 1.0}, {"temperature": 0.5}):
        with pytest.raises(IncompatibleError, match="samples its answers"):
            new_tokens(**sampled)


def test_an_empty_document_is_worth_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: a text of no tokens, which has no prompt, was a traceback."""
    texts = ["", "some text"]
    instances = [
        SimpleNamespace(
            request_type="loglikelihood_rolling", args=(text,), doc_id=number, idx=0, repeats=1, doc=text
        )
        for number, text in enumerate(texts)
    ]
    responses = []

    def process_results(text: str, results: list[float]) -> dict[str, Any]:
        responses.append(results[0])
        return {"bits_per_byte": (results[0], len(text))}

    def apply_filters() -> None:
        for one in instances:
            one.filtered_resps = {"none": one.resps[0]}

    harness = SimpleNamespace(
        instances=instances,
        apply_filters=apply_filters,
        process_results=process_results,
        count_bytes=len,
        doc_to_target=str,
    )
    monkeypatch.setattr(LMEval, "harness_task", lambda self, seed: harness)
    task = LMEval("texts")
    prompts = list(task.prompts(64, CORPUS, 64, 0))
    assert len(prompts) == 1
    answers = [SimpleNamespace(logprob=np.full((1, one.n_scored), -2.0)) for one in prompts]
    found = list(task.process_all_results(zip(prompts, answers, strict=True)))
    assert responses == [0.0, -2.0 * 9]
    assert [(one.metric, one.value_sum, one.n) for one in found] == [("nll", 18.0, 9), ("bytes", 9.0, 9)]
