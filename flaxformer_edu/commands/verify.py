"""`flaxformer-edu verify`: the published tensors, as a table."""

from dataclasses import asdict
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import track
from rich.table import Table

from flaxformer_edu.files import check_target, write_json
from flaxformer_edu.reference.published import DROPOUT, Row, verify


def collect(edition: str = "both") -> list[Row]:
    """The rows of one edition, or of both, with a progress bar."""
    editions = list(DROPOUT) if edition == "both" else [edition]
    rows = (row for name in editions for row in verify(name))
    return list(track(rows, "verifying", total=9 * len(editions), console=Console(stderr=True), transient=True))


def table(rows: list[Row]) -> Table:
    """Edition, layer, tolerance, largest error, verdict."""
    device = jax.devices()[0]
    result = Table(title=f"Published tensors, recomputed on {device.platform} ({device.device_kind})")
    for column in ("edition", "layer"):
        result.add_column(column)
    for column in ("tolerance", "largest error"):
        result.add_column(column, justify="right")
    result.add_column("verdict")
    for row in rows:
        verdict = "[green]pass[/green]" if row.ok else "[red]FAIL[/red]"
        result.add_row(row.edition, row.title, f"{row.tolerance:.2e}", f"{row.max_abs_error:.2e}", verdict)
    return result


def run(edition: str, json_file: Path | None) -> int:
    """Print the table; 1 if a row fails, else 0."""
    if json_file is not None:
        check_target(json_file)
    rows = collect(edition)
    console = Console()
    console.print(table(rows))
    passed = sum(row.ok for row in rows)
    console.print(f"{passed} of {len(rows)} tensors agree to the printed digits")
    if json_file is not None:
        keys = ("edition", "id", "max_abs_error", "max_rel_error", "tolerance", "ok")
        report = [{key: asdict(row)[key] for key in keys} for row in rows]
        write_json(json_file, report)
    return 0 if passed == len(rows) else 1
