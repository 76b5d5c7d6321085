"""What a recipe is asked for is checked before it does anything."""

import math

import pytest

from flaxformer_edu.errors import InputError
from train import captioning, cnn_vs_vit, course, finetune, language_id, seq2seq, vit

pytestmark = pytest.mark.no_nnx


@pytest.mark.parametrize(
    ("recipe", "given"),
    [
        (vit, {"patch_size": 0}),
        (vit, {"patch_size": -4}),
        (vit, {"batch_size": -1}),
        (vit, {"seed": -1}),
        (vit, {"seed": 2**40}),
        (vit, {"devices": 0}),
        (vit, {"devices": 100_000}),
        (vit, {"learning_rate": math.nan}),
        (vit, {"learning_rate": -1.0}),
        (cnn_vs_vit, {"examples": 0}),
        (finetune, {"source": "x", "image_size": 0}),
        (finetune, {"source": "x", "decay": math.nan}),
        (seq2seq, {"task": "copy", "subwords": -3}),
        (seq2seq, {"task": "copy", "beam": 0}),
        (captioning, {"max_train": -3}),
        (course, {"model": "perceptron", "noise": math.inf}),
        (course, {"model": "linear", "epochs": 0}),
    ],
)
def test_numbers(recipe, given):
    name, value = list(given.items())[-1]
    with pytest.raises(InputError, match=rf"--{name.replace('_', '-')} is {value}, expected [01] to [\d,]+$"):
        recipe.Config(**given).check()


def test_what_is_allowed_to_be_none_of_it():
    vit.Config(seed=0, learning_rate=0.1).check()
    captioning.Config(max_train=0).check()


@pytest.mark.parametrize(("recipe", "option"), [(vit, "json"), (language_id, "save")])
def test_files_that_are_written_at_the_end(recipe, option, tmp_path):
    with pytest.raises(InputError, match="is a folder: choose the name of a file"):
        recipe.Config(**{option: tmp_path}).check()
