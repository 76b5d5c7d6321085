"""What a model writes, as tokens, captions and texts."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Shaped

from flaxformer_edu.data.captions.dataset import decode_captions
from flaxformer_edu.data.text.vocabulary import Vocabulary, decode_texts, encode_texts
from flaxformer_edu.decode.beam import beam_search
from flaxformer_edu.decode.one_by_one import greedy
from flaxformer_edu.decode.protocol import CachedDecoder
from flaxformer_edu.errors import InputError

LENGTH_PENALTY = 0.6  # of beam search: Vaswani et al. 2017, section 6.1


def check_beam(width: int) -> None:
    """Raise InputError unless a beam can have that width; called before a training, not after it."""
    if width < 1:
        raise InputError(f"beam is {width}, expected 1, greedy decoding, or more")


def write_tokens(
    model: CachedDecoder,
    inputs: Shaped[np.ndarray | jax.Array, "sequence ..."],
    *,
    beam: int = 1,
    batch_size: int = 250,
) -> Int[np.ndarray, "sequence length"]:
    """What the model writes for each input: by beam search of that width, or greedily if it is 1."""
    check_beam(beam)
    rows = []
    for start in range(0, len(inputs), batch_size):
        part = inputs[start : start + batch_size]
        if beam == 1:
            rows.append(greedy(model, part))
        else:
            rows.append(beam_search(model, part, width=beam, length_penalty=LENGTH_PENALTY).tokens[:, 0])
    return np.concatenate(rows)


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


def translate_texts(model: Any, texts: Sequence[str], vocabulary: Vocabulary, *, beam: int = 1) -> list[str]:
    """What a `Seq2SeqTransformer` makes of each text.

    Raises InputError, which names the text, for an empty one, characters that the vocabulary has not, and one longer
    than the model can read.
    """
    longest = model.config.max_length - 1  # and the end token
    for text in texts:
        tokens = len(vocabulary.encode(text))
        if not 0 < tokens <= longest:
            raise InputError(f"{text!r} has {tokens} tokens, but the model reads 1 to {longest} at a time")
    return decode_texts(write_tokens(model, encode_texts(texts, vocabulary), beam=beam), vocabulary)
