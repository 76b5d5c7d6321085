"""Optimizers and learning rates against torch.optim, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from flaxformer_edu.errors import InputError
from flaxformer_edu.training import Optimizer
from flaxformer_edu.training.optimizers import is_weight

pytestmark = pytest.mark.no_nnx

STEPS = 12


def targets(params):
    return {name: jnp.cos(jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)) for name, x in params.items()}


def start():
    generator = np.random.default_rng(0)
    return {"kernel": generator.normal(size=(3, 4)), "bias": generator.normal(size=4)}


def ours(config: Optimizer) -> dict[str, np.ndarray]:
    params = jax.tree.map(jnp.asarray, start())
    optimizer = config.build(STEPS)
    memory = optimizer.init(params)
    gradient = jax.grad(lambda p: sum(((p[k] - t) ** 4).sum() for k, t in targets(p).items()))

    @jax.jit
    def step(params, memory):
        updates, memory = optimizer.update(gradient(params), memory, params)
        return optax.apply_updates(params, updates), memory

    for _ in range(STEPS):
        params, memory = step(params, memory)
    return params


def theirs(build, schedule=None) -> dict[str, np.ndarray]:
    params = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in start().items()}
    goals = {name: torch.tensor(np.array(t)) for name, t in targets(start()).items()}
    optimizer = build(list(params.values()))
    scheduler = schedule(optimizer) if schedule else None
    for _ in range(STEPS):
        optimizer.zero_grad()
        sum(((params[name] - goal) ** 4).sum() for name, goal in goals.items()).backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
    return {name: p.detach().numpy() for name, p in params.items()}


def assert_equal(left, right, tolerance=1e-12):
    for name in right:
        np.testing.assert_allclose(left[name], right[name], rtol=0, atol=tolerance)


CASES = {
    "sgd": ({"learning_rate": 1e-3}, torch.optim.SGD, {"lr": 1e-3}),
    "sgd with momentum and decay": (
        {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 0.1},
        torch.optim.SGD,
        {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.1},
    ),
    "adam": ({}, torch.optim.Adam, {}),
    "adam with L2": ({"name": "adam", "weight_decay": 0.1}, torch.optim.Adam, {"weight_decay": 0.1}),
    "adamw": ({}, torch.optim.AdamW, {}),
    "adamw with its own settings": (
        {"name": "adamw", "learning_rate": 0.02, "betas": (0.8, 0.95), "epsilon": 1e-3, "weight_decay": 0.3},
        torch.optim.AdamW,
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_optimizer(float64, case):
    settings, build, their_settings = CASES[case]
    config = Optimizer(**{"name": case, **settings})
    assert_equal(ours(config), theirs(lambda params: build(params, **their_settings)))


def test_l2_and_decoupled_decay_differ(float64):
    l2, decoupled = (ours(Optimizer(name=name, weight_decay=0.1)) for name in ("adam", "adamw"))
    assert np.abs(l2["kernel"] - decoupled["kernel"]).max() > 1e-4


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_biases_and_scales_can_be_spared(float64, name):
    build = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]

    def groups(params):
        kernel, bias = params
        return build([{"params": [kernel], "weight_decay": 0.2}, {"params": [bias], "weight_decay": 0.0}], lr=1e-3)

    assert_equal(ours(Optimizer(name=name, weight_decay=0.2, decay="weights")), theirs(groups))


def test_what_counts_as_a_weight():
    params = {"norm1": {"scale": 0, "bias": 0}, "blocks": {0: {"kernel": 0}}, "words": {"embedding": 0}}
    assert is_weight(params) == {
        "norm1": {"scale": False, "bias": False},
        "blocks": {0: {"kernel": True}},
        "words": {"embedding": True},
    }


def test_cosine_after_warmup_is_torchs(float64):
    """LinearLR from 1/5 over four steps, then CosineAnnealingLR to a tenth."""

    def schedule(optimizer):
        rising = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 5, total_iters=4)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS - 4, eta_min=1e-3)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, falling], milestones=[4])

    config = Optimizer(name="adamw", learning_rate=1e-2, schedule="cosine", warmup_steps=4, final_fraction=0.1)
    expected = theirs(lambda params: torch.optim.AdamW(params, lr=1e-2), schedule)
    assert_equal(ours(config), expected)


def test_learning_rates_over_a_run():
    rates = Optimizer(learning_rate=1.0, schedule="cosine", warmup_steps=3, final_fraction=0.1).learning_rates(10)
    np.testing.assert_allclose([rates(i) for i in range(4)], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(rates(10), 0.1, rtol=1e-6)
    constant = Optimizer(learning_rate=0.5).learning_rates(10)
    assert [constant(i) for i in (0, 9)] == [0.5, 0.5]


def test_inverse_sqrt_is_the_papers_schedule(float64):
    """Vaswani et al. 2017, equation 3: width^-0.5 * min(step^-0.5, step * warmup^-1.5), steps counted from 1."""
    width, warmup = 512, 4000
    optimizer = Optimizer(learning_rate=(width * warmup) ** -0.5, schedule="inverse_sqrt", warmup_steps=warmup)
    rates = optimizer.learning_rates(100_000)
    for step in (1, 2, 3999, 4000, 4001, 16_000, 100_000):
        np.testing.assert_allclose(rates(step - 1), width**-0.5 * min(step**-0.5, step * warmup**-1.5), rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "lamb"}, "no optimizer is named 'lamb': choose one of sgd, adam, adamw"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"warmup_steps": 11}, "warmup_steps is 11, expected 0 to 10"),
        ({"schedule": "inverse_sqrt"}, "warmup_steps is 0, expected 1 to 10"),
    ],
)
def test_wrong_settings(unchecked, settings, message):
    with pytest.raises(InputError, match=message):
        Optimizer(**settings).build(10)
