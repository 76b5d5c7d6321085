"""The rows of a run's `metrics.jsonl`, read back, what tells that they are not as they were written, or not numbers."""

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxformer_edu.errors import InputError

Row = dict[str, Any]
EXPLODED = 1e6  # times the run's first loss, or 1 where that is smaller


class DivergedError(InputError):
    """The loss or the parameters are no longer finite, or the loss has exploded: at `step`, or after it."""

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


def check_loss(step: int, loss: float, earlier: Sequence[Row]) -> None:
    """Raise DivergedError for a loss that is not finite, or has exploded since the first of the rows."""
    first = abs(earlier[0].get("loss") or 0.0) if earlier else abs(loss)
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss} at step {step}", step)
    if abs(loss) > EXPLODED * max(first, 1.0):
        raise DivergedError(f"the loss is {loss:.3g} at step {step}, over a million times the first one", step)


def read_rows(path: str | Path, last_step: float = math.inf) -> tuple[list[Row], int]:
    """The rows of a metrics file up to `last_step`, and how many bytes they take; a last line cut short is left out.

    Raises InputError, naming it, for a line that is no row.
    """
    path = Path(path)
    lines = _whole_lines(path)
    rows = _parsed(path, lines, last_step)
    return rows, sum(map(len, lines[: len(rows)]))


def resumed_rows(path: Path, step: int, checksums: Sequence[int] | None) -> tuple[list[Row], list[bytes]]:
    """The rows up to `step`, of which none may be missing, and their lines; `checksums` as of `MetricsLog`."""
    lines = _whole_lines(path) if checksums is None else _checked_lines(path, checksums)
    rows = _parsed(path, lines, step, consecutive=True)
    return rows, lines[: len(rows)]


def _whole_lines(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]


def _checked_lines(path: Path, checksums: Sequence[int]) -> list[bytes]:
    """As many lines as there are checksums, each of which it has; none where there is no file."""
    lines = _whole_lines(path)[: len(checksums)]
    for i, (line, expected) in enumerate(zip(lines, checksums, strict=False)):
        if zlib.crc32(line) != expected:
            raise _damaged(path, i, "is not as it was written")
    if path.exists() and len(lines) < len(checksums):
        raise _damaged(path, len(lines), "is missing")
    return lines


def _parsed(path: Path, lines: list[bytes], last_step: float, consecutive: bool = False) -> list[Row]:
    """The rows up to `last_step`; of `consecutive` ones no step may be missing."""
    rows: list[Row] = []
    for i, line in enumerate(lines):
        try:
            row = json.loads(line)
            step = row["step"] + 0
        except (ValueError, KeyError, TypeError):
            raise _damaged(path, i, "is no row of metrics") from None
        if step > last_step:
            break
        if consecutive and rows and step - rows[-1]["step"] not in (0, 1):
            raise _damaged(path, i, f"is of step {step}, after one of step {rows[-1]['step']}")
        rows.append(row)
    return rows


def _damaged(path: Path, line: int, how: str) -> InputError:
    return InputError(f"{path}, line {line + 1}, {how}: put it right, or delete the file to go on without earlier rows")
