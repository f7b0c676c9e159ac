"""Tables as aligned text and as Markdown."""

from collections.abc import Sequence

Row = Sequence[object]


def aligned(header: Row, rows: Sequence[Row]) -> str:
    """Formats columns of text, each as wide as its widest cell; the last column is not padded."""
    lines = [[text(cell) for cell in row] for row in (header, *rows)]
    *widths, _ = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)).rstrip()
        for line in lines
    )


def markdown(header: Row, rows: Sequence[Row]) -> str:
    """Formats a table in GitHub's Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(text(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def text(cell: object) -> str:
    """Formats a cell: floats with six significant digits, nothing for None and NaN."""
    if cell is None or cell != cell:  # noqa: PLR0124  NaN alone differs from itself
        return ""
    return f"{cell:g}" if isinstance(cell, float) else str(cell)
