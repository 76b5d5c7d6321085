"""The fingerprint of a data set differs where the data does, and a run of other data is refused."""

import zlib
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from flaxformer_edu.data import ArrayDataset, Batches, CaptionDataset, RecordDataset, evaluation_batches
from flaxformer_edu.data import fingerprint as module
from flaxformer_edu.data.fingerprint import fingerprint, fingerprint_batches
from flaxformer_edu.errors import InputError
from flaxformer_edu.runs.folder import register_run
from flaxformer_edu.training import LoopConfig, Optimizer
from flaxformer_edu.training.config import describe_run

pytestmark = pytest.mark.no_nnx
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
PICTURES = ArrayDataset(name="pictures", arrays={"images": IMAGES, "labels": np.arange(50, dtype=np.int32)})
CAPTIONS = CaptionDataset(
    name="captions",
    captions=RANDOM.integers(0, 9, (50, 7), dtype=np.int32),
    image_idxs=np.arange(50),
    tables={"features": RANDOM.normal(size=(50, 4)).astype(np.float32)},
)


def one_pixel(images):
    changed = images.copy()
    changed[31, 3, 2, 1] ^= 1
    return changed


def described(dataset, held_out=None):
    optimizer, loop = Optimizer(), LoopConfig(steps=1)
    validation = None if held_out is None else partial(evaluation_batches, held_out, 7)
    return describe_run(optimizer, Batches(dataset, 5, seed=0), loop, None, validation)


def test_it_is_the_same_for_the_same_data():
    copies = {name: np.asfortranarray(array) for name, array in PICTURES.arrays.items()}
    assert fingerprint(replace(PICTURES, arrays=copies)) == fingerprint(PICTURES)
    checksum = f"{zlib.crc32(IMAGES.tobytes()):08x}"
    assert fingerprint(PICTURES)["images"] == {"dtype": "uint8", "shape": (50, 8, 8, 3), "crc32": checksum}


@pytest.mark.parametrize("change", [np.zeros_like, one_pixel, np.flip, np.float32])
def test_a_run_of_other_pictures_is_refused(tmp_path, change):
    register_run(tmp_path, {}, described(PICTURES))
    register_run(tmp_path, {}, described(PICTURES))
    changed = replace(PICTURES, arrays={**PICTURES.arrays, "images": change(IMAGES)})
    with pytest.raises(InputError, match=r"a different run \(data\.images\..* now\): .*its settings and data"):
        register_run(tmp_path, {}, described(changed))


def test_a_run_of_other_captions_is_refused(tmp_path):
    register_run(tmp_path, {}, described(CAPTIONS))
    with pytest.raises(InputError, match=r"\(data\.captions\.crc32: \w+ in the folder, \w+ now\)"):
        register_run(tmp_path, {}, described(replace(CAPTIONS, captions=CAPTIONS.captions[::-1])))


def test_a_run_evaluated_on_other_pictures_is_refused(tmp_path):
    register_run(tmp_path, {}, described(PICTURES, PICTURES))
    register_run(tmp_path, {}, described(PICTURES, PICTURES))
    changed = replace(PICTURES, arrays={**PICTURES.arrays, "images": one_pixel(IMAGES)})
    with pytest.raises(InputError, match=r"\(validation\.images\.crc32: \w+ in the folder, \w+ now\)"):
        register_run(tmp_path, {}, described(PICTURES, changed))


def test_of_batches_that_do_not_say_what_they_are_made_of_the_first_is_compared():
    def run_of(labels):
        class Own:
            batch_size, steps_per_epoch = 2, 1

            def __call__(self, step):
                return {"labels": np.array(labels) + step}

        return describe_run(Optimizer(), Own(), LoopConfig(steps=1), None)["data"]

    assert run_of([1, 2]) == run_of([1, 2]) != run_of([2, 1])


def test_of_many_batches_only_some_are_looked_at(monkeypatch):
    monkeypatch.setattr(module, "SOME", 3 * 40)
    seen = []

    def batches():
        for number in range(9):
            seen.append(number)
            yield {"numbers": np.full(5, number)}

    assert fingerprint_batches(batches())["batches"] == len(seen) == 3


def test_a_run_of_an_earlier_version_has_no_fingerprint(tmp_path, capsys):
    before = {name: value for name, value in described(PICTURES).items() if name != "data"}
    register_run(tmp_path, {}, before)
    assert capsys.readouterr().err == ""
    register_run(tmp_path, {}, described(PICTURES))
    assert "without a fingerprint of its data: not compared" in capsys.readouterr().err


def test_of_large_arrays_evenly_spaced_rows_are_covered(monkeypatch):
    monkeypatch.setattr(module, "WHOLE", IMAGES.nbytes // 2 + 1)
    dark = IMAGES.copy()
    dark[1::2] = 0
    changed = replace(PICTURES, arrays={**PICTURES.arrays, "images": dark})
    assert fingerprint(changed) == fingerprint(PICTURES)
    changed = replace(PICTURES, arrays={**PICTURES.arrays, "images": np.zeros_like(IMAGES)})
    assert fingerprint(changed) != fingerprint(PICTURES)


def test_of_records_a_sample_is_read():
    records = [{"images": image, "labels": np.int32(0)} for image in RANDOM.integers(0, 256, (600, 2, 2, 1))]
    found = fingerprint(RecordDataset("records", records))
    assert found["examples"] == 600
    assert found["images"]["shape"] == (256, 2, 2, 1)
    black = [{**record, "images": np.zeros_like(record["images"])} for record in records]
    assert fingerprint(RecordDataset("records", black)) != found


def test_words_that_are_objects():
    words = np.array(["a", "bc"], object)
    data, other = (ArrayDataset(name="words", arrays={"words": array}) for array in (words, words[::-1]))
    assert fingerprint(data) == fingerprint(replace(data, arrays={"words": np.array(["a", "".join("bc")], object)}))
    assert fingerprint(data) != fingerprint(other)
