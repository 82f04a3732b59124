"""What the tests of the page share."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def main_module() -> Iterator[None]:
    """Put `__main__` back: Streamlit's test runner leaves its script there, from which other processes would start."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main
