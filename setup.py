"""Adds configs/ to the package as posbench.configs; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["posbench*"]), "posbench.configs"],
    package_dir={"posbench.configs": "configs"},
)
