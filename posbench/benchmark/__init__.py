"""Benchmarks of posbench against other implementations, and its check on a GPU."""
