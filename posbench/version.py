"""The version of posbench."""

__version__ = "0.1.0"
