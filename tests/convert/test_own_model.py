"""The README's page on a foreign checkpoint, executed: a ViT whose names and axes follow none of the layouts."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flaxformer_edu import convert
from flaxformer_edu.convert import ConversionError
from flaxformer_edu.models import VisionTransformer

README = Path(__file__).parents[2] / "README.md"
WIDTH, HEADS, LAYERS, HIDDEN, PATCH, SIDE, CLASSES = 48, 4, 4, 192, 4, 4, 10


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(WIDTH) + 0.5), nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (WIDTH,), self.gamma, self.beta, 1e-5)


class Attention(nn.Module):
    """Query, key and value lie beside each other within each head."""

    def __init__(self):
        super().__init__()
        self.wqkv, self.wo = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query, key, value = self.wqkv(x).view(batch, length, HEADS, 3, -1).permute(3, 0, 2, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.wo(mixed.transpose(1, 2).reshape(batch, length, WIDTH))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_a, self.att, self.ln_b = Norm(), Attention(), Norm()
        self.ff = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.att(self.ln_a(x))
        return x + self.ff(self.ln_b(x))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pos = nn.Parameter(torch.randn(1, SIDE**2 + 1, WIDTH))

    def forward(self, patches: Tensor) -> Tensor:
        return torch.cat([self.cls.expand(len(patches), -1, -1), patches], dim=1) + self.pos


class Foreign(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.tensor(700))
        self.patcher, self.tokens = nn.Linear(PATCH * PATCH * 3, WIDTH), Tokens()
        for i in range(LAYERS):
            setattr(self, f"layer{i}", Layer())
        self.ln, self.out = Norm(), nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Images are `batch height width channel` here, too."""
        cut = images.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)  # batch down across channel row column
        x = self.tokens(self.patcher(cut.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(1, 2)))
        for i in range(LAYERS):
            x = getattr(self, f"layer{i}")(x)
        return self.out(self.ln(x)[:, 1:].mean(1))


@pytest.fixture(scope="module")
def twin():
    torch.manual_seed(0)
    return Foreign().eval()


@pytest.fixture
def page(twin, tmp_path, monkeypatch):
    """What the page's code defines."""
    monkeypatch.chdir(tmp_path)
    torch.save({"model": twin.state_dict(), "epoch": 3}, "mine.pth")
    (code,) = re.findall(r"```python\n((?:(?!```).)*mine\.pth.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(code, names)
    return names


def test_the_page_gives_pytorchs_logits_and_the_same_file_again(page, twin):
    images = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype(np.float32)
    expected = twin(torch.tensor(images)).detach().numpy()
    logits = np.asarray(page["model"](images))
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    assert (logits.argmax(1) == expected.argmax(1)).all()
    back = torch.load("back.pth")
    assert all(torch.equal(back[name], tensor) for name, tensor in twin.state_dict().items() if name != "steps")
    twin.load_state_dict(back, strict=False)


def test_the_way_there_that_the_page_describes(page):
    weights = convert.read("mine.pth")
    load = convert.from_torch
    each_once = r"no rule makes our parameter encoder\.blocks\.\{i\}\.mlp\.down\.kernel \(i = 0 to 3\)\n"
    with pytest.raises(ConversionError, match=each_once):
        load(VisionTransformer, page["config"], weights, layout=convert.Layout(()))
    with pytest.raises(ConversionError, match=r"unused     steps \(\)"):
        load(VisionTransformer, page["config"], weights, layout=convert.Layout(page["MINE"].rules))
    del weights["layer2.ff.0.bias"]
    with pytest.raises(ConversionError, match=r"missing    layer2\.ff\.0\.bias"):
        load(VisionTransformer, page["config"], weights, layout=page["MINE"])
    with pytest.raises(ConversionError, match="no layout for VisionTransformer knows the names"):
        load(VisionTransformer, page["config"], weights)
