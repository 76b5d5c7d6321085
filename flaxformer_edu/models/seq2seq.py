"""From one sequence to another: the Transformer of "Attention Is All You Need"."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Unpack

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers import (
    Cache,
    Decoder,
    Encoder,
    Linear,
    LinearOptions,
    Mask,
    Position,
    Randomness,
    SinusoidalPositions,
    causal_mask,
    dropout,
    padding_mask,
)
from flaxformer_edu.models.captioning import check_ids
from flaxformer_edu.models.config import Init, TransformerConfig, preset

SourceIds = Int[Array | np.ndarray, "batch source"]
TargetIds = Int[Array | np.ndarray, "batch target"]


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig(TransformerConfig):
    """A translator: its blocks, and the sizes around them.

    `source_vocab` and `vocab` count the tokens of the source's and of the target's vocabulary, which must be one and
    the same where `tied`: one matrix then embeds both and maps the output to logits. `max_length` holds for both
    sequences. `final_norm` is the encoder's and the decoder's: torch.nn.Transformer has "tokens" for post-norm, too.
    """

    source_vocab: int
    vocab: int
    encoder_layers: int
    decoder_layers: int
    max_length: int
    tied: bool = False
    init: Init = "xavier"
    padding_id: int = 0
    start_id: int = 1
    end_id: int = 2

    def __post_init__(self):
        super().__post_init__()
        if self.tied and self.source_vocab != self.vocab:
            raise InputError(
                f"tied weights need one vocabulary, but the source has {self.source_vocab} tokens and the target "
                f"{self.vocab}: encode both with the same one, or set tied=False"
            )

    @classmethod
    def from_saved(cls, *, final_norm: bool | Literal["tokens", "none"], **fields: Any) -> "Seq2SeqConfig":
        """The config that a model's folder holds. In folders of version 0.1 `final_norm` is True or False."""
        if isinstance(final_norm, bool):
            final_norm = "tokens" if final_norm else "none"
        return cls(final_norm=final_norm, **fields)

    @classmethod
    def base(cls, *, source_vocab: int, vocab: int, **changes: Any) -> "Seq2SeqConfig":
        """The base model of Vaswani et al. 2017, table 3, 65 million parameters with their vocabulary."""
        sizes = {"width": 512, "heads": 8, "hidden": 2048, "encoder_layers": 6, "decoder_layers": 6, "max_length": 256}
        style = {"activation": "relu", "norm": "post", "dropout": 0.1, "tied": source_vocab == vocab}
        return preset(cls, changes, source_vocab=source_vocab, vocab=vocab, **sizes, **style)

    @classmethod
    def tiny(cls, *, source_vocab: int, vocab: int, **changes: Any) -> "Seq2SeqConfig":
        """Learns the generated tasks in minutes on two cores; pre-norm, which needs no careful warm-up."""
        sizes = {"width": 128, "heads": 4, "hidden": 256, "encoder_layers": 2, "decoder_layers": 2, "max_length": 64}
        style = {"activation": "relu", "norm": "pre", "final_norm": "tokens"}
        return preset(cls, changes, source_vocab=source_vocab, vocab=vocab, **sizes, **style)


