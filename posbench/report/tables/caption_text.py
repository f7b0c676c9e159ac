"""Sentences of captions about protocols, tasks, variants, corpora and statuses."""

import re

PROTOCOLS = {
    "fixed_targets": "Fixed targets: the last {targets}tokens of each {text} are predicted from longer and longer contexts.",
    "non_overlapping": "Non-overlapping windows of each length, in which every token is scored. Longer windows have a "
    "smaller share of early tokens, which are hard for every model.",
    "sliding": "Sliding windows ({variant}): only the tokens that are new to a window are scored.",
    "prefix": "Prefix: each document is read once, from its start.",
    "key_tokens": "The last tokens of each document are predicted at every length; key tokens are those that "
    "gain more than 2 nats from context at the training length and then have a loss below 2 nats (or the limits of the "
    "command). Each model has its own, determined with its extension as it is built for the training length.",
    "json_uuid": "Key-value retrieval: a JSON object of UUID pairs fills the context; an answer is correct if every "
    "token of the queried key's value is the model's first choice.",
    "json_uuid_generated": "Key-value retrieval: a JSON object of UUID pairs fills the context; an answer is correct if "
    "the generated text contains the queried key's value.",
}
GENERATED = {"json_uuid": "json_uuid_generated"}  # protocol -> the one whose answers are generated
TASKS = {
    "key_value": "Key-value retrieval: key-value records fill the context, and one key is queried; an answer is correct if "
    "the model's first choice is the value of that key.",
    "passkey": "Passkey retrieval: a number is hidden in filler text; an answer is correct if every token of the "
    "number is the model's first choice.",
    "multi_document": "Question answering over several documents, one of which contains the answer.",
    "repetition": "Repetition: natural text, or its first tokens repeated; the tokens after these are scored.",
    "position_resolution": "Neighbouring positions: correct if a record's value (one token after its key) is more "
    "probable than the next record's value (two tokens after the key's second occurrence), given the key.",
    "algorithmic": "Sequences to {variant}, teacher-forced; a whole answer is correct if the model's first choice is right at "
    "every symbol and at the end after them; chance is practically zero.",
    "length_generalization": "Sequences under the rule {variant}, teacher-forced, by range of their number of symbols. "
    "{ranges} A whole answer is correct if the model's first choice is right at every symbol and at the end after them.",
    "flip_flop": "Flip-flop language ({variant}): after a read, the bit of the last write is predicted; a whole answer is all "
    "reads of a sequence.",
    "mqar": "Multi-query associative recall: pairs of a key and a value, and later each key again; an answer is correct if "
    "the key's value is the model's first choice.",
    "multi_value": "RULER's multi-value needles ({variant}): one key has four values in the context, all of which are to be "
    "generated.",
    "multi_query": "RULER's multi-query needles ({variant}): the values of four keys are to be generated.",
    "variable_tracking": "RULER's variable tracking ({variant}): five variables have one value through a chain of "
    "assignments, and all are to be generated.",
    "lm_eval": "{variant} of lm-evaluation-harness; a prompt longer than the length loses its first tokens.",
    "attention": "Attention weights of the query token, from which the value is predicted, in contexts of key-value "
    "retrieval.",
}
VARIANTS = {
    "natural": "natural text",
    "repeated": "the same text repeated",
    "": "question after the context",
    "query_aware": "question before and after the context",
}
PLAIN_VARIANTS = {"mqar": "a pair for every 16 tokens"}
# Clusters of the intervals, and the items that are counted in them.
SAMPLE_UNITS = {
    "key_value": ("contexts", "questions"),
    "passkey": ("contexts", "questions"),
    "multi_document": ("contexts", "questions"),
    "algorithmic": ("sequences", "answers or symbols"),
    "length_generalization": ("sequences", "answers or symbols"),
    "flip_flop": ("sequences", "answers or symbols"),
    "mqar": ("sequences", "queries"),
    "multi_value": ("texts", "answers"),
    "multi_query": ("texts", "answers"),
    "variable_tracking": ("texts", "answers"),
    "repetition": ("documents", "tokens"),
    "position_resolution": ("contexts", "records"),
    "attention": ("contexts", "questions × heads"),
    "lm_eval": ("documents", "answers or tokens"),
}
OWN_TOKENS = "Models have different key tokens, so these values are not over the same tokens."
TUNED = "Fine-tuned, with the extension in place:"
TUNING = " + fine-tuning"  # beside the tokens of the pretraining
ALL_SYNTHETIC = "All training sequences are synthetic"
# Synthetic training sequences whose names are not clear on their own.
SYNTHETIC_KINDS = {
    "recall_questions": "records, with questions about any of them",
    "recall_questions_at_ends": "records, with questions about the first and the last quarter of them",
}
# Tasks without text.
SYMBOLIC_TASKS = {"algorithmic", "length_generalization", "flip_flop", "mqar"}
# Names of the axis along which the answer moves through the context.
DEPTH_AXIS_LABELS = {"passkey": "passkey", "multi_document": "document with the answer"}
CORPORA = {"sources": "Python source code (sources)", "stdlib": "Python's standard library (stdlib)"}
STATUS_NOTES = {
    "undefined": "Undefined beyond the length that the scheme was built for",
    "not_learned": "Not learned: accuracy at the training length is below the gate, so longer contexts have no value",
    "out_of_memory": "Out of memory",
    "diverged": "Diverged: losses of the training, or numbers at this length, are not finite",
}
UNLEARNED = "not learned the task"


def status_note(status: str) -> str:
    """Returns the reason of a missing number. Status "ok" means that only rows of other metrics or lengths exist."""
    return STATUS_NOTES.get(status, "No number: rows of this metric, or of the training length, are missing")


def left_out(seeds: int, of: int, status: str) -> str:
    """Returns the footnote of a number without some seeds, whose worst status is given."""
    one = seeds == 1
    if status == "not_learned":
        return f"{seeds} of {of} seeds {'has' if one else 'have'} {UNLEARNED} and {'is' if one else 'are'} left out."
    return f"{seeds} of {of} seeds left out. {status_note(status)}."


def some_not_learned(seeds: int, of: int) -> str:
    """Returns the footnote of a number at the training length over seeds of which some have not learned the task."""
    one = seeds == 1
    return (
        f"{seeds} of {of} seeds {'has' if one else 'have'} {UNLEARNED}; {'it counts' if one else 'they count'} here and "
        f"{'is' if one else 'are'} left out at longer contexts."
    )


def variant_name(variant: str, task: str = "") -> str:
    """Returns the name of a variant; the plain one of some tasks has a name of its own."""
    if not variant and task in PLAIN_VARIANTS:
        return PLAIN_VARIANTS[task]
    if pairs := re.fullmatch(r"(spread-)?num_pairs=(\d+)", variant):
        return f"{pairs[2]} pairs at every length{', spread through text' if pairs[1] else ''}"
    if variant.startswith("repeated_every_"):
        return f"repeated every {variant.rpartition('_')[2]} tokens"
    return VARIANTS.get(variant, variant.replace("_", " "))


def is_tuned(note: str, extension: str) -> bool:
    """Returns whether the sentences about an experiment name an extension as that of a fine-tuned model."""
    return f" {extension} (" in note.partition(TUNED)[2]


def capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def cluster_name(task: str) -> str:
    """Returns the clusters of the intervals of a task, such as documents."""
    return SAMPLE_UNITS.get(task, ("documents", ""))[0]
