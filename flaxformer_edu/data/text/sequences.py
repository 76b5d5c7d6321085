"""Pairs of texts to learn from: digits to copy, reverse and sort, dates to write in figures, and those of a file."""

import datetime
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from flaxformer_edu.data.arrays import ArrayDataset
from flaxformer_edu.data.text.vocabulary import Vocabulary, encode_texts, normalise_text
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import AnyPath

Pair = tuple[str, str]  # what is read, and what is to be written

LONGEST = 20  # digits
FIRST_DAY, LAST_DAY = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
DATE_FORMS = (
    "the {ordinal} of {month} {year}",
    "the {ordinal} of {month}, {year}",
    "{ordinal} of {month} {year}",
    "{day} {month} {year}",
    "{ordinal} {month} {year}",
    "{month} {day}, {year}",
    "{month} {ordinal}, {year}",
    "{month} the {ordinal}, {year}",
    "{weekday} the {ordinal} of {month} {year}",
    "{weekday}, the {ordinal} of {month}, {year}",
    "{weekday} {day} {month} {year}",
    "{weekday}, {month} {day}, {year}",
)
HELD_OUT = 0.02  # of the generated pairs
FILE_HELD_OUT, MOST_HELD_OUT = 0.1, 2_000  # of a file's


def generated_pairs(task: str, *, size: int = 100_000, seed: int = 0) -> dict[str, list[Pair]]:
    """Splits `train` and `test` of `size` pairs drawn from `seed`: ("the 3rd of may 1998", "1998-05-03").

    The tasks are `dates`, written in twelve ways, and `copy`, `reverse` and `sort`, of strings of 1 to 20 digits, the
    longest as frequent as all the others together. What is to be written decides the split, whatever the seed: no
    day of the test split is ever trained on, in any form, and no string of digits. Raises InputError for other tasks.
    """
    if task not in TASKS:
        raise InputError(f"no task is called {task!r}; there are {', '.join(TASKS)}")
    splits: dict[str, list[Pair]] = {"train": [], "test": []}
    for pair in TASKS[task](np.random.default_rng(seed), size):
        splits["test" if is_held_out(pair[1]) else "train"].append(pair)
    return {**splits, "test": list(dict.fromkeys(splits["test"]))}


def is_held_out(text: str) -> bool:
    """Whether pairs that end in this text are for testing."""
    return zlib.crc32(text.encode()) < HELD_OUT * 2**32


def draw_dates(random: np.random.Generator, size: int) -> Iterator[Pair]:
    """Days of the 20th and 21st century, each in one of the forms, and in the form of ISO 8601."""
    days = random.integers(0, (LAST_DAY - FIRST_DAY).days + 1, size)
    for day, form in zip(days, random.integers(0, len(DATE_FORMS), size), strict=True):
        date = FIRST_DAY + datetime.timedelta(days=int(day))
        yield write_date(date, DATE_FORMS[form]), date.isoformat()


def write_date(date: datetime.date, form: str) -> str:
    """The day in English: write_date(date(1998, 5, 3), "the {ordinal} of {month} {year}")."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10 if date.day // 10 != 1 else 0, "th")
    return form.format(
        weekday=WEEKDAYS[date.weekday()],
        month=MONTHS[date.month - 1],
        year=date.year,
        day=date.day,
        ordinal=f"{date.day}{ending}",
    )


def draw_digits(random: np.random.Generator, size: int, rewrite: Callable[[str], str]) -> Iterator[Pair]:
    """Strings of digits and what becomes of them."""
    lengths = np.minimum(random.integers(1, 2 * LONGEST, size), LONGEST)
    digits = random.integers(0, 10, (size, LONGEST)).astype("U1")
    for row, length in zip(digits, lengths, strict=True):
        text = "".join(row[:length])
        yield text, rewrite(text)


TASKS: dict[str, Callable[[np.random.Generator, int], Iterator[Pair]]] = {
    "dates": draw_dates,
    "copy": lambda random, size: draw_digits(random, size, str),
    "reverse": lambda random, size: draw_digits(random, size, lambda text: text[::-1]),
    "sort": lambda random, size: draw_digits(random, size, lambda text: "".join(sorted(text))),
}


def read_pairs(path: AnyPath) -> dict[str, list[Pair]]:
    """Splits `train` and `test` of a text file with one pair per line, its two texts separated by a tab.

    Texts are normalised (Unicode's NFC). A tenth of the first texts, 2,000 at most, are chosen for the test split, with
    all their pairs, by what they say. Raises InputError, which names the file and the line, for a line that does not
    hold two texts, or not in UTF-8, and for fewer than two different first texts.
    """
    try:
        lines = Path(path).read_bytes().removeprefix("\ufeff".encode()).splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): expected a file with one pair per line") from None
    pairs = list(dict.fromkeys(_pair(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)))
    sources = sorted({source for source, _ in pairs}, key=lambda text: (zlib.crc32(text.encode()), text))
    if len(sources) < 2:
        raise InputError(
            f"{path} has {len(sources)} texts to learn from, expected at least two: one pair per line, with a tab"
        )
    held_out = set(sources[: min(MOST_HELD_OUT, max(1, round(FILE_HELD_OUT * len(sources))))])
    splits: dict[str, list[Pair]] = {"train": [], "test": []}
    for pair in pairs:
        splits["test" if pair[0] in held_out else "train"].append(pair)
    return splits


def _pair(line: bytes, place: str) -> Pair:
    try:
        texts = [normalise_text(text).strip() for text in line.decode().split("\t")]
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: byte {error.start + 1} is not UTF-8: save the file in that encoding") from None
    if len(texts) != 2 or not all(texts):
        found = f"{len(texts)} columns" if len(texts) > 1 else "no tab"
        found = f"{found}, one of them empty" if len(texts) == 2 else found
        raise InputError(f"{place} has {found}, expected two texts with a tab between them")
    return texts[0], texts[1]


def pair_dataset(name: str, pairs: list[Pair], vocabulary: Vocabulary) -> ArrayDataset:
    """`source` and `target` (example, length), int32 and padded with 0: the tokens, and the end token (2).

    A target begins with the start token (1). The longest text of each side says how long its array is.
    """
    sources, targets = zip(*pairs, strict=True)
    arrays = {"source": encode_texts(sources, vocabulary), "target": encode_texts(targets, vocabulary, start=True)}
    return ArrayDataset(name=name, arrays=arrays)
