"""Tolerances that follow from rounding, and the verdict of float64, in which nothing hides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from compare.small_pairs import LAYOUT, Ours, Theirs, X
from flax import nnx
from parity.vit_libraries import randomised
from torch import nn

from benchmarks.false_alarms import __main__ as false_alarms
from benchmarks.false_alarms.all_faults import FAULTS
from benchmarks.false_alarms.families import KINDS
from benchmarks.false_alarms.ports import Size, port
from flaxformer_edu import compare, convert

pytestmark = [pytest.mark.usefixtures("unchecked"), pytest.mark.one_mode]
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZE = Size(depth=2, width=16, heads=4, hidden=32)


def made(kind="nn.TransformerEncoder, pre-norm", dtype="bfloat16", **options):
    return port(kind, KINDS[kind], SIZE, np.random.default_rng(0), dtype, **{"param_dtype": dtype, **options})


def small(dtype):
    theirs = randomised(Theirs(), TYPES[dtype])
    return convert.load_weights(in_type(dtype), theirs.state_dict(), layout=LAYOUT), theirs


def in_type(dtype):
    with jax.enable_x64(True):
        graphdef, state = nnx.split(Ours(nnx.Rngs(0)))
        return nnx.merge(graphdef, jax.tree.map(lambda x: x.astype(dtype), state))


def run(pair, **options):
    return compare.models(pair.ours, pair.theirs, pair.inputs, layout=pair.layout, compiled=False, **options)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["course", "captioner", "nn.TransformerEncoder, post-norm"])
def test_a_correct_port(kind, dtype):
    """The course's models have a table of positions, which PyTorch has rounded."""
    report = run(made(kind, dtype))
    assert report.agrees, report.summary
    assert len({row.tolerance for row in report.layers}) > 5  # of each layer by itself
    assert all(row.float64 <= 1e-12 for row in report.layers)
    unit = float(jnp.finfo(dtype).eps)
    assert all(2 * unit <= row.tolerance < 500 * unit for row in report.layers)
    assert "in float64 they agree, too" in report.summary
    assert "ours is as close as theirs" in report.summary
    assert f"{report.layers[0].tolerance:.1e}" in str(report)


def epsilon(theirs):
    theirs.layers[1].norm2.eps = 1e-3


def bias(theirs):
    theirs.layers[1].linear2.register_forward_hook(lambda module, _, y: y - 0.02 * module.bias)


def scale(theirs):
    theirs.layers[1].linear2.register_forward_hook(lambda module, _, y: 1.01 * y)


HIDDEN = {"epsilon": (epsilon, "norm2"), "bias": (bias, "mlp.down"), "scale": (scale, "mlp.down")}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_hides_in_bfloat16(name):
    plant, layer = HIDDEN[name]
    pair = made()
    plant(pair.theirs)
    assert run(pair, referee=False, diagnose=False).agrees  # that is, they do hide
    report = run(pair, diagnose=False)
    assert report.first_divergence.layer == f"blocks.1.{layer}"
    assert report.first_divergence.max_rel <= report.first_divergence.tolerance
    assert "of its largest value in float64" in report.summary


def test_a_small_epsilon_in_float32():
    pair = made(dtype="float32")
    pair.theirs.layers[0].norm1.eps = 1e-6
    report = run(pair)
    assert report.first_divergence.layer == "blocks.0.norm1"
    assert (report.diagnosis.cause, report.diagnosis.where) == ("norm_epsilon", "blocks.0.norm1")
    assert report.diagnosis.rest == "with that changed, the output agrees"


def test_a_fault_behind_a_rounded_table():
    """The table is off by more, in float64, than the fault."""
    pair = made("course")
    pair.theirs.transformer.layers[1].norm_ffn.eps = 1e-4
    report = run(pair, diagnose=False)
    assert report.first_divergence.layer == "encoder.blocks.1.norm2"
    assert report.first_divergence.float64 < 1e-3
    pair = made("course")
    pair.theirs.positional_encoding.pe.mul_(1.1)
    assert run(pair, diagnose=False).first_divergence.layer.startswith("encoder.blocks.0.attention.")


