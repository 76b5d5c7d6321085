"""Training side by side: the same losses as PyTorch's, step by step; recorded curves; and what is said where not."""

import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from compare.planted import WORDS
from flax import nnx
from torch import nn

from flaxformer_edu import compare, convert, plots
from flaxformer_edu.compare.curves.ours import with_exact_scalars
from flaxformer_edu.compare.curves.theirs import DropoutDraws, dropout_stream
from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import BlockConfig, Encoder
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, VisionTransformer, ViTConfig
from flaxformer_edu.reference import TorchGenerator
from flaxformer_edu.training import captioning_loss, cross_entropy
from tests.twins import torch_twins, vit_twins

SIZES = {"image_size": 12, "patch_size": 4, "width": 16, "layers": 1, "heads": 2, "hidden": 24, "classes": 5}
TOLERANCES = {"float64": 1e-10, "float32": 1e-3}
adam = {"optimizer": optax.adam(1e-3), "torch_optimizer": lambda p: torch.optim.Adam(p, lr=1e-3)}


@pytest.fixture(autouse=True)
def one_thread():
    """PyTorch's threads wait for one another longer than tensors so small take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def image_loss(model, batch, rngs):
    return cross_entropy(model(batch["images"], rngs=rngs), batch["labels"]).mean(), {}


def torch_image_loss(model, batch):
    return F.cross_entropy(model(batch["images"]), batch["labels"])


def image_batch(step=0):
    random = np.random.default_rng(0)
    return {"images": random.normal(size=(6, 12, 12, 3)), "labels": random.integers(0, 5, 6)}


def vit(dtype="float64", config=None):
    """Ours, and a small twin with dropout."""
    torch.manual_seed(0)
    twin = torch_twins.VisionTransformer(12, 4, 3, 16, 1, 2, 24, 5).to(getattr(torch, dtype))
    config = config or ViTConfig(**SIZES, dropout=0.1, final_norm="none")
    return VisionTransformer(config, rngs=nnx.Rngs(0), param_dtype=np.dtype(dtype)), twin


images = {"loss": image_loss, "torch_loss": torch_image_loss, "batches": image_batch}


def train_vit(steps=3, **changes):
    ours, theirs = vit()
    return compare.training(ours, theirs, **{**images, **adam, "steps": steps, "seed": 7, **changes})


def record_vit(theirs, **changes):
    settings = {"torch_loss": torch_image_loss, "torch_optimizer": adam["torch_optimizer"], "steps": 3, "seed": 7}
    return compare.record_training(theirs, image_batch, **{**settings, **changes})


def assert_agrees(report, dtype="float64", steps=None):
    assert report.agrees, report.summary
    assert report.tolerance == TOLERANCES[dtype]
    assert len(report.ours) == len(report.theirs) == (steps or len(report.ours))
    assert report.theirs[-1] < report.theirs[0]  # it was trained


class TestTheCoursesTasks:
    """The course's models, made smaller: benchmarks/training_side_by_side.py has them as they are."""

    def test_captioning(self, dtype):
        random = np.random.default_rng(0)
        features, captions = random.normal(size=(50, 40)), random.integers(1, 5, (50, 9))
        captions[:, 6:][random.random((50, 3)) < 0.5] = 0  # padding
        config = replace(CaptioningConfig.cs231n(vocab=5, features=40, width=32, max_length=9), hidden=64)
        torch.manual_seed(0)
        twin = torch_twins.CaptioningTransformer(WORDS, 40, 32, num_heads=2, num_layers=2, max_length=9)
        twin.transformer = torch_twins.TransformerDecoder(torch_twins.TransformerDecoderLayer(32, 2, 64), 2)

        def batches(step):
            chosen = np.random.default_rng(step // 2).permutation(50)[step % 2 :: 2]
            return {"features": features[chosen], "captions": captions[chosen]}

        def loss(model, batch, rngs):
            logits = model(batch["features"], batch["captions"][:, :-1], rngs=rngs)
            return captioning_loss(logits, batch["captions"][:, 1:]), {}

        def torch_loss(model, batch):
            targets = batch["captions"][:, 1:].flatten()
            logits = model(batch["features"], batch["captions"][:, :-1]).flatten(0, 1)
            return (F.cross_entropy(logits, targets, reduction="none") * (targets != 0)).mean()

        ours = CaptioningTransformer(config, rngs=nnx.Rngs(0), param_dtype=np.dtype(dtype))
        theirs = twin.to(getattr(torch, dtype))
        report = compare.training(ours, theirs, batches, loss=loss, torch_loss=torch_loss, **adam, layout="cs231n")
        assert_agrees(report, dtype, steps=100)

    def test_vit_one_batch(self, dtype):
        ours, theirs = vit(dtype)
        optimizer = optax.chain(optax.add_decayed_weights(1e-3), optax.adam(1e-3))
        report = compare.training(
            ours, theirs, **images, optimizer=optimizer, seed=231,
            torch_optimizer=lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=1e-3),
        )  # fmt: skip
        assert_agrees(report, dtype, steps=100)


