"""The models of CS188's machine-learning project in PyTorch: what ours are compared with.

Written from the project's description, with the project's names. Importing this module needs torch.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Perceptron(nn.Module):
    """Weights of shape (1, dimensions), ones at first, changed at each mistake until a pass makes none."""

    def __init__(self, dimensions: int):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, dimensions))

    def get_prediction(self, x: Tensor) -> int:
        """1 or -1 for one example of shape (1, dimensions)."""
        return 1 if (x @ self.w.T).item() >= 0 else -1

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, max_passes: int) -> tuple[int, bool]:
        """How many passes it took, and whether the last was without a mistake."""
        for passes in range(1, max_passes + 1):
            mistakes = 0
            for example, label in zip(x, y, strict=True):
                if self.get_prediction(example[None]) != label:
                    self.w += label * example
                    mistakes += 1
            if mistakes == 0:
                return passes, True
        return max_passes, False


def fit_linear(x: Tensor, y: Tensor, learning_rate: float, steps: int) -> tuple[Tensor, Tensor]:
    """Slopes and intercept after gradient descent on half the mean squared error."""
    slopes = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    intercept = torch.zeros((), dtype=x.dtype, requires_grad=True)
    descent = torch.optim.SGD([slopes, intercept], learning_rate)
    for _ in range(steps):
        descent.zero_grad()
        (0.5 * F.mse_loss(x @ slopes + intercept, y)).backward()
        descent.step()
    return slopes.detach(), intercept.detach()


class MLP(nn.Module):
    """The regression and the digit model: linear layers with ReLU between them."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """`batch feature` in, `batch class` out."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class DigitConvolutionalModel(nn.Module):
    """One kernel slid over the image, then linear layers."""

    def __init__(self, image_size: int = 28, kernel_size: int = 3, hidden: tuple[int, ...] = (128, 64)):
        super().__init__()
        self.image_size = image_size
        self.convolution_weights = nn.Parameter(torch.ones(kernel_size, kernel_size))
        self.mlp = MLP(((image_size - kernel_size + 1) ** 2, *hidden, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Rows of pixels in, `batch class` out."""
        images = x.reshape(len(x), 1, self.image_size, self.image_size)
        return self.mlp(F.conv2d(images, self.convolution_weights[None, None]).flatten(1))


class Attention(nn.Module):
    """The project's causal attention layer, with K Q^T in the place of the usual Q K^T."""

    def __init__(self, layer_size: int, block_size: int):
        super().__init__()
        self.k_layer = nn.Linear(layer_size, layer_size)
        self.q_layer = nn.Linear(layer_size, layer_size)
        self.v_layer = nn.Linear(layer_size, layer_size)
        self.register_buffer("mask", torch.tril(torch.ones(block_size, block_size)))
        self.layer_size = layer_size

    def forward(self, x: Tensor) -> Tensor:
        """`batch length width` in and out."""
        length = x.shape[1]
        scores = self.k_layer(x) @ self.q_layer(x).movedim(1, 2) / self.layer_size**0.5
        scores = scores.masked_fill(self.get_buffer("mask")[:length, :length] == 0, float("-inf"))
        return F.softmax(scores, dim=-1) @ self.v_layer(x)


class LanguageIDModel(nn.Module):
    """The project's recurrent network. `forward` takes letters as `batch length`, padded with -1, word by word."""

    def __init__(self, num_chars: int = 47, languages: int = 5, hidden_size: int = 256):
        super().__init__()
        self.num_chars = num_chars
        self.char_layer = nn.Linear(num_chars, hidden_size)
        self.hidden_layer = nn.Linear(hidden_size, hidden_size)
        self.middle_layer = nn.Linear(hidden_size, hidden_size)
        self.output_layer = nn.Linear(hidden_size, languages)

    def run(self, xs: list[Tensor] | Tensor) -> Tensor:
        """Scores; `xs` has for each place in the word the letters of all words, one-hot: `batch num_chars`."""
        h = F.relu(self.char_layer(xs[0]))
        for x in xs[1:]:
            h = F.relu(self.char_layer(x) + self.hidden_layer(h))
            h = F.relu(self.middle_layer(h))
        return self.output_layer(h)

    def forward(self, letters: Tensor) -> Tensor:
        """`batch class`. Every word is read by itself, so that padding cannot matter."""
        dtype = self.char_layer.weight.dtype
        words = [F.one_hot(word[word >= 0], self.num_chars).to(dtype) for word in letters]
        return torch.cat([self.run(word[:, None]) for word in words])


class GatedLanguageIDModel(nn.Module):
    """Our stronger reader: windows of letters, a GRU in both directions, the largest value of each feature."""

    def __init__(self, num_chars: int, languages: int, window: int, width: int, dropout: float):
        super().__init__()
        self.num_chars, self.places = num_chars, window
        self.window = nn.Linear(window * num_chars, width)
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.output_layer = nn.Linear(2 * width, languages)
        self.drop = nn.Dropout(dropout)

    def forward(self, letters: Tensor) -> Tensor:
        """`batch class`, for words of one length, or, in evaluation, of several, which are then read one by one."""
        if (letters < 0).any():
            return torch.cat([self(word[word >= 0][None]) for word in letters])
        one_hot = F.one_hot(letters, self.num_chars).to(self.window.weight.dtype)
        around = F.pad(one_hot, (0, 0, self.places // 2, self.places // 2)).unfold(1, self.places, 1)
        x = F.relu(self.window(around.movedim(3, 2).flatten(2)))
        states = self.gru(self.drop(x))[0]
        return self.output_layer(self.drop(states.amax(dim=1)))
