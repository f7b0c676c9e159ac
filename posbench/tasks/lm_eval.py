"""Any task of lm-evaluation-harness: its documents, prompts and metrics, on the models and lengths of posbench.

Gao et al. The Language Model Evaluation Harness. github.com/EleutherAI/lm-evaluation-harness.
Deviations: a prompt begins with bos, also if it is cut to the length; answers are decoded greedily; metrics that are no
means over documents (F1, BLEU) are left out. As in lm-eval, a text that is scored as a whole is read in windows, of which
only the first begins with bos; the others begin with the last token of the window before them.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from functools import cache, partial
from importlib import import_module, metadata
from io import StringIO
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn

from posbench.data.corpus import Corpus
from posbench.errors import ConfigError, DataError, IncompatibleError, PosbenchError, unknown
from posbench.instantiate import allowed_packages, register
from posbench.lm.interface import Prompt
from posbench.tasks.lm_eval_requests import METHODS, prompts_of, response_of
from posbench.tasks.task import MetricValue, Task

# Metrics of lm-eval that are log-likelihoods of a document -> metric here. The first is one number, the others are
# divided by the words or the bytes of the document.
PERPLEXITY = "perplexity"
RENAMED = {"exact_match": "exact_answer"}
PER_TEXT = ("word_perplexity", "byte_perplexity", "bits_per_byte")


@register("task/lm_eval")
class LMEval(Task):
    """A task of lm-eval by its name.

    Prompts: those of lm-eval. A prompt longer than `length` loses its first tokens; shorter ones stay as they are.

    Metrics, for each document:
        acc, acc_norm and others of lm-eval by their names (fraction, 0 to 1). A second filter adds its name:
            exact_answer/strict-match.
        exact_answer (fraction, 0 or 1): lm-eval's exact_match. Rows with posbench's metric of that name are judged by
            the gate of retrieval, which does not apply to questions of knowledge.
        nll (nats): of the answer, where lm-eval has `perplexity`; of the whole text, with `bytes`, where it has
            `bits_per_byte`, `byte_perplexity` or `word_perplexity`.
        bytes (bytes): of the text.

    Args:
        name: of the task in lm-eval; a group of tasks is refused.
        num_examples: documents, from the first on.
        num_fewshot: solved examples before each question; null is the task's own number.
        include_path: a folder with yaml files of tasks, which can run code: allow=[NAME OF THE FOLDER] must permit it.
            Empty for the tasks that lm-eval has.
    """

    task = "lm_eval"
    protocol = "lm_eval"
    metric = "acc"
    unit = "fraction"
    supports_ensembles = False  # lm-eval does not mark questions
    check_all_prompts = True

    def __init__(
        self, name: str, num_examples: int = 100, num_fewshot: int | None = None, include_path: str = ""
    ) -> None:
        if num_examples < 1:
            raise ConfigError(f"lm_eval with num_examples={num_examples}: give at least 1")
        self.name, self.num_examples = name, num_examples
        self.num_fewshot, self.include_path = num_fewshot, include_path
        self.variant = name if num_fewshot is None else f"{name} num_fewshot={num_fewshot}"

    @property
    def output_type(self) -> str:  # type: ignore[override]
        """The method of `LM` for the requests of the task."""
        kind = self.harness_task(0).OUTPUT_TYPE
        return METHODS["loglikelihood" if kind == "multiple_choice" else kind]

    @property
    def version(self) -> int:  # type: ignore[override]
        """A hash of the task's settings and documents and of the version of lm-eval, since files of tasks can change."""
        task = self.harness_task(0)
        requests = [[request.doc, request.args] for request in task.instances]
        content = [metadata.version("lm_eval"), task.dump_config(), requests]
        text = json.dumps(content, sort_keys=True, default=source_of)
        return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)

    def harness_task(self, seed: int) -> Any:
        """Returns the task of lm-eval with its requests built, once per process."""
        if self.include_path and (folder := Path(self.include_path).name) not in allowed_packages():
            raise ConfigError(
                f"lm_eval include_path {self.include_path!r}: yaml files of lm-eval can run code and were not read; add "
                f"allow=[{folder}] to the command line"
            )
        return load_task(self.name, self.include_path, self.num_fewshot, self.num_examples, seed)

    def begin_with(self, prompt: Prompt, bos: int) -> Prompt:
        """Returns the prompt, which has a bos where lm-eval has one."""
        return prompt

    def prompts(self, length: int, corpus: Corpus, train_len: int, seed: int) -> Iterator[Prompt]:
        for index, request in enumerate(self.harness_task(seed).instances):
            for prompt in prompts_of(request, corpus, length):
                prompt.doc.update(request=index, corpus=corpus, seed=seed)
                yield prompt

    def process_all_results(self, answered: Iterable[tuple[Prompt, Any]]) -> Iterator[MetricValue]:
        parts: dict[int, list[tuple[Prompt, Any]]] = defaultdict(list)
        for prompt, answer in answered:
            parts[prompt.doc["request"]].append((prompt, answer))
        first = next(iter(parts.values()))[0][0].doc
        task = self.harness_task(first["seed"])
        by_doc: dict[int, list[Any]] = defaultdict(list)
        tokens: dict[int, int] = defaultdict(int)
        for index, request in enumerate(task.instances):
            # An empty text that is scored as a whole has no prompt.
            prompts, answers = [one for one, _ in parts[index]], [one for _, one in parts[index]]
            response = response_of(request, prompts, answers, first["corpus"])
            request.resps, request.filtered_resps = [response] * (request.repeats or 1), {}
            by_doc[request.doc_id].append(request)
            tokens[request.doc_id] += sum(one.n_scored for one in prompts)
        task.apply_filters()
        found = [
            one
            for doc_id, requests in by_doc.items()
            for one in self.measures(task, doc_id, sorted(requests, key=lambda one: one.idx), tokens[doc_id])
        ]
        if not found:
            raise IncompatibleError(
                f"lm_eval task {self.name} has no metric that is a mean over documents: choose another task"
            )
        yield from found

    def measures(self, task: Any, doc_id: int, requests: list[Any], tokens: int) -> Iterator[MetricValue]:
        """Yields the metrics of one document, of which `tokens` were scored."""
        for position, name in enumerate(requests[0].filtered_resps):
            results = [request.filtered_resps[name] for request in requests]
            values = task.process_results(requests[0].doc, results)
            end = f"/{name}" if position else ""
            place = (f"{self.name}-{doc_id}", doc_id)
            for name_there, value in values.items():
                metric = RENAMED.get(name_there, name_there)
                if metric == PERPLEXITY and isinstance(value, Real):
                    yield MetricValue(f"nll{end}", -float(value), 1, "nats", *place)
                elif isinstance(value, Real):
                    yield MetricValue(f"{metric}{end}", float(value), 1, "fraction", *place)
            texts = [metric for metric in PER_TEXT if metric in values]
            if texts and tokens:
                count = task.count_bytes(task.doc_to_target(requests[0].doc))
                yield MetricValue(f"nll{end}", -float(values[texts[0]][0]), tokens, "nats", *place)
                yield MetricValue(f"bytes{end}", float(count), tokens, "bytes", *place)


