"""Which language is a word from? Recurrent networks that read it letter by letter."""

from dataclasses import dataclass
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers import LinearOptions, Randomness, dropout
from flaxformer_edu.layers.recurrent import GRU, scan_states
from flaxformer_edu.models.config import preset


@dataclass(frozen=True, kw_only=True)
class CharRNNConfig:
    """What the network reads and distinguishes, and its sizes.

    A letter's id is its place in `alphabet`, a language's its place in `languages`. The gated reader alone has a
    `window`, an odd number of letters that it sees at once, and `dropout`.
    """

    alphabet: str
    languages: tuple[str, ...]
    reader: Literal["project", "gated"]
    width: int
    window: int = 1
    dropout: float = 0.0

    def __post_init__(self):
        if self.reader not in ("project", "gated"):
            raise InputError(f"reader is {self.reader!r}, expected 'project' or 'gated'")
        if self.window % 2 == 0:
            raise InputError(f"window is {self.window}, expected an odd number of letters: one and its neighbours")

    @classmethod
    def project(cls, *, alphabet: str, languages: tuple[str, ...], **changes: Any) -> "CharRNNConfig":
        """The network of CS188's machine-learning project."""
        return preset(cls, changes, alphabet=alphabet, languages=languages, reader="project", width=256)

    @classmethod
    def gated(cls, *, alphabet: str, languages: tuple[str, ...], **changes: Any) -> "CharRNNConfig":
        """A stronger reader: windows of five letters, and gated units in both directions."""
        sizes = {"width": 96, "window": 5, "dropout": 0.3}
        return preset(cls, changes, alphabet=alphabet, languages=languages, reader="gated", **sizes)


class CharRNN(nnx.Module):
    """Reads a word into one vector, and maps that linearly to a score per language."""

    def __init__(self, config: CharRNNConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.config = config
        self.reader = (ProjectReader if config.reader == "project" else GatedReader)(config, rngs=rngs, **options)
        self.output = nnx.Linear(self.reader.features, len(config.languages), rngs=rngs, **options)

    def __call__(
        self, letters: Int[Array | np.ndarray, "batch length"], *, rngs: Randomness | None = None
    ) -> Float[Array, "batch class"]:
        """Logits of the languages. Words shorter than the longest are padded with -1, which changes no result.

        Raises InputError for letters outside the alphabet (where their values are known: not under jit).
        """
        check_letters(letters, self.config.alphabet)
        letters = jnp.asarray(letters)
        return self.output(self.reader(letters, letters >= 0, rngs=rngs))


class ProjectReader(nnx.Module):
    """The recurrence of CS188's project. The first letter starts the state; every other one updates it:

        h = relu(char(x[0]))
        h = relu(middle(relu(char(x[i]) + hidden(h))))    for i = 1, 2, ...

    where char, hidden and middle are linear maps with biases. Source: CS188 (Berkeley), project "Machine Learning",
    question 4, which asks for char(x[i]) + hidden(h) and leaves further layers to the student; here there is one.
    """

    def __init__(self, config: CharRNNConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.alphabet, self.features = len(config.alphabet), config.width
        width = config.width
        self.char = nnx.Linear(self.alphabet, width, rngs=rngs, **options)
        self.hidden = nnx.Linear(width, width, rngs=rngs, **options)
        self.middle = nnx.Linear(width, width, rngs=rngs, **options)

    def __call__(
        self, letters: Int[Array, "batch length"], mask: Bool[Array, "batch length"], *, rngs: Randomness | None = None
    ) -> Float[Array, "batch width"]:
        """The state after the last letter."""
        del rngs  # the project's network has no dropout
        alphabet = self.char(jnp.eye(self.alphabet, dtype=self.char.param_dtype))  # char of each letter, one-hot
        chars = alphabet[letters]
        return scan_states(self.step, jax.nn.relu(chars[:, 0]), chars[:, 1:], mask[:, 1:])[0]

    def step(self, h: Float[Array, "batch width"], char: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
        """The state after one more letter."""
        return jax.nn.relu(self.middle(jax.nn.relu(char + self.hidden(h))))


class GatedReader(nnx.Module):
    """Windows of letters, a linear map with ReLU of each, and two GRUs that read these, one in each direction.

    Each feature counts with its largest value along the word (Collobert and Weston 2008's max over time), so that an
    ending that gives the language away counts wherever it stands.
    """

    def __init__(self, config: CharRNNConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.config, width = config, config.width
        self.features = 2 * width
        self.window = nnx.Linear(config.window * len(config.alphabet), width, rngs=rngs, **options)
        self.forward = GRU(width, width, rngs=rngs, **options)
        self.backward = GRU(width, width, reverse=True, rngs=rngs, **options)

    def __call__(
        self, letters: Int[Array, "batch length"], mask: Bool[Array, "batch length"], *, rngs: Randomness | None = None
    ) -> Float[Array, "batch features"]:
        """The largest value of each feature along the word."""
        windows = letter_windows(letters, self.config.window)
        one_hot = jax.nn.one_hot(windows, len(self.config.alphabet), dtype=self.window.param_dtype)
        one_hot = rearrange(one_hot, "batch length window letter -> batch length (window letter)")
        x = dropout(jax.nn.relu(self.window(one_hot)), self.config.dropout, rngs)
        states = jnp.concatenate([self.forward(x, mask), self.backward(x, mask)], axis=-1)
        longest = jnp.where(mask[..., None], states, -jnp.inf).max(axis=1)
        return dropout(longest, self.config.dropout, rngs)


def letter_windows(letters: Int[Array, "batch length"], size: int) -> Int[Array, "batch length {size}"]:
    """Each letter between its neighbours, `size` letters in all; -1 beyond the ends."""
    padded = jnp.pad(letters, ((0, 0), (size // 2, size // 2)), constant_values=-1)
    return jnp.stack([padded[:, i : i + letters.shape[1]] for i in range(size)], axis=-1)


def check_letters(letters: Int[Array | np.ndarray, "..."], alphabet: str) -> None:
    """Raise InputError unless `letters` are places in the alphabet, or -1, in an array of words."""
    check_shape("letters", letters.shape, "batch length")
    if isinstance(letters, Tracer) or letters.size == 0:
        return
    low, high = int(letters.min()), int(letters.max())
    if low < -1 or high >= len(alphabet):
        raise InputError(
            f"letters run from {low} to {high}, but the alphabet has {len(alphabet)}, 0 to {len(alphabet) - 1}, "
            "with -1 for padding: were the words encoded with another alphabet?"
        )
