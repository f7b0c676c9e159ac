"""Question answering over passages: the paper's prompts, metric and data, and errors in files."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from prose import generated_text, prose, sample, whole

from posbench.errors import ConfigError, DataError, LengthError
from posbench.tasks.multi_document import MultiDocument
from posbench.tasks.passages import best_subspan_em, distractors, load_questions, normalize_answer

KINDS = ["bytes", "bpe"]
QUESTIONS = 8


def row(n: int, **changes) -> dict:
    """A question whose answer, a colour, is in one passage."""
    passage = {
        "title": f"Boat {n}",
        "text": f"Boat number {n} is colour{n} and " + "old " * n,
        "isgold": True,
        "hasanswer": True,
    }
    return {
        "question": f"what colour is boat {n}",
        "answers": [f"colour{n}", f"The Colour {n}"],
        "ctxs": [passage],
    } | changes


@pytest.fixture
def write(tmp_path):
    def put(rows: list, name: str = "questions.jsonl") -> str:
        text = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows)
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        return str(tmp_path / name)

    return put


@pytest.fixture
def path(write) -> str:
    return write([row(n) for n in range(QUESTIONS)])


def expected(question: str, passages: list[tuple[str, str]], query_aware: bool) -> str:
    """The paper's prompts."""
    ask = f"Question: {question}\nAnswer:"
    if not passages:
        return ask
    results = "\n".join(
        f"Document [{n}](Title: {title}) {text}" for n, (title, text) in enumerate(passages, 1)
    )
    return (
        "Write a high-quality answer for the given question using only the provided search results "
        "(some of which might be irrelevant).\n\n"
        + (f"Question: {question}\n\n" if query_aware else "")
        + f"{results}\n\n{ask}"
    )


def passages_of(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.split("\n") if line.startswith("Document [")]
    return [tuple(line.split("](Title: ", 1)[1].split(") ", 1)) for line in lines]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("query_aware", [False, True])
