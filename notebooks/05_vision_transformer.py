# %% [markdown]
# # 5. The Vision Transformer, and why it wants so many images
#
# After this notebook you can
#
# - cut an image into patches, and say why their embedding is one linear map and also a convolution;
# - test a model and its training in seconds, by letting it memorise one batch;
# - say what a convolutional network knows about images before it has seen any, and measure what that is worth;
# - say what helps a Vision Transformer on a small data set, and by how much: CS231n's second inline question on
#   Transformers, answered by experiment.
#
# If the folder `cifar-10-batches-py` lies beside this notebook, it works on those photographs, which takes many times
# as long. Without it, scikit-learn's handwritten digits stand in for them.

# %%
# Where the package is missing (on Colab, say): install it, with JAX for the accelerator that is there.
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("flaxformer_edu") is None:
    package = ".." if Path("../pyproject.toml").exists() else "flaxformer-edu"
    kinds = {"libtpu": "jax[tpu]", "jax_cuda12_plugin": "jax[cuda12]", "jax_cuda13_plugin": "jax[cuda13]"}
    jax_for = [kind for module, kind in kinds.items() if find_spec(module)]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", package, *jax_for], check=True)

# %%
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from einops import rearrange
from flax import nnx

from flaxformer_edu import notebook, plots
from flaxformer_edu.data import (
    ArrayDataset,
    Batches,
    evaluation_batches,
    load_cifar10,
    load_digits,
    random_crop,
    random_flip,
)
from flaxformer_edu.layers import PatchEmbedding, patchify
from flaxformer_edu.models import ConvNet, ConvNetConfig, VisionTransformer, ViTConfig
from flaxformer_edu.training import (
    LoopConfig,
    Optimizer,
    accuracy,
    classification,
    fit,
    make_step,
    new_state,
    split_model,
)

notebook.set_style()

# %% [markdown]
# ## The images

# %%
cifar10 = Path("cifar-10-batches-py")
if cifar10.is_dir():
    print("CIFAR-10 found")
    splits, PATCH = load_cifar10(cifar10), 4
    SIZES, STEPS = (500, 2000, 8000), 600
else:
    print("no folder cifar-10-batches-py here: scikit-learn's digits stand in for CIFAR-10")
    splits, PATCH = load_digits(), 2
    SIZES, STEPS = (64, 256, 1438), 400
train, test = splits["train"], splits["test"]
PIXELS = train.pixels  # their mean and standard deviation
test = ArrayDataset(name="test", arrays=test.take(np.arange(min(len(test), 2000))), class_names=test.class_names)
SIDE, CHANNELS = train["images"].shape[2:]
SIZES, STEPS = notebook.budget((SIZES, STEPS), (SIZES[:1], 5))
print(f"{len(train)} images of {SIDE} x {SIDE} pixels and {CHANNELS} channels for training, {len(test)} for testing")

# %% [markdown]
# ## An image as a sequence
#
# > "We split an image into fixed-size patches, linearly embed each of them, add position embeddings, and feed the
# > resulting sequence of vectors to a standard Transformer encoder." (Dosovitskiy et al. 2020, figure 1)
#
# With an image of side $S$ and patches of side $P$ there are $N = (S / P)^2$ patches, read row by row:


# %%
def coloured(pixels):
    """With three channels, as imshow wants them."""
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))


image = train["images"][:1]
patches = coloured(np.asarray(patchify(image.astype(np.float32), PATCH)[0], np.uint8))
figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), width_ratios=[1, 2.2])
axes[0].imshow(coloured(image[0]))
for edge in np.arange(PATCH, SIDE, PATCH) - 0.5:
    axes[0].axhline(edge, color="C1", linewidth=2)
    axes[0].axvline(edge, color="C1", linewidth=2)
columns, gap = 8, (250, 215, 180)
strip = np.full((len(patches), PATCH + 1, PATCH + 1, 3), gap, np.uint8)
strip[:, :-1, :-1] = patches
strip = rearrange(strip, "(down across) row column channel -> (down row) (across column) channel", across=columns)
axes[1].imshow(strip)
axes[0].set_title(f"an image of {SIDE} x {SIDE} pixels")
axes[1].set_title(f"its {len(patches)} patches as a sequence, {columns} to a line")
for axis in axes:
    axis.axis("off")

