"""Settings: their dataclasses, the folder of their yaml files, and Hydra at the edge."""

from pathlib import Path


def config_dir() -> Path:
    """Returns the folder of the yaml files: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).parents[1]
    return next(path for path in (package / "configs", package.parent / "configs") if path.is_dir())
