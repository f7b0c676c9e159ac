"""The property card: properties of a good position scheme, measured on the definition of each scheme.

Schemes are called through their hooks, as a model calls them, in float64 and before training. Each property is a
module with a function of a `SchemeProbe`; `card` turns the numbers into ratings.
"""
