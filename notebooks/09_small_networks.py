# %% [markdown]
# # 9. The small networks: from a perceptron to the language of a word
#
# After this notebook you can
#
# - say what a neuron computes, and how it learns: the perceptron, and gradient descent;
# - fit a curve, and read digits, with a multilayer perceptron, and say what its layers are for;
# - compute a convolution with a pencil, and say what it saves;
# - follow a recurrent network through a word, letter by letter, while it makes up its mind;
# - read the same network in PyTorch and in JAX, line beside line.
#
# Nothing is presupposed but Python, arrays, and what a derivative is. The networks are those of the machine-learning
# project of Berkeley's CS188. The lines of PyTorch that stand beside ours are taken, shortened, from the module
# `tests/twins/course_twins.py` of the repository, whose networks our tests compare with these. They are not
# executed here.

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
import inspect
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

from flaxformer_edu import notebook, plots
from flaxformer_edu.commands.identify import classify, open_network
from flaxformer_edu.data import (
    Batches,
    Pixels,
    decode_word,
    evaluation_batches,
    load_digits,
    load_words,
    split_of,
)
from flaxformer_edu.layers import convolve
from flaxformer_edu.models import (
    MLP,
    CharRNN,
    CharRNNConfig,
    ConvDigit,
    ConvDigitConfig,
    MLPConfig,
    fit_linear,
    fit_perceptron,
    perceptron_predict,
)
from flaxformer_edu.training import LoopConfig, Optimizer, accuracy, classification, cross_entropy, fit

notebook.set_style()
np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# ## One neuron that learns from its mistakes: the perceptron
#
# > "In what form is information stored, or remembered?" (Rosenblatt 1958, "The perceptron")
#
# Rosenblatt's answer: in the connections between neurons. Today we say in their strengths, the **weights**. A
# perceptron sees an example as numbers $x = (x_1, \dots, x_n)$, its features. It multiplies each by a weight, adds
# up, and says "yes" ($+1$) where the sum, the **score** $w \cdot x$, is at least 0, and "no" ($-1$) elsewhere. All it
# knows is in $w$.
#
# It learns from one example at a time. Where its answer is right, nothing happens; where it is wrong, the example is
# added to the weights, or subtracted if the right answer was "no":
#
# $$w \leftarrow w + y\,x \qquad \text{where } y = \pm 1 \text{ is the right answer}$$
#
# After that the score of this example is nearer to the right side by $x \cdot x$, which is always positive. It goes
# through all examples again and again, until it gets through without a mistake.
#
# | PyTorch | here |
# |:---|:---|
# | `w = nn.Parameter(torch.ones(1, dimensions))` | `weights = jnp.ones((1, dimensions))` |
# | `for example, label in zip(x, y):` | `jax.lax.scan(visit, weights, (x, y))` |
# | `if self.get_prediction(example[None]) != label:` | `mistaken = perceptron_predict(weights, x[None])[0] != y` |
# | `self.w += label * example` | `weights + jnp.where(mistaken, y * x, 0)` |
# | `while mistakes > 0:` | `jax.lax.while_loop(unfinished, one_pass, start)` |
#
# There is the main difference between the two, in five lines. PyTorch *changes* `w` in place, and Python repeats the
# lines. In JAX nothing is changed: `visit` returns new weights, and the repetition is part of the program that is
# compiled once for all examples. (`jnp.where` computes both cases and takes one. A Python `if` could not decide here:
# it is executed while the program is being compiled, when there are no numbers yet.)
#
# Let us separate points in the plane. A third feature, always 1, has a weight as well, so that the boundary need not go
# through the middle.

# %%
points = np.random.default_rng(0).uniform(-1, 1, (200, 2))
distances = points @ [0.8, -0.6] - 0.3  # from a line
points, distances = points[abs(distances) > 0.02], distances[abs(distances) > 0.02]
x = jnp.array(np.c_[points, np.ones(len(points))], jnp.float32)
y = jnp.where(distances >= 0, 1, -1)

