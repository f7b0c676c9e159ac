"""Claims of papers beside the rows of experiments: published numbers, effects with intervals, and verdicts."""
