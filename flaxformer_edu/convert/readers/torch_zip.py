"""PyTorch's zip files: a pickle that says which tensor is which part of which storage, and the storages' bytes.

The format is that of torch/serialization.py since version 1.6: the members are `NAME/data.pkl`, `NAME/byteorder` and,
for each storage, `NAME/data/KEY`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from flaxformer_edu.convert.readers.archive import Archive
from flaxformer_edu.convert.readers.dtypes import DTYPES, TORCH_STORAGES
from flaxformer_edu.convert.readers.pickle_machine import Refused, Skipped, run
from flaxformer_edu.errors import InputError

SAVE_AGAIN = "save the weights alone with PyTorch, where you trust the file: torch.save(model.state_dict(), path)"
MOST_AXES = 64  # NumPy's limit
WEIGHTS = ("state_dict", "model_state_dict", "model", "net")  # what training scripts call them, first choice first


class Storage(NamedTuple):
    """A member `data/KEY` that holds `size` elements; of bytes where the dtype is not known yet."""

    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """A part of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(archive: Archive) -> dict[str, np.ndarray]:
    """The weights in a checkpoint, as views of the mapped storages.

    Raises `InputError` where the file holds anything but weights, asks to run code, or is damaged.
    """
    pickles = [name for name in archive.names if name.count("/") == 1 and name.endswith("/data.pkl")]
    root = pickles[0].removesuffix("data.pkl") if len(pickles) == 1 else ""
    if not root or f"{root}constants.pkl" in archive.names:
        raise InputError(f"{archive.path} is a zip file but no checkpoint of torch.save (TorchScript?); {SAVE_AGAIN}")
    if f"{root}byteorder" in archive.names and archive.read(f"{root}byteorder") != b"little":
        raise InputError(f"{archive.path} was saved on a big-endian machine; {SAVE_AGAIN}, on a little-endian one")
    try:
        content = run(archive.read(f"{root}data.pkl"), NAMES, _storage)
        return _arrays(find_weights(content), archive, root)
    except Refused as error:
        raise InputError(f"{archive.path} is refused, and nothing in it was run: {error}; {SAVE_AGAIN}") from error


def find_weights(content: Any) -> dict[str, Tensor]:
    """The weights in what a checkpoint holds: a dictionary with names for keys and tensors for values, nothing else.

    Of any other dictionary (a training checkpoint) the entry `state_dict`, `model_state_dict`, `model` or `net` is
    used, the first that is a dictionary, itself a checkpoint; without these, the only entry that is a dictionary of
    tensors. What stands beside it (epoch, optimizer, arguments) is skipped.
    """
    for _ in range(4):  # {"model": {"state_dict": ...}}; a bound, because a pickle can hold itself
        if not isinstance(content, dict) or _is_weights(content):
            break
        distinct = {id(value): (name, value) for name, value in content.items()}  # a pickle can repeat one for free
        entries = [name for name in WEIGHTS if isinstance(content.get(name), dict)][:1]
        entries = entries or [name for name, value in distinct.values() if _is_weights(value)]
        if len(entries) > 1:
            candidates = ", ".join(f"{name!r:.40}" for name in entries[:5])
            raise Refused(f"its entries {candidates} are all weights, and only one can be meant")
        if not entries:
            break
        content = content[entries[0]]
    if not _is_weights(content):
        raise Refused(f"it holds {_describe(content)}, not a dictionary of tensors by name")
    return content


def _is_weights(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _describe(content: Any) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    entries = [f"{name!r:.40}: {type(value).__name__}" for name, value in content.items() if type(value) is not Tensor]
    return f"a dictionary with {', '.join(entries[:4]) or 'no tensors under names'}"


def _arrays(weights: Mapping[str, Tensor], archive: Archive, root: str) -> dict[str, np.ndarray]:
    """Each tensor as a view of its storage's bytes, each storage's checksum compared once."""
    if sum(math.prod(tensor.shape) * tensor.storage.dtype.itemsize for tensor in weights.values()) > archive.limit:
        raise Refused(f"its tensors repeat themselves to more than {archive.limit} bytes")
    keys = dict.fromkeys(tensor.storage.key for tensor in weights.values())
    contents = {key: archive.read(f"{root}data/{key}") for key in keys}
    return {name: _array(tensor, contents[tensor.storage.key]) for name, tensor in weights.items()}


def _array(tensor: Tensor, content: memoryview) -> np.ndarray:
    key, dtype, size = tensor.storage
    if len(content) != size * dtype.itemsize:
        raise Refused(f"its storage {key!r:.40} has another size than its tensors expect")
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, dtype)
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    return np.ndarray(tensor.shape, dtype, content, tensor.offset * dtype.itemsize, strides)


def _storage(identifier: Any) -> Storage:
    """A storage, by torch.save's persistent identifier: ("storage", type, key, device, number of elements)."""
    _, dtype, key, _, size = identifier
    if identifier[0] != "storage" or not isinstance(dtype, np.dtype) or not isinstance(key, str) or not _natural(size):
        raise Refused("it names a storage in an unknown way")
    return Storage(key, dtype, size)


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, metadata: Any = None
) -> Tensor:
    """torch._utils._rebuild_tensor_v2. Raises `Refused` where the tensor reaches beyond its storage."""
    if metadata:
        raise Refused("it holds a conjugated or negated view; make it a tensor of its own by .resolve_conj()")
    if not isinstance(storage, Storage) or not _fits(shape, strides) or not _natural(offset):
        raise Refused("it holds a tensor whose shape or strides make no sense")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise Refused(f"it holds a tensor of shape {shape!s:.80} that reaches beyond its storage")
    return Tensor(storage, offset, shape, strides)


def _typed_tensor(storage: Any, *arguments: Any) -> Tensor:
    """torch._utils._rebuild_tensor_v3, for types without a storage class: the storage is one of bytes."""
    *place, dtype = arguments[:6]
    if not isinstance(storage, Storage) or not isinstance(dtype, np.dtype):
        raise Refused("it holds a tensor of an unknown type")
    return _tensor(Storage(storage.key, dtype, storage.size // dtype.itemsize), *place, *arguments[6:])


def _parameter(tensor: Any, *_: Any) -> Any:
    """torch._utils._rebuild_parameter: gradient, hooks and state are of no interest here."""
    return tensor


def _dictionary() -> dict[Any, Any]:
    """collections.OrderedDict, which torch.save always makes empty first."""
    return {}


def _skip(*_: Any) -> Skipped:
    return Skipped()


NAMES: Mapping[str, Any] = {
    "collections.OrderedDict": _dictionary,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.storage.UntypedStorage": DTYPES["uint8"],
    **{f"torch.{storage}": DTYPES[name] for storage, name in TORCH_STORAGES.items()},
    **{f"torch.{name}": dtype for name, dtype in DTYPES.items()},
    # What training scripts put beside the weights: read over, whatever it holds.
    "argparse.Namespace": _skip,
    "collections.Counter": _skip,
    "torch.device": _skip,
    "torch.Size": _skip,
    "numpy.dtype": _skip,
    "numpy.core.multiarray.scalar": _skip,
    "numpy._core.multiarray.scalar": _skip,
    "_codecs.encode": _skip,
}


def _fits(shape: Any, strides: Any) -> bool:
    """Whether these are as many natural numbers each, and no more than NumPy has axes."""
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or not len(shape) == len(strides) <= MOST_AXES:
        return False
    return all(map(_natural, (*shape, *strides)))


def _natural(number: Any) -> bool:
    return type(number) is int and number >= 0
