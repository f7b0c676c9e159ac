"""posbench: how language models behave past the length they were trained on.

For use from Python, `import posbench as pb` has five functions: `choices`, `train`, `load`, `evaluate` and `rows`.
"""

from posbench.api import Model, choices, evaluate, load, rows, train

__all__ = ["Model", "choices", "evaluate", "load", "rows", "train"]
__version__ = "0.1.0"
