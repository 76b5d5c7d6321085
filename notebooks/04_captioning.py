# %% [markdown]
# # 4. Captioning: from a picture to a sentence
#
# After this notebook you can
#
# - turn captions into numbers and back, and train a Transformer decoder to write them;
# - say why a model that is given one vector per picture cannot show what it looked at, and train one that can;
# - decode greedily and by beam search, and say what a beam finds that a greedy search misses;
# - measure what each word looks at, and check whether the model needed what it looked at.
#
# The pictures are drawn, so that everything runs here and now: each shows two shapes, and one sentence says all that
# there is to say. If the folder `coco_captioning` of CS231n lies beside this notebook, the first part uses it instead.

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
from einops import rearrange, repeat
from flax import nnx

from flaxformer_edu import decode, notebook, plots
from flaxformer_edu.data import (
    Batches,
    caption_dataset,
    decode_captions,
    evaluation_batches,
    load_coco,
    normalise,
    picture_set,
    read_images,
)
from flaxformer_edu.decode import references, word_for_word, write_captions
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, ViTCaptioner, ViTCaptionerConfig, ViTConfig
from flaxformer_edu.training import LoopConfig, Optimizer, captioning, fit

notebook.set_style()

# %% [markdown]
# ## Sentences as numbers
#
# A caption is a row of word ids. It begins with `<START>`, ends with `<END>`, and is filled up with `<NULL>` to the
# length of the longest. Everything about the format is CS231n's, so the same code reads the course's COCO files.

# %%
coco = Path("coco_captioning")
folder = coco if coco.is_dir() else picture_set()
print("COCO captions found" if coco.is_dir() else "no folder coco_captioning here: drawn pictures stand in for COCO")
data = load_coco(folder, max_train=50)
print(f"{len(data['idx_to_word'])} words; a picture's features: {data['train_features'].shape[1]} numbers")
print("a caption as the model sees it:", data["train_captions"][0].tolist())
print("and as we do:                  ", decode_captions(data["train_captions"][0], data["idx_to_word"]))

# %% [markdown]
# ## First, memorise fifty captions
#
# In the course's exercise each picture is one vector of *features*, made by a network that was trained before. (Here
# they are the drawn picture's principal components.) The decoder reads the words written so far and predicts the next.
# How does it get at the picture?
#
# > "In 'encoder-decoder attention' layers, the queries come from the previous decoder layer, and the memory keys and
# > values come from the output of the encoder." (Vaswani et al. 2017, section 3.2.3)
#
# So each word asks (a query), and the picture answers (keys and values). What it answers with is called the *memory*:
# here a single token, the feature vector mapped to the decoder's width.
#
# Overfitting a few examples on purpose is the cheapest test there is of a model and its training: if it cannot
# memorise fifty captions, something is broken. In training, the model is given the true words up to each position and
# is asked for the next one, at all positions at once ("teacher forcing"; the causal mask hides what is to come).

# %%
fifty = caption_dataset(data, "train")
config = CaptioningConfig.cs231n(vocab=len(data["idx_to_word"]), features=data["train_features"].shape[1], width=128)
config = replace(config, hidden=512)  # the course's 2048 would learn the same fifty, in three times the time
overfit = fit(
    CaptioningTransformer(config, rngs=nnx.Rngs(0)),
    captioning().loss_fn,
    Optimizer(name="adam", learning_rate=2e-3, schedule="cosine"),
    Batches(fifty, batch_size=25, seed=0),
    LoopConfig(steps=notebook.budget(200, 4)),
    console=notebook.quiet_console(),
)
words = data["idx_to_word"]
people = [[decode_captions(c[1:], words).removesuffix(" <END>")] for c in fifty.captions]
written = write_captions(overfit.model, fifty.tables["features"][fifty.image_idxs], words)
print(f"loss {overfit.rows[-1]['loss']:.3f}; written word for word: {word_for_word(written, people)} of 50")
assert word_for_word(written, people) >= notebook.budget(48, 0)
figure, axis = plt.subplots(figsize=(8, 2.2))
axis.plot([row["step"] for row in overfit.rows], [row["loss"] for row in overfit.rows])
axis.set(xlabel="step", ylabel="loss", yscale="log", title="memorising fifty captions")

# %% [markdown]
# What did its words look at? `attention_to_memory` gives the weights of every layer, head and word:

# %%
weights = overfit.model.attention_to_memory(fifty.tables["features"][fifty.image_idxs[:1]], fifty.captions[:1, :-1])
print("axes layer batch head length memory:", weights.shape)
print("smallest and largest weight:", float(weights.min()), float(weights.max()))
assert (weights == 1).all()

