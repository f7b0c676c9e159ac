"""posbench: how language models behave past the length they were trained on.

For use from Python, `import posbench as pb` has five functions: `choices`, `train`, `load`, `evaluate` and `rows`.
"""

from posbench.api import Model, choices, evaluate, load, rows, train
from posbench.version import __version__

__all__ = ["Model", "__version__", "choices", "evaluate", "load", "rows", "train"]
