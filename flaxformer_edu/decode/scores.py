"""Scores of what a model wrote: exact matches with a person's text, or BLEU against several people's."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flaxformer_edu.data.captions.dataset import CaptionDataset, decode_captions
from flaxformer_edu.errors import InputError


def exact_match(written: Sequence[str], wanted: Sequence[str]) -> float:
    """The share of texts that equal the expected ones exactly."""
    return float(np.mean([text == goal for text, goal in zip(written, wanted, strict=True)]))


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
