"""Evaluation: exact means whatever the padding, and wrong batches refused early."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training.tiny import BATCH, Source, evaluate_fn, loss_fn, tiny, validation

from flaxformer_edu.errors import InputError
from flaxformer_edu.training import Evaluation, LoopConfig, Optimizer, data_mesh, fit, split_model


def value_of(model, batch):
    return {"loss": batch["value"] * model.head.bias[...].sum(), "one": jnp.ones_like(batch["value"])}


MODEL = tiny()
MODEL.head.bias[...] = jnp.array([0.25, 0.25, 0.25, 0.25])
GRAPHDEF, PARAMS = split_model(MODEL)
BATCHES: list[dict[str, np.ndarray]] = []
EVALUATE = Evaluation(GRAPHDEF, value_of, lambda: BATCHES, data_mesh(BATCH))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.floats(-10, 10, width=16))
def test_the_mean_is_over_all_real_examples(count, offset):
    """Padding counts for nothing, not even where it is NaN; batches weigh by their examples."""
    values = np.arange(count, dtype=np.float32) + offset
    padded = np.concatenate([values, np.full(-count % BATCH, np.nan, np.float32)]).reshape(-1, BATCH)
    BATCHES[:] = [{"value": row, "mask": ~np.isnan(row)} for row in padded]
    np.testing.assert_allclose(EVALUATE(PARAMS)["loss"], values.mean(dtype=np.float64), rtol=1e-6, atol=1e-5)
    assert EVALUATE(PARAMS)["one"] == 1


def test_nothing_to_evaluate():
    BATCHES.clear()
    with pytest.raises(InputError, match="gave no examples"):
        EVALUATE(PARAMS)


def run(evaluate_fn, validation, **loop):
    config = LoopConfig(steps=1, **loop)
    fit(tiny(), loss_fn, Optimizer(), Source(), config, evaluate_fn=evaluate_fn, validation=validation)


@pytest.mark.parametrize("given", [(evaluate_fn, None), (None, validation)])
def test_half_an_evaluation(given):
    with pytest.raises(InputError, match="needs both evaluate_fn and validation"):
        run(*given)


def test_a_batch_without_mask():
    with pytest.raises(InputError, match="has inputs, labels, expected also mask"):
        run(evaluate_fn, lambda: [Source()(0)])


def test_a_best_metric_that_is_not_evaluated():
    with pytest.raises(InputError, match="best_metric is 'bleu', but evaluate_fn gives accuracy, loss"):
        run(evaluate_fn, validation, best_metric="bleu")
