"""Texts as token ids and back: a token is a character, or a sub-word learned from the texts."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Int

from flaxformer_edu.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING, START, END = 0, 1, 2
SPECIAL = 3  # ids before the first token's


@runtime_checkable
class Vocabulary(Protocol):
    """Turns texts into ids from 3 on, and ids into texts."""

    def __len__(self) -> int:
        """How many ids there are, the three special ones among them."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises InputError for characters that the vocabulary has not."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, which ends where an end token stands."""
        ...

    @property
    def notes(self) -> dict[str, Any]:
        """What `open_vocabulary` makes the same vocabulary from, as JSON can hold it."""
        ...


@dataclass(frozen=True)
class Characters:
    """Each character of `alphabet` is a token."""

    alphabet: str

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Characters":
        """The characters that occur in the texts."""
        return cls("".join(sorted(set().union(*map(normalise_text, texts)))))

    def __len__(self) -> int:
        return SPECIAL + len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        """A character's id is 3 and its place in the alphabet."""
        text = normalise_text(text)
        check_characters(text, self.alphabet)
        return [SPECIAL + self.alphabet.index(character) for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        """The inverse of `encode`."""
        return "".join(self.alphabet[i] for i in up_to_end(ids))

    @property
    def notes(self) -> dict[str, Any]:
        """The alphabet."""
        return {"characters": self.alphabet}


class Subwords:
    """Byte-pair encoding by the library `tokenizers`: frequent sequences of characters are tokens.

    A token never spans two words; the space before a word belongs to it, so that texts are the mere concatenation of
    their tokens. Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units".
    """

    def __init__(self, tokenizer: "Tokenizer"):
        self.tokenizer = tokenizer
        self.alphabet = "".join(sorted(token for token in tokenizer.get_vocab() if len(token) == 1))

    @classmethod
    def learn(cls, texts: Iterable[str], size: int, *, alphabet: str = "") -> "Subwords":
        """As many as `size` tokens, of which every character of the texts and of `alphabet` is one."""
        library = require_tokenizers()
        tokenizer = library.Tokenizer(library.models.BPE())
        words = library.Regex(r" ?[^ ]+| +")
        tokenizer.pre_tokenizer = library.pre_tokenizers.Split(words, behavior="isolated")
        tokenizer.decoder = library.decoders.Fuse()  # with nothing between the tokens
        texts = [normalise_text(text) for text in texts]
        characters = sorted(set(alphabet).union(*texts))
        if size < SPECIAL + len(characters):
            fewest = SPECIAL + len(characters)
            raise InputError(f"{size} sub-words are too few: with each character alone there are {fewest}; take more")
        trainer = library.trainers.BpeTrainer(
            vocab_size=size - SPECIAL, initial_alphabet=characters, show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    def __len__(self) -> int:
        return SPECIAL + self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """A token's id is 3 and the tokenizer's id."""
        text = normalise_text(text)
        check_characters(text, self.alphabet)
        return [SPECIAL + i for i in self.tokenizer.encode(text).ids]

    def decode(self, ids: Iterable[int]) -> str:
        """The inverse of `encode`."""
        return self.tokenizer.decode(list(up_to_end(ids)))

    @property
    def notes(self) -> dict[str, Any]:
        """The tokenizer in the library's own format."""
        return {"tokenizer": self.tokenizer.to_str()}


def open_vocabulary(notes: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary whose `notes` these are. Raises InputError where they are of no kind that is known."""
    if "characters" in notes:
        return Characters(notes["characters"])
    if "tokenizer" in notes:
        return Subwords(require_tokenizers().Tokenizer.from_str(notes["tokenizer"]))
    raise InputError(f"a vocabulary is described by {', '.join(notes) or 'nothing'}, expected characters or tokenizer")


def require_tokenizers() -> Any:
    """The package, or an InputError that says how to get it."""
    try:
        import tokenizers
    except ImportError:
        raise InputError("sub-words need the package tokenizers, which is missing: pip install tokenizers") from None
    return tokenizers


def encode_texts(
    texts: Sequence[str], vocabulary: Vocabulary, *, start: bool = False
) -> Int[np.ndarray, "text length"]:
    """One row per text: with `start` the start token, then its own and the end token, and padding to the longest."""
    rows = [[*[START] * start, *vocabulary.encode(text), END] for text in texts]
    ids = np.full((len(rows), max(map(len, rows), default=0)), PADDING, np.int32)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = row
    return ids


def decode_texts(ids: Int[np.ndarray | Array, "text length"], vocabulary: Vocabulary) -> list[str]:
    """The rows' texts, each up to its end token."""
    return [vocabulary.decode(row) for row in np.asarray(ids).tolist()]


def up_to_end(ids: Iterable[int]) -> Iterator[int]:
    """The tokens' places, from 0, before the first end token; padding and start tokens are left out."""
    for i in ids:
        if i == END:
            return
        if i >= SPECIAL:
            yield i - SPECIAL


def check_characters(text: str, alphabet: str) -> None:
    """Raise InputError, which names them, for characters of the text that are not in the alphabet."""
    strange = "".join(dict.fromkeys(character for character in text if character not in alphabet))
    if strange:
        raise InputError(f"{text!r} has {strange!r}, but the vocabulary's characters are {alphabet!r}: leave it out")


def normalise_text(text: str) -> str:
    """Unicode's NFC: a letter and its accent are one character."""
    return unicodedata.normalize("NFC", text)