found = [fit_perceptron(jnp.ones((1, 3)), x, y, passes) for passes in range(1, 100)]
found = found[: int(found[-1].passes)]
mistakes = [int((perceptron_predict(pass_.weights, x) != y).sum()) for pass_ in found]
print(f"{len(x)} points; without a mistake in pass {found[-1].passes}; weights {np.asarray(found[-1].weights[0])}")
print("wrong after each pass:", *mistakes)

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=[1.3, 1])
for label, colour in ((1, "C0"), (-1, "C1")):
    axes[0].scatter(*points[np.asarray(y) == label].T, s=6, color=colour)
across = np.array([-1.0, 1.0])
for pass_, style in ((found[0], ":"), (found[2], "--"), (found[-1], "-")):
    w = pass_.weights[0]
    axes[0].plot(across, -(w[0] * across + w[2]) / w[1], "k", linestyle=style, label=f"after pass {pass_.passes}")
axes[0].set(title="the boundary, where the score is 0", xlabel="feature 1", ylabel="feature 2", ylim=(-1, 1))
axes[0].set_aspect("equal")
axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
axes[1].plot(range(1, len(mistakes) + 1), mistakes, marker="o", markersize=3)
axes[1].set(title="points on the wrong side", xlabel="pass")
axes[1].grid()
plt.show()

# %% [markdown]
# Each pass may spoil what was right before, and yet it ends: if *any* line separates the points, the perceptron finds
# one after a finite number of mistakes (Novikoff 1962). If none does, it never ends. That is its limit, and what all
# that follows is about: one neuron can draw one straight boundary.
#
# ## Downhill: gradient descent
#
# > "The procedure repeatedly adjusts the weights of the connections in the network so as to minimize a measure of the
# > difference between the actual output vector of the net and the desired output vector." (Rumelhart, Hinton and
# > Williams 1986, "Learning representations by back-propagating errors")
#
# That "measure of the difference" is the **loss** $L$, one number that says how wrong the network is. Its derivative
# by each weight, all together the **gradient** $\nabla L$, says in which direction it grows. So take a small step the
# other way, and again:
#
# $$w \leftarrow w - \eta \, \nabla L(w)$$
#
# where $\eta$ is the **learning rate**, the length of the step. In its smallest form: from four samples of $7 x_1 + 8
# x_2 + 3$, find the three numbers. The loss is the mean of the squared differences (halved, which makes the
# derivative nicer).

# %%
samples = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
targets = jnp.array([3.0, 11.0, 10.0, 18.0])
for steps in (0, 1, 10, 100, 500):
    line = fit_linear(samples, targets, learning_rate=0.5, steps=steps)
    print(f"after {steps:3} steps: slopes {np.asarray(line.slopes)}, intercept {line.intercept:.3f}")
print(inspect.getsource(fit_linear))

# %% [markdown]
# ## Many neurons: a network that draws curves
#
# > "[...] arbitrary decision regions can be arbitrarily well approximated by continuous feedforward neural networks
# > with only a single internal, hidden layer and any continuous sigmoidal nonlinearity." (Cybenko 1989, abstract)
#
# Composing linear maps gives a linear map: two of them, one after the other, are a single one. So between them stands a
# function that is not linear, here the **ReLU**, which turns negative numbers into 0 and leaves the others. A neuron
# with it has a kink, and a sum of many such neurons can bend at many places. That is a **multilayer perceptron** (MLP):
# linear map, ReLU, linear map, ReLU, ..., linear map.
#
# | PyTorch | here |
# |:---|:---|
# | `model = MLP((1, 256, 256, 128, 1))` | `model = MLP(MLPConfig.sine(), rngs=nnx.Rngs(0))` |
# | `optimizer = torch.optim.Adam(model.parameters(), 2e-3)` | `optimizer = optax.adam(2e-3)` |
# | (the same call) | `state = optimizer.init(params)` |
# | `loss = F.mse_loss(model(x), y)` | `def loss(params): return jnp.mean((model(x) - y) ** 2)` |
# | `optimizer.zero_grad(); loss.backward()` | `gradient = jax.grad(loss)(params)` |
# | `optimizer.step()` | `updates, state = optimizer.update(gradient, state)` |
# | (the same call) | `params = optax.apply_updates(params, updates)` |
# | `for step in range(steps):` | `jax.lax.fori_loop(0, steps, step, (params, state))` |
#
# Again the same, but for where things are kept. In PyTorch the parameters are in the model, their gradients beside
# them, the optimizer's memory in the optimizer. In JAX they are values that go in and come out, which is why the loss
# is a function of the parameters, and why nothing has to be set to zero. `nnx.split` takes a model apart into its
# structure (`graphdef`) and its parameters, `nnx.merge` puts it together. **Adam** (Kingma and Ba 2015) is gradient
# descent in which each weight has its own step length, from the size of its recent gradients.
#
# The task is the sine at 200 places between $-2\pi$ and $2\pi$.

