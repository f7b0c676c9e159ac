"""posbench: how language models behave past the length they were trained on."""

__version__ = "0.1.0"
