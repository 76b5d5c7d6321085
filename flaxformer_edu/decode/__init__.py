"""Decoding: sequences from a model's logits, one token at a time, with a key/value cache."""

from flaxformer_edu.decode.beam import Beams, beam_search
from flaxformer_edu.decode.choices import keep_top_k, keep_top_p
from flaxformer_edu.decode.one_by_one import greedy, sample
from flaxformer_edu.decode.protocol import CachedDecoder

__all__ = ["Beams", "CachedDecoder", "beam_search", "greedy", "keep_top_k", "keep_top_p", "sample"]