@pytest.mark.parametrize(
    ("optimizer", "torch_optimizer"),
    [
        (optax.sgd(0.3), lambda p: torch.optim.SGD(p, lr=0.3)),
        (optax.sgd(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
        (optax.sgd(0.05, momentum=0.9, nesterov=True), lambda p: torch.optim.SGD(p, 0.05, 0.9, nesterov=True)),
        (optax.adam(1e-2, eps=1e-3), lambda p: torch.optim.Adam(p, lr=1e-2, eps=1e-3)),
        (optax.adamw(1e-2, weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1)),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adamw"],
)
def test_optimizers(float64, optimizer, torch_optimizer):
    """A large epsilon would show where Adam adds it; a large decay, what AdamW multiplies it with."""
    assert_agrees(train_vit(20, optimizer=optimizer, torch_optimizer=torch_optimizer))


@pytest.mark.no_nnx
def test_the_first_step_of_adam_in_float32():
    """It is the learning rate, whatever the gradient; optax's own is off by 6e-6."""
    exact, gradients = with_exact_scalars(optax.adam(1e-3)), {"kernel": jnp.full(3, 0.5)}
    before = exact.init(gradients)
    updates, after = jax.jit(exact.update)(gradients, before)
    np.testing.assert_allclose(updates["kernel"], -1e-3, rtol=2e-7)
    assert jax.tree.map(lambda x: x.dtype, (updates, after)) == jax.tree.map(lambda x: x.dtype, (gradients, before))


class TestOtherModels:
    """Dropout within PyTorch's attention, on tensors that are transposed in memory, and head by head."""

    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
    def test_pytorchs_encoder(self, float64, batch_first):
        layer = nn.TransformerEncoderLayer(12, 3, 20, dropout=0.2, activation="gelu", batch_first=batch_first)
        theirs = nn.TransformerEncoder(layer, 2).double()
        ours = Encoder(
            BlockConfig(width=12, heads=3, hidden=20, dropout=0.2), 2, rngs=nnx.Rngs(0), param_dtype=np.float64
        )
        random = np.random.default_rng(0)
        batch = {"x": random.normal(size=(4, 7, 12)), "y": random.normal(size=(4, 7, 12))}

        def torch_loss(model, batch):
            if batch_first:
                return F.mse_loss(model(batch["x"]), batch["y"])
            return F.mse_loss(model(batch["x"].swapaxes(0, 1)), batch["y"].swapaxes(0, 1))

        report = compare.training(
            ours, theirs, lambda step: batch,
            loss=lambda model, batch, rngs: (((model(batch["x"], rngs=rngs) - batch["y"]) ** 2).mean(), {}),
            torch_loss=torch_loss, **adam, steps=10, layout="torch_nn",
        )  # fmt: skip
        assert_agrees(report)

    @pytest.mark.parametrize("faster", [False, True])
    def test_heads_apart(self, float64, faster):
        torch.manual_seed(0)
        theirs = vit_twins.VisionTransformer(channels=3, **SIZES, dropout=0.1, faster=faster).double()
        config = ViTConfig.scratch(**SIZES, dropout=0.1, hidden_dropout=0.0, activation="gelu_tanh")
        ours = VisionTransformer(config, rngs=nnx.Rngs(0), param_dtype=np.float64)
        assert_agrees(compare.training(ours, theirs, **images, **adam, steps=10))


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0)])
@pytest.mark.no_nnx
def test_masks_of_transposed_tensors(axes):
    x = torch.ones(3, 4, 5).permute(axes)
    torch.manual_seed(5)
    with DropoutDraws(dropout_stream()) as drawn:
        kept = F.dropout(x, 0.4) != 0
    assert drawn.draws[0].mask_shape == tuple(x.shape)
    mask = drawn.draws[0].mask(TorchGenerator(5, dropout=dropout_stream()))
    np.testing.assert_array_equal(mask, kept.numpy())


