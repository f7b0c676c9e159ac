"""Any model of posbench as a model of lm-evaluation-harness: `lm_eval.simple_evaluate(model=PosbenchLM(...), ...)`."""

from __future__ import annotations

from typing import Any

from lm_eval.api import model as harness

from posbench.data.corpus import Corpus
from posbench.lm.interface import LM
from posbench.tasks.lm_eval_requests import METHODS, prompts_of, response_of


class PosbenchLM(harness.LM):
    """A model with its tokenizer, at one length.

    Args:
        lm: trained here or pretrained, with an extension or without.
        corpus: its tokenizer and vocabulary.
        length: longest text in tokens, prompt and answer together; may be any multiple of the training length.
    """

    def __init__(self, lm: LM, corpus: Corpus, length: int) -> None:
        super().__init__()
        self.lm, self.corpus, self.max_length = lm, corpus, length

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return self.respond(requests)

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return self.respond(requests)

    def generate_until(self, requests: list[Any]) -> list[str]:
        return self.respond(requests)

    def respond(self, requests: list[Any]) -> list[Any]:
        """Returns the responses to requests of one type, in order."""
        found = []
        for request in requests:
            prompts = prompts_of(request, self.corpus, self.max_length)
            answers = list(getattr(self.lm, METHODS[request.request_type])(prompts))
            found.append(response_of(request, prompts, answers, self.corpus))
        return found
