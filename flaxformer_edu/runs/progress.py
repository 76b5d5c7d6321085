"""The progress of a run: a bar on a terminal, an occasional line elsewhere."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_SECONDS = 10.0


class TrainingProgress:
    """Shows step, loss, examples per second and the time left; a context manager."""

    def __init__(self, steps: int, batch_size: int, console: Console | None = None):
        self.console = console = Console(stderr=True) if console is None else console
        self.steps, self.batch_size = steps, batch_size
        self._step, self._steps_timed, self._seconds = 0, 0, 0.0
        self._time: float | None = None
        self._line = time.monotonic()
        columns = (TextColumn("step {task.completed}/{task.total}"), BarColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=console, auto_refresh=False) if console.is_interactive else None
        self._task = self._bar.add_task("compiling", total=steps) if self._bar else None

    def __enter__(self) -> "TrainingProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def start_at(self, step: int) -> None:
        """Go on from the step that an earlier process came to."""
        self._step = step
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=step)

    def update(self, row: dict[str, Any]) -> None:
        """Show the latest row of metrics."""
        now, step = time.monotonic(), row["step"]
        if self._time is not None:
            self._steps_timed += step - self._step
            self._seconds += now - self._time
        self._step, self._time = step, now
        text = f"loss {row['loss']:.4f}"
        if self.rate:
            left = (self.steps - step) * self.batch_size / self.rate
            text += f"  {self.rate:,.0f} examples/s  {_clock(left)} left"
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=step, description=text, refresh=True)
        elif now - self._line >= LINE_SECONDS or step == self.steps:
            self._line = now
            self.say(f"step {step}/{self.steps}  {text}")

    def evaluated(self, step: int, averages: dict[str, float]) -> None:
        """Print the result of an evaluation."""
        self.say(f"step {step}  evaluation:  " + "  ".join(f"{name} {value:.4f}" for name, value in averages.items()))

    def skip_time(self) -> None:
        """Leave the time since the last update, spent on something else than training, out of the rate."""
        self._time = time.monotonic()

    @property
    def rate(self) -> float | None:
        """Examples per second, compilation, evaluation and checkpoints left out; None before it is known."""
        return self._steps_timed * self.batch_size / self._seconds if self._seconds > 0 else None

    def say(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