# %%
angles = jnp.linspace(-2 * math.pi, 2 * math.pi, 200)[:, None]
sines = jnp.sin(angles)
graphdef, params = nnx.split(MLP(MLPConfig.sine(), rngs=nnx.Rngs(0)))
optimizer = optax.adam(2e-3)
state = optimizer.init(params)


def loss(params):
    return jnp.mean((nnx.merge(graphdef, params)(angles) - sines) ** 2)


@jax.jit
def train(params, state, steps):
    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, steps, step, (params, state))


# %%
milestones = [0, 30, 100, 300, notebook.budget(3000, 320)]
beyond = jnp.linspace(-4 * math.pi, 4 * math.pi, 400)[:, None]
curves = {}
for before, steps in zip([0, *milestones], milestones, strict=False):
    params, state = train(params, state, steps - before)
    curves[steps] = np.asarray(nnx.merge(graphdef, params)(beyond)[:, 0])
    print(f"after {steps:4} steps: mean squared error {loss(params):.5f}")
assert loss(params) < notebook.budget(0.01, 1)

figure, axes = plt.subplots(1, 2, figsize=(8, 3), width_ratios=[1.4, 1])
inside = np.abs(np.asarray(beyond[:, 0])) <= 2 * math.pi
for (steps, curve), shade in zip(curves.items(), plt.cm.viridis(np.linspace(0.9, 0, 5)), strict=True):
    axes[0].plot(beyond[inside], curve[inside], color=shade, label=f"{steps} steps")
axes[1].plot(beyond, np.sin(beyond), "k:", label="sine")
axes[1].plot(beyond, curve, color=shade, label=f"after {steps} steps")
axes[1].axvspan(-2 * math.pi, 2 * math.pi, alpha=0.1, label="where it was trained")
axes[0].plot(angles, sines, "k:", label="sine")
axes[0].set(title="the fit while it is trained", xlabel="x", xlim=(-6.3, 10.5), ylim=(-2, 2))
axes[1].set(title="the same network further out", xlabel="x", ylim=(-4, 4))
for axis in axes:
    axis.legend(fontsize=8, loc="lower right")
plt.show()

# %% [markdown]
# It begins with a single kink, at 0, as Flax lets all biases begin at zero. Then the kinks move, and the bends come one
# after the other, from the middle outwards. On the right the same network is asked about places that it has never seen:
# beyond its last kink it goes on straight. It has learned these two waves, not the sine.
#
# ## Ten answers at once: digits
#
# A network that chooses between ten digits has ten outputs, a score for each class: the **logits**. The
# **softmax** makes probabilities of them, positive and with sum 1:
#
# $$p_c = \frac{e^{z_c}}{\sum_k e^{z_k}}$$
#
# where $z_c$ is the logit of class $c$. The loss is the **cross-entropy** $-\ln p_c$ of the right class $c$: 0 if the
# network was sure of it, and large if it was sure of another. An untrained network, which knows nothing, should have
# about $-\ln \tfrac{1}{10}$.
#
# | PyTorch | here |
# |:---|:---|
# | `x = images.flatten(1)` | (`MLP` flattens by itself) |
# | `loss = F.cross_entropy(logits, labels)` | `loss = cross_entropy(logits, labels).mean()` |
# | `(logits.argmax(1) == labels).float().mean()` | `accuracy(logits, labels).mean()` |
# | `DataLoader(dataset, batch_size=64, shuffle=True)` | `Batches(dataset, batch_size=64, seed=0)` |
#
# The data are the small handwritten digits of scikit-learn, 8 x 8 pixels. We train two networks: a single linear map
# from 64 pixels to 10 classes, and an MLP with two hidden layers. `fit` is the package's training loop; it does what
# `train` did above, with shuffled batches in place of all data at once.

