"""Ours compiled against ours run one operation at a time, and the switch of XLA that makes a difference vanish."""

import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare.small_pairs import LAYOUT, X, small
from flax import nnx
from jax.core import Tracer

from flaxformer_edu import compare, compiler
from flaxformer_edu.compare.causes.compiler import ON, switches

SWITCH = "--xla_cpu_experimental_ynn_fusion_type="
PLANTED = """
    import json, sys
    import jax, jax.numpy as jnp, numpy as np
    from flax import nnx
    from flaxformer_edu import compare
    from flaxformer_edu.models import VisionTransformer, ViTConfig

    sizes = {"image_size": 8, "patch_size": 4, "width": 8, "layers": 4, "heads": 2, "hidden": 12, "classes": 128}
    vit = VisionTransformer(ViTConfig.b16(**sizes), rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    full = lambda: jnp.full((128, 128), 0.5)

    def planted(y):
        return y.mean() + jnp.sum((y @ full()) * y)

    @jax.custom_vjp
    def weighed(gate, x):
        return gate * x

    def backward(x, change):
        return jnp.sum((x @ full()) * x, -1, keepdims=True) * change.mean(), change

    weighed.defvjp(lambda gate, x: (gate * x, x), backward)

    class Gated(nnx.Module):
        def __init__(self):
            self.gate = nnx.Param(jnp.ones((64, 1)))

        def __call__(self, x):
            return weighed(self.gate[...], x)

    class Wrong(nnx.Module):
        def __init__(self):
            self.first, self.last = (nnx.Linear(size, size, rngs=nnx.Rngs(0)) for size in (128, 1))
            self.row = Row()

        def __call__(self, x):
            return self.last(self.row(self.first(x)))

    class Row(nnx.Module):
        def __call__(self, x):
            return jnp.sum((x @ full()) * x, -1, keepdims=True)

    x = np.random.default_rng(1).normal(size=(64, 128)).astype(np.float32)
    cases = {
        "loss": (vit, images, planted),
        "compiled loss": (vit, images, jax.jit(planted)),
        "gradient": (Gated(), x, jnp.sum),
        "layer": (Wrong(), x, None),
    }
    for case in sys.argv[1:]:
        model, inputs, loss = cases[case]
        report = compare.models(model, nnx.clone(model), inputs, loss=None if loss is None else (loss, loss))
        print(json.dumps({"case": case, "report": json.loads(report.to_json()), "summary": report.summary}))
"""


def fresh(flags, *cases):
    """The reports on the planted patterns, by a process of its own."""
    run = [sys.executable, "-c", textwrap.dedent(PLANTED), *cases]
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["case"]: line for line in lines}


def check_named(line):
    report = line["report"]
    assert all(row["agrees"] for row in report["layers"])
    assert not report["agrees"]
    assert report["diagnosis"]["cause"] == "compiler"
    assert f"set XLA_FLAGS={SWITCH};" in line["summary"]
    assert "compiled and eager differ" in line["summary"]


known_fault = pytest.mark.skipif(not compiler.faults(), reason="no fault of this release of jaxlib is known")


@known_fault
def test_the_known_fault_is_found_in_a_layer_and_in_gradients():
    found = fresh(f"{SWITCH}+reduce", "layer", "gradient")
    for line in found.values():
        check_named(line)
    wrong = [row["layer"] for row in found["gradient"]["report"]["compiled"]["programs"] if not row["agrees"]]
    assert wrong == ["the gradient of gate"]
    assert found["layer"]["report"]["compiled"]["first_divergence"] in ("row", "last", "")  # as it is fused


@known_fault
@pytest.mark.slow
@pytest.mark.parametrize("case", ["loss", "compiled loss"])
def test_the_known_fault_is_found_in_a_loss(case):
    line = fresh(f"{SWITCH}+reduce", case)[case]
    check_named(line)
    assert line["report"]["diagnosis"]["where"] == "the loss"


@pytest.mark.slow
def test_nothing_is_found_where_the_guard_is_on():
    for line in fresh("", "loss", "gradient", "layer").values():
        assert line["report"]["agrees"]
        assert line["summary"].endswith("compiled and eager agree")


def is_compiled():
    """Whether this is being compiled: then even what depends on nothing is not yet a number."""
    return isinstance(jnp.zeros(()) + 0, Tracer)


@jax.custom_vjp
def badly_propagated(x):
    """The identity, whose gradient is off by a thousandth when it is compiled."""
    return x


badly_propagated.defvjp(lambda x: (x, None), lambda _, ct: ((1.001 if is_compiled() else 1.0) * ct,))


class Part(nnx.Module):
    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