class Transformer(nnx.Module):
    """An encoder and a decoder that attends to it, between embedded sequences: what torch.nn.Transformer is."""

    def __init__(self, config: Seq2SeqConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        options = {"kernel_init": config.kernel_init, **options}
        c, final_norm = config, config.final_norm == "tokens"
        self.encoder = Encoder(c, c.encoder_layers, final_norm=final_norm, rngs=rngs, **options)
        self.decoder = Decoder(c, c.decoder_layers, final_norm=final_norm, rngs=rngs, **options)

    def __call__(
        self,
        source: Float[Array, "batch source width"],
        target: Float[Array, "batch target width"],
        source_mask: Mask | None = None,
        target_mask: Mask | None = None,
        memory_mask: Mask | None = None,
        *,
        rngs: Randomness | None = None,
    ) -> Float[Array, "batch target width"]:
        """The masks are the encoder's, the decoder's own, and that of the decoder's view of the encoder's output."""
        memory = self.encoder(source, source_mask, rngs=rngs)
        return self.decoder(target, memory, target_mask, memory_mask, rngs=rngs)


class Source(NamedTuple):
    """What the decoder needs of the source: each block's keys and values of it, and which of its tokens are real."""

    memories: Cache
    mask: Bool[Array, "batch 1 1 source"]


class Target(NamedTuple):
    """What the decoder needs of the target so far: each block's keys and values, and which of its tokens are real."""

    cache: Cache
    mask: Bool[Array, "batch 1 1 target"]


class Seq2SeqTransformer(nnx.Module):
    """Embeddings times sqrt(width) plus sinusoids, encoder, decoder, and a linear map to the target's vocabulary.

    Embeddings are drawn from N(0, 1 / width), kernels by default as by Glorot and Bengio 2010 (uniform).
    Source: Vaswani et al. 2017.
    """

    def __init__(self, config: Seq2SeqConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        options = {"kernel_init": config.kernel_init, **options}
        dtypes = {"dtype": options.get("dtype"), "param_dtype": options.get("param_dtype", jnp.float32)}
        embed = partial(nnx.Embed, embedding_init=nnx.initializers.normal(config.width**-0.5), rngs=rngs, **dtypes)
        self.config = c = config
        self.target_words = embed(c.vocab, c.width)
        self.source_words = None if c.tied else embed(c.source_vocab, c.width)
        self.output = None if c.tied else Linear(c.width, c.vocab, rngs=rngs, **options)
        self.positions = SinusoidalPositions(c.max_length, c.width)
        self.transformer = Transformer(config, rngs=rngs, **options)

    def __call__(
        self, source: SourceIds, target: TargetIds, *, rngs: Randomness | None = None
    ) -> Float[Array, "batch target vocab"]:
        """Logits of the token that follows each token of `target`; padding is attended to on neither side.

        Raises InputError for sequences longer than `max_length`, batches that differ, and, outside a transformation,
        ids beyond the vocabulary.
        """
        c = self.config
        check_shape("target", target.shape, "batch length", batch=source.shape[0])
        check_ids("target", target, c.vocab)
        mask = causal_mask(target.shape[1]) & padding_mask(jnp.asarray(target), c.padding_id)
        memory, memory_mask = self.encode(source, rngs=rngs)
        x = self.embed(self.target_words, target, rngs=rngs)
        return self.logits(self.transformer.decoder(x, memory, mask, memory_mask, rngs=rngs))

    def encode(
        self, source: SourceIds, *, rngs: Randomness | None = None
    ) -> tuple[Float[Array, "batch source width"], Bool[Array, "batch 1 1 source"]]:
        """The memory that the decoder attends to, and the mask of its real tokens."""
        c = self.config
        check_shape("source", source.shape, "batch length")
        check_ids("source", source, c.source_vocab)
        mask = padding_mask(jnp.asarray(source), c.padding_id)
        x = self.embed(self.source_words or self.target_words, source, rngs=rngs)
        return self.transformer.encoder(x, mask, rngs=rngs), mask

    def embed(
        self,
        words: nnx.Embed,
        ids: Int[Array | np.ndarray, "batch length"],
        start: Position = 0,
        *,
        rngs: Randomness | None = None,
    ) -> Float[Array, "batch length width"]:
        """The tokens at positions start, start + 1, ..., as input of the encoder or the decoder."""
        x = words(jnp.asarray(ids)) * math.sqrt(self.config.width)
        return dropout(self.positions(x, start), self.config.dropout, rngs)

    def logits(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length vocab"]:
        """The decoder's output as logits of the target's tokens."""
        return self.target_words.attend(x) if self.output is None else self.output(x)

    def start(self, source: SourceIds, length: int) -> tuple[Source, Target]:
        """What decoding begins with, for at most `length` tokens: see `decode.CachedDecoder`."""
        memory, mask = self.encode(source)
        memories, cache = self.transformer.decoder.start(memory, length)
        return Source(memories, mask), Target(cache, jnp.zeros((len(mask), 1, 1, length), bool))

    def step(
        self, tokens: Int[Array, "batch"], position: Position, source: Source, target: Target
    ) -> tuple[Float[Array, "batch vocab"], Target]:
        """Logits of the tokens that follow those at `position`, and the target so far with them."""
        mask = target.mask.at[:, 0, 0, position].set(tokens != self.config.padding_id)
        x = self.embed(self.target_words, tokens[:, None], position)
        x, cache = self.transformer.decoder.step(x, source.memories, target.cache, position, mask, source.mask)
        return self.logits(x)[:, 0], Target(cache, mask)
