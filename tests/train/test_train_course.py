"""The recipe `train.course` on a tiny budget: every model learns."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from flaxformer_edu.data import ArrayDataset, load_digits
from flaxformer_edu.errors import InputError
from flaxformer_edu.runs import open_model, read_rows
from train import course


@pytest.fixture
def enlarged(monkeypatch):
    """Scikit-learn's digits in the size of MNIST's, in the place of MNIST."""

    def enlarge(dataset):
        images = np.pad(dataset["images"].repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2), (0, 0)))
        return ArrayDataset(name="enlarged", arrays={"images": images, "labels": dataset["labels"]})

    monkeypatch.setattr(course, "load_mnist", lambda _: {name: enlarge(part) for name, part in load_digits().items()})


def figures(tmp_path, **options):
    course.run(course.Config(**options, json=tmp_path / "figures.json"))
    return json.loads((tmp_path / "figures.json").read_text())


def losses(folder):
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl")[0] if "loss" in row]


@pytest.mark.no_nnx
def test_perceptron(tmp_path):
    assert figures(tmp_path, model="perceptron")["converged"] == "yes"
    noisy = figures(tmp_path, model="perceptron", noise=0.1, epochs=20)
    assert noisy["passes"] == 20
    assert noisy["converged"].startswith("no: the last pass still made mistakes")


@pytest.mark.no_nnx
def test_linear(tmp_path):
    assert figures(tmp_path, model="linear")["largest_error"] < 1e-3
    assert figures(tmp_path, model="linear", epochs=3)["largest_error"] > 1e-3


def test_sine(tmp_path):
    found = figures(tmp_path, model="sine", epochs=150, out=tmp_path / "run")
    assert found["mean_squared_error"] < 0.25  # half of what predicting 0 gives
    assert np.mean(losses(tmp_path / "run")[-4:]) < 0.5 * losses(tmp_path / "run")[0]


@pytest.mark.parametrize("model", ["digits", "convolution"])
def test_digits(model, tmp_path, enlarged):
    found = figures(tmp_path, model=model, epochs=3, batch_size=64, out=tmp_path / "run")
    assert found["test_accuracy"] > 0.7
    assert np.mean(losses(tmp_path / "run")[-4:]) < 0.5 * losses(tmp_path / "run")[0]
    opened, _ = open_model(tmp_path / "run")
    assert opened(jnp.zeros((1, 784))).shape == (1, 10)


def test_wrong_values():
    with pytest.raises(InputError, match="epochs is 0"):
        course.run(course.Config(model="sine", epochs=0))
