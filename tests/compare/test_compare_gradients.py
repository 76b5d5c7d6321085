"""Gradients and one step of an optimizer: pairs that agree, and backward passes that alone are wrong."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from compare import eager as compare
from compare.planted import CAPTIONS, FEATURES, captioner
from compare.small_pairs import LAYOUT, Ours, X, small
from flax import nnx
from torch import nn
from torch.nn import functional

from flaxformer_edu import convert
from flaxformer_edu.compare.sides.our_gradients import default_loss
from flaxformer_edu.compare.sides.their_gradients import default_loss as torch_default_loss
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import CaptioningTransformer

pytestmark = pytest.mark.usefixtures("unchecked")
ADAMW = optax.adamw(1e-3, weight_decay=1e-2), partial(torch.optim.AdamW, lr=1e-3)
LABELS = np.array([0, 3, 1])
CROSS_ENTROPY = (
    lambda logits: optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean(),
    lambda logits: functional.cross_entropy(logits, torch.tensor(LABELS)),
)


class Doubled(torch.autograd.Function):
    """The identity, whose backward pass is wrong."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Stopped(nnx.Linear):
    def __call__(self, inputs):
        return jax.lax.stop_gradient(super().__call__(inputs))


def run(ours, theirs, **options):
    return compare.models(ours, theirs, X, layout=LAYOUT, **options)


def names(report):
    return [row.layer for row in report.gradients]


def test_the_order_of_the_backward_pass(float64):
    report = run(*small(), gradients=True)
    assert report.agrees, report.summary
    assert {row.tolerance for row in report.gradients} == {1e-12}
    last, norm = ["last", "last.bias", "last.kernel"], ["norm", "norm.bias", "norm.scale"]
    assert names(report) == ["", *last, *norm, "first", "first.bias", "first.kernel"]
    assert "all 10 gradients agree" in report.summary
    assert "Gradients, in the order of the backward pass" in str(report)
    assert report.first_gradient_divergence is report.stepped is None
    content = json.loads(report.to_json())
    assert len(content["gradients"]) == 10
    assert content["stepped"] is content["first_gradient_divergence"] is None
    assert run(*small()).gradients is None


def test_the_captioner(float64):
    """Whose padding word receives no gradient, in either framework's way."""
    ours, theirs = captioner()
    inputs = (FEATURES, CAPTIONS)
    assert (CAPTIONS == 0).any()
    report = compare.models(ours, theirs, inputs, layout="cs231n", gradients=True, step=ADAMW)
    assert report.agrees, report.summary
    assert {row.layer for row in report.parameters} <= set(names(report))
    assert {row.layer for row in report.layers} <= set(names(report))
    assert len(report.stepped) == len(report.parameters)


def test_gradients_that_are_zero_but_for_rounding_in_float32():
    """Those of keys' biases, of whose signs Adam makes steps."""
    with jax.enable_x64(True):
        ours, theirs = captioner()
    ours = convert.from_torch(CaptioningTransformer, ours.config, theirs.float().state_dict(), layout="cs231n")
    report = compare.models(ours, theirs, (FEATURES, CAPTIONS), layout="cs231n", step=ADAMW)
    assert report.agrees, report.summary
    assert all(1e-7 < row.tolerance < 1e-4 for row in report.gradients)
    biases = [row for row in report.gradients if row.layer.endswith(".attention.key.bias")]
    assert biases
    assert all(row.cosine < 0.999 for row in biases)


class Normed(Ours):
    def __call__(self, x):
        return self.norm(self.first(self.first(x)))


def test_a_plain_sum_behind_a_norm(float64):
    """All gradients are zero but the norm's, and those of what is not used at all."""
    ours, theirs = small()
    ours.__class__ = Normed
    theirs.forward = lambda x: theirs.norm(theirs.first(theirs.first(x)))
    ours.norm.scale[...] = jnp.ones(4)
    nn.init.ones_(theirs.norm.weight)
    report = run(ours, theirs, loss=(jnp.sum, torch.sum))
    assert report.agrees, report.summary
    assert next(row for row in report.gradients if row.layer == "first").cosine < 0.999


def hook(change, name):
    def plant(ours, theirs):
        theirs.get_submodule(name).register_forward_hook(lambda *call: change(call[-1]))

    return plant


def without_gradients(ours, theirs):
    theirs.forward = torch.no_grad()(theirs.forward)


def stop_ours(ours, theirs):
    ours.last.__class__ = Stopped


BACKWARD_FAULTS = {
    "detached": (hook(torch.Tensor.detach, "norm"), "norm.bias", "that of norm.bias, by "),
    "scaled": (hook(Doubled.apply, "last"), "last.bias", "that of last.bias"),
    "between": (hook(Doubled.apply, "activation"), "norm", "the output of norm, by 5.0e-01; the backward pass goes wr"),
    "all": (hook(torch.Tensor.detach, ""), "last", "wrong between the output and it"),
    "no_grad": (without_gradients, "last.bias", "that of last.bias, by 1.0e+00"),
    "ours": (stop_ours, "last.bias", "that of last.bias, by 1.0e+00"),
}


