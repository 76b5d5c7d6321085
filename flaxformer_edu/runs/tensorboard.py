"""Metrics for TensorBoard, beside the file of metrics; needs the package tensorboardX."""

from pathlib import Path
from typing import Any

from flaxformer_edu.errors import InputError


class TensorBoard:
    """Event files in `folder/tensorboard/`; training and evaluation of a metric are shown together."""

    def __init__(self, folder: Path, *, step: int):
        """Go on from `step`: what an earlier process wrote for later steps is hidden."""
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError:
            raise InputError(
                "TensorBoard's files need the package tensorboardX: pip install 'flaxformer-edu[tensorboard]', "
                "or train without them"
            ) from None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Add the values of one row of metrics."""
        for name, value in row.items():
            if name != "step":
                part = "evaluation" if name.startswith("eval_") else "training"
                self._writer.add_scalar(f"{name.removeprefix('eval_')}/{part}", value, row["step"])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