def test_what_is_narrow_in_float32_alone():
    """Autocast leaves float64 as it is."""
    pair = made(dtype="float32")
    forward = pair.theirs.layers[1].linear1.forward

    def run_narrow(x):
        with torch.autocast("cpu", torch.bfloat16):
            return forward(x).to(x.dtype)

    pair.theirs.layers[1].linear1.forward = run_narrow
    report = run(pair, diagnose=False)
    assert report.first_divergence.layer == "blocks.1.mlp.up"
    assert report.first_divergence.agrees_in_float64
    assert "in float64 they agree: ours is" in report.summary


class Casting(nn.Module):
    """A module that computes in float32 whatever it is given, as softmax in many a library."""

    def forward(self, x):
        return x.float().relu().to(x.dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_computed_in_float32_on_purpose(dtype):
    ours, theirs = small(dtype)
    theirs.activation = Casting()
    report = compare.models(ours, theirs, X, layout=LAYOUT, compiled=False)
    assert report.agrees, report.summary
    theirs.activation.forward = lambda x: (1.001 * x.float()).relu().to(x.dtype)
    assert compare.models(ours, theirs, X, layout=LAYOUT, compiled=False).first_divergence.layer == "last"


def test_types_that_are_not_the_same():
    """Our parameters in float32, or computing in it, and theirs in bfloat16."""
    for options in ({"param_dtype": "float32", "dtype": "bfloat16"}, {"param_dtype": "float32"}):
        report = run(made(**options))
        assert report.agrees, report.summary
        assert all(row.float64 <= 1e-12 for row in report.layers)


def test_theirs_is_left_as_it_was():
    pair = made("course", "float32")
    before = {name: (x.data_ptr(), x.dtype, x.clone()) for name, x in pair.theirs.state_dict().items()}
    table, state = pair.theirs.positional_encoding.pe, torch.get_rng_state()
    run(pair)
    after = pair.theirs.state_dict()
    assert before.keys() == after.keys()
    assert all((x.data_ptr(), x.dtype) == before[name][:2] for name, x in after.items())
    assert all((x == before[name][2]).all() for name, x in after.items())
    assert pair.theirs.positional_encoding.pe is table
    assert (torch.get_rng_state() == state).all()


def test_without_a_referee():
    pair = made()
    recorded = compare.record(None, pair.theirs, pair.inputs)
    reports = {
        "theirs is a recorded run": compare.models(pair.ours, recorded, layout=pair.layout, compiled=False),
        "not asked for": run(pair, referee=False),
    }
    for reason, report in reports.items():
        assert report.agrees
        assert report.no_referee == reason
        assert f"not compared in float64: {reason}" in report.summary
        assert len({row.tolerance for row in report.layers}) > 5
        assert all(row.float64 is None for row in report.layers)
    assert {row.tolerance for row in run(pair, tolerance=0.1).layers} == {0.1}
    pair.theirs.register_forward_pre_hook(refuse_float64)
    report = run(pair)
    assert report.agrees
    assert "no doubles" in report.no_referee


def refuse_float64(module, given):
    if given[0].dtype == torch.float64:
        raise TypeError("no doubles")


@pytest.mark.parametrize("dtype", TYPES)
def test_gradients(dtype):
    pair = made(dtype=dtype)
    report = run(pair, gradients=True)
    assert report.agrees, report.summary
    unit = float(jnp.finfo(dtype).eps)
    assert all(2 * unit <= row.tolerance < 500 * unit for row in report.gradients)
    unit = float(jnp.finfo(dtype).eps)
    assert all(2 * unit <= row.tolerance < 500 * unit for row in report.gradients)
    assert max(row.float64 for row in report.gradients) <= 1e-12
    recorded = compare.record(None, pair.theirs, pair.inputs, gradients=True)
    assert compare.models(pair.ours, recorded, layout=pair.layout, compiled=False, gradients=True).agrees
    pair.theirs.layers[1].linear2.register_full_backward_hook(lambda module, given, _: (given[0] * 1.001,))
    report = run(pair, gradients=True)
    assert report.first_divergence is None
    assert report.first_gradient_divergence.layer == "blocks.1.mlp.up"


class TestTheBenchmark:
    def test_ports_and_faults(self):
        assert not any(trial.found for trial in false_alarms.ports(3, 2))
        trials = list(false_alarms.faults(3, 2))
        assert all(trial.found and trial.located for trial in trials)
        assert false_alarms.summary(trials)["found"] == 2

    def test_there_is_enough_of_each(self):
        assert len(FAULTS) >= 30
        assert len(KINDS) >= 7
        assert {1, 48} <= set(false_alarms.DEPTHS)
