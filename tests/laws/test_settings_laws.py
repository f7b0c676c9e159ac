"""Law of settings: a setting of the wrong type or name raises a ConfigError of one line, for every scheme.

Settings come from the command line; a wrong one must fail before any model is trained.
"""

from typing import Any, get_type_hints

import pytest
from variants import EXTENSIONS, LENGTH, SCHEMES, SHAPE, Variant

from posbench.errors import ConfigError
from posbench.instantiate import admits, instantiate, locate
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import PositionScheme

ALL = {**SCHEMES, **EXTENSIONS}


def built(name: str, **changed: Any) -> PositionScheme:
    settings = {**(ALL[name] or {}), **changed}
    if name in SCHEMES:
        return instantiate(settings, PositionScheme, SHAPE)
    return instantiate(settings, Extension, Variant("rope").inner(), ExtensionContext(SHAPE, LENGTH))


@pytest.mark.parametrize("name", ALL)
def test_wrong_type_raises_one_line(name: str) -> None:
    for key, annotation in get_type_hints(locate((ALL[name] or {})["_target_"]).__init__).items():
        for value in ("nonsense", 1.5, True, [1], {"a": 1}, None):
            if not admits(annotation, value) and key not in ("shape", "inner", "context", "return"):
                with pytest.raises(ConfigError, match=rf"^setting {key} of \w+ is [^\n]+: give "):
                    built(name, **{key: value})


@pytest.mark.parametrize("name", ALL)
def test_unknown_setting_raises_one_line_with_the_choices(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^unknown setting of \w+ 'nonsense': choose one of .*$"):
        built(name, nonsense=1)


@pytest.mark.parametrize("target", ["posbench.schemes.nothing.Nothing", "Nothing", "posbench.", ""])
def test_missing_target_raises_one_line(target: str) -> None:
    with pytest.raises(ConfigError, match=r"^_target_ .* importable from here"):
        instantiate({"_target_": target}, PositionScheme, SHAPE)


def test_settings_without_a_target_raise() -> None:
    with pytest.raises(ConfigError, match="without _target_"):
        instantiate({"rope_theta": 500.0}, PositionScheme, SHAPE)