class Net(nnx.Module):
    def __init__(self, function, dtype=np.float32, compute=None):
        options = {"rngs": nnx.Rngs(0), "param_dtype": dtype, "dtype": compute}
        self.first, self.last = nnx.Linear(4, 4, **options), nnx.Linear(4, 4, **options)
        self.part = Part(function)

    def __call__(self, x):
        return self.last(self.part(self.first(x)))


def badly_compiled(x):
    return (1.001 if is_compiled() else 1.0) * x


def compiled_report(model, **options):
    return compare.models(model, nnx.clone(model), X, **options)


@pytest.mark.parametrize("options", [{}, {"gradients": True}])
def test_a_layer_that_is_compiled_wrongly_is_found(options):
    report = compiled_report(Net(badly_compiled), **options)
    assert report.first_divergence is None
    assert not report.agrees
    assert report.compiled.first_divergence.layer == "part"
    assert report.compiled.first_divergence.max_rel == pytest.approx(1e-3, rel=1e-2)
    assert report.diagnosis is None
    assert report.compiled.tried == len(switches())
    assert report.summary.endswith(
        "compiled and eager differ: first at part, by 1.0e-03\n"
        f"cause: none of the {len(switches())} switches of XLA that were tried"
    )
    assert "Compiled (left) and eager" in str(report)
    assert "Compiled (as ours) and eager, where they differ" in report.to_html()
    assert json.loads(report.to_json())["compiled"]["first_divergence"] == "part"


def test_gradients_that_are_compiled_wrongly_are_found():
    report = compiled_report(Net(badly_propagated), gradients=True, diagnose=False)
    assert report.first_gradient_divergence is None
    assert report.compiled.first_divergence.layer == "the gradient of the output of first"
    different = {row.layer for row in report.compiled.programs if not row.agrees}
    assert different == {"the gradient of first.kernel", "the gradient of first.bias"}
    assert compiled_report(Net(badly_propagated)).agrees  # of gradients nothing is said where none are asked for


def test_a_loss_that_is_compiled_wrongly_is_found():
    def loss(y):
        return badly_compiled(y.mean())

    report = compiled_report(Net(jnp.tanh), loss=(loss, loss), diagnose=False)
    assert report.compiled.first_divergence.layer == "the loss"
    assert compiled_report(Net(jnp.tanh), loss=(lambda y: y.mean(),) * 2).agrees


def test_a_part_of_its_own_transformation_has_no_place():
    report = compiled_report(Net(jax.jit(lambda x: badly_compiled(x) if x.shape else x)), diagnose=False)
    assert report.compiled.agrees  # eagerly it is compiled, too


def test_a_model_that_cannot_be_compiled_is_said_to_be():
    report = compiled_report(Net(lambda x: x if x.sum() > 0 else -x), gradients=True)
    assert report.agrees
    assert "compiled and eager were not compared: our model cannot be compiled (TracerBool" in report.summary
    assert json.loads(report.to_json())["compiled"]["refused"].startswith("TracerBoolConversionError")


def test_it_can_be_left_out():
    report = compiled_report(Net(badly_compiled), compiled=False)
    assert report.agrees
    assert report.compiled is None
    assert "compiled" not in report.summary


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_rounding_is_not_taken_for_a_fault(dtype):
    with jax.enable_x64(dtype == "float64"):
        kinds = {"dtype": np.float64} if dtype == "float64" else {"compute": jnp.dtype(dtype)}
        report = compiled_report(Net(lambda x: jax.nn.gelu(x) / jnp.sqrt(1e-6 + x.var(-1, keepdims=True)), **kinds))
        assert report.agrees
        assert all(row.tolerance < 0.5 for row in report.compiled.programs)


def test_infinities_and_what_is_no_number_may_be_the_same():
    report = compiled_report(Net(lambda x: jnp.where(x > 0, x, -jnp.inf)))
    assert report.compiled.agrees
    assert not compiled_report(Net(lambda x: jnp.where(is_compiled(), jnp.nan, 1.0) * x), diagnose=False).agrees


def test_a_pair_of_both_frameworks():
    ours, theirs = small()
    report = compare.models(ours, theirs, X, layout=LAYOUT, gradients=True)
    assert report.agrees
    assert report.summary.endswith("compiled and eager agree")
    assert [row.layer for row in report.compiled.programs][:2] == ["", "the loss"]


def test_switches_are_known_to_the_compiler_in_use():
    """A name that XLA does not know is skipped in silence, so a misspelt one would never be noticed."""
    for switch in (*switches(), *ON["gpu"]):
        jax.jit(lambda x: x + 1, compiler_options={switch.name: switch.value})(1.0)
