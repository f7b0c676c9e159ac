"""The settings of a corpus, one dataclass a block of configs/data/*.yaml."""

from dataclasses import dataclass, field


@dataclass
class TokenizerSettings:
    kind: str = "bytes"  # bytes, bpe or hugging_face
    vocab_size: int = 8192  # bpe: how many ids to train
    name: str = ""  # hugging_face: a hub name, a saved folder or a tokenizer.json


@dataclass
class DataSettings:
    """Fields that a source does not use are left at their defaults, and do not enter its fingerprint."""

    name: str = "sources"  # a label for captions and rows
    source: str = "sources"  # sources, stdlib, files or hub
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    num_keys: int = 88  # reserved ids for the keys and values of synthetic records
    num_values: int = 16
    bos: int | None = None  # the id that begins a document; by default one behind the tokenizer's own
    fingerprint: str = ""  # pins the corpus: its shards are opened without looking at the text

    text_column: str = "text"  # files and hub
    name_column: str = ""  # files and hub: what a document is called; by default its place in the data

    path: str = ""  # files: a file, folder or glob whose documents are split by hash ...
    paths: dict[str, str] = field(default_factory=dict)  # ... or one for each of train, validation and test

    repository: str = ""  # hub
    subset: str = ""
    revision: str = ""  # a commit, so that the text behind a fingerprint never changes
    train_bytes: int = 0  # ends the train split after the document that reaches it; 0 takes everything
    held_out: int = 0  # takes this many documents each for test and validation from the head of train
    lines: bool = False  # rows are the lines of wiki articles, to be joined
