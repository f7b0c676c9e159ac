"""posbench beside other implementations of the same thing, timed in one process."""