# %% [markdown]
# Every weight is exactly 1. The weights of a word add up to 1, and there is but one token to look at. Whatever the
# picture, whatever the word: the attention passes the same vector on. A model like this can describe pictures, but it
# cannot look at anything. For that, the memory needs a token for each *place*.
#
# ## A captioner that sees places
#
# `ViTCaptioner` puts a small Vision Transformer in front: the picture is cut into 5 x 5 patches, and the memory has 25
# tokens. Decoder and encoder are trained together, from nothing, on 4,000 drawn pictures. The 500 validation pictures
# show combinations of words that never occur in training, such as a small red circle above a black triangle, although
# each single word does.

# %%
SIZE, LENGTH = 40, 11  # pixels per side; the longest caption: nine words, <START> and <END>
drawn = load_coco(picture_set())
words = drawn["idx_to_word"]
squares, splits = {}, {}
for split, most in {"train": notebook.budget(4000, 200), "val": notebook.budget(500, 100)}.items():
    drawn[f"{split}_captions"] = drawn[f"{split}_captions"][:most, :LENGTH]
    for key in ("image_idxs", "features", "urls"):
        drawn[f"{split}_{key}"] = drawn[f"{split}_{key}"][:most]
    squares[split], _ = read_images(picture_set(), drawn[f"{split}_urls"], SIZE)
    splits[split] = caption_dataset(drawn, split, images=np.asarray(normalise(squares[split], (0.5,), (0.25,))))
train, val = splits["train"], splits["val"]
truth = [texts[0] for texts in references(val, words).values()]
plots.captioned_pictures(list(squares["val"][:6]), truth[:6])

