"""Files for TensorBoard."""

import importlib.util
import struct
import sys

import pytest

from flaxformer_edu.errors import InputError
from flaxformer_edu.runs.tensorboard import TensorBoard

pytestmark = pytest.mark.no_nnx


def events(folder):
    """All events of the folder's files, which are sequences of (length, checksum, event, checksum)."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((folder / "tensorboard").iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            yield Event.FromString(data[place + 12 : place + 12 + length])
            place += length + 16


@pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is None, reason="tensorboardX is not installed")
def test_rows_become_scalars(tmp_path):
    board = TensorBoard(tmp_path, step=4)
    board.write({"step": 5, "loss": 2.0, "accuracy": 0.5})
    board.write({"step": 5, "eval_loss": 3.0})
    board.close()
    found = [(event.step, value.tag, value.simple_value) for event in events(tmp_path) for value in event.summary.value]
    assert found == [(5, "loss/training", 2.0), (5, "accuracy/training", 0.5), (5, "loss/evaluation", 3.0)]
    purged = [event.step for event in events(tmp_path) if event.HasField("session_log")]
    assert purged == [5]


def test_without_tensorboardx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match="need the package tensorboardX: pip install"):
        TensorBoard(tmp_path, step=0)
