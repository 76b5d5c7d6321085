"""Captions that people wrote for files, from JSON (COCO's annotations too) or from a table; and their words."""

import unicodedata
from pathlib import Path
from typing import Any

from flaxformer_edu.errors import InputError
from flaxformer_edu.files import read_json

FORMS = (
    'expected {"file": ["caption", ...]}, COCO\'s {"images": [...], "annotations": [...]}, '
    "or a .tsv file with lines of file, tab, caption"
)
IDEOGRAPHS = (("\u3040", "\u30ff"), ("\u3400", "\u9fff"))  # kana and Chinese characters: each is a word
INSIDE_WORDS = "'\u2019-"  # apostrophes and the hyphen

Captions = dict[str, list[str]]  # of each file, in the file's order


def read_captions(path: str | Path) -> Captions:
    """The captions of each picture. Raises InputError, naming the row, where the file cannot be understood."""
    path = Path(path)
    if path.suffix.lower() in (".tsv", ".txt"):
        captions = _from_table(path)
    else:
        content = read_json(path, remedy="hand in a .json or .tsv file with captions")
        if not isinstance(content, dict):
            raise InputError(f"{path} holds a {type(content).__name__}, {FORMS}")
        captions = _from_coco(path, content) if "annotations" in content else _from_object(path, content)
    if not captions:
        raise InputError(f"{path} holds no captions, {FORMS}")
    for name, texts in captions.items():
        for text in texts:
            if not words_of(text):
                raise InputError(f"{path}: a caption of {name!r} has no words ({text[:40]!r}): leave it out")
    return captions


def words_of(caption: str) -> list[str]:
    """The words in small letters (Unicode's NFC), without punctuation; a Chinese character or a kana is a word."""
    letters = unicodedata.normalize("NFC", caption).lower()
    spaced = "".join(map(_spaced, letters)).split()
    return [word for word in (word.strip(INSIDE_WORDS) for word in spaced) if word]


def _spaced(letter: str) -> str:
    if any(first <= letter <= last for first, last in IDEOGRAPHS):
        return f" {letter} "
    kept = unicodedata.category(letter)[0] in "LMN" or letter in INSIDE_WORDS  # letters, marks and numbers
    return letter if kept else " "


def _from_table(path: Path) -> Captions:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"no file {path}: hand in a .json or .tsv file with captions") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no text file in UTF-8 ({error})") from error
    captions: Captions = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *texts = line.split("\t")
        if len(texts) != 1 or not name.strip():
            raise InputError(f"{path}, line {number}: {line[:60]!r} has {len(texts)} tabs, expected file, tab, caption")
        captions.setdefault(name.strip(), []).append(texts[0])
    return captions


def _from_object(path: Path, content: dict[str, Any]) -> Captions:
    captions: Captions = {}
    for name, texts in content.items():
        texts = [texts] if isinstance(texts, str) else texts
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)):
            raise InputError(f"{path}: {name!r} has {str(texts)[:60]} for captions, {FORMS}")
        captions[name] = texts
    return captions


def _from_coco(path: Path, content: dict[str, Any]) -> Captions:
    names: dict[Any, str] = {}
    for place, image in enumerate(_rows(path, content, "images")):
        number, name = image.get("id"), image.get("file_name")
        if not (isinstance(number, int | str) and isinstance(name, str)) or number in names:
            raise InputError(f"{path}: images[{place}] is {str(image)[:60]}, expected an id of its own and a file_name")
        names[number] = name
    captions: Captions = {}
    for place, row in enumerate(_rows(path, content, "annotations")):
        number, text = row.get("image_id"), row.get("caption")
        if not isinstance(number, int | str) or number not in names or not isinstance(text, str):
            raise InputError(
                f"{path}: annotations[{place}] is {str(row)[:60]}, expected a caption and the image_id of one of images"
            )
        captions.setdefault(names[number], []).append(text)
    return captions


def _rows(path: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    rows = content.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: {key} is {str(rows)[:60]}, expected a list of objects")
    return rows
