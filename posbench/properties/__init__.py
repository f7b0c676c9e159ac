"""The property card: what makes a good position scheme, measured on every scheme's own definition.

Schemes are asked through their hooks alone, as a model asks them, in float64 and as they are before training.
A property is a module and a function of a `SchemeProbe`; `card` puts them in a row.
"""
