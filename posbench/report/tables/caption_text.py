"""What captions say of protocols, tasks, variants, corpora and statuses."""

PROTOCOLS = {
    "fixed_targets": "Fixed targets: the same last {targets}tokens of each document are predicted at every length; "
    "only the context before them grows.",
    "non_overlapping": "Non-overlapping windows of each length; all their tokens count, so that longer windows "
    "have fewer early tokens, which are hard for every model.",
    "sliding": "Sliding windows ({variant}): only the tokens that are new to a window count.",
    "prefix": "Prefix: documents are read once from their start.",
    "key_tokens": "Key tokens: the same last tokens of each document are predicted at every length; key are those "
    "that profit from context where the model was trained.",
    "json_uuid": "Key-value retrieval in JSON: a context is filled with pairs of UUIDs, and the value of one key is "
    "asked for; right if every token of the value is the model's first choice.",
}
TASKS = {
    "key_value": "Key-value retrieval: a context is filled with key-value records, and the value of one key is asked "
    "for; right if the value is the model's first choice.",
    "passkey": "Passkey retrieval: a number hidden in filler text is asked for at the end; right if every token of it "
    "is the model's first choice.",
    "multi_document": "Question answering over many documents, one of which holds the answer.",
    "repetition": "Repetition: text as it is, or its first tokens over and over; what follows those is predicted.",
    "position_resolution": "Neighbouring positions: given a record's key, whether its value, one token after the key, is likelier "
    "than the next record's, two tokens after the key's echo.",
    "algorithmic": "Sequences to {variant}, teacher-forced; an answer counts as whole if every symbol of it is the "
    "model's first choice, which guessing practically never is.",
    "attention": "Attention: weights of the token that asks for a key in the contexts of key-value retrieval, the "
    "token from which the value is predicted.",
}
VARIANTS = {
    "natural": "natural text",
    "repeated": "the same text repeated",
    "": "question after the context",
    "query_aware": "question before and after the context",
}
# What a cluster of the bootstrap is, and the things in it that are counted.
SAMPLE_UNITS = {
    "key_value": ("contexts", "questions"),
    "passkey": ("contexts", "questions"),
    "multi_document": ("contexts", "questions"),
    "algorithmic": ("sequences", "answers or symbols"),
    "repetition": ("documents", "tokens"),
    "position_resolution": ("contexts", "records"),
    "attention": ("contexts", "questions times heads"),
}
# What it is whose place in the context is asked for.
DEPTH_AXIS_LABELS = {"passkey": "place of the passkey", "multi_document": "document with the answer"}
CORPORA = {"sources": "Python source code (sources)", "stdlib": "Python's standard library (stdlib)"}
STATUS_NOTES = {
    "undefined": "Undefined, no value past the length it was built for",
    "not_learned": "Not learned: accuracy at the training length is under the gate, "
    "so nothing is concluded from longer contexts",
    "out_of_memory": "Out of memory",
    "diverged": "Training diverged",
}


def variant_name(variant: str) -> str:
    return VARIANTS.get(variant, variant.replace("_", " "))


def capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def cluster_name(task: str) -> str:
    """What the bootstrap draws, such as documents."""
    return SAMPLE_UNITS.get(task, ("documents", ""))[0]
