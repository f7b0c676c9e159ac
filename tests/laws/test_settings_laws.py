"""Law of settings: a setting of the wrong type or name raises a ConfigError of one line, for every scheme.

Settings come from the command line; a wrong one must fail before any model is trained. A setting that changes nothing
because of another one, or in a command, is refused too.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
from variants import EXTENSIONS, LENGTH, SCHEMES, SHAPE, Variant

from posbench.config.keys import SCHEMAS
from posbench.config.setting import Rule
from posbench.config.validation import NO_RULE, check_command, check_effect, default
from posbench.errors import ConfigError
from posbench.instantiate import admits, instantiate, locate
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import PositionScheme

# Extensions have a leading +, since some have the name of a scheme.
ALL = {**SCHEMES, **{f"+{name}": settings for name, settings in EXTENSIONS.items()}}


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
    with pytest.raises(
        ConfigError,
        match=r"^unknown setting of \w+ 'nonsense': (choose one of .*|there are none, remove it)$",
    ):
        built(name, nonsense=1)


@pytest.mark.parametrize("name", ALL)
def test_version_of_a_class_is_part_of_its_instances(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: schemes composed of others ignored their own version, so that DAPE's second one had the ids of the first."""
    one = built(name)
    version = one.version
    monkeypatch.setattr(type(one), "version", type(one).version + 1)
    assert built(name).version == version + 1


@pytest.mark.parametrize("target", ["posbench.schemes.nothing.Nothing", "Nothing", "posbench.", ""])
def test_missing_target_raises_one_line(target: str) -> None:
    with pytest.raises(ConfigError, match=r"^_target_ .* importable from here"):
        instantiate({"_target_": target}, PositionScheme, SHAPE)


def test_settings_without_a_target_raise() -> None:
    with pytest.raises(ConfigError, match="without _target_"):
        instantiate({"rope_theta": 500.0}, PositionScheme, SHAPE)


def parts(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every object of settings with the key and a dot before its fields."""
    yield prefix, settings
    for one in dataclasses.fields(settings):
        if dataclasses.is_dataclass(value := getattr(settings, one.name)):
            yield from parts(value, f"{prefix}{one.name}.")


def fields() -> Iterator[tuple[str, str, Any, dataclasses.Field[Any], Rule]]:
    """Yields the command, the prefix, the default settings and each field with its rule."""
    for command, schema in SCHEMAS.items():
        for prefix, settings in parts(schema()):
            for one in dataclasses.fields(settings):
                yield command, prefix, settings, one, one.metadata.get("rule", NO_RULE)


def other_value(value: Any) -> Any:
    """Returns a value of the same type that is not the default."""
    if dataclasses.is_dataclass(value):
        first = dataclasses.fields(value)[0].name
        return dataclasses.replace(value, **{first: 7})
    return {str: "mine", bool: not value, int: 7, float: 0.7, dict: {"a": "b"}}[type(value)]


def refusal(settings: Any, prefix: str, *given: str) -> str:
    """Returns the error line for settings that change nothing, or nothing."""
    try:
        check_effect(settings, prefix, given)
    except ConfigError as error:
        return str(error)
    return ""


USED_WITH = {
    f"{command} {prefix}{one.name} with {other}": (prefix, settings, one, other, allowed)
    for command, prefix, settings, one, rule in fields()
    for other, allowed in rule.used_with.items()
}


@pytest.mark.parametrize("name", USED_WITH)
def test_a_setting_without_an_effect_is_refused(name: str) -> None:
    """Settings of a launcher, tracker, source, tokenizer or optimizer that is not chosen were accepted in silence."""
    prefix, usual, one, other, allowed = USED_WITH[name]
    values = {
        "launcher": ["inline", "local", "slurm", "ray"],
        "tracker": ["wandb", "trackio", "tensorboard", "none"],
        "source": ["sources", "stdlib", "files", "hub"],
        "kind": ["bytes", "bpe", "hugging_face", "native"],
        "optimizer": ["muon", "adamw"],
        "synthetic_fraction": [0.0, 0.5],
        "synthetic_task": ["associative_recall", "copy", "mqar", "flip_flop"],
    }[other]
    changed = {one.name: other_value(default(one))}
    has_effect = []
    for value in values:
        assert not refusal(dataclasses.replace(usual, **{other: value}), prefix), "of a default"
        settings = dataclasses.replace(usual, **changed, **{other: value})
        if error := refusal(settings, prefix):
            assert f"changes nothing with {prefix}{other} {value}: remove it, or give" in error
            assert not refusal(settings, prefix, f"{prefix}{other}"), (
                "of a file, where the command line chooses"
            )
        else:
            has_effect.append(value)
    assert has_effect == [value for value in values if value in allowed.choices or value == 0.5]
    assert 0 < len(has_effect) < len(values)


COMMANDS = {
    f"{command} {prefix}{one.name}": (
        command,
        prefix,
        settings,
        f"{prefix}{one.name}",
        command in rule.commands,
    )
    for command, prefix, settings, one, rule in fields()
    if rule.commands
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_setting_that_a_command_does_not_read_is_refused(name: str) -> None:
    """runtime.max_tokens_per_batch of a training and all of runtime in a search were accepted in silence."""
    command, prefix, settings, key, is_read = COMMANDS[name]
    check_command(settings, prefix, [], command)
    if is_read:
        check_command(settings, prefix, [key], command)
    else:
        with pytest.raises(
            ConfigError, match=f"^{key} changes nothing in posbench {command}, it is for [^\n]*$"
        ):
            check_command(settings, prefix, [f"{key}.part"], command)
