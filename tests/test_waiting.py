"""What a user sees who waits."""

import io

import pytest
from rich.console import Console

from flaxformer_edu import waiting

pytestmark = pytest.mark.no_nnx


def test_a_line_now_and_then_or_a_bar(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(waiting.time, "monotonic", lambda: next(clock))
    log = io.StringIO()
    assert list(waiting.shown_progress("abcde", "letters", Console(file=log))) == list("abcde")
    assert log.getvalue().splitlines() == ["letters: 1 of 5", "letters: 3 of 5"]
    screen = io.StringIO()
    shown = Console(file=screen, force_terminal=True, width=80, _environ={})
    monkeypatch.undo()
    monkeypatch.setattr(waiting, "PATIENCE", -1)
    assert list(waiting.shown_progress("abc", "letters", shown)) == list("abc")
    assert "letters" in screen.getvalue()
    quick = io.StringIO()
    monkeypatch.undo()
    shown = Console(file=quick, force_terminal=True, width=80)
    assert list(waiting.shown_progress("abc", "letters", shown)) == list("abc")
    assert "letters" not in quick.getvalue()