@contextmanager
def without_hub_metrics() -> Iterator[list[str]]:
    """Refuses metrics of the `evaluate` library, which are code of the hub; yields the names of those refused."""
    library: Any = import_module("evaluate")
    wanted: list[str] = []

    def refuse(name: str, *arguments: Any, **settings: Any) -> NoReturn:
        wanted.append(name)
        raise IncompatibleError(f"metric {name} is code of the hub")

    original, library.load = library.load, refuse
    try:
        yield wanted
    except Exception:
        if not wanted:
            raise
        raise IncompatibleError(
            f"this task of lm-eval downloads the code of its metric {wanted[0]}, which is never run here: choose another"
        ) from None
    finally:
        library.load = original


@cache
def load_task(name: str, include_path: str, num_fewshot: int | None, num_examples: int, seed: int) -> Any:
    """Loads a task of lm-eval and builds its requests.

    Raises:
        ConfigError: if lm-eval is not installed, or has no such task.
        DataError: if its data cannot be loaded.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise ConfigError(
            "task=lm_eval needs lm-evaluation-harness: run pip install -e '.[lm-eval]' in the clone, or choose another task"
        ) from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=include_path or None, include_defaults=not include_path)
    if name not in manager.all_tasks:  # a path of a file would be loaded, too
        raise (
            unknown("task of lm-eval", name, manager.all_tasks)
            if include_path
            else ConfigError(
                f"lm-eval has no task {name!r}: give task.name=NAME, one of those that `lm-eval ls tasks` lists"
            )
        )
    try:
        with redirect_stderr(StringIO()), without_hub_metrics() as wanted:  # progress bars
            found = manager.load([name])["tasks"]
        if len(found) != 1:
            some = ", ".join(sorted(found)[:3])
            raise ConfigError(
                f"lm_eval {name!r} is a group of {len(found)} tasks: give one of them, such as {some}"
            )
        task: Any = next(iter(found.values()))
        if wanted or getattr(task, "UNSAFE_CODE", False):
            what = (
                f"downloads the code of its metric {wanted[0]}" if wanted else "runs code that models write"
            )
            raise IncompatibleError(
                f"lm_eval task {name!r} {what}, which is never run here: choose another task"
            )
        if num_fewshot is not None:
            task.set_config(key="num_fewshot", value=num_fewshot)
        task.set_fewshot_seed(seed=seed)
        with redirect_stderr(StringIO()):  # a progress bar
            task.build_all_requests(limit=num_examples)
    except PosbenchError:
        raise
    except Exception as error:  # of datasets, jinja2, yaml and the code of tasks: no common base class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"lm_eval task {name!r} cannot be loaded ({reason}): choose another task") from None
    return task


def source_of(value: Any) -> Any:
    """Returns what identifies a value of a task's settings in every process, for functions their source.

    The text of a function holds its address in memory.
    """
    if isinstance(value, partial):
        return [source_of(value.func), list(value.args), value.keywords]
    if callable(value):
        with suppress(OSError, TypeError):  # a function without a file, or an object that can be called
            return inspect.getsource(value)
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