@pytest.mark.parametrize("name", BACKWARD_FAULTS)
def test_a_backward_pass_that_is_wrong(float64, name):
    plant, layer, words = BACKWARD_FAULTS[name]
    ours, theirs = small()
    plant(ours, theirs)
    report = run(ours, theirs, gradients=True, loss=CROSS_ENTROPY)
    assert report.first_divergence is None
    assert not report.agrees
    assert report.first_gradient_divergence.layer == layer
    assert words in report.summary


def test_a_loss_that_is_another(float64):
    report = run(*small(), loss=(CROSS_ENTROPY[0], lambda logits: logits.sum()))
    assert report.first_gradient_divergence is report.gradients[0]
    assert "the losses differ" in report.summary


STEPS = {
    "adamw": (ADAMW, True),
    "sgd": ((optax.sgd(0.1), partial(torch.optim.SGD, lr=0.1)), True),
    "decay": ((optax.adamw(1e-3, weight_decay=1e-4), ADAMW[1]), False),
    "coupled": ((ADAMW[0], partial(torch.optim.Adam, lr=1e-3, weight_decay=1e-2)), False),
    "epsilon": ((optax.adamw(1e-3, weight_decay=1e-2, eps=1e-6), ADAMW[1]), False),
}


@pytest.mark.parametrize("name", STEPS)
def test_one_step(float64, name):
    step, agree = STEPS[name]
    report = run(*small(), step=step)
    assert report.first_gradient_divergence is None
    assert report.agrees == agree
    assert ("all 6 parameters agree after one step" in report.summary) == agree
    if not agree:
        assert "of 6 parameters differ after one step: " in report.summary
        assert "Parameters that differ after one step" in str(report)


def test_ours_and_ours(float64):
    ours, _ = small()
    other = nnx.clone(ours)
    report = compare.models(ours, other, X, loss=CROSS_ENTROPY[:1] * 2, step=(optax.sgd(0.1), optax.sgd(0.1)))
    assert report.agrees
    assert max(row.max_abs for row in (*report.gradients, *report.stepped)) == 0
    other.last.__class__ = Stopped
    report = compare.models(ours, other, X, gradients=True)
    assert report.first_gradient_divergence.layer == "last.bias"


def test_their_model_is_left_as_it_was(float64):
    ours, theirs = small()
    theirs.norm.requires_grad_(False)
    theirs.register_buffer("table", torch.zeros(3, 4, dtype=torch.float64), persistent=False)
    theirs.last.register_forward_hook(lambda *call: call[-1] + theirs.activation(theirs.table))
    theirs.first.weight.grad = torch.ones_like(theirs.first.weight)
    before = {name: x.clone() for name, x in theirs.state_dict().items()}
    report = run(ours, theirs, step=ADAMW)
    assert report.first_gradient_divergence is None
    assert {row.layer for row in report.stepped if not row.agrees} == {"norm.bias", "norm.scale"}  # frozen there
    assert [name for name, x in theirs.named_parameters() if not x.requires_grad] == ["norm.weight", "norm.bias"]
    assert theirs.first.weight.grad.sum() == 16
    assert theirs.last.weight.grad is None
    assert not theirs.table.requires_grad
    assert all((x == before[name]).all() for name, x in theirs.state_dict().items())
    assert not any(x._backward_hooks for x in theirs.parameters())


def test_the_default_loss_is_the_same(float64):
    ours = jax.grad(lambda x: default_loss({"logits": x, "other": 1}))(jnp.asarray(X))
    theirs = torch.tensor(X, requires_grad=True)
    torch_default_loss((None, {"logits": theirs})).backward()
    np.testing.assert_allclose(ours, theirs.grad, rtol=1e-15)
    np.testing.assert_allclose(ours, 1 + X**2, rtol=1e-15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": jnp.sum}, "loss is .*, expected two: ours and theirs"),
        ({"step": ADAMW[:1]}, "step is .*, expected two: ours and theirs"),
        ({"loss": (lambda y: y, None)}, r"loss of our output has shape \(3, 4\), expected a number"),
        ({"loss": (None, lambda y: y)}, r"loss of their output has shape \(3, 4\), expected a number"),
        ({"loss": (None, lambda y: 1.0)}, "loss of their output has type float, expected a number"),
        ({"loss": (lambda y: 0.0, lambda y: y.sum()), "step": (None, torch.optim.Adam)}, None),
        ({"step": (ADAMW[0], None)}, "theirs took no step"),
        ({"step": (ADAMW[0], lambda parameters: None)}, "their optimizer does not step on a list of parameters"),
    ],
)
def test_wrong_input(float64, options, message):
    if message is None:  # a loss that is constant has gradients, all of them zero
        assert run(*small(), **options).first_gradient_divergence is not None
        return
    with pytest.raises(InputError, match=message):
        run(*small(), **options)
