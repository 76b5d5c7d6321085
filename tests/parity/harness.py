"""Compare one of our modules with its PyTorch twin: outputs, and the gradients of all parameters and inputs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from flaxformer_edu import convert
from flaxformer_edu.layers import RecordedMasks
from flaxformer_edu.reference.torch_masks import RecordDropout


def channel_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def assert_close(name: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    """The largest difference, in units of the largest value where that is above 1."""
    assert ours.shape == theirs.shape, name
    error = np.abs(np.asarray(ours, np.float64) - theirs).max() / max(1.0, np.abs(theirs).max())
    assert error <= tolerance, f"{name} differs by {error:.3g}"


def assert_parity(
    model: nnx.Module,
    twin: torch.nn.Module,
    inputs: Sequence[np.ndarray | None],
    torch_inputs: Sequence[np.ndarray] | None = None,
    *,
    train: bool,
    layout: str | convert.Layout = "cs231n",
) -> None:
    """`model` gets the twin's weights and, in training, its dropout masks. Float64 agrees to 1e-12, float32 to 1e-5.

    The gradients are those of a random weighting of the output. `torch_inputs` are for twins that take other inputs.
    """
    twin.train(train)
    double = next(twin.parameters()).dtype == torch.float64
    tolerance = 1e-12 if double else 1e-5
    model = convert.load_weights(model, twin.state_dict(), layout=layout)

    tensors = [torch.tensor(x) for x in (inputs if torch_inputs is None else torch_inputs)]
    for tensor in tensors:
        tensor.requires_grad_(tensor.is_floating_point())
    with RecordDropout() as recording:
        expected = twin(*tensors)
    assert bool(recording.masks) == train, "dropout is tested in training, and only there"
    weighting = np.random.default_rng(0).normal(size=expected.shape).astype(expected.detach().numpy().dtype)
    expected.backward(torch.tensor(weighting))

    graphdef, state = nnx.split(model)
    differentiable = [i for i, x in enumerate(inputs) if x is not None and np.issubdtype(x.dtype, np.floating)]

    def weighted_output(state, floats):
        arguments = list(inputs)
        for i, x in zip(differentiable, floats, strict=True):
            arguments[i] = x
        training = {"rngs": RecordedMasks(recording.masks)} if train else {}
        output = nnx.merge(graphdef, state)(*arguments, **training)
        return (output * weighting).sum(), output

    floats = [jnp.asarray(inputs[i]) for i in differentiable]
    run = jax.jit(jax.value_and_grad(weighted_output, argnums=(0, 1), has_aux=True))
    (_, output), (gradients, input_gradients) = run(state, floats)

    assert output.dtype == (jnp.float64 if double else jnp.float32)
    assert_close("the output", output, expected.detach().numpy(), tolerance)
    ours = convert.to_torch(nnx.merge(graphdef, gradients), layout=layout)
    for name, parameter in twin.named_parameters():
        assert_close(f"the gradient of {name}", ours[name], parameter.grad.numpy(), tolerance)
    torch_floats = [t for t in tensors if t.is_floating_point()]
    for index, (gradient, tensor) in enumerate(zip(input_gradients, torch_floats, strict=True)):
        theirs = tensor.grad.numpy()
        theirs = theirs.transpose(0, 2, 3, 1) if torch_inputs is not None and theirs.ndim == 4 else theirs
        assert_close(f"the gradient of input {index}", gradient, theirs, tolerance)
