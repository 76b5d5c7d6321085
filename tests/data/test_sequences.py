"""Generated pairs of texts, pairs from a file, and what becomes of both as arrays."""

import datetime
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.data import Batches, Characters, generated_pairs, pair_dataset, read_pairs
from flaxformer_edu.data.text.sequences import DATE_FORMS, MONTHS, TASKS, WEEKDAYS, write_date
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

SIZE = 5_000
DAYS = st.dates(datetime.date(1900, 1, 1), datetime.date(2099, 12, 31))


@pytest.mark.parametrize("task", TASKS)
def test_pairs_are_a_function_of_the_seed(task):
    drawn = generated_pairs(task, size=SIZE, seed=3)
    assert drawn == generated_pairs(task, size=SIZE, seed=3)
    assert drawn != generated_pairs(task, size=SIZE, seed=4)
    assert len(drawn["train"]) > 0.9 * SIZE
    assert 0.01 * SIZE < len(drawn["test"]) < 0.03 * SIZE


@pytest.mark.parametrize("task", TASKS)
def test_no_target_is_in_both_splits_whatever_the_seed(task):
    trained = {target for _, target in generated_pairs(task, size=SIZE, seed=0)["train"]}
    tested = generated_pairs(task, size=SIZE, seed=1)["test"]
    assert trained.isdisjoint(target for _, target in tested)
    assert len(set(tested)) == len(tested)


@pytest.mark.parametrize(("task", "rewrite"), [("copy", list), ("reverse", lambda x: list(x)[::-1]), ("sort", sorted)])
def test_digits(task, rewrite):
    pairs = generated_pairs(task, size=SIZE)["train"]
    assert all(list(target) == rewrite(source) for source, target in pairs)
    lengths = np.bincount([len(source) for source, _ in pairs])
    assert len(lengths) == 21
    assert lengths[0] == 0
    assert (lengths[1:20] > 80).all()
    assert 0.4 * SIZE < lengths[20] < 0.6 * SIZE
    assert {digit for source, _ in pairs for digit in source} == set("0123456789")


def test_a_date_in_all_its_forms():
    day = datetime.date(1998, 5, 3)
    assert {write_date(day, form) for form in DATE_FORMS} >= {
        "the 3rd of may 1998",
        "3 may 1998",
        "may 3, 1998",
        "sunday the 3rd of may 1998",
    }


def test_the_endings_of_ordinals():
    days = [write_date(datetime.date(2000, 1, day), "{ordinal}") for day in range(1, 32)]
    assert days[:4] == ["1st", "2nd", "3rd", "4th"]
    assert days[10:14] == ["11th", "12th", "13th", "14th"]
    assert days[19:24] == ["20th", "21st", "22nd", "23rd", "24th"]
    assert days[29:] == ["30th", "31st"]


@settings(max_examples=100, deadline=None)
@given(DAYS, st.sampled_from(DATE_FORMS))
def test_a_written_date_can_be_read_in_one_way_only(date, form):
    words = re.findall("[a-z]+|[0-9]+", write_date(date, form))
    (month,) = (MONTHS.index(word) + 1 for word in words if word in MONTHS)
    day, year = sorted(int(word) for word in words if word.isdigit())
    assert datetime.date(year, month, day) == date
    assert [word for word in words if word in WEEKDAYS] == [WEEKDAYS[date.weekday()]] * ("weekday" in form)


def test_dates_are_written_in_every_form_and_in_figures():
    pairs = generated_pairs("dates", size=SIZE)["train"]
    assert all(re.fullmatch(r"(19|20)\d\d-[01]\d-[0-3]\d", target) for _, target in pairs)
    dates = [datetime.date.fromisoformat(target) for _, target in pairs]
    forms = [
        {form for form in DATE_FORMS if write_date(date, form) == source}
        for date, (source, _) in zip(dates, pairs, strict=True)
    ]
    assert all(forms)
    assert set().union(*forms) == set(DATE_FORMS)


def test_a_task_that_does_not_exist():
    with pytest.raises(InputError, match="no task is called 'add'; there are dates, copy, reverse, sort"):
        generated_pairs("add")


def test_arrays():
    pairs = [("ba", "a"), ("c", "abc")]
    dataset = pair_dataset("letters", pairs, Characters("abc"))
    np.testing.assert_array_equal(dataset["source"], [[4, 3, 2], [5, 2, 0]])
    np.testing.assert_array_equal(dataset["target"], [[1, 3, 2, 0, 0], [1, 3, 4, 5, 2]])
    assert Batches(dataset, 2, seed=0)(0)["target"].dtype == np.int32


class TestFile:
    def test_pairs_and_their_splits(self, tmp_path):
        path = tmp_path / "pairs.tsv"
        lines = [f"text {i}\t{i}" for i in range(50)] + [f"text {i}\talso {i}" for i in range(50)]
        path.write_bytes(("\ufeff" + "\r\n".join([*lines, lines[0]])).encode())
        pairs = read_pairs(path)
        assert len(pairs["train"]) == 90
        assert len(pairs["test"]) == 10
        assert {f"{source}\t{target}" for split in pairs.values() for source, target in split} == set(lines)
        sources = {split: {source for source, _ in pairs[split]} for split in pairs}
        assert sources["train"].isdisjoint(sources["test"])
        path.write_text("\n".join(reversed(lines)))
        again = read_pairs(path)
        assert set(again["test"]) == set(pairs["test"]), "the order of the lines decides nothing"

    def test_an_accent_and_its_letter_are_one_character(self, tmp_path):
        path = tmp_path / "pairs.tsv"
        path.write_text("cafe\u0301\tcoffee\nthe\u0301\ttea\n", encoding="utf-8")
        pairs = read_pairs(path)
        assert {source for split in pairs.values() for source, _ in split} == {"café", "thé"}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "has 0 texts to learn from, expected at least two"),
            (b"a\tb\n", "has 1 texts to learn from"),
            (b"a\tb\nalone\n", r"line 2 has no tab, expected two texts with a tab between"),
            (b"a\tb\n\nc\td", r"line 2 has no tab"),
            (b"a\tb\tc\n", r"line 1 has 3 columns"),
            (b"a\tb\nc\t \n", r"line 2 has 2 columns, one of them empty"),
            (b"a\tb\nc\td\nna\xefve\td\n", r"line 3: byte 3 is not UTF-8"),
        ],
    )
    def test_what_is_wrong_with_a_file(self, tmp_path, content, message):
        path = tmp_path / "pairs.tsv"
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as error:
            read_pairs(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

    def test_no_file(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.tsv cannot be read \(No such file"):
            read_pairs(tmp_path / "none.tsv")
        with pytest.raises(InputError, match="cannot be read"):
            read_pairs(tmp_path)
