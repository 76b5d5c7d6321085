"""Metrics of a run: fetched from the device without stopping it, one line of JSON per step, exact after a resume."""

import json
import math
import os
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from flaxformer_edu.runs.rows import Row, check_loss, resumed_rows
from flaxformer_edu.runs.tensorboard import TensorBoard

IN_FLIGHT = 4  # calls the device may be behind the host
FETCH_SECONDS = 0.5
Show = Callable[[Row], None] | None


class MetricsLog:
    """The rows of a run, `{"step": 1, "loss": 2.3, ...}`, in memory and, where a path is given, in a file.

    A step's metrics stay on the device until some later calls are done, so that it never waits for the host.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        step: int = 0,
        checksums: Sequence[int] | None = None,
        board: TensorBoard | None = None,
        show: Show = None,
    ):
        """Go on from `step`: later rows of the file will be written again. `show` is called with each latest row.

        `checksums` are those that the log had after `step`, None where they are not known. Raises InputError, naming
        the line, where a row of the file is not as it was written. Without the file it begins anew.
        """
        self.rows: list[Row] = []
        self.checksums: list[int] = []  # of each row's line: its CRC-32
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self._fetched = time.monotonic()
        self._file = None
        self._board = board
        self._show = show
        if path is not None:
            self.rows, lines = resumed_rows(path, step, checksums)
            self.checksums = [zlib.crc32(line) for line in lines]
            self._file = path.open("ab")
            self._file.truncate(sum(map(len, lines)))

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Note the metrics of the step, or steps, that end with `step`. They are fetched when they are long there."""
        self._pending.append((step, metrics))
        if len(self._pending) > IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - IN_FLIGHT][1])
        if time.monotonic() - self._fetched >= FETCH_SECONDS and len(self._pending) > IN_FLIGHT:
            self.fetch(keep=IN_FLIGHT)

    def fetch(self, *, keep: int = 0) -> None:
        """Write the rows of all calls but the last `keep`. Raises DivergedError at the first useless loss."""
        ready = self._pending[: len(self._pending) - keep]
        self._pending = self._pending[len(ready) :]
        for (step, _), metrics in zip(ready, jax.device_get([metrics for _, metrics in ready]), strict=True):
            columns = {name: np.atleast_1d(values) for name, values in metrics.items()}
            losses = columns.pop("loss")
            for i, row_step in enumerate(range(step - len(losses) + 1, step + 1)):
                check_loss(row_step, float(losses[i]), self.rows)
                others = {name: float(values[i]) for name, values in columns.items()}
                self.write({"step": row_step, "loss": float(losses[i]), **others})
        self._fetched = time.monotonic()
        if self._show is not None and self.rows:
            self._show(self.rows[-1])

    def write(self, row: Row) -> None:
        """Add one row."""
        self.rows.append(row)
        if self._file is not None:
            finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
            line = json.dumps(finite, allow_nan=False).encode() + b"\n"
            self._file.write(line)
            self.checksums.append(zlib.crc32(line))
        if self._board is not None:
            self._board.write(row)

    def flush(self) -> None:
        """Make sure that all rows are on the disk before a checkpoint relies on them."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