# %%
digits = load_digits()
task = classification(prepare=Pixels().normalise)
print({split: len(data) for split, data in digits.items()}, f"-ln(1/10) = {math.log(10):.3f}")


def train_on_digits(model):
    """Train for some epochs; the trained model."""
    steps = notebook.budget(800, 40)
    result = fit(
        model,
        task.loss_fn,
        Optimizer(name="adamw", learning_rate=4e-3, schedule="cosine"),
        Batches(digits["train"], batch_size=64, seed=0),
        LoopConfig(steps=steps, steps_per_call=10),
        evaluate_fn=task.evaluate_fn,
        validation=lambda: evaluation_batches(digits["test"], 360),
        console=notebook.quiet_console(),
    )
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(result.model, nnx.Param)))
    first, last = result.rows[0]["loss"], result.rows[-1]["eval_accuracy"]
    print(f"{type(model).__name__}, {size} parameters: first loss {first:.2f}, test accuracy {last:.3f}")
    return result.model


linear = train_on_digits(MLP(MLPConfig(widths=(64, 10)), rngs=nnx.Rngs(0)))
mlp = train_on_digits(MLP(MLPConfig(widths=(64, 128, 64, 10)), rngs=nnx.Rngs(0)))

# %% [markdown]
# What has it learned? The linear network can be looked at: each class has one weight for each pixel, so its weights are
# a picture. The logit is the sum of the products of this picture and the digit.

# %%
templates = linear.layers[0].kernel[...].reshape(8, 8, 10)
limit = np.abs(templates).max()
figure, axes = plt.subplots(2, 10, figsize=(8, 1.9))
for digit in range(10):
    example = digits["train"]["images"][np.flatnonzero(digits["train"]["labels"] == digit)[0], ..., 0]
    axes[0, digit].imshow(example, cmap="gray_r")
    drawn = axes[1, digit].imshow(templates[..., digit], cmap="RdBu_r", vmin=-limit, vmax=limit)
for axis in axes.ravel():
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
axes[0, 0].set_ylabel("example")
axes[1, 0].set_ylabel("weights")
figure.colorbar(drawn, ax=axes)
plt.show()

# %% [markdown]
# Red pixels speak for the digit and blue ones against it. Look at the 0: ink in the middle speaks against it, for
# there its hole should be. Each class has a single such picture, for all ways of writing it. The MLP's hidden neurons
# are many such pictures, and the layers after them combine what these find. What it still gets wrong:

# %%
test = digits["test"]
probabilities = jax.nn.softmax(mlp(test["images"] / 255))
plots.misclassified(test["images"], test["labels"], probabilities, test.class_names, count=6)

# %% [markdown]
# ## The same weights everywhere: convolution, by hand
#
# > "Convolutional Networks combine three architectural ideas to ensure some degree of shift, scale, and distortion
# > invariance: local receptive fields, shared weights (or weight replication), and spatial or temporal sub-sampling."
# > (LeCun et al. 1998, section II.A)
#
# An MLP does not know which pixels are neighbours: shuffle the pixels of all images alike, and it learns as well. A
# **convolution** slides a small array of weights, the **kernel**, over the image. Each output is the sum of the
# products where the two lie on each other: it sees a small part of the image (local), and it is the same kernel
# everywhere (shared).
#
# $$\mathrm{output}[y, x] = \sum_{r, c} \mathrm{kernel}[r, c] \cdot \mathrm{image}[y + r, x + c]$$
#
# | PyTorch | here |
# |:---|:---|
# | `F.conv2d(images[:, None], kernel[None, None])` | `jax.vmap(convolve, (0, None))(images, kernel)` |
#
# PyTorch's function wants a batch and channels. Ours says what happens to *one* image with *one* kernel; `jax.vmap`
# makes of it the function for a batch: `(0, None)` says that the images have such an axis, in front, and the kernel
# has not.
#
# By hand, once. The kernel has $-1$ on the left and $1$ on the right, so it gives large numbers where the image gets
# darker from left to right.

