"""Models as folders that transformers loads without posbench."""