class TestRecorded:
    def test_without_torch(self, float64, tmp_path):
        ours, theirs = vit()
        record_vit(theirs, steps=5).save(tmp_path / "curve.npz")
        program = f"""
            import sys

            class NoTorch:
                def find_spec(name, *_):
                    if name.partition(".")[0] == "torch":
                        raise ImportError(name)

            sys.meta_path.insert(0, NoTorch)
            import jax, optax, numpy as np
            from flax import nnx
            from flaxformer_edu import compare
            from flaxformer_edu.errors import InputError
            from flaxformer_edu.models import VisionTransformer, ViTConfig
            from flaxformer_edu.training import cross_entropy

            def loss(model, batch, rngs):
                return cross_entropy(model(batch["images"], rngs=rngs), batch["labels"]).mean(), {{}}

            with jax.enable_x64(True):
                config = ViTConfig(**{SIZES!r}, dropout=0.1, final_norm="none")
                ours = VisionTransformer(config, rngs=nnx.Rngs(3), param_dtype=np.float64)
            report = compare.training(ours, {str(tmp_path / "curve.npz")!r}, loss=loss, optimizer=optax.adam(1e-3))
            print(report.to_json())
            try:
                compare.record_training(None, None, torch_loss=None, torch_optimizer=None)
            except InputError as error:
                print(error, file=sys.stderr)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "recording a training needs torch: pip install" in done.stderr
        content = json.loads(done.stdout)
        assert content["agrees"]
        assert content["largest"] <= content["tolerance"] == 1e-10
        live = compare.training(ours, theirs, **images, **adam, steps=5, seed=7)
        assert content["theirs"] == list(live.theirs)

    def test_without_weights_and_batches(self, float64, tmp_path):
        ours, theirs = vit()
        record_vit(theirs, keep_weights=False, keep_batches=False).save(tmp_path / "curve.npz")
        assert (tmp_path / "curve.npz").stat().st_size < 10_000
        settings = {"loss": image_loss, "optimizer": adam["optimizer"]}
        started = convert.load_weights(ours, theirs.state_dict(), layout="cs231n")
        for layout in (None, "cs231n"):
            report = compare.training(started, tmp_path / "curve.npz", image_batch, **settings, layout=layout)
            assert_agrees(report, steps=3)
        assert_agrees(compare.training(started, tmp_path / "curve.npz", image_batch, **settings, steps=2), steps=2)

        with pytest.raises(InputError, match=r"\d+ of \d+ weights are not those that .* recorded with \(patch_embed"):
            compare.training(ours, tmp_path / "curve.npz", image_batch, **settings)
        with pytest.raises(InputError, match="recorded without its batches"):
            compare.training(started, tmp_path / "curve.npz", **settings)
        with pytest.raises(InputError, match="the batch of step 1 is not the one"):
            compare.training(
                started, tmp_path / "curve.npz", lambda step: {**image_batch(), "labels": np.full(6, step) * 0 + 1}
                if step else image_batch(), **settings,
            )  # fmt: skip
        with pytest.raises(InputError, match="steps is 4, but the curve has 3"):
            compare.training(started, tmp_path / "curve.npz", image_batch, **settings, steps=4)

    @pytest.mark.parametrize("kind", ["absent", "empty", "text", "cut", "flipped", "other", "numbers", "contradiction"])
    def test_files_that_are_none(self, float64, tmp_path, kind):
        ours, theirs = vit()
        path = tmp_path / "curve.npz"
        record_vit(theirs, steps=1).save(path)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        arrays = dict(np.load(path))
        others = {
            "empty": b"", "text": b"no curve", "cut": path.read_bytes()[:-100], "flipped": bytes(content),
        }  # fmt: skip
        saved = {
            "other": {"losses": np.ones(3)},
            "numbers": {**arrays, "about": np.frombuffer(b"[1, 2]", np.uint8)},
            "contradiction": {**arrays, "losses": np.ones(2)},
        }
        path.unlink()
        if kind in others:
            path.write_bytes(others[kind])
        elif kind in saved:
            np.savez(path, **saved[kind])
        with pytest.raises(InputError, match=r"curve\.npz"):
            compare.training(ours, path, loss=image_loss, optimizer=adam["optimizer"])

    def test_a_file_appears_whole_or_not_at_all(self, tmp_path):
        _, theirs = vit("float32")
        curve = record_vit(theirs, steps=1)
        with pytest.raises(InputError, match="cannot write"):
            curve.save(tmp_path / "absent" / "curve.npz")
        curve.save(tmp_path / "curve.npz")
        assert [path.name for path in tmp_path.iterdir()] == ["curve.npz"]


class TestDifferences:
    def test_of_the_optimizer(self, float64):
        report = train_vit(optimizer=optax.adam(1.01e-3))
        assert report.first_divergence == 1
        assert "differ from step 1 on" in report.summary
        assert "optimizer's first step" in report.summary

    def test_of_the_model(self, float64):
        ours, theirs = vit(config=ViTConfig(**SIZES, dropout=0.1, final_norm="none", activation="relu"))
        report = compare.training(ours, theirs, **images, **adam, steps=2)
        assert report.first_divergence == 0
        assert "compare.models finds the layer" in report.summary

    def test_later(self, float64):
        report = train_vit(4, optimizer=optax.adam(optax.piecewise_constant_schedule(1e-3, {2: 0.5})))
        assert report.first_divergence == 3
        assert "its schedule" in report.summary

    def test_of_the_seed(self, float64):
        """The masks are really those of the seed."""
        ours, theirs = vit()
        curve = record_vit(theirs)
        other = compare.TrainingCurve(**{**vars(curve), "seed": 8})
        assert compare.training(ours, other, loss=image_loss, optimizer=adam["optimizer"]).first_divergence == 0

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"dropout": 0.2}, r"mask 0 of ours is \(6, 9, 16\) and keeps 0\.8, in theirs it is .* and keeps 0\.9"),
            ({"hidden_dropout": 0.0}, r"mask 3 of ours is \(6, 9, 16\) .* in theirs it is \(6, 9, 24\)"),
            ({"dropout": 0.0}, "theirs draws 5 dropout masks more than the 0 that ours asks for"),
            ({"layers": 2}, "missing    transformer.layers.1"),
        ],
    )
    def test_dropout_elsewhere(self, float64, changes, message):
        ours, theirs = vit(config=ViTConfig(**{**SIZES, "dropout": 0.1, "final_norm": "none", **changes}))
        with pytest.raises(InputError, match=message):
            compare.training(ours, theirs, **images, **adam, steps=2)

    def test_no_dropout_in_theirs(self, float64):
        ours, _ = vit()
        theirs = torch_twins.VisionTransformer(12, 4, 3, 16, 1, 2, 24, 5, dropout=0.0).double()
        theirs.positional_encoding.dropout.p = 0.0
        with pytest.raises(InputError, match="in theirs there are no more"):
            compare.training(ours, theirs, **images, **adam, steps=2)


def test_one_compilation_and_nothing_changed(float64):
    ours, theirs = vit()
    before = {name: x.clone() for name, x in theirs.state_dict().items()}
    theirs.eval()
    random_state, parameters, traces = torch.get_rng_state(), nnx.to_pure_dict(nnx.state(ours)), []

    def loss(model, batch, rngs):
        traces.append(0)
        return image_loss(model, batch, rngs)

    compare.training(ours, theirs, **{**images, "loss": loss}, **adam, steps=6)
    assert len(traces) == 2  # once to see which masks are asked for, once to compile
    assert not theirs.training
    assert all(torch.equal(before[name], x) for name, x in theirs.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), parameters, nnx.to_pure_dict(nnx.state(ours))))


def noisy_loss(model, batch):
    return torch_image_loss(model, {**batch, "images": batch["images"] + 0.1 * torch.randn(1)})


def test_wrong_input(float64):
    ours, theirs = vit()
    with pytest.raises(InputError, match="masks of step 0 cannot be drawn again"):
        train_vit(torch_loss=noisy_loss)
    with pytest.raises(InputError, match=r"batch of step 1 has the shapes .*\(5, 12, 12, 3\)"):
        train_vit(batches=lambda step: {name: x[step:] for name, x in image_batch().items()})
    with pytest.raises(InputError, match="must return a single number"):
        train_vit(torch_loss=lambda model, batch: model(batch["images"]))
    with pytest.raises(InputError, match="theirs is int, and nothing is missing: expected a torch"):
        compare.training(ours, 3, **images, **adam)
    with pytest.raises(InputError, match="torch_loss is missing"):
        compare.training(ours, theirs, image_batch, loss=image_loss, **adam)
    with pytest.raises(InputError, match="steps is 0, expected 1 or more"):
        train_vit(0)
    with pytest.raises(InputError, match=r"parameters of cpu, torch\.float32, torch\.float64"):
        compare.training(ours, nn.Sequential(theirs, nn.Linear(1, 1)), **images, **adam)
    with pytest.raises(InputError, match="no tolerance is known for bfloat16: say which"):
        compare.training(ours, theirs.bfloat16(), **images, **adam, steps=1)
    with pytest.raises(convert.ConversionError, match=r"missing    blocks\.0\.norm1\.weight"):
        compare.training(ours, theirs.double(), **{**images, **adam, "steps": 1}, layout="timm")


@pytest.mark.no_nnx
class TestReport:
    def test_json_and_table(self, tmp_path):
        report = compare.TrainingReport(
            ours=(2.0, 1.5, float("nan"), 0.0, float("inf")), theirs=(2.0, 1.0, 0.5, 0.0, 0.0), tolerance=1e-3
        )
        assert report.differences[:2] == (0.0, 0.5)
        assert (report.first_divergence, report.agrees, report.largest) == (1, False, float("inf"))
        content = json.loads(report.to_json(str(tmp_path / "report.json")))
        assert content == json.loads((tmp_path / "report.json").read_text())
        assert content["differences"] == [0.0, 0.5, None, 0.0, None]
        assert content["ours"] == [2.0, 1.5, None, 0.0, None]
        text = str(report)
        assert text.count("DIFFERS") == 3
        assert "from step 1 on, by 5.0e-01 there" in text

    def test_the_table_of_many_steps(self):
        ours = np.ones(1000)
        ours[123] += 1e-6
        report = compare.TrainingReport(ours=tuple(ours.tolist()), theirs=(1.0,) * 1000, tolerance=1e-3)
        assert "│  123 │" in str(report)
        assert len(str(report).splitlines()) < 20
        assert "all 1000 losses agree within 0.001; the largest relative difference is 1.0e-06, at step 123" in str(
            report
        )

    def test_figure(self, tmp_path):
        random = np.random.default_rng(0)
        theirs = np.exp(-np.arange(50) / 20)
        ours = theirs * (1 + 1e-6 * random.normal(size=50))
        ours[:5] = theirs[:5]
        ours[30] *= 1.1
        report = compare.TrainingReport(ours=tuple(ours.tolist()), theirs=tuple(theirs.tolist()), tolerance=1e-3)
        figure = plots.side_by_side({"": report})
        upper, lower = figure.axes
        np.testing.assert_array_equal([line.get_ydata() for line in upper.lines], [theirs, ours])
        assert {line.get_marker(): len(line.get_ydata()) for line in lower.lines} == {
            "o": 44,
            "D": 1,
            "v": 5,
            "None": 2,
        }
        assert lower.get_yscale() == "log"
        several = plots.side_by_side({"one": report, "two": report, "three": report})
        assert [axis.get_title() for axis in several.axes if axis.get_visible()] == ["one", "two", "", "", "three", ""]
        assert several.get_figwidth() * several.dpi <= 920
        several.savefig(tmp_path / "figure.png")
