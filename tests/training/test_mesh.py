"""One device and many compute the same."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training.tiny import Source, assert_close, evaluate_fn, loss_fn, tiny, validation

from flaxformer_edu.errors import InputError
from flaxformer_edu.training import (
    Evaluation,
    compile_step,
    data_mesh,
    make_step,
    new_state,
    replicate,
    share,
    split_model,
    use_devices,
)


def train_on(devices: int, **options):
    """Three SGD steps with dropout in float64: the state, the metrics and an evaluation."""
    mesh = data_mesh(8, jax.devices()[:devices])
    assert mesh.size == devices
    graphdef, params = split_model(tiny(rate=0.3, param_dtype=jnp.float64))
    optimizer = optax.sgd(0.1)
    advance = compile_step(make_step(graphdef, optimizer, loss_fn, clip_norm=0.5, ema_decay=0.9, **options), mesh)
    state = replicate(new_state(params, optimizer, ema=True), mesh)
    for step in range(3):
        batch = share(Source(dtype=np.float64)(step), mesh)
        assert [shard.data.shape[0] for shard in batch["inputs"].addressable_shards] == [8 // devices] * devices
        state, metrics = advance(state, batch)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    averages = Evaluation(graphdef, evaluate_fn, validation, mesh)(state.params)
    return jax.device_get((state, metrics)), averages


def several_devices() -> None:
    """The tests that need four devices, run in a process of its own."""
    jax.config.update("jax_platforms", "cpu")
    use_devices(4)
    with jax.enable_x64(True):
        for options in ({}, {"accumulate": 2}):
            one, *others = [train_on(devices, **options) for devices in (1, 2, 4)]
            for other in others:
                assert_close(other, one, 1e-14)
    assert [data_mesh(size).size for size in (8, 6, 25, 3)] == [4, 3, 1, 3]
    stacked = share({"x": np.zeros((3, 8, 2))}, data_mesh(8), stacked=True)["x"]
    assert stacked.sharding.shard_shape(stacked.shape) == (3, 2, 2)
    with pytest.raises(InputError, match="labels has 6 examples, which 4 devices cannot share evenly"):
        share({"labels": np.zeros(6)}, data_mesh(8))
    with pytest.raises(InputError, match="cannot present the processor as 2 devices: JAX is in use"):
        use_devices(2)
    print(json.dumps({"devices": jax.device_count()}))


def test_several_devices_agree_with_one():
    """Losses, parameters, averages, metrics and evaluations on 1, 2 and 4 devices."""
    code = "from training.test_mesh import several_devices; several_devices()"
    folders = [Path(__file__).parent.parent, Path(__file__).parent.parent.parent]
    path = f"import sys; sys.path[:0] = {[str(folder) for folder in folders]}; "
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", path + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"devices": 4}


def test_too_few_devices():
    with pytest.raises(InputError, match="devices is 0, expected 1 or more"):
        use_devices(0)
