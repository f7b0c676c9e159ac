"""Derives the kind of a scheme or extension, in the words of the field, from the hooks that its class overrides."""

from __future__ import annotations

import ast
from operator import itemgetter
from typing import Any

from posbench.commands.source import Definition, definition, parts

BY_LAYER = "Layered"
# Base classes whose hooks do nothing or delegate to other schemes: only what a subclass overrides counts.
DELEGATING = {"PositionScheme", "Stack", "Extension", "LayerHybrid", BY_LAYER}
NONE = "none"
# Hook -> kind, in the order in which kinds are listed.
HOOKS = {
    "embed": "absolute",
    "qk": "rotary",
    "scale_inv_freq": "frequency scaling",
    "assign_positions": "position mapping",
    "regions": "position mapping",
    "attention_bias": "additive bias",
    "relative_values": "relative values",
    "mask": "mask",
    "logit_scale": "logit scaling",
    "softmax_normalizer": "softmax normalizer",
    "attention": "linear",
    "attention_output": "output gate",
}
# Hooks of LayerHybrid, which apply those of a scheme in some layers.
IN_SOME_LAYERS = {"local_mask": "mask", "global_logit_scale": "logit_scale"}
# Fields of AttentionInputs that hold tokens: a bias that reads them depends on content.
CONTENT = {"x_BTW", "x_BSW", "q_BHTD", "k_BHSD"}


def kind(build: Any) -> str:
    """Returns the kinds of all parts of a build, such as "rotary + mask" or "hybrid by layer (rotary)"."""
    found = [one for part in parts(build) if (one := definition(part["_target_"])) is not None]
    words = [
        (list(HOOKS).index(hook), word) for one in reversed(found) for hook, word in own_kinds(one).items()
    ]
    joined = " + ".join(dict.fromkeys(word for _, word in sorted(words, key=itemgetter(0)))) or NONE
    by_layer = any(base.name == BY_LAYER for one in found for base in one.mro())
    return f"hybrid by layer ({joined})" if by_layer else joined


def own_kinds(one: Definition) -> dict[str, str]:
    """Returns hook -> kind for what a class adds to the schemes inside it."""
    classes = [base for base in one.mro() if base.name not in DELEGATING]
    methods = {name: node for base in reversed(classes) for name, node in base.methods().items()}
    defined = {IN_SOME_LAYERS.get(name, name) for name in methods}
    words = {hook: word for hook, word in HOOKS.items() if hook in defined}
    if "scale_inv_freq" in words:  # FrequencyScaling has it, and hooks that only pass it on
        del words["qk"], words["attention_bias"]
    text = " ".join(ast.dump(base.node) for base in classes)
    rotates = "'inv_freq'" in text or "id='rotate'" in text
    if "qk" in words and rotates and "attr='x_BSW'" in text:  # by angles computed from tokens
        words["qk"] = "content-dependent rotary"
    if "qk" in words and not rotates:  # changes queries and keys without a rotation
        absolute = "arg='relative', value=Constant(value=False)" in text
        words["qk"] = "absolute" if absolute else "query and key scaling"
        if not absolute and "attention_bias" in words:
            del words["qk"]
    if "attention" in words and "id='attend'" in text:  # combines several softmax attentions
        words["attention"] = "combined softmaxes"
    if "attention_bias" in words and _reads_content(methods["attention_bias"]):
        words["attention_bias"] = "content-dependent bias"
    return words


def _reads_content(method: ast.FunctionDef) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr in CONTENT for node in ast.walk(method))
