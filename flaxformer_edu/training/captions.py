"""How good captions are: word for word those of a person, or BLEU against several people's."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from flaxformer_edu.data import CaptionDataset, decode_captions
from flaxformer_edu.errors import InputError
from flaxformer_edu.training.translation import write_tokens


def write_captions(
    model: Any,
    inputs: Shaped[np.ndarray | jax.Array, "picture ..."],
    idx_to_word: list[str],
    *,
    beam: int = 1,
    batch_size: int = 250,
) -> list[str]:
    """What the model says about each input, without the word that marks the end; greedily where `beam` is 1."""
    words = write_tokens(model, inputs, beam=beam, batch_size=batch_size)
    return [text.removesuffix("<END>").strip() for text in decode_captions(words, idx_to_word)]


def references(dataset: CaptionDataset, idx_to_word: list[str]) -> dict[int, list[str]]:
    """The captions of each picture of the set, by the picture's index, without the words that mark start and end."""
    texts = decode_captions(dataset.captions, idx_to_word)
    by_picture: dict[int, list[str]] = {}
    for picture, text in zip(dataset.image_idxs, texts, strict=True):
        caption = text.removeprefix("<START>").removesuffix("<END>").strip()
        by_picture.setdefault(int(picture), []).append(caption)
    return by_picture


def word_for_word(captions: list[str], people: list[list[str]]) -> int:
    """How many captions equal one of those that people wrote for the same picture."""
    return sum(caption in theirs for caption, theirs in zip(captions, people, strict=True))


def require_sacrebleu() -> Any:
    """The package, or an InputError that says how to get it."""
    try:
        import sacrebleu
    except ImportError:
        raise InputError("BLEU is computed by sacrebleu, which is missing: pip install sacrebleu") from None
    return sacrebleu


def bleu(captions: list[str], people: list[list[str]]) -> float:
    """BLEU-4 of the whole set (Papineni et al. 2002), from 0 to 1, by sacrebleu.

    Words are compared as they stand. `<UNK>` for a word beyond the vocabulary, in a caption and in a reference, does
    not count as the same word. Every picture needs the same number of references.
    """
    hypotheses = [caption.replace("<UNK>", "<unknown>") for caption in captions]
    streams = [list(stream) for stream in zip(*people, strict=True)]
    return require_sacrebleu().corpus_bleu(hypotheses, streams, tokenize="none", force=True).score / 100
