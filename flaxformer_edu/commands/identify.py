"""`flaxformer-edu identify`: which language each word is from."""

import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from flaxformer_edu.errors import InputError

if TYPE_CHECKING:
    from flaxformer_edu.models.language_id import CharRNN

BUNDLED_MODEL = Path(__file__).parent.parent / "data" / "words" / "gated.safetensors"
WORDS_PER_CALL = 1024


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
        print(jsonlib.dumps(rows, indent=2, ensure_ascii=False))
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
    return network


def classify(network: "CharRNN", words: Sequence[str]) -> Float[np.ndarray, "word class"]:
    """The probabilities of the languages. Raises InputError for words that the network's alphabet cannot write."""
    import jax

    from flaxformer_edu.data import encode_words

    letters = encode_words(words, network.config.alphabet)
    parts = [letters[start : start + WORDS_PER_CALL] for start in range(0, len(letters), WORDS_PER_CALL)]
    return np.concatenate([jax.nn.softmax(network(part)) for part in parts])


def print_table(words: Sequence[str], languages: Sequence[str], probabilities: Float[np.ndarray, "word class"]) -> None:
    """One row per word; its likeliest language stands out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("word", "language")
    for language in languages:
        table.add_column(language, justify="right")
    for word, row in zip(words, probabilities, strict=True):
        best = int(row.argmax())
        figures = [Text(f"{p:.3f}", style="bold green" if i == best else "") for i, p in enumerate(row)]
        table.add_row(Text(word), languages[best], *figures)
    Console().print(table)
