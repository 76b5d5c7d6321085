"""Batches: pure in (seed, step), each epoch a fresh order, evaluation exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaxformer_edu.data import ArrayDataset, Batches, evaluation_batches, load_digits, stratified_split
from flaxformer_edu.data.arrays import permutation
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx


def counting(length: int) -> ArrayDataset:
    values = np.arange(length)
    return ArrayDataset(name="counting", arrays={"index": values, "square": (values**2)[:, None]})


@given(
    length=st.integers(1, 40),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**64),
    steps=st.lists(st.integers(0, 200), min_size=1, max_size=12),
)
def test_a_batch_depends_on_seed_and_step_alone(length: int, share: float, seed: int, steps: list[int]):
    batch_size = 1 + int(share * (length - 1))
    wandering = Batches(counting(length), batch_size, seed)
    for step in steps:
        batch, fresh = wandering(step), Batches(counting(length), batch_size, seed)(step)
        assert np.array_equal(batch["index"], fresh["index"])
        assert np.array_equal(batch["square"][:, 0], batch["index"] ** 2)
        assert len(batch["index"]) == batch_size


@given(length=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_an_epoch_never_repeats_an_example(length: int, share: float, seed: int):
    batches = Batches(counting(length), 1 + int(share * (length - 1)), seed)
    for epoch in range(3):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        seen = np.concatenate([batches(step)["index"] for step in steps])
        assert len(set(seen.tolist())) == len(seen) == length // batches.batch_size * batches.batch_size


def test_epochs_and_seeds_differ_in_their_order():
    orders = [permutation(50, seed, epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == len(orders)
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_the_order_is_the_same_on_every_machine_and_release():
    assert permutation(8, seed=0, epoch=0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert permutation(8, seed=231, epoch=7).tolist() == [0, 7, 6, 5, 2, 3, 4, 1]


def test_a_batch_is_the_readers_own():
    dataset = counting(8)
    batches = Batches(dataset, 4, seed=0)
    first = batches(0)
    expected = first["index"].copy()
    first["index"][:] = -1
    assert np.array_equal(batches(0)["index"], expected)
    assert np.array_equal(dataset["index"], np.arange(8))


@given(length=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_evaluation_sees_every_example_exactly_once(length: int, batch_size: int):
    batches = list(evaluation_batches(counting(length), batch_size))
    assert {batch["index"].shape for batch in batches} == {(batch_size,)} == {batch["mask"].shape for batch in batches}
    seen = np.concatenate([batch["index"][batch["mask"]] for batch in batches])
    assert np.array_equal(seen, np.arange(length))
    assert sum((batch["square"][:, 0] * batch["mask"]).sum() for batch in batches) == (np.arange(length) ** 2).sum()


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), held_out=st.floats(0.01, 0.99))
def test_a_stratified_split_has_its_share_of_each_class(labels: list[int], held_out: float):
    array = np.array(labels)
    kept, held = stratified_split(array, held_out, seed=3)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    for label in set(labels):
        assert (array[held] == label).sum() == round(held_out * labels.count(label))


def test_digits_are_split_once_and_for_all():
    digits = load_digits()
    assert (len(digits["train"]), len(digits["test"])) == (1438, 359)
    assert digits["train"]["images"].shape == (1438, 8, 8, 1)
    assert digits["train"]["images"].dtype == np.uint8
    assert digits["train"]["images"].max() == 255
    assert np.bincount(digits["test"]["labels"]).min() >= 35
    assert np.array_equal(digits["test"]["images"], load_digits()["test"]["images"])


def test_bad_numbers_are_refused():
    with pytest.raises(InputError, match=r"batch_size is 9, but counting has 8 examples"):
        Batches(counting(8), 9, seed=0)
    with pytest.raises(InputError, match=r"seed is -1"):
        Batches(counting(8), 2, seed=-1)
    with pytest.raises(InputError, match=r"step is -1"):
        Batches(counting(8), 2, seed=0)(-1)
    with pytest.raises(InputError, match=r"batch_size is 0"):
        list(evaluation_batches(counting(8), 0))
    with pytest.raises(InputError, match=r"held_out is 1"):
        stratified_split(np.arange(3), 1.0, seed=0)


def test_a_data_set_that_contradicts_itself_is_refused():
    with pytest.raises(InputError, match=r"broken.*'images': 3, 'labels': 2"):
        ArrayDataset(name="broken", arrays={"images": np.zeros(3), "labels": np.zeros(2, int)})
    with pytest.raises(InputError, match=r"broken: labels run from 0 to 2, expected 0 to 1"):
        ArrayDataset(name="broken", arrays={"labels": np.arange(3)}, class_names=("a", "b"))
