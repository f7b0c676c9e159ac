"""The numbers of schemes and extensions change only with their versions."""

import json

import pytest
from golden import FILE, measure, names

KNOWN = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", names())
def test_numbers_change_only_with_the_version(name):
    assert name in KNOWN, f"{name} is new: run python tests/golden/golden.py"
    known = KNOWN[name]
    found = measure(name, known.get("carrier"))
    assert found["version"] == known["version"], (
        f"{name} has a new version: run python tests/golden/golden.py"
    )
    assert found["numbers"] == pytest.approx(known["numbers"], abs=1e-7), (
        f"the numbers of {name} have changed: raise `version` in its class, then run python tests/golden/golden.py"
    )


def test_all_entries_exist():
    assert set(KNOWN) == set(names())