def test_prompts_equal_the_papers_and_have_one_length(path, kind, query_aware):
    corpus = prose(kind)
    task = MultiDocument(path, [3, 5], 3, 4, query_aware)
    lengths = task.fixed_lengths(corpus)
    assert sorted(set(lengths)) == lengths
    for count, length in zip([3, 5], lengths, strict=True):
        made = list(task.prompts(length, corpus, 64, 0))
        assert len(made) == 12
        filler_lengths = []
        for prompt in made:
            assert (prompt.length, prompt.max_new_tokens, prompt.n_scored) == (length, 100, 0)
            text, question = corpus.text(whole(prompt)), task.questions[prompt.doc["question"]]
            passages, gold = passages_of(text), prompt.doc["gold"]
            papers_prompt = expected(question.text, passages, query_aware)
            assert text.endswith(papers_prompt)
            asked = corpus.text(prompt.context[-prompt.question_len :])
            assert f"\nQuestion: {question.text}\nAnswer:".startswith(asked)
            filler_lengths.append(len(text) - len(papers_prompt))
            assert len(set(passages)) == count
            has_answer = [best_subspan_em(" ".join(one), question.answers) for one in passages]
            assert has_answer == [i == gold for i in range(count)]
        assert min(filler_lengths) == 0  # the longest prompt has no filler
        assert [prompt.doc["gold"] for prompt in made[:3]] == [0, (count - 1) // 2, count - 1]
        assert [prompt.doc["depth"] for prompt in made[:3]] == [0, 0.5, 1]


def test_other_passages_keep_their_order_when_the_gold_passage_moves(path):
    corpus, task = prose(), MultiDocument(path, [5], 5, 1)
    made = list(task.prompts(task.fixed_lengths(corpus)[0], corpus, 64, 0))
    rests = [
        [one for i, one in enumerate(passages_of(corpus.text(whole(p)))) if i != p.doc["gold"]] for p in made
    ]
    assert all(rest == rests[0] for rest in rests)


@pytest.mark.parametrize(("documents", "variant"), [([0], "closed_book"), ([1], "oracle")])
def test_prompts_of_the_closed_book_and_oracle_settings(path, documents, variant):
    corpus, task = prose(), MultiDocument(path, documents, 5, 3)
    assert task.variant == variant
    made = list(task.prompts(task.fixed_lengths(corpus)[0], corpus, 64, 0))
    assert len(made) == 3  # at most one position of the gold passage
    for prompt in made:
        question, text = task.questions[prompt.doc["question"]], corpus.text(whole(prompt))
        gold = [(question.gold.title, question.gold.text)] if documents == [1] else []
        assert text.endswith(expected(question.text, gold, False))
        assert (prompt.doc["gold"], prompt.doc["depth"]) == ((0, 0.0) if gold else (None, None))


def test_the_first_line_of_an_answer_is_matched_by_the_papers_metric(path):
    corpus, task = prose(), MultiDocument(path, [3], 1, 4)
    made = list(task.prompts(task.fixed_lengths(corpus)[0], corpus, 64, 0))
    values = []
    for prompt, pattern in zip(made, [" It is {}!", " no\n{}", "\n{}", " the  COLOUR, {n}"], strict=True):
        n = prompt.doc["question"]
        answer = pattern.format(f"colour{n}", n=n)
        (one,) = task.process_results(prompt, generated_text(prompt, corpus, lambda _, text=answer: text))
        assert (one.metric, one.n, one.position, one.depth) == ("substring_match", 1, 0, 0.0)
        assert one.doc_id == f"question-{n}"
        values.append(one.value_sum)
    assert values == [1.0, 0.0, 0.0, 1.0]


def test_answers_are_normalized_as_in_squad():
    assert normalize_answer("  The Röntgen-rays, (a) BIG\tdeal. an ") == "röntgenrays big deal"
    assert best_subspan_em("in May 18, 2018.", ["May 18 2018"])
    assert not best_subspan_em("in May 2018", ["May 18 2018"])
    assert not best_subspan_em("anything", ["*"])  # normalized to the empty string, which is ignored


def test_own_distractors_come_first_as_the_file_marks_them(write):
    """Fault: a passage of the file that contains the letters of an answer, such as 14 in 1914, was left out."""
    others = [
        {"title": "x", "text": text, "isgold": False, "hasanswer": has_answer}
        for text, has_answer in (("red", False), ("green", True), ("Colour01", False))
    ]
    rows = [row(0, ctxs=[others[0], others[1], *row(0)["ctxs"], others[2]]), *(row(n) for n in range(1, 4))]
    questions, _ = load_questions(Path(write(rows, "questions.jsonl.gz")))
    assert questions[0].gold.title == "Boat 0"
    found = distractors(questions, 0, 3, np.random.default_rng(0))
    assert [one.text for one in found[:2]] == ["red", "Colour01"]
    assert len(distractors(questions, 0, 1, np.random.default_rng(0))) == 1
    assert found[2].title in {"Boat 1", "Boat 2", "Boat 3"}
    with pytest.raises(DataError, match="there are 5 without an answer"):
        distractors(questions, 0, 6, np.random.default_rng(0))


def test_passages_of_other_questions_are_announced(write, caplog):
    """Fault: the paper's file of gold passages alone gave ten passages a question, nine of them of other questions."""
    rows = write([row(n) for n in range(4)], "gold.jsonl")
    for count, expected in (([1], 0), ([3], 1), ([3], 1)):
        MultiDocument(rows, count, 1, 1)
        assert caplog.text.count("4 of 4 questions have fewer than 2 passages") == expected


def test_the_content_of_the_file_is_part_of_the_version(write):
    one = MultiDocument(write([row(n) for n in range(4)], "one.jsonl"), [2], 1, 1)
    same = MultiDocument(write([row(n) for n in range(4)], "same.jsonl"), [2], 1, 1)
    other = MultiDocument(write([row(n) for n in range(5)], "other.jsonl"), [2], 1, 1)
    assert one.version == same.version != other.version


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2: field 'question' is missing"),
        (row(1, question=""), "line 2: field 'question' is ''"),
        (row(1, answers="red"), "line 2: field 'answers' is 'red', and must be a non-empty list"),
        (row(1, answers=[]), "line 2: field 'answers' is '\\[\\]'"),
        (row(1, answers=[3]), "line 2: field 'answers' must hold at least one text"),
        (row(1, answers=["*"]), "line 2: field 'answers' must hold at least one text"),
        (row(1, ctxs=[]), "line 2: field 'ctxs' is"),
        (row(1, ctxs=[{"title": "t"}]), "line 2: ctxs\\[0\\]: field 'text' is missing"),
        (row(1, ctxs=[{"title": "t", "text": "u"}]), "line 2: no passage of field 'ctxs' has isgold"),
    ],
)
def test_format_errors_name_line_and_field(write, line, message):
    with pytest.raises(DataError, match=message) as caught:
        MultiDocument(write([row(0), line]), [2], 1, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"question": "a \ud800"}, {"answers": ["\udfff"]}, {"extra": {"\ud800": 1}}], ids=ascii
)
def test_half_of_a_surrogate_pair_is_an_error_of_one_line(write, changes):
    """A lone surrogate escape, which JSON allows, was a TypeError of the tokenizer."""
    with pytest.raises(DataError, match=r"line 2 is not JSON") as caught:
        load_questions(Path(write([row(0), row(1, **changes)])))
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("start", [0, 10, 60, 200])
def test_damaged_gzip_files_are_errors_of_one_line(write, start):
    """30 bytes overwritten inside a .jsonl.gz were a zlib.error."""
    path = Path(write([row(n) for n in range(40)], "questions.jsonl.gz"))
    content = bytearray(path.read_bytes())
    content[start : start + 30] = bytes(range(97, 127))
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not readable") as caught:
        load_questions(path)
    assert "\n" not in str(caught.value)


