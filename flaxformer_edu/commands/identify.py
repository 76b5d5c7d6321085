"""`flaxformer-edu identify`: which language each word is from."""

import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from flaxformer_edu.errors import InputError

if TYPE_CHECKING:
    from flaxformer_edu.models.language_id import CharRNN

BUNDLED_MODEL = Path(__file__).parent.parent / "data" / "words" / "gated.safetensors"
LETTERS_PER_CALL = 1 << 14  # padding among them
SHORTEST_ROW = 16  # letters that a word is padded to, so that most words have one length
LONGEST_WORD = 1024  # letters


def identify(
    words: tuple[str, ...] = (),
    model: Path | None = None,
    json: bool = False,
) -> int:
    """Print the words' languages; without words, those of standard input. Raises InputError where it cannot."""
    words = words or read_words()
    network = open_network(model)
    languages, probabilities = network.config.languages, classify(network, words)
    if json:
        rows = [
            {
                "word": word,
                "language": languages[row.argmax()],
                "probabilities": dict(zip(languages, map(float, row), strict=True)),
            }
            for word, row in zip(words, probabilities, strict=True)
        ]
        plain = not (sys.stdout.encoding or "").lower().startswith("utf")  # JSON has escapes of its own
        print(jsonlib.dumps(rows, indent=2, ensure_ascii=plain))
    else:
        print_table(words, languages, probabilities)
    return 0


def read_words() -> tuple[str, ...]:
    """The words on standard input. Raises InputError where there are none, or where it is a terminal."""
    words = () if sys.stdin.isatty() else tuple(sys.stdin.read().split())
    if not words:
        raise InputError("no words: give some as arguments, or on standard input")
    return words


def open_network(folder: Path | None) -> "CharRNN":
    """The network in a run's folder, or the bundled one. Raises InputError for a folder without such a network."""
    from flaxformer_edu.commands.checkpoint import check_weights
    from flaxformer_edu.convert import from_torch, read
    from flaxformer_edu.data import ALPHABET, LANGUAGES
    from flaxformer_edu.models.language_id import CharRNN, CharRNNConfig
    from flaxformer_edu.runs import open_model

    if folder is None:
        config = CharRNNConfig.gated(alphabet=ALPHABET, languages=tuple(LANGUAGES.values()))
        return from_torch(CharRNN, config, read(BUNDLED_MODEL), layout="cs188")
    network, _ = open_model(folder)
    if not isinstance(network, CharRNN):
        raise InputError(f"{folder} holds a {type(network).__name__}, expected a CharRNN: train.language_id makes one")
    check_weights(folder, network)
    return network


def classify(network: "CharRNN", words: Sequence[str]) -> Float[np.ndarray, "word class"]:
    """The probabilities of the languages.

    Words of about one length are read together, padded to a power of two of letters, and of words: so few shapes are
    compiled, and one long word makes no other longer. Raises InputError for words that are too long, or that the
    network's alphabet cannot write.
    """
    import jax

    from flaxformer_edu.commands.checkpoint import check_probabilities

    parts = padded_parts(words, network.config.alphabet)  # all words are checked before the first is read
    probabilities = np.empty((len(words), len(network.config.languages)), np.float32)
    for places, letters in parts:
        probabilities[places] = jax.nn.softmax(network(letters))[: len(places)]
    check_probabilities(probabilities, words)
    return probabilities


def padded_parts(
    words: Sequence[str], alphabet: Sequence[str]
) -> list[tuple[Int[np.ndarray, "word"], Int[np.ndarray, "row length"]]]:
    """Words of one length after padding, at most 16,384 letters of them: their places, and their letters.

    Rows without a word, behind the others, repeat them.
    """
    from flaxformer_edu.data import encode_words, fold_word

    lengths = np.array([len(fold_word(word)) for word in words])
    if lengths.max() > LONGEST_WORD:
        first = int((lengths > LONGEST_WORD).argmax())
        raise InputError(
            f"word {first + 1}, {words[first][:20]!r}..., has {lengths[first]:,} letters, expected {LONGEST_WORD:,} at "
            "most: leave it out"
        )
    padded = np.array([padded_length(int(length)) for length in lengths])
    parts = []
    for length in sorted(set(padded.tolist())):
        places, most = np.flatnonzero(padded == length), LETTERS_PER_CALL // length
        for start in range(0, len(places), most):
            chosen = places[start : start + most]
            letters = encode_words([words[int(place)] for place in chosen], alphabet, length)
            rows = 1 << (len(chosen) - 1).bit_length()
            parts.append((chosen, letters[np.arange(rows) % len(chosen)]))
    return parts


def padded_length(length: int) -> int:
    """The next power of two, 16 at least."""
    return max(SHORTEST_ROW, 1 << (length - 1).bit_length())


def print_table(words: Sequence[str], languages: Sequence[str], probabilities: Float[np.ndarray, "word class"]) -> None:
    """One row per word; its likeliest language stands out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("word", "language")
    for language in languages:
        table.add_column(Text(language), justify="right")
    for word, row in zip(words, probabilities, strict=True):
        best = int(row.argmax())
        figures = [Text(f"{p:.3f}", style="bold green" if i == best else "") for i, p in enumerate(row)]
        table.add_row(Text(word), Text(languages[best]), *figures)
    Console().print(table)
