"""Rows to numbers, numbers to tables: csv, markdown and LaTeX."""
