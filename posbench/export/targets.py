"""Classes of the settings in config.json by their dotted paths in posbench.

Empty in posbench, which imports them. `posbench export` writes this file anew, with the classes of one model.
"""

from typing import Any

TARGETS: dict[str, Any] = {}
