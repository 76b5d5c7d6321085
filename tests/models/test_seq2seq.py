"""The translator: structure, options, and what padding and later tokens may not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.errors import InputError
from flaxformer_edu.models import Seq2SeqConfig, Seq2SeqTransformer
from flaxformer_edu.models.abstract import abstract

CONFIG = Seq2SeqConfig.tiny(source_vocab=7, vocab=9, width=16, hidden=20, max_length=8)
SOURCE = np.array([[3, 4, 5, 6, 2], [6, 5, 2, 0, 0]])
TARGET = np.array([[1, 5, 6, 7], [1, 8, 0, 0]])


def count(config):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract(Seq2SeqTransformer, config))))


def test_the_base_model_has_the_papers_size():
    config = Seq2SeqConfig.base(source_vocab=37_000, vocab=37_000)
    assert config.tied
    assert round(count(config) / 1e6) == 63  # the paper says 65, of a vocabulary of "about" 37,000


def test_padding_of_the_source_changes_nothing():
    model = Seq2SeqTransformer(CONFIG, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(model(SOURCE, TARGET)[1], model(SOURCE[1:, :3], TARGET[1:])[0], atol=1e-5)


def test_later_tokens_do_not_change_earlier_logits():
    model = Seq2SeqTransformer(CONFIG, rngs=nnx.Rngs(0))
    changed = np.array(TARGET)
    changed[:, 2:] = 4
    before, after = model(SOURCE, TARGET), model(SOURCE, changed)
    np.testing.assert_allclose(before[:, :2], after[:, :2], atol=1e-6)
    assert (np.abs(before - after)[:, 2:] > 1e-3).any(axis=-1).all()


def test_tied_weights_are_one_matrix():
    config = Seq2SeqConfig.tiny(source_vocab=9, vocab=9, tied=True, width=16, hidden=20)
    model = Seq2SeqTransformer(config, rngs=nnx.Rngs(0))
    assert count(config) == count(Seq2SeqConfig.tiny(source_vocab=9, vocab=9, width=16, hidden=20)) - 2 * 9 * 16 - 9
    assert model.logits(jnp.ones((1, 1, 16))).shape == (1, 1, 9)
    assert model(SOURCE, TARGET).shape == (2, 4, 9)


def test_dropout_and_compute_types():
    config = Seq2SeqConfig.tiny(source_vocab=7, vocab=9, width=16, hidden=20, dropout=0.5)
    model = Seq2SeqTransformer(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    assert model(SOURCE, TARGET).dtype == jnp.bfloat16
    draws = [model(SOURCE, TARGET, rngs=nnx.Rngs(dropout=seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    def test_two_vocabularies_cannot_be_tied(self):
        with pytest.raises(InputError, match="the source has 7 tokens and the target 9"):
            Seq2SeqConfig.tiny(source_vocab=7, vocab=9, tied=True)

    @pytest.mark.parametrize(
        ("source", "target", "match"),
        [
            (SOURCE, TARGET[:1], r"target has shape \(1, 4\), expected \(batch=2"),
            (SOURCE + 1, TARGET, "source holds word ids from 1 to 7"),
            (SOURCE, TARGET + 1, "target holds word ids from 1 to 9"),
            (np.ones((2, 9), int), TARGET, "longer than the position table of 8"),
        ],
    )
    def test_inputs_that_do_not_fit(self, source, target, match):
        with pytest.raises(InputError, match=match):
            Seq2SeqTransformer(CONFIG, rngs=nnx.Rngs(0))(source, target)
