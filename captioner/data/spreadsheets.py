"""Text in csv files that spreadsheet programs open.

Such a program takes a cell for a formula when it begins with "=", "+", "-" or "@", and a formula may start other
programs. An apostrophe in front makes the cell plain text. Apostrophes that are there already are kept apart from
ours by adding one more, so that reading gives back exactly what was written.
"""

from __future__ import annotations

import re

# Matches the empty text in front of what would become a formula, with any apostrophes that are there already.
_BEFORE_FORMULA = re.compile(r"^(?='*[=+\-@\t\r\n＝＋－＠])")


def quoted(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return _BEFORE_FORMULA.sub("'", cell, count=1)


def unquoted(cell: str) -> str:
    """The text for which `quoted` wrote this cell."""
    return cell[1:] if cell.startswith("'") and _BEFORE_FORMULA.match(cell) else cell