# %%
sizes = {"width": 64, "heads": 4, "hidden": 128, "norm": "pre"}
vision = ViTConfig(**sizes, image_size=SIZE, patch_size=8, layers=1, classes=None, init="lecun")
config = ViTCaptionerConfig(
    **sizes, layers=1, vocab=len(words), features=vision.width, max_length=LENGTH, vision=vision
)  # one block each: small enough for a laptop
task, steps = captioning("images"), notebook.budget(1200, 6)
trained = fit(
    ViTCaptioner(config, rngs=nnx.Rngs(0)),
    task.loss_fn,
    Optimizer(name="adamw", learning_rate=2e-3, weight_decay=0.05, schedule="cosine", warmup_steps=steps // 10),
    Batches(train, batch_size=50, seed=0),
    LoopConfig(steps=steps, evaluate_every=max(1, steps // 6)),
    evaluate_fn=task.evaluate_fn,
    validation=lambda: evaluation_batches(val, 100),
    console=notebook.quiet_console(),
)
model, images = trained.model, val.tables["images"]
figure = plots.training_curves({"": trained.rows})
figure.set_dpi(80)
figure

# %% [markdown]
# The steep fall at the beginning is grammar: which words there are, and in which order they come. The long slope behind
# it is seeing: which of the six colours and which of the three shapes it is, only the picture can tell. Evaluation lies
# close to training, although it shows combinations that were never trained on. So the model has not memorised
# captions this time; it has learned what the single words mean.
#
# ## Writing: greedily
#
# When the model writes, it is not given the true words: it has to continue from its own. Taking the likeliest word each
# time is called *greedy* decoding.

# %%
greedy = write_captions(model, images, words)
right = word_for_word(greedy, [[text] for text in truth])
print(f"written word for word, of {len(truth)} pictures of unseen combinations: {right}")
assert right > notebook.budget(0.85, -1) * len(truth)

ids = decode.greedy(model, images[:1])  # what it writes about the first picture, and how sure it is of each word
given = jnp.concatenate([jnp.full((1, 1), config.start_id), ids[:, :-1]], axis=1)
probabilities, likeliest = jax.lax.top_k(jax.nn.softmax(model(images[:1], given))[0], 3)
for row, share in zip(likeliest[: len(greedy[0].split()) + 1], probabilities, strict=False):
    print("   ".join(f"{words[i]:>9} {float(p):.3f}" for i, p in zip(row.tolist(), share, strict=True)))

# %% [markdown]
# Each line is one step: the likeliest word, which is written, and the two runners-up. In this picture the model is
# nearly sure of every word.
#
# What does it get wrong? Here are mistakes, if there are any, filled up with captions that are right:

# %%
mistakes = [i for i, text in enumerate(truth) if greedy[i] != text]
shown = [*mistakes, *(i for i in range(len(truth)) if i not in mistakes)][:6]
titles = [greedy[i] if greedy[i] == truth[i] else f"{greedy[i]} (in truth: {truth[i]})" for i in shown]
plots.captioned_pictures(list(squares["val"][shown]), titles)

# %% [markdown]
# ## Writing: with a beam
#
# The likeliest word now may lead into a sentence that is unlikely as a whole. A *beam search* of width $k$ keeps the
# $k$ best beginnings, carries each on by every word, and keeps the $k$ best again.
#
# > "We used beam search with a beam size of 4 and length penalty $\alpha = 0.6$." (Vaswani et al. 2017, section 6.1)
#
# Sentences are compared by $\log p$, the sum of their words' log probabilities. (Longer ones have more summands, all
# negative; the length penalty makes up for that. Our captions are all about as long, so we leave it at 0.) Width 1 is
# greedy decoding.
#
# A search matters where the model is in doubt. So it is tried twice: on the pictures as they are, and on double
# exposures, each the mean of two pictures, as if the film had not been wound on. For each width: the mean of log p, and
# for how many pictures it found a likelier sentence than width 1 did, or a less likely one.

# %%
doubled = (images + np.roll(images, 1, axis=0)) / 2  # each with the one before it
scores = {}
for name, seen in {"pictures": images, "double exposures": doubled}.items():
    for width in notebook.budget((1, 2, 4, 16), (1, 2)):
        scores[name, width] = np.asarray(decode.beam_search(model, seen, width=width).scores[:, 0])
        gain = scores[name, width] - scores[name, 1]
        print(f"{name:16} width {width:2}: mean log p {scores[name, width].mean():.4f}; "
              f"likelier {(gain > 1e-3).sum():3}, less likely {(gain < -1e-3).sum()}")  # fmt: skip
assert gain.max() > notebook.budget(0.1, -1)

# %% [markdown]
# Where the picture leaves no doubt, greedy decoding has found the likeliest sentence already. Where there is doubt, a
# beam of two finds most of what can be found, and wider ones add little (Wu et al. 2016 report the same of
# translation). Here is the double exposure for which the beam gained most. Greedy decoding took the word that was
# likeliest at the time, and so could not begin with the one that the likeliest sentence begins with:

# %%
best = int(gain.argmax())
print("greedily:", decode_captions(decode.greedy(model, doubled[best : best + 1])[0], words))
beams = decode.beam_search(model, doubled[best : best + 1], width=4)
for text, score in zip(decode_captions(beams.tokens[0], words), beams.scores[0].tolist(), strict=True):
    print(f"   log p {score:6.2f}   {text}")
both = (squares["val"][best].astype(float) + squares["val"][best - 1]) / 2
titles = [truth[best], truth[best - 1], "what the model is shown"]
plots.captioned_pictures([squares["val"][best], squares["val"][best - 1], both.astype(np.uint8)], titles)

# %% [markdown]
# A beam finds what the *model* finds likely. Whether that is true depends on the model, not on the search.
#
# ## What each word looks at
#
# The rows of `attention_to_memory` belong to the words that are *read*: at each, the model looks for the one that
# follows. So the weights at `<START>` are shown under the first word written. One block, mean over the heads:


# %% picture="what_each_word_looks_at"
def looked_at(images, captions):
    """Where the model looks to find each word behind the first of `captions`."""
    weights = model.attention_to_memory(images, captions[:, :-1])[-1].mean(axis=1)
    return rearrange(np.asarray(weights), "batch word (row column) -> batch word row column", row=SIZE // 8)


maps = looked_at(images, val.captions)
example = next(i for i, text in enumerate(truth) if "above" in text)
spoken = truth[example].split()
figure = plots.attended_words(squares["val"][example], spoken, maps[example, : len(spoken)], columns=5)
figure.set_dpi(90)
figure

# %% [markdown]
# Do not trust one picture. In captions with "above" and "below" the same kind of word always stands at the same place,
# and we know where the objects are: the first in the upper two rows of patches, or in the lower two. So we can measure,
# over all such pictures of the validation set, how much of the attention falls on either object's side.

# %%
KINDS = ["a", "size", "colour", "shape", "above/below", "a", "colour", "shape", "<END>"]
sides = {"first object's side": [], "second object's side": []}
for text, shares in zip(truth, maps, strict=True):
    if "above" in text or "below" in text:
        upper, lower = shares[: len(KINDS), :2].sum(axis=(1, 2)), shares[: len(KINDS), -2:].sum(axis=(1, 2))
        for name, share in zip(sides, (upper, lower) if "above" in text else (lower, upper), strict=True):
            sides[name].append(share)
means = {name: np.mean(shares, axis=0) for name, shares in sides.items()}
figure, axis = plt.subplots(figsize=(8, 2.8))
for shift, marker, (name, share) in zip((-0.2, 0.2), ("", "//"), means.items(), strict=True):
    axis.bar(np.arange(len(KINDS)) + shift, share, 0.38, label=name, hatch=marker, edgecolor="white")
axis.axhline(2 / 5, color="black", linewidth=0.8, linestyle=":", label="if it looked everywhere alike")
axis.set_xticks(range(len(KINDS)), KINDS)
axis.grid(axis="x", visible=False)
axis.set(ylabel="share of the attention", xlabel="the word that is looked for", ylim=(0, 0.95))
axis.set_title("where it looks, mean over the pictures with one object above the other")
axis.legend(fontsize=8, ncols=3)
for kind, *share in zip(KINDS, *means.values(), strict=True):
    print(f"{kind:12} first {share[0]:.2f}  second {share[1]:.2f}")
if not notebook.is_fast():
    first, second = means.values()
    assert (first[2:4] > second[2:4]).all()
    assert (second[6:8] > first[6:8]).all()

# %% [markdown]
# The model was never given the objects or their places, only pictures and sentences. For colour
# and shape of the first object it looks at the first object, and for those of the second at the second. Words that
# need no looking, such as "a", look everywhere.
#
# ## Did it need what it looked at?
#
# A map of attention says where a word looked, not that it mattered: the encoder has already mixed the patches, and the
# decoder adds what it knows of the sentence. The test is to take away what was looked at. We paint over the one patch
# that got the most attention for the first colour, with the colour of the ground, and ask for the word's probability
# again. For comparison, we paint over the patch that lies opposite, mirrored at the middle.

# %%
PLACE = 3  # <START> a large RED ...: the colour is the word of number 3


def probability(images):
    """That of the true first colour."""
    shares = jax.nn.softmax(model(images, val.captions[:, :-1]))[:, PLACE - 1]
    return np.asarray(jnp.take_along_axis(shares, jnp.asarray(val.captions[:, PLACE, None]), axis=1))[:, 0]


def painted_over(images, patches):
    """The images, one patch of each in the colour of its upper left corner, which is ground."""
    chosen = np.eye((SIZE // 8) ** 2, dtype=bool)[patches].reshape(-1, SIZE // 8, SIZE // 8)
    hidden = repeat(chosen, "batch row column -> batch (row height) (column width) 1", height=8, width=8)
    return np.where(hidden, images[:, :1, :1], images)


most = maps[:, PLACE - 1].reshape(len(images), -1).argmax(axis=1)
for what, pictures in {
    "the picture itself": images,
    "the patch it looked at painted over": painted_over(images, most),
    "the opposite patch painted over": painted_over(images, (SIZE // 8) ** 2 - 1 - most),
}.items():
    print(f"{what:36} mean probability of the true colour: {probability(pictures).mean():.3f}")

# %% [markdown]
# If the second figure is the lowest, the patch was needed. It rarely falls to nothing, though: an object reaches into
# neighbouring patches, and the encoder has passed on what it saw. That is the difference between "it looked here" and
# "it knew it from here".
#
# ## Exercises
#
# **1.** Hand in a lie: `decode.greedy(model, images[:1], prompt=...)` takes the words that the caption is to begin
# with. Begin with "a small" for a picture of a large object. What does the model make of it?
#
# <details><summary>Answer</summary>
#
# `prompt = np.array([[words.index("a"), words.index("small")]])`. It carries on with the colour that it sees, as if
# nothing had happened: there is no going back to a word that is written, and it has never been trained on a beginning
# that is false. Long texts that go wrong early and never recover have the same cause.
#
# </details>
#
# **2.** Width 1 is greedy decoding. Must the best sentence of width 4 have at least its log p?
#
# <details><summary>Answer</summary>
#
# No, though it nearly always has. The greedy beginning may be pushed out of the beam by four others that look better at
# that time, and end worse. Only a beam as wide as there are sentences is sure to find the best one.
#
# </details>
#
# **3.** `decode.sample(model, doubled[:20], key=jax.random.key(0), temperature=1.0)` draws each word by its
# probability. Write captions at temperatures 0.2, 1 and 3.
#
# <details><summary>Answer</summary>
#
# At 0.2 they are nearly the greedy ones. At 1 they say now one thing and now another of a double exposure. At 3 the
# grammar breaks, because words that hardly ever follow get their chance: dividing the logits by a large number makes
# all words more alike.
#
# </details>
#
# **4.** Give the encoder three layers (`layers=3` in `ViTConfig`). Must the maps become sharper, now that the model is
# better?
#
# <details><summary>Answer</summary>
#
# No. With every layer the encoder can move more of what it sees from one token to another, so the decoder may find
# "red" in a token whose patch shows ground. A map tells where the decoder looked among *tokens*. They stand for their
# patches only as far as the encoder has left them there: with no layer at all, they would do so exactly.
#
# </details>
