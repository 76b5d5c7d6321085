"""What became of the faults that were tried, as a table at the end: `make test-faults` tries many."""

from collections import Counter
from collections.abc import Iterator

import pytest

KINDS = ("tried", "refused", "recovered", "harmless", "silent")
TRIED: dict[str, Counter[str]] = {}


@pytest.fixture
def outcomes(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """To be counted up: how often a fault was refused by name, got over, did no harm, or went unseen, which fails."""
    yield (counts := TRIED.setdefault(request.node.name, Counter()))
    assert counts.total()
    assert not counts["silent"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TRIED:
        return
    rows = {**TRIED, "all": sum(TRIED.values(), Counter())}
    width = max(map(len, rows))
    terminalreporter.write_line(" ".join([" " * width, *(f"{kind:>9}" for kind in KINDS)]))
    for name, counts in rows.items():
        figures = {**counts, "tried": counts.total()}
        terminalreporter.write_line(" ".join([f"{name:{width}}", *(f"{figures.get(kind, 0):>9}" for kind in KINDS)]))
