"""Pictures: what is counted and what is written on them. That they are readable was looked at."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from flaxformer_edu import plots
from flaxformer_edu.errors import InputError
from flaxformer_edu.plots.curves import running_mean

pytestmark = pytest.mark.no_nnx

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
DIGIT = IMAGE[..., :1]
NAMES = tuple("0123456789")


def texts(figure):
    """Everything that is written on a figure."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def written(figure, folder):
    """The figure can be written in both kinds, and is no wider than a notebook."""
    assert figure.get_figwidth() * figure.dpi <= 920
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        figure.savefig(folder / f"figure.{kind}")
        assert (folder / f"figure.{kind}").read_bytes().startswith(start)
    return texts(figure)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60))
@settings(deadline=None)
def test_confusions_equal_scikit_learns(pairs):
    """Of ten classes three are never there."""
    labels, predictions = (np.array(column) for column in zip(*pairs, strict=True))
    counts = plots.confusion_counts(labels, predictions, 10)
    np.testing.assert_array_equal(counts, confusion_matrix(labels, predictions, labels=range(10)))
    assert counts.sum() == len(pairs)
    assert all(counts[label, prediction] == pairs.count((label, prediction)) for label, prediction in pairs)
    frequent = plots.frequent_confusions(counts, NAMES)
    wrong = sorted((pairs.count(pair) for pair in set(pairs) if pair[0] != pair[1]), reverse=True)
    assert [count for _, count in frequent] == wrong[:5]


def test_confusion_matrix(tmp_path):
    labels = np.array([4, 4, 4, 9, 9, 7, 7, 7, 7, 1, 0])
    predictions = np.array([9, 9, 4, 4, 9, 2, 2, 2, 7, 1, 0])
    counts = plots.confusion_counts(labels, predictions, 10)
    assert plots.frequent_confusions(counts, NAMES) == [("7 -> 2", 3), ("4 -> 9", 2), ("9 -> 4", 1)]
    assert plots.frequent_confusions(counts, NAMES, number=1) == [("7 -> 2", 3)]
    found = written(plots.confusion_matrix(counts, NAMES), tmp_path)
    assert "5 of 11 correct (0.4545)" in found
    assert any("7 -> 2    3\n4 -> 9    2\n9 -> 4    1" in text for text in found)
    assert any("none" in text for text in texts(plots.confusion_matrix(np.eye(2, dtype=int), ("a", "b"))))


def test_misclassified(tmp_path):
    images = np.stack([DIGIT] * 4)
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]])
    found = written(plots.misclassified(images, np.array([0, 0, 0, 1]), probabilities, NAMES), tmp_path)
    assert [text for text in found if "->" in text] == ["0 -> 1", "0 -> 1"]
    assert [text for text in found if text.startswith("0.")] == ["0.20 / 0.80", "0.40 / 0.60"]  # the surest first
    assert any(text.startswith("2 of 4 misclassified; the 2 with the surest wrong answer\n") for text in found)
    with pytest.raises(InputError, match="none of the 4 examples is misclassified"):
        plots.misclassified(images, np.array([0, 1, 1, 1]), probabilities, NAMES)


@pytest.mark.parametrize("image", [IMAGE, DIGIT], ids=["colour", "grey"])
def test_attention_over_an_image(image, tmp_path):
    shares = np.full((2, 2), 0.2)
    shares[1, 0] = 0.4
    found = written(plots.attention_map(image, shares, title="layer 2"), tmp_path)
    assert "layer 2" in found
    assert [text for text in found if text in ("0.20", "0.40")][:4] == ["0.20", "0.20", "0.40", "0.20"]
    fine = np.random.default_rng(0).random((8, 8))
    assert "0.50" not in texts(plots.attention_map(image, fine / fine.sum()))  # too small to be written on


def test_attention_grid(tmp_path):
    shares = np.random.default_rng(0).random((3, 4, 2, 2))
    found = written(plots.attention_grid(IMAGE, shares), tmp_path)
    assert [text for text in found if text.startswith(("layer", "head"))].count("layer 3") == 1
    assert {"head 1", "head 4", "layer 1", f"at most {shares[2, 3].max():.2f}"} <= set(found)


def test_attended_words(tmp_path):
    words = ["a", "red", "ball", "on", "grass"]
    shares = np.random.default_rng(0).random((5, 4, 4))
    found = written(plots.attended_words(IMAGE, words, shares), tmp_path)
    assert [text for text in found if text in words] == words
    assert f"at most {shares[4].max():.2f}" in found


def test_position_similarity(tmp_path):
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 0.0], [0.0, 0.0]])
    figure = plots.position_similarity(vectors, prefix=1)
    assert {"class", "row 1", "row 2", "cosine"} <= set(written(figure, tmp_path))
    drawn = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn[:4, :4][2], [0.5**0.5, 0.5**0.5, 1, -(0.5**0.5)])
    np.testing.assert_array_equal(drawn[4], 0)  # a vector of zeros is like none
    assert "patches" in texts(plots.position_similarity(vectors))  # five make no square


def test_figures_are_written_over_plain_files_alone(tmp_path):
    figure = plots.confusion_matrix(np.eye(2, dtype=int), ("a", "b"))
    (tmp_path / "link.png").symlink_to("figure.png")
    plots.save_figure(figure, tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"folder\.png is a folder: choose the name of a file"):
        plots.save_figure(figure, tmp_path / "folder.png")
    with pytest.raises(InputError, match=r"a\.txt does not end in a kind of picture .*: call it a\.png"):
        plots.save_figure(figure, tmp_path / "a.txt")


def test_curves_of_one_run_and_of_several(tmp_path):
    rows = [{"step": i, "loss": 1 / i, "accuracy": None} for i in range(1, 60)] + [{"step": 59, "eval_loss": 0.5}]
    assert {"training", "evaluation", "loss", "step"} <= set(written(plots.training_curves({"": rows}), tmp_path))
    figure = plots.training_curves({"rotary": rows, "learned": [{"step": 1, "loss": 2.0, "eval_bleu": 0.1}]})
    assert {"rotary", "learned", "loss", "bleu"} <= set(written(figure, tmp_path))
    assert written(plots.training_curves({"": []}), tmp_path) is not None


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=200))
def test_the_running_mean_stays_within_its_values(values):
    means = running_mean(np.array(values))
    window = max(1, len(values) // 50)
    expected = [np.mean(values[max(0, i - window + 1) : i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(means, expected, atol=1e-8)


def test_sheets_that_the_commands_draw(tmp_path):
    found = written(plots.captioned_pictures([IMAGE] * 4, ["a red ball"] * 4), tmp_path)
    assert found.count("a red ball") == 4
    maps = np.full((2, 3, 1, 4, 4), 0.25)
    found = written(plots.attention_received(np.stack([DIGIT] * 3), maps, ["a 1?", "a 2?", "a 3?"]), tmp_path)
    assert found.count("0.25") == 24
