"""Sweeps on clusters of two nodes on this machine, whose rows are compared with those of one process."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import LONGER

from posbench.files import Lock

import soak  # isort: skip - of scripts/, which clusters adds to the path


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cluster"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def cache(shared: Path) -> Path:
    """A folder of tokenized corpora."""
    return shared / "cache"


@pytest.fixture(scope="session")
def expected(shared: Path, cache: Path) -> bytes:
    """The rows of a sweep in one process."""
    results = shared / "inline"
    with Lock(shared / "inline.lock"):
        if not (results / "miniature" / "report.json").exists():
            soak.finish(soak.sweep(results, cache, "inline", *LONGER))
    return soak.rows(results)


@pytest.fixture(autouse=True)
def alone(shared: Path) -> Iterator[None]:
    """One test at a time has the cluster."""
    with Lock(shared / "cluster.lock"):
        yield