# %%
image = jnp.array(test["images"][7, ..., 0] / 255.0)
kernel = jnp.array([[-1.0, 0, 1], [-1, 0, 1], [-1, 0, 1]])
part = image[2:5, 1:4]
print("rows 2 to 4, columns 1 to 3 of the image:", part, "times the kernel:", part * kernel, sep="\n")
print(f"sum {np.sum(part * kernel):.3f}, and convolve there: {convolve(image, kernel)[2, 1]:.3f}")
assert np.isclose(np.sum(part * kernel), convolve(image, kernel)[2, 1], atol=1e-6)
moved = convolve(image[:, 1:], kernel)
print("where the image moves by a column, so does the output:", bool((moved == convolve(image, kernel)[:, 1:]).all()))

# %%
kernels = {
    "upright edges": kernel,
    "level edges": kernel.T,
    "outline": jnp.array([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]) / 3,
    "ones (blur)": jnp.ones((3, 3)) / 3,
}
figure, axes = plt.subplots(2, 5, figsize=(8, 3.2), height_ratios=[1, 2])
axes[0, 0].axis("off")
axes[1, 0].imshow(image, cmap="gray_r")
axes[1, 0].set_title(f"a {test['labels'][7]}, 8 x 8")
for column, (name, weights) in zip(axes[:, 1:].T, kernels.items(), strict=True):
    column[0].imshow(weights, cmap="RdBu_r", vmin=-3, vmax=3)
    column[0].set_title(name)
    column[1].imshow(convolve(image, weights), cmap="RdBu_r", vmin=-3, vmax=3)
for axis in axes.ravel():
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
axes[0, 1].set_ylabel("kernel")
axes[1, 1].set_ylabel("output, 6 x 6")
plt.show()

# %% [markdown]
# Kernels are no longer designed by hand: they are learned, like all weights. CS188's network has a single kernel,
# which starts as ones, and an MLP behind it. Which one does it find?

# %%
convolutional = train_on_digits(ConvDigit(ConvDigitConfig(image_size=8, hidden=(128, 64)), rngs=nnx.Rngs(0)))
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2))
learned = convolutional.kernel[...]
for k, (name, weights) in enumerate({"at first": jnp.ones((3, 3)), "learned": learned}.items()):
    axes[2 * k].imshow(weights, vmin=0, vmax=2)
    axes[2 * k].set_title(f"kernel, {name}")
    axes[2 * k + 1].imshow(convolve(image, weights), vmin=0, vmax=8)
    axes[2 * k + 1].set_title("what it sees")
for axis in axes:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
plt.show()
print("learned:", learned, sep="\n")
assert (learned > 0).all()

