"""How a batch is divided: among devices, which all run the same code, and into parts, one after the other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key, PyTree

from flaxformer_edu.errors import InputError


def use_devices(count: int) -> None:
    """Present the processor as `count` devices, which `data_mesh` then shares the batch among.

    XLA runs much of a small model on one core: two devices on two cores train the course's ViT a third faster.
    To be called before JAX is first used; without effect on GPUs and TPUs.
    """
    if count < 1:
        raise InputError(f"devices is {count}, expected 1 or more")
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise InputError(f"cannot present the processor as {count} devices: JAX is in use; call this first") from error


def data_mesh(batch_size: int, devices: list[Any] | None = None) -> Mesh:
    """A mesh with one axis, "data", over as many of the devices (default: all) as divide the batch evenly."""
    devices = jax.devices() if devices is None else devices
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:count])


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """A copy of `tree` on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def batch_sharding(mesh: Mesh, examples: int, name: str = "the batch", *, stacked: bool = False) -> NamedSharding:
    """How examples are spread over the devices. `stacked` batches have an axis of steps before them.

    Raises InputError where the devices cannot share so many evenly.
    """
    if examples % mesh.size:
        raise InputError(
            f"{name} has {examples} examples, which {mesh.size} devices cannot share evenly: "
            f"choose a batch size divisible by {mesh.size}, or fewer devices"
        )
    return NamedSharding(mesh, PartitionSpec(None, "data") if stacked else PartitionSpec("data"))


def share(batch: dict[str, Any], mesh: Mesh, *, stacked: bool = False) -> dict[str, jax.Array]:
    """The batch with its examples spread over the devices. `stacked` batches have an axis of steps before them."""
    sizes = {name: np.shape(x)[1 if stacked else 0] for name, x in batch.items()}
    return jax.device_put(batch, {name: batch_sharding(mesh, sizes[name], name, stacked=stacked) for name in batch})


def mean_over_parts(loss_and_gradients: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """The same function computed on `parts` equal parts of the batch one after the other, and averaged.

    Part i takes every `parts`-th example from the i-th on, so that on several devices each cuts up its own examples.
    """

    def averaged(params: PyTree, batch: PyTree, key: Key[Array, ""]) -> PyTree:
        def add_part(total: PyTree, part: tuple[PyTree, Key[Array, ""]]) -> tuple[PyTree, None]:
            return jax.tree.map(jnp.add, total, loss_and_gradients(params, *part)), None

        inputs = (jax.tree.map(cut, batch), jax.random.split(key, parts))
        first = jax.tree.map(lambda x: x[0], inputs)
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(loss_and_gradients, params, *first))
        total, _ = jax.lax.scan(add_part, zeros, inputs)
        return jax.tree.map(lambda x: x / parts, total)

    def cut(x: Array) -> Array:
        if x.shape[0] % parts:
            raise InputError(
                f"a batch of {x.shape[0]} cannot be cut into {parts} equal parts: "
                "choose a batch size that accumulate divides"
            )
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    return averaged
