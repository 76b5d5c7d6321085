"""Decoding: sequences from a model's logits, one token at a time, with a key/value cache; as texts; their scores."""

from flaxformer_edu.decode.beam import Beams, beam_search
from flaxformer_edu.decode.choices import keep_top_k, keep_top_p
from flaxformer_edu.decode.one_by_one import greedy, sample
from flaxformer_edu.decode.protocol import CachedDecoder
from flaxformer_edu.decode.scores import bleu, exact_match, references, require_sacrebleu, word_for_word
from flaxformer_edu.decode.texts import check_beam, translate_texts, write_captions, write_tokens

__all__ = [
    "Beams",
    "CachedDecoder",
    "beam_search",
    "bleu",
    "check_beam",
    "exact_match",
    "greedy",
    "keep_top_k",
    "keep_top_p",
    "references",
    "require_sacrebleu",
    "sample",
    "translate_texts",
    "word_for_word",
    "write_captions",
    "write_tokens",
]
