"""Settings of a corpus, which configs/data/*.yaml fill."""

from dataclasses import dataclass, field

from posbench.config.setting import MAX_COUNT, Rule, setting

WITH_FILES, WITH_HUB = {"source": Rule(choices=("files",))}, {"source": Rule(choices=("hub",))}
WITH_TABLES = {"source": Rule(choices=("files", "hub"))}


@dataclass
class TokenizerSettings:
    """The tokenizer of a corpus."""

    # bytes, bpe (trained on the train split) or hugging_face
    kind: str = setting("bytes", choices=("bytes", "bpe", "hugging_face"))
    vocab_size: int = setting(
        8192, least=257, most=10**7, used_with={"kind": Rule(choices=("bpe",))}
    )  # bpe: ids to train, at least 257
    name: str = setting(
        "", used_with={"kind": Rule(choices=("hugging_face",))}
    )  # hugging_face: a name on the hub, a saved folder or a tokenizer.json
    # hugging_face, on the hub: a commit, branch or tag; empty is main
    revision: str = setting("", hash_if_set=True, used_with={"kind": Rule(choices=("hugging_face",))})


@dataclass
class DataSettings:
    """A corpus. Only the fields that a source uses enter its fingerprint."""

    name: str = setting("sources", is_name=True)  # label in rows, tables and figures
    # sources, stdlib, files or hub
    source: str = setting("sources", choices=("sources", "stdlib", "files", "hub"))
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    # ids reserved for the keys of synthetic sequences, at least 2
    num_keys: int = setting(88, least=2, most=10**7)
    num_values: int = setting(16, least=2, most=10**7)  # ids reserved for their values, at least 2
    # id at the start of a document; null is a new one after those of the tokenizer
    bos: int | None = setting(None, least=0, most=10**7)
    fingerprint: str = ""  # opens the corpus of this fingerprint from the cache, without reading its text

    text_column: str = setting("text", used_with=WITH_TABLES)  # files, hub: column of the text
    name_column: str = setting(
        "", used_with=WITH_TABLES
    )  # files, hub: column of a document's name; empty is its file or split and its index

    path: str = setting(
        "", used_with=WITH_FILES
    )  # files: a file, folder or glob, whose documents are split by hash ...
    # ... or one for each of train, validation and test
    paths: dict[str, str] = setting(dict, keys=("train", "validation", "test"), used_with=WITH_FILES)

    repository: str = setting("", used_with=WITH_HUB)  # hub: name of the data set
    subset: str = setting("", used_with=WITH_HUB)  # hub: name of its configuration; empty is the default
    # hub: a commit, so that the text of a fingerprint never changes; a branch or a tag can move
    revision: str = setting(
        "", used_with=WITH_HUB, pattern=("([0-9a-f]{40})?", "a commit: 40 hexadecimal digits")
    )
    # hub: bytes of text after which the train split ends, with a whole document; 0 is no limit.
    train_bytes: int = setting(0, least=0, used_with=WITH_HUB)
    # hub: documents for each of test and validation, from the head of train; 0 uses the splits of the data set.
    held_out: int = setting(0, least=0, most=MAX_COUNT, used_with=WITH_HUB)
    lines: bool = setting(
        False, used_with=WITH_HUB
    )  # hub: rows are lines of Wikipedia articles, which are joined
