"""The recipes: 18 published tensors, and the same recipes with other seeds against PyTorch itself."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from flaxformer_edu.errors import InputError
from flaxformer_edu.reference import TorchGenerator, published, recipes, torch_weights
from tests.twins import torch_twins


@pytest.mark.parametrize("edition", published.DROPOUT)
def test_every_published_tensor(edition):
    rows = list(published.verify(edition))
    assert len(rows) == 9
    assert all(row.ok for row in rows), rows


def test_the_editions_differ_by_their_masks_alone():
    """What students see: a correct layer 'fails' against the other processor's masks, by exactly these errors."""
    expected = {tensor.id: tensor for tensor in published.published_tensors("cs231n")}
    ours = recipes.attention(TorchGenerator(231, dropout="generic"))
    row = published.compare(expected["attention.self"], np.asarray(ours["attention.self"]))
    assert not row.ok
    assert row.max_rel_error == pytest.approx(0.449, abs=1e-3)


def test_a_wrong_tensor_fails():
    expected = published.published_tensors("cs231n")[0]
    assert published.compare(expected, expected.values).ok
    assert not published.compare(expected, expected.values + 2 * expected.tolerance).ok
    assert not published.compare(expected, expected.values * np.nan).ok
    with pytest.raises(InputError, match="has shape"):
        published.compare(expected, expected.values[0])


def test_unknown_edition():
    with pytest.raises(InputError, match="no edition 'cs224n': choose one of cs231n, xcs231n"):
        published.published_tensors("cs224n")


def stream_of_this_torch():
    torch.manual_seed(0)
    drawn = torch.empty(100).bernoulli_(0.5).bool().numpy()
    return next(d for d in ("generic", "mkl") if (TorchGenerator(0, dropout=d).bernoulli((100,), 0.5) == drawn).all())


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
class TestAgainstPyTorch:
    def test_captioning(self, seed):
        torch.manual_seed(seed)
        twin = torch_twins.CaptioningTransformer({"<NULL>": 0, "cat": 2, "dog": 3}, 20, 30, 2, 2, 30)
        features = torch.randn(4, 20)
        expected = twin(features, torch.randint(0, 3, (4, 3)))
        ours = recipes.captioning(TorchGenerator(seed, dropout=stream_of_this_torch()))
        np.testing.assert_allclose(ours["captioning"], expected.detach(), atol=1e-5)

    def test_vision_transformer(self, seed):
        torch.manual_seed(seed)
        images = torch.randn(3, 3, 32, 32)
        expected = torch_twins.VisionTransformer()(images)
        ours = recipes.vision_transformer(TorchGenerator(seed, dropout=stream_of_this_torch()))
        np.testing.assert_allclose(ours["vision_transformer"], expected.detach(), atol=1e-5)

    def test_weights(self, seed):
        torch.manual_seed(seed)
        layer = torch_twins.TransformerDecoderLayer(12, 2, 48)
        ours = torch_weights.torch_init(TorchGenerator(seed), torch_weights.decoder_layer(12, 48))
        assert ours.keys() == layer.state_dict().keys()
        for name, tensor in layer.state_dict().items():
            np.testing.assert_array_equal(ours[name], tensor.numpy(), err_msg=name)


def test_no_torch_is_needed(tmp_path):
    """In a process where importing torch fails, the command verifies an edition."""
    (tmp_path / "torch.py").write_text("raise ImportError('there is no torch here')")
    command = [sys.executable, "-m", "flaxformer_edu.cli", "verify", "--edition", "xcs231n"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "9 of 9 tensors agree" in done.stdout