# %% [markdown]
# All its weights are still positive: it remains a kind of blur. That is no surprise: the MLP sees the image through
# this one kernel alone, so it must let through whatever the MLP needs. Networks that are made of convolutions have
# dozens of kernels in each layer, each free to look for one thing, and many layers (`models/cnn.py`).
#
# ## A network with a memory: which language is a word from?
#
# > "One approach is to represent time implicitly by its effects on processing rather than explicitly (as in a spatial
# > representation)." (Elman 1990, "Finding structure in time", abstract)
#
# Words have different lengths, so no layer of fixed width can take one in at once. A **recurrent network** reads
# letter by letter, and keeps a **state** $h$, a vector of numbers in which it notes what it has seen. The same
# weights work at each letter:
#
# $$h_1 = \mathrm{relu}(C x_1), \qquad h_t = \mathrm{relu}\bigl(M \, \mathrm{relu}(C x_t + H h_{t-1})\bigr)$$
#
# where $x_t$ is the letter at place $t$, as a vector with a 1 at the letter's place in the alphabet and 0 elsewhere
# ("one-hot"), and $C$, $H$ and $M$ are linear maps (`char`, `hidden`, `middle`). After the last letter a fourth
# linear map turns $h$ into a logit for each language.
#
# | PyTorch | here |
# |:---|:---|
# | `h = F.relu(self.char_layer(xs[0]))` | `start = jax.nn.relu(chars[:, 0])` |
# | `for x in xs[1:]:` | `h = scan_states(self.step, start, chars[:, 1:], mask[:, 1:])[0]` |
# | `h = F.relu(self.char_layer(x) + self.hidden_layer(h))` | `def step(self, h, char):` |
# | `h = F.relu(self.middle_layer(h))` | `return relu(self.middle(relu(char + self.hidden(h))))` |
# | `return self.output_layer(h)` | `return self.output(h)` |
#
# Three things differ. Python's loop becomes `scan_states`, around `jax.lax.scan`: a loop inside of the compiled
# program. `char` is applied to all letters before it, as this part need not wait for the state. And words of
# different lengths share a batch: shorter ones are filled up with -1, and where the `mask` says so, the state is
# carried over unchanged.
#
# The package has a list of words in five languages. No word of the test split is in the training split, so the network
# cannot have memorised it.

# %%
words = load_words()
languages = words["train"].class_names
alphabet = "".join(words["train"].metadata["chars"])
texts = {split: [decode_word(letters, tuple(alphabet)) for letters in data["words"]] for split, data in words.items()}
print({split: len(data) for split, data in words.items()})
for label, language in enumerate(languages):
    some = np.flatnonzero(words["train"]["labels"] == label)[2000::3000][:4]
    print(f"{language:8}", *[texts["train"][i] for i in some])


def loss_fn(model, batch, rngs):
    """The mean cross-entropy, and the accuracy."""
    logits = model(batch["words"], rngs=rngs)
    return cross_entropy(logits, batch["labels"]).mean(), {"accuracy": accuracy(logits, batch["labels"]).mean()}


# %%
config = CharRNNConfig.project(alphabet=alphabet, languages=languages, width=96)
trained = fit(
    CharRNN(config, rngs=nnx.Rngs(0)),
    loss_fn,
    Optimizer(name="adam", learning_rate=3e-3, schedule="cosine"),
    Batches(words["train"], batch_size=128, seed=0),
    LoopConfig(steps=notebook.budget(1600, 24), steps_per_call=8),
    console=notebook.quiet_console(),
)
bundled = open_network(None)
networks = {"ours, trained here": trained.model, "the bundled one": bundled}
labels = words["test"]["labels"][:: notebook.budget(1, 20)]
asked = texts["test"][:: notebook.budget(1, 20)]
for name, network in networks.items():
    probabilities = classify(network, asked)
    print(f"{name:18} {(probabilities.argmax(axis=1) == labels).mean():.3f} of {len(asked)} test words right")

# %% [markdown]
# "The bundled one" is the network of `flaxformer-edu identify`: trained for longer, it sees a window of five letters at
# once, reads in both directions, and its state passes through gates (a GRU, Cho et al. 2014). What it takes for what:

# %%
plots.confusion_matrix(plots.confusion_counts(labels, probabilities.argmax(axis=1), 5), languages)

# %% [markdown]
# Now the best part. Our own network reads from left to right, so we can stop it after every letter and ask. Here it
# reads some words of the test split. The answer is always to the question: "and if the word ended here?"

# %%
chosen = ["photographer", "señalando", "tekemisissä", "slachtoffer", "powszechnych", "supermarkten"]
assert all(split_of(word) == "test" for word in chosen)
beginnings = [word[:end] for word in chosen for end in range(1, len(word) + 1)]
after_each_letter = np.split(classify(trained.model, beginnings), np.cumsum([len(word) for word in chosen])[:-1])
figure, axes = plt.subplots(2, 3, figsize=(8, 4), sharey=True)
for axis, word, beliefs in zip(axes.ravel(), chosen, after_each_letter, strict=True):
    drawn = axis.imshow(beliefs.T, vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(word)), list(word))
    axis.set_yticks(range(5), languages)
    answers = [languages[k] for k in beliefs.argmax(axis=1)]
    print(f"{word:13} {answers[-1]:8} {beliefs[-1].max():.3f}  on the way: {', '.join(dict.fromkeys(answers))}")