# %% [markdown]
# "Linearly embed" means: write the pixels of a patch as one long vector, and multiply by a matrix, the same for all
# patches. A convolution whose stride is as long as its kernel does precisely that, and is often how it is written.
# Three ways to say the same:

# %%
embedding = PatchEmbedding(PATCH, CHANNELS, 64, rngs=nnx.Rngs(0))
kernel, bias = embedding.projection.kernel[...], embedding.projection.bias[...]
pixels = PIXELS.normalise(image)
layer = embedding(pixels)
matrix = rearrange(patchify(pixels, PATCH), "batch patch row column channel -> batch patch (row column channel)")
matrix = matrix @ kernel.reshape(-1, 64) + bias
letters = ("NHWC", "HWIO", "NHWC")
convolution = jax.lax.conv_general_dilated(pixels, kernel, (PATCH, PATCH), "VALID", dimension_numbers=letters) + bias
convolution = rearrange(convolution, "batch row column width -> batch (row column) width")
print("axes batch patch width:", layer.shape)
assert np.allclose(layer, matrix, atol=1e-5)
assert np.allclose(layer, convolution, atol=1e-5)
print("layer, matrix and convolution agree")

# %% [markdown]
# ## Memorise one batch
#
# Before any real training: can the model memorise 64 images? If not, something is broken, and it is better to
# know now. The optimizer is plain, there is no dropout, and 100 steps are enough:

# %%
config = ViTConfig(
    image_size=SIDE, channels=CHANNELS, patch_size=PATCH, classes=len(train.class_names),
    width=64, layers=notebook.budget(2, 1), heads=4, hidden=128, norm="pre", init="lecun",
)  # fmt: skip
task = classification(prepare=PIXELS.normalise)
batch = ArrayDataset(name="64 images", arrays=train.take(np.arange(64)))
overfit = fit(
    VisionTransformer(config, rngs=nnx.Rngs(0)),
    task.loss_fn,
    Optimizer(name="adam", learning_rate=1e-3),
    Batches(batch, batch_size=64, seed=0),
    LoopConfig(steps=notebook.budget(100, 3)),
    console=notebook.quiet_console(),
)
for row in overfit.rows[:: notebook.budget(33, 1)]:
    print(f"step {row['step']:3}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.3f}")
assert overfit.rows[-1]["accuracy"] >= notebook.budget(1, 0)

# %% [markdown]
# At the first step the loss should be about that of guessing, $\ln 10 \approx 2.3$ for ten classes; at the last, near
# 0.
#
# ## Two epochs, against a convolutional network
#
# An epoch shows every training image once. Beside the ViT we train a small residual network (`models.cnn`), with the
# same optimizer, on the same batches:

# %%
cnn = ConvNetConfig(
    image_size=SIDE, channels=CHANNELS, classes=len(train.class_names), width=16, blocks=(1,) * notebook.budget(2, 1)
)
batches = Batches(train, batch_size=32, seed=0)
steps = notebook.budget(2 * batches.steps_per_epoch, 3)
runs = {}
networks = {"CNN": ConvNet(cnn, rngs=nnx.Rngs(0)), "ViT": VisionTransformer(config, rngs=nnx.Rngs(0))}
for name, network in networks.items():
    runs[name] = fit(
        network,
        task.loss_fn,
        Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.05, schedule="cosine", warmup_steps=steps // 10),
        batches,
        LoopConfig(steps=steps, evaluate_every=max(1, steps // 6)),
        evaluate_fn=task.evaluate_fn,
        validation=lambda: evaluation_batches(test, 360),
        console=notebook.quiet_console(),
    ).rows
    parameters = sum(p.size for p in jax.tree.leaves(nnx.state(network)))
    last = runs[name][-1]
    print(
        f"{name}: {parameters:6,} parameters; test accuracy {last['eval_accuracy']:.3f}, loss {last['eval_loss']:.3f}"
    )
figure = plots.training_curves(runs)
figure.set_dpi(80)
figure

# %% [markdown]
# Look at both panels: a network can be right more often than another and yet have the larger loss, because the loss
# also counts how sure it is.
#
# ## What does a CNN know beforehand?
#
# > "Transformers lack some of the inductive biases inherent to CNNs, such as translation equivariance and locality, and
# > therefore do not generalize well when trained on insufficient amounts of data." (Dosovitskiy et al. 2020, section 1)
#
# *Locality*: a convolution looks at pixels that lie side by side. *Translation equivariance*: if the image moves, what
# the convolution finds moves along, because the same kernel is used everywhere. A ViT has to learn both. It sees which
# patches are neighbours only by comparing their positions' vectors, and what it has learned about a patch at one place
# it must learn again at the next.
#
# That suggests three remedies, and an experiment for each:
#
# - **more images**: train on {few, more, all} images, with the same number of steps;
# - **augmentation**: shift every training image by a random pixel or so each time it is shown (photographs are also
#   mirrored), so that the data say what the architecture does not;
# - **a convolutional stem**: small convolutions in place of the one linear map that makes the patches
#   (`ViTConfig(stem="convolutions")`; Xiao et al. 2021).
#
# Each network is tested twice: on the test images, and on the same images shifted by an eighth of their side, to the
# left, to the right, up and down. A network that knows that things may move should not mind much.

# %%
optimizer = Optimizer(
    name="adamw", learning_rate=1e-3, weight_decay=0.05, schedule="cosine", decay="weights", warmup_steps=STEPS // 10
)
transform = optimizer.build(STEPS)
order = np.random.default_rng(0).permutation(len(train))
away = SIDE // 8
padded = np.pad(test["images"], ((0, 0), (away, away), (away, away), (0, 0)))
moves = [(away + down, away + right) for down, right in ((0, -away), (0, away), (-away, 0), (away, 0))]
shifted = np.stack([padded[:, top : top + SIDE, left : left + SIDE] for top, left in moves])


def augment(key, images):
    """Shift each image a little; mirror photographs."""
    images = random_crop(key, images, padding=away)
    return random_flip(jax.random.fold_in(key, 1), images) if CHANNELS == 3 else images


def experiment(network, config, augment):
    """Accuracy on the test images and on the shifted ones, for each size of the training set; and the last model."""
    task, found = classification(prepare=PIXELS.normalise, augment=augment), []
    graphdef, start = split_model(network(config, rngs=nnx.Rngs(0)))
    step = jax.jit(make_step(graphdef, transform, task.loss_fn))

    @jax.jit
    def evaluate(params, images):
        return accuracy(nnx.merge(graphdef, params)(PIXELS.normalise(images)), jnp.asarray(test["labels"])).mean()

    for size in SIZES:
        few = ArrayDataset(name="few", arrays=train.take(order[:size]))
        state, batches = new_state(start, transform), Batches(few, batch_size=32, seed=0)
        for i in range(STEPS):
            state, _ = step(state, batches(i))
        moved = np.mean([evaluate(state.params, images) for images in shifted])
        found.append((float(evaluate(state.params, test["images"])), float(moved)))
    return np.array(found), nnx.merge(graphdef, state.params)


# %% budget=150
with_stem = replace(config, stem="convolutions")
ARMS = {
    "CNN": (ConvNet, cnn, None),
    "ViT": (VisionTransformer, config, None),
    "ViT, augmented": (VisionTransformer, config, augment),
    "ViT, stem": (VisionTransformer, with_stem, None),
    "ViT, stem, augmented": (VisionTransformer, with_stem, augment),
}
results, models = {}, {}
for name, arm in list(ARMS.items())[: notebook.budget(5, 2)]:
    results[name], models[name] = experiment(*arm)
chance = np.sqrt(0.9 * 0.1 / len(test))
print(f"test accuracy by number of training images, {STEPS} steps each;  last column: shifted test images")
print(" " * 22 + "".join(f"{size:8}" for size in SIZES) + f"{'shifted':>10}")
for name, found in results.items():
    print(f"{name:22}" + "".join(f"{plain:8.3f}" for plain in found[:, 0]) + f"{found[-1, 1]:10.3f}")
if SIDE == 8 and not notebook.is_fast():  # what the text says of the digits
    assert results["CNN"][0, 0] > results["ViT"][0, 0] + 0.1
    assert results["ViT, stem"][0, 0] > results["ViT"][0, 0] + 0.1
    assert results["ViT, augmented"][-1, 0] < results["ViT"][-1, 0] - 0.05
    assert results["ViT, stem, augmented"][-1, 1] > results["CNN"][-1, 1] + 0.1
print(f"an accuracy near 0.9 on {len(test)} images is uncertain by {chance:.3f} (one standard error)")

# %% picture="data_and_shift"
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=[1.2, 1])
for i, (name, found) in enumerate(results.items()):
    axes[0].plot(SIZES, found[:, 0], marker="os^vD"[i], markersize=5, label=name)
    axes[1].plot(found[-1], [len(results) - i] * 2, color=f"C{i}", linewidth=1)
    axes[1].plot(found[-1, 0], len(results) - i, "o", color=f"C{i}")
    axes[1].plot(found[-1, 1], len(results) - i, "o", color=f"C{i}", markerfacecolor="white")
axes[0].set(xscale="log", xlabel="training images", ylabel="test accuracy", title="more images")
axes[0].set_xticks(SIZES, [str(size) for size in SIZES])
axes[0].legend(fontsize=8)
axes[1].set_yticks(range(len(results), 0, -1), list(results))
axes[1].set(xlabel="test accuracy, all training images", title="filled: as they are; open: shifted")
axes[0].minorticks_off()

# %% [markdown]
# Compare the rows two by two (with the digits, in the run whose outputs are kept here; a difference smaller than two
# standard errors means nothing):
#
# - **CNN and ViT**: with few images the CNN is far ahead; with all of them the gap is small. What it knows beforehand
#   is worth a multiple of the data.
# - **The stem**: a few small convolutions in front, and the same Transformer behind them is level with the CNN.
#   Locality was what it lacked most, and it needs that at the pixels, not in every layer.
# - **Augmentation alone** helps where images are fewest. With many images the plain ViT does *worse* with it: the task
#   is harder, and in so few steps it is not learned to the end. Augmentation is paid for in training time.
# - **Shifted by a pixel**: whoever was not trained with shifts loses much, even the CNN. Its convolutions move along
#   with the image, but its second stage looks only at every other pixel, and on so small an image every pixel is near
#   an edge, where zeros are padded. With the stem and the shifts together, nothing is lost.
#
# So the course's question, why Vision Transformers lag behind on small data sets and what helps, has a measured answer.
# What could not be measured here is the remedy that is used most: to begin with a model that has been trained on many
# other images (`python -m train.finetune`). Full runs on CIFAR-10 are listed in the README.
#
# ## What does it look at?
#
# The last model of the table, on three test images. For each layer: how much attention each patch receives, as a mean
# over all heads and patches. The figures on the patches add up to 1.

# %%
name, model = list(models.items())[-1]
shown = test["images"][:3]
seen = PIXELS.normalise(shown)
titles = [f"taken for {test.class_names[int(i)]}" for i in model(seen).argmax(axis=-1)]
print("the model:", name)
figure = plots.attention_received(shown, model.attention_maps(seen), titles)
figure.set_dpi(80)
figure

# %% [markdown]
# ## Exercises
#
# **1.** How many patches has an image of 224 x 224 pixels with patches of 16 x 16, and how many parameters has their
# embedding, with 3 channels and width 768?
#
# <details><summary>Answer</summary>
#
# $(224 / 16)^2 = 196$ patches. Each has $16 \cdot 16 \cdot 3 = 768$ numbers, so the matrix has $768 \cdot 768 = 589824$
# parameters, and the bias 768 more. These are the sizes of ViT-B/16.
#
# </details>
#
# **2.** Take the positions away (`positions="none"` in `ViTConfig`) and shuffle the patches of every test image, in the
# same way for all. Does the accuracy change? And with positions?
#
# <details><summary>Answer</summary>
#
# Without positions not at all: attention treats its input as a set, and the mean over the patches does not care for
# their order. So such a model knows a digit only by its stock of patches. With positions it changes a lot.
#
# </details>
#
# **3.** Give "ViT, augmented" four times the steps. Is augmentation still harmful with all images?
#
# <details><summary>Answer</summary>
#
# Set `STEPS`, build `transform` anew, and call `experiment` once more. Compare with the plain ViT of as many steps, not
# of fewer, or you will measure the steps. The plain one has nothing more to learn once it has
# memorised the training set; the augmented one never sees the same image twice.
#
# </details>
#
# **4.** One seed is no experiment. Repeat the table with `nnx.Rngs(1)`, another `order` and `Batches(..., seed=1)`.
# Which of the statements above survive?
#
# <details><summary>Answer</summary>
#
# Statements about differences of many standard errors should: CNN against ViT with few images, the stem, the loss when
# shifted. The order of arms that lie within two standard errors of each other may well turn round, which is why the
# text makes nothing of it.
#
# </details>