def test_a_pipe_or_deep_nesting_is_an_error(write, tmp_path):
    """A pipe was waited for without end."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        load_questions(tmp_path / "pipe")
    with pytest.raises(DataError, match="line 1 is not JSON"):
        load_questions(Path(write(["[" * 100_000])))


def test_unreadable_files(write, tmp_path):
    with pytest.raises(DataError, match="is not readable"):
        MultiDocument(str(tmp_path / "none.jsonl"), [2], 1, 1)
    (tmp_path / "torn.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="is not readable"):
        MultiDocument(str(tmp_path / "torn.jsonl.gz"), [2], 1, 1)
    with pytest.raises(DataError, match="holds no questions"):
        MultiDocument(write([]), [2], 1, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_documents": [0, 10]}, "give numbers of 2 or more"),
        ({"num_documents": []}, "give numbers of 2 or more"),
        ({"num_documents": [0], "query_aware": True}, "no passages to put a question before"),
        ({"num_examples": 9}, f"holds {QUESTIONS} questions"),
        ({"num_positions": 0}, "num_positions=0: give at least 1"),
        ({"path": ""}, "needs path"),
    ],
)
def test_invalid_settings(path, settings, message):
    with pytest.raises(ConfigError, match=message):
        MultiDocument(
            **({"path": path, "num_documents": [2], "num_positions": 1, "num_examples": 1} | settings)
        )


def test_lengths_other_than_its_own_are_errors(path):
    with pytest.raises(LengthError, match="choose num_documents, and lengths follow"):
        next(MultiDocument(path, [2], 1, 1).prompts(100, prose(), 64, 0))


def test_the_papers_data_makes_prompts_of_thirty_passages():
    path = str(sample("nq-open-oracle.first-1500.jsonl.gz"))
    corpus, task = prose(), MultiDocument(path, [10, 30], 3, 4)
    assert len(task.questions) == 1500
    for count, length in zip([10, 30], task.fixed_lengths(corpus), strict=True):
        for prompt in task.prompts(length, corpus, 64, 0):
            question = task.questions[prompt.doc["question"]]
            assert prompt.length == length
            passages = passages_of(corpus.text(whole(prompt)))
            assert passages[prompt.doc["gold"]] == (question.gold.title, question.gold.text)
            assert sum(best_subspan_em(" ".join(one), question.answers) for one in passages) <= 1
            assert len(passages) == count
