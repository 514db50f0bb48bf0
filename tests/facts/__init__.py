"""One module for each lesson that quotes numbers: `NAME`, `facts()` and `NOT_MEASURED`; see tests/test_prose.py."""


def percent(value: float, digits: int = 0) -> str:
    """A share as the prose writes it: 0.8605 is "86.1 %" with one digit."""
    return f"{100 * value:.{digits}f} %"
