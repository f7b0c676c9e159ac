"""Nobody's numbers have changed without its version."""

import json

import pytest
from golden import FILE, measure, names

KNOWN = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", names())
def test_numbers_change_with_the_version_alone(name):
    assert name in KNOWN, f"{name} is new: run python tests/golden/golden.py"
    known = KNOWN[name]
    found = measure(name, known.get("carrier"))
    assert found["version"] == known["version"], (
        f"{name} has a new version: run python tests/golden/golden.py"
    )
    assert found["numbers"] == pytest.approx(known["numbers"], abs=1e-7), (
        f"the numbers of {name} have changed: raise `version` in its class, then run python tests/golden/golden.py"
    )


def test_nothing_is_known_of_what_is_gone():
    assert set(KNOWN) == set(names())
