"""Tables of results as csv, markdown and LaTeX."""
