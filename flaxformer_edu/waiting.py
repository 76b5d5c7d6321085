"""What a user sees who waits: nothing for two seconds, then a bar on a terminal, or a line every ten seconds."""

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Item = TypeVar("Item")
PATIENCE, LINE_SECONDS = 2.0, 10.0


def shown_progress(items: Sequence[Item], what: str, console: Console | None = None) -> Iterator[Item]:
    """The items one by one; on standard error, how many of them (`what`) are done."""
    console = Console(stderr=True) if console is None else console
    start = line = time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_interactive) as bar:
        task = bar.add_task(what, total=len(items), visible=False)
        for done, item in enumerate(items):
            now = time.monotonic()
            bar.update(task, completed=done, visible=now - start > PATIENCE)
            if not console.is_interactive and now - line > LINE_SECONDS:
                line = now
                console.print(f"{what}: {done:,} of {len(items):,}", highlight=False)
            yield item