figure.colorbar(drawn, ax=axes, label="probability")
plt.show()

# %% [markdown]
# It changes its mind at nearly every letter. At *señaland* it drops Spanish in spite of the ñ. How many words of the
# training split end like that?

# %%
for ending in ("nd", "sz", "ä"):
    ends = words["train"]["labels"][[text.endswith(ending) for text in texts["train"]]]
    print(f"in -{ending:3}", dict(zip(languages, np.bincount(ends, minlength=5).tolist(), strict=True)))

# %% [markdown]
# Not one Spanish word. The network weighs what the word would be if it ended here, and with the next letter it
# may be right again.
#
# ## What stayed the same
#
# From the perceptron to the language of a word: an example goes in as numbers, passes through linear maps and kinks,
# and comes out as a score; a loss says how wrong it was; its gradient says how to change the weights. What changed is
# how the weights are used: once for each pixel, in the same way at each place of an image, in the same way at each
# letter. A Transformer is one more way (notebook 1): the same weights for each token, and what it gathers from the
# others decided by what they contain.
#
# ## Exercises
#
# 1. The "exclusive or": the answer is $+1$ where exactly one of two features is 1. What does the perceptron do with it,
#    and why? Does an MLP learn it?
#
# <details><summary>Answer</summary>
#
# No line separates the four points, so it never gets through without a mistake, and stops when it must. An MLP with a
# few hidden neurons needs two kinks.
#
# ```python
# corners = jnp.array([[0.0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
# print(fit_perceptron(jnp.ones((1, 3)), corners, jnp.array([-1, 1, 1, -1]), 1000))
# ```
#
# For the MLP, put `corners` in the place of `angles`, and the answers, as a column, in that of `sines`, and begin
# with `MLPConfig(widths=(3, 8, 1))`.
#
# </details>
#
# 2. Leave out the kinks: how well can a network *without* ReLU fit the sine? You need not train one.
#
# <details><summary>Answer</summary>
#
# It is a straight line, whatever its depth, so the best it can do is the best line:
#
# ```python
# line = fit_linear(angles, sines[:, 0], learning_rate=0.05, steps=1000)
# print(jnp.mean((angles @ line.slopes + line.intercept - sines[:, 0]) ** 2))
# ```
#
# The variance of the sine itself is 0.5.
#
# </details>
#
# 3. Is it true that an MLP does not know which pixels are neighbours? Shuffle the pixels of all digits in the same way
#    and train both networks again.
#
# <details><summary>Answer</summary>
#
# ```python
# order = np.random.default_rng(0).permutation(64)
# for data in digits.values():
#     data.arrays["images"] = data["images"].reshape(-1, 64)[:, order].reshape(-1, 8, 8, 1)
# ```
#
# Then run the training cells again. The MLP's accuracy changes by chance only. That of the network with the
# convolution falls clearly: what its kernel adds up are no longer neighbours, and the MLP behind it cannot undo that.
#
# </details>
#
# 4. Does the order of the letters matter to the recurrent network? Ask it for `[word[::-1] for word in asked]`.
#
# <details><summary>Answer</summary>
#
# ```python
# print((classify(trained.model, [word[::-1] for word in asked]).argmax(axis=1) == labels).mean())
# ```
#
# It is still better than guessing (one in five), by the letters alone (ä, ñ, ł, ...), but much worse than before: it
# has learned endings, and which letter follows which.
#
# </details>
#
# 5. The same in full: `python -m train.language_id` trains the bundled network, `python -m train.course digits` and
#    `convolution` train on MNIST. What do they reach?
#
# <details><summary>Answer</summary>
#
# The README has a table of it, under "Training".
#
# </details>
