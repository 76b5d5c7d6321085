"""What became of the faults that were tried, as a table at the end: `make test-faults` tries many."""

from collections import Counter

import pytest

KINDS = ("tried", "refused", "recovered", "harmless", "silent")
TRIED: dict[str, Counter[str]] = {}


@pytest.fixture
def outcomes(request: pytest.FixtureRequest) -> Counter[str]:
    """To be counted up: how often a fault was refused by name, got over and said so, did no harm, or went unseen."""
    return TRIED.setdefault(request.node.name, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, counts in TRIED.items():
        row = ", ".join(f"{sum(counts.values()) if kind == 'tried' else counts[kind]} {kind}" for kind in KINDS)
        terminalreporter.write_line(f"{name}: {row}")
