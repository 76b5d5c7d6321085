"""Every shipped model compiled as users compile it, against itself one operation after the other, in float64.

The cases and what is done with them are those of `benchmarks.jit_equals_eager`, which prints the figures. The short
form has a case of each kind; `make test-all` and `make test-jax` run them all. XLA's flags are a process's, and what
the library compiles inside takes no others: so one process, with the flags that users have, measures all chosen cases.
"""

import importlib
import json
import pkgutil
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiler.conftest import SHIPPED
from flax import nnx

from benchmarks.jit_cases import SMALL
from benchmarks.jit_equals_eager import TOLERANCE, difference, measures, value_and_grad
from flaxformer_edu import models
from flaxformer_edu.compiler import YNNPACK, faults
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.training import split_model

SHORT = {
    ("evaluation", "course attention"),
    ("training", "vit tiles, rotary"),
    ("step", "adam, clipped, averaged"),
    ("loop", "captioner, pre-norm, rotary"),
    ("loop", "course fits"),
}
ALL = {(kind, name): measure for kind, named in measures(large=True).items() for name, measure in named.items()}
SIZES = {"image_size", "patch_size", "channels", "classes", "layers", "width", "heads", "hidden", "norm_epsilon"}
RATES = {"dropout", "attention_dropout", "hidden_dropout", "drop_path"}

CHILD = """
import json, sys, jax
from jax._src.compiler import get_compile_options
from benchmarks.jit_equals_eager import measures

jax.config.update("jax_enable_x64", True)
asked = get_compile_options(1, 1).executable_build_options.debug_options
print(json.dumps([asked.xla_backend_optimization_level, asked.xla_llvm_disable_expensive_passes]))
cases = measures(large=True)
for kind, name in json.load(sys.stdin):
    print(json.dumps([kind, name, cases[kind][name]()]), flush=True)
"""


@pytest.fixture(scope="module")
def child(request: pytest.FixtureRequest, as_users_run: None) -> dict[str, Any]:
    """What a process with the users' flags measures of the cases that were chosen, and what it says before it ends."""
    chosen = [item for item in request.session.items if item.originalname == test_compiled_equals_eager.__name__]
    given = json.dumps([item.callspec.params["case"] for item in chosen])
    done = subprocess.run([sys.executable, "-c", CHILD], input=given, capture_output=True, text=True)
    options, *rows = [json.loads(line) for line in done.stdout.splitlines()] or [None]
    return {"options": options, "differences": {(kind, name): value for kind, name, value in rows}, "says": done.stderr}


# The compiled programs are the same in both modes of Flax NNX, so that one measures them.
@pytest.mark.no_nnx
@pytest.mark.parametrize(
    "case", [pytest.param(case, id=": ".join(case), marks=() if case in SHORT else pytest.mark.slow) for case in ALL]
)
def test_compiled_equals_eager(case, child):
    assert case in child["differences"], child["says"]
    assert child["differences"][case] <= TOLERANCE


@pytest.mark.no_nnx
def test_programs_are_compiled_as_users_compile(child):
    """The rest of the suite asks for level 0; a program compiled so is no proof of what users run."""
    level, without_expensive_passes = child["options"]
    assert level > 0
    assert not without_expensive_passes


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_every_model_and_every_choice_of_a_preset_is_among_the_cases():
    """What differs between presets beside sizes and rates: each such combination is compiled."""

    def choices(config):
        return tuple((name, value) for name, value in vars(config).items() if name not in SIZES | RATES)

    cases = [build().model for build in SMALL.values()]
    compiled = {type(module) for model in cases for _, module in nnx.iter_modules(model)}
    for module in pkgutil.iter_modules(models.__path__, f"{models.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, nnx.Module) and value.__module__ == module.name:
                assert value in compiled

    presets = {name for name, value in vars(ViTConfig).items() if isinstance(value, classmethod) and name[0] != "_"}
    have = [choices(model.config) for model in cases if isinstance(model, VisionTransformer)]
    assert {name for name in presets if choices(getattr(ViTConfig, name)()) not in have} == set()


@pytest.mark.usefixtures("float64")
@pytest.mark.skipif(not faults(), reason="this jaxlib has no such fusions")
def test_the_fusions_in_question_would_be_there():
    """Small as the cases are, the compiler fuses in them what it fuses wrongly elsewhere, unless that is off."""
    case = SMALL["reader project"]()
    lowered = jax.jit(value_and_grad(case, training=True)).lower(split_model(case.model)[1], case.batch)
    fusions = {YNNPACK.switch: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
    assert "__ynn_fusion" in lowered.compile(compiler_options=SHIPPED | fusions).as_text()
    assert "__ynn_fusion" not in lowered.compile(compiler_options=SHIPPED).as_text()


TREE = {
    "attention": {"key": {"kernel": np.full(3, 2e-3), "bias": np.full(3, 1e-18)}},
    "mlp": {"up": {"kernel": np.full(3, 5.0), "bias": np.full(3, -1e-9)}},
}


class TestDifference:
    """The measure itself: what it must see, and the one thing that it must not take for a difference."""

    def changed(self, layer, part, name, by):
        tree = jax.tree.map(np.copy, TREE)
        tree[layer][part][name][1] += by
        return difference(tree, TREE)

    def test_equal(self):
        assert difference(TREE, TREE) == 0

    @pytest.mark.parametrize("place", [("attention", "key", "kernel"), ("mlp", "up", "kernel"), ("mlp", "up", "bias")])
    def test_in_units_of_the_arrays_largest_value(self, place):
        layer, part, name = place
        largest = np.abs(TREE[layer][part][name]).max()
        np.testing.assert_allclose(self.changed(*place, 1e-9 * largest), 1e-9, rtol=1e-6)

    def test_what_is_zero_but_for_rounding_in_units_of_its_layer(self):
        np.testing.assert_allclose(self.changed("attention", "key", "bias", -2e-18), 1e-15)
        np.testing.assert_allclose(self.changed("attention", "key", "bias", 2e-9), 1e-6)

    def test_what_is_not_a_number(self):
        assert self.changed("mlp", "up", "bias", np.nan) == np.inf
        nothing = {"loss": jnp.nan}
        assert difference(nothing, nothing) == np.inf

    def test_infinities(self):
        scores = np.array([-1.0, -np.inf])
        assert difference(scores, scores) == 0
        assert difference(scores, np.array([-1.0, -2.0])) == np.inf
