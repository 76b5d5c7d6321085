# %% [markdown]
# # 1. 注意力：为什么要缩放，为什么要多头，为什么要最后的投影
#
# [English](01_attention.ipynb) | 中文。代码与英文版完全相同，图中的文字也是英文。
#
# 读完这个笔记本，你能够
#
# - 把注意力看作一次查表，并说出公式里每个符号代表什么；
# - 用测量说明“除以维数的平方根”防止了什么；
# - 说出两个头能做、而一个头（无论多宽）做不到的事；
# - 说出输出投影有什么用，没有它的层学不会什么。
#
# 这正是 CS231n 关于 Transformer 的第一个 inline question 的三个部分。这里用实验来回答，每个实验你都可以修改、重新运行。不需要数据，也不需要加速器。

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
from einops import rearrange
from flax import nnx

from flaxformer_edu import notebook
from flaxformer_edu.data import ArrayDataset, Batches
from flaxformer_edu.layers import KeysValues, MultiHeadAttention, dot_product_attention, sinusoidal_positions
from flaxformer_edu.training import LoopConfig, Optimizer, fit

notebook.set_style()
jax.config.update("jax_default_matmul_precision", "highest")  # GPUs and TPUs would round more

# %% [markdown]
# ## 一次从不完全确定的查表
#
# > "An attention function can be described as mapping a query and a set of key-value pairs to an output."
# > （Vaswani et al. 2017, "Attention Is All You Need", 3.2 节）
#
# 意思是：注意力函数把一个 query 和一组键值对（key、value）映射为输出。Python 的 `dict` 做的是同一件事：找到与 query 相等的那一个键，返回它的值。注意力则把 query 与**所有**的键比较，返回所有值的加权平均，键越合适，它的值权重越大：
#
# $$\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V$$
#
# | 符号 | 含义 | 本包中的轴 |
# |---|---|---|
# | $Q$ | query，每行一个：要找什么 | `batch query head dim` |
# | $K$ | key：每个位置凭什么被找到 | `batch key head dim` |
# | $V$ | value：从那里取回什么 | `batch key head dim` |
# | $d$ | 一个 query 和一个 key 的特征数 | `dim` |
# | $Q K^\top$ | 分数：每个 query 与每个 key 的点积 | `batch head query key` |
# | softmax | 把一行分数变成正的、和为 1 的权重 | `batch head query key` |
#
# 下面就是本包所有模型使用的函数，它与 PyTorch 逐位对照过：

# %%
print(inspect.getsource(dot_product_attention))

# %% [markdown]
# 第一个实验：八个键均匀地站在圆周上，相隔 45 度，每个键的值是它角度的正弦。query 绕圆一周。于是这个函数就是在一张只有八项的表里查正弦。
#
# 更长的 query（这里长 5 倍和 100 倍）使所有分数变大，softmax 也就更加“自信”。

# %%
angles = {"keys": np.arange(8) * math.pi / 4, "queries": np.linspace(0, 2 * math.pi, 73)}
points = {name: jnp.stack([jnp.cos(a), jnp.sin(a)], axis=-1)[None, :, None] for name, a in angles.items()}
values = jnp.sin(angles["keys"])[None, :, None, None]

degrees = np.rad2deg(angles["queries"])
figure, axes = plt.subplots(1, 4, figsize=(8, 2.7), width_ratios=[1, 1, 1, 1.3])
for axis, length in zip(axes, (1, 5, 100), strict=False):
    found, weights = dot_product_attention(length * points["queries"], points["keys"], values)
    axis.imshow(weights[0, 0].T, aspect="auto", extent=(0, 360, 7.5, -0.5), vmin=0, vmax=1)
    axis.set(title=f"weights, length {length}", xlabel="query, degrees", ylabel="key", xticks=(0, 180, 360))
    axes[3].plot(degrees, found[0, :, 0, 0], label=f"length {length}")
axes[3].plot(degrees, np.sin(angles["queries"]), "k:", label="sine")
axes[3].set(title="what is fetched", xlabel="query, degrees", xticks=(0, 180, 360), ylim=(-1.1, 2.1))
axes[3].set_yticks([-1, 0, 1])
axes[3].legend(loc="upper center", ncols=2, fontsize=7, handlelength=1.2, columnspacing=1)
plt.show()
first = np.asarray(dot_product_attention(5 * points["queries"][:, :1], points["keys"], values)[1]).ravel()
print("weights of the first query at length 5:", first.round(2), "sum", first.sum().round(6))

# %% [markdown]
# 分数小的时候，每个键都有一些权重，结果离所有值的平均（即 0）不远。分数大的时候，softmax 像 `dict` 一样只挑一个键，结果一级一级地跳：在两级之间，query 稍微移动，结果几乎不变。请记住这一点，缩放要解决的正是它。
#
# ## 为什么要缩放？
#
# > "We suspect that for large values of $d_k$, the dot products grow large in magnitude, pushing the softmax function
# > into regions where it has extremely small gradients."（3.2.1 节；$d_k$ 就是我们的 `dim`）
#
# 意思是：$d_k$ 大时点积的量值也大，把 softmax 推到梯度极小的区域。
#
# 如果 query 和 key 的各个特征相互独立，均值为 0，方差为 1，那么点积是 `dim` 个这样的乘积之和，方差为 `dim`。这是关于数的论断，那就抽一些数来看：每种维数 256 个 query、64 个 key。把 query 乘以 $\sqrt{d}$ 就抵消了缩放，而不必改动函数。测量三样东西：
#
# - 分数的**标准差**；
# - 每个 query 的权重的**熵** $-\sum_k w_k \ln w_k$：所有键一样重时为 $\ln 64$，一个键占去全部权重时为 0；
# - **梯度**：softmax 的 Jacobian 矩阵 $\mathrm{diag}(w) - w w^\top$ 的范数，其中是一个 query 的权重 $w$ 对它的分数的全部导数。取 256 个 query 的中位数。

# %%
DIMS, QUERIES, KEYS = [2**k for k in range(1, notebook.budget(13, 6))], 256, 64


def measure(dim, scaled):
    """The scores' standard deviation, the mean entropy, the median norm of the Jacobian, the share of sure queries."""
    draws = jax.random.normal(jax.random.key(dim), (1, QUERIES + KEYS, 1, dim))
    query, key = draws[:, :QUERIES], draws[:, QUERIES:]
    query = query if scaled else query * math.sqrt(dim)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(dim)
    weights = dot_product_attention(query, key, key)[1][0, 0]
    entropy = jax.scipy.special.entr(weights).sum(axis=-1)
    jacobian = jax.vmap(jnp.diag)(weights) - jnp.einsum("qi,qj->qij", weights, weights)
    gradient = jnp.linalg.norm(jacobian, axis=(1, 2))
    return scores.std(), entropy.mean(), jnp.median(gradient), (weights.max(axis=-1) > 0.99).mean()


measured = {name: np.array([measure(dim, name == "with") for dim in DIMS]) for name in ("with", "without")}
names = ("deviation", "entropy", "gradient", "surer than 99 %")
print(f"ln {KEYS} = {math.log(KEYS):.3f}\n" + " " * 6 + "".join(f"{name:^20}" for name in names))
print("   dim" + f"{'with':>10}{'without':>10}" * 4)
for i, dim in enumerate(DIMS):
    print(f"{dim:6}" + "".join(f"{measured[name][i, k]:10.2g}" for k in range(4) for name in measured))

# %%
figure, axes = plt.subplots(1, 3)
for k, title in enumerate(["deviation of the scores", "entropy of the weights", "median norm of the gradient"]):
    for name, curve in measured.items():
        axes[k].plot(DIMS, curve[:, k], marker="o", markersize=3, label=f"{name} the scale")
    axes[k].set(title=title, xlabel="dim", xscale="log", yscale="linear" if k == 1 else "log")
    axes[k].set_xticks([2, 16, 128, 1024], ["2", "16", "128", "1024"])
axes[0].plot(DIMS, np.sqrt(DIMS), "k:", label="square root of dim")
axes[1].axhline(math.log(KEYS), color="black", linestyle=":", label="all keys alike")
axes[2].set_ylim(1e-6, 1)
for axis in axes:
    axis.grid()
    axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# 没有缩放时，标准差正如论文脚注所说的那样增长，其余随之而来：熵趋向 0，越来越多的 query 在什么都还没学到之前就已经把几乎全部权重给了一个键，而它们的梯度几乎消失。它们学不会看别处：训练要移动的那些分数，动了也不改变权重。**有**缩放的曲线是平的：无论多大的层，起点都一样。
#
# 表的最后一列说明这有多不均匀。梯度不是对所有 query 一样地缩小，而是在那些“自信”的 query 上消失；`dim` 越大，这样的 query 越多。
#
# ## 为什么要多头？
#
# > "Multi-head attention allows the model to jointly attend to information from different representation subspaces at
# > different positions. With a single attention head, averaging inhibits this."（3.2.2 节）
#
# 意思是：多头让模型能同时关注不同位置上、不同表示子空间的信息；只有一个头时，平均妨碍了这一点。
#
# 平均究竟妨碍了什么？让权重 $w$ 固定不动，这一层对它收集的东西就是线性的。第 $q$ 个 token 从第 $k$ 个 token 得到的是特征 $x_k$ 乘以某个矩阵。一个头时，这个矩阵是 $w_{qk} M$，其中 $M$ 是 value 核与 output 核的乘积：**对每一对 token 都是同一个矩阵**，只是多一些或少一些。$h$ 个头时则是 $w^1_{qk} M^1 + \dots + w^h_{qk} M^h$。
#
# 这可以测量。JAX 给出输出对值的全部导数；写成一张表，每行是一对 token，每列是一对特征，它的秩就是这一层对所收集的东西能做多少种不同的事。

# %%
WIDTH = 32
x = jax.random.normal(jax.random.key(0), (1, 12, WIDTH))


def dependence(layer):
    """How output features depend on value features: a row per pair of tokens, a column per pair of features."""
    jacobian = jax.jacobian(lambda value: layer(x, x, value)[0])(x)[:, :, 0]
    return rearrange(jacobian, "query output key feature -> (query key) (output feature)")


layers = {heads: MultiHeadAttention(WIDTH, heads, rngs=nnx.Rngs(1)) for heads in (1, 2, 4, 8, 16)}
for heads, layer in layers.items():
    singular = np.linalg.svd(dependence(layer), compute_uv=False)
    plt.semilogy(range(1, 33), singular[:32] / singular[0], marker="o", markersize=3, label=str(heads))
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)))
    rank = (singular > 1e-5 * singular[0]).sum()
    print(f"heads {heads:2}, parameters {size}, rank {rank}")
    assert rank == heads
plt.title("singular values of the table of derivatives")
plt.xlabel("number of the singular value")
plt.ylabel("relative to the largest")
plt.legend(title="heads")
plt.grid()
plt.show()

# %% [markdown]
# 秩等于头数，而头不花参数：同样的核只是切成更多块。只有一个头时，一个 token 可以从这里少取、从那里多取，但必须**以同样的方式**取。它不能从一个词取主语、从另一个词取时态，事后也不知道哪个来自哪里。
#
# 代价是每个头的 `dim` 更窄，query 和 key 要在其中相遇；这是练习 3。
#
# ## 为什么要输出投影？
#
# > "These are concatenated and once again projected, resulting in the final values."（3.2.2 节，说的是各个头）
#
# 意思是：各个头拼接起来，再投影一次，得到最终的值。
#
# 拼接之后，每个头有自己的一段特征。`MultiHeadAttention(..., output_projection=False)` 到此为止。要看哪个头写到哪里，就每次只让一个头保留它的值，测量出来的是什么。


# %%
def written(layer):
    """Each head's part in each output feature: the root of its mean square over the tokens."""
    key, value = layer.keys_values(x)
    alone = [layer(x, KeysValues(key, value * one[:, None, None])) for one in jnp.eye(layer.heads)]
    return jnp.sqrt(jnp.square(jnp.stack(alone)).mean(axis=(1, 2)))


figure, axes = plt.subplots(2, 1, figsize=(8, 2.8), sharex=True)
for axis, output in zip(axes, (False, True), strict=True):
    parts = written(MultiHeadAttention(WIDTH, 4, output_projection=output, rngs=nnx.Rngs(1)))
    drawn = axis.imshow(parts, aspect="auto", vmin=0)
    axis.set(title=f"{'with' if output else 'without'} the output projection", ylabel="head", yticks=range(4))
    axis.set_yticklabels([1, 2, 3, 4])
    figure.colorbar(drawn, ax=axis, label="written")
    print(f"with output={output}, a head writes to {(parts > 0).sum(axis=1)} of {WIDTH} features")
axes[1].set_xlabel("feature of the output")
plt.show()

# %% [markdown]
# 没有投影时，一个头只够得到自己的那一段。这之所以重要，是因为接下来的事：这一层的输出要**加**到残差流上，而那里的特征此时已经有了含义。头 1 永远改不了第 20 个特征，两个头也永远不能在同一个特征上相加或相减。
#
# ## 三者合一的小任务
#
# 给一个层布置一件三样都需要的工作：每个 token 要在前一半特征里存放**左邻与右邻之差**（一个边缘检测器），后一半存放零。query 和 key 由位置产生，value 由内容产生。三个同样宽的层来试：
#
# - 一个头，它不能区别对待两个邻居；
# - 两个头而没有输出投影：能区别对待，但写到不同的特征里；
# - 两个头，带输出投影。
#
# 差值在一半的特征上方差为 2，所以什么也不做的层均方误差为 1；只知道两个邻居之一的层不可能低于 0.5。

# %%
LENGTH, WIDTH = 10, 16
contents = np.random.default_rng(0).normal(size=(4096, LENGTH, WIDTH)).astype(np.float32)
differences = np.zeros_like(contents)
differences[:, 1:-1, : WIDTH // 2] = (contents[:, :-2] - contents[:, 2:])[..., : WIDTH // 2]
data = ArrayDataset(name="differences", arrays={"contents": contents, "differences": differences})
positions = jnp.asarray(sinusoidal_positions(LENGTH, WIDTH), jnp.float32)


def loss_fn(layer, batch, rngs):
    """The mean squared error of the tokens that have two neighbours."""
    where = jnp.broadcast_to(positions, batch["contents"].shape)
    error = layer(where, where, batch["contents"]) - batch["differences"]
    return jnp.square(error[:, 1:-1]).mean(), {}


# %%
variants = {"one head": (1, True), "two heads, no projection": (2, False), "two heads and projection": (2, True)}
steps = notebook.budget(1000, 20)
optimizer = Optimizer(name="adam", learning_rate=1e-2, schedule="cosine")
trained = {}
for name, (heads, output) in variants.items():
    layer = MultiHeadAttention(WIDTH, heads, output_projection=output, rngs=nnx.Rngs(0))
    loop = LoopConfig(steps=steps, steps_per_call=10)
    trained[name] = fit(layer, loss_fn, optimizer, Batches(data, 64, seed=0), loop, console=notebook.quiet_console())
    print(f"{name:26} mean squared error {np.mean([row['loss'] for row in trained[name].rows[-10:]]):.3f}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(8, 2.6), width_ratios=[1.7, 1, 1, 1])
for (name, result), style in zip(trained.items(), ("-", "--", "-"), strict=True):
    axes[0].plot([row["loss"] for row in result.rows], style, label=name)
axes[0].set(title="training", xlabel="step", ylabel="mean squared error", ylim=(0, 1.4))
axes[0].legend(fontsize=7, loc="upper right")
one, two = (
    trained[name].model.with_weights(positions[None])[1][0] for name in ("one head", "two heads and projection")
)
for axis, title, weights in zip(axes[1:], ("one head", "two: head 1", "two: head 2"), (*one, *two), strict=True):
    drawn = axis.imshow(weights, vmin=0, vmax=1)
    axis.set(title=title, xlabel="key", ylabel="query", xticks=(0, 4, 9), yticks=(0, 4, 9))
    shares = np.asarray(weights[4, 3:6])
    print(f"{title}: token 4 looks left {shares[0]:.2f}, at itself {shares[1]:.2f}, right {shares[2]:.2f}")
figure.colorbar(drawn, ax=axes[3], label="weight", shrink=0.8)
plt.show()

# %% [markdown]
# 只有第三层学会了任务。图上可以看出它怎么做：一个头向后看，另一个头向前看（第一个和最后一个 token 缺一个邻居，没有参加训练）。两个头也都可能把一些权重花在 token 自己身上：输出投影取的是两者之差，这部分就抵消了。只有一个头的层只能看一边，或看两边的混合；没有投影的层取不了差。
#
# ## 问题的答案
#
# CS231n 问：为什么下面这些是好的选择？各用一句话，并指出哪个实验说明了它：
#
# 1. **多个头**：一个头对从任何地方收集来的东西都用同一个矩阵（秩为 1），$h$ 个头用 $h$ 个不同的矩阵，参数个数相同；要区别对待两个位置的任务，一个头学不会。
# 2. **除以 $\sqrt{d}$**：没有它，未经训练的 query 和 key 的分数标准差为 $\sqrt{d}$，softmax 在训练之前几乎已成定局，宽的头里大多数query 的梯度消失。
# 3. **最后的线性映射**：没有它，每个头只能写到自己的那一段特征里，各个头的发现不能在残差流的同一个特征上相加。
#
# ## 练习
#
# 1. 改为除以 `dim` 而不是它的平方根（把 `query / math.sqrt(dim)` 交给函数）。三条曲线会怎样？未经训练的层会返回什么？
#
# <details><summary>答案</summary>
#
# 标准差现在像 $1 / \sqrt{d}$ 那样**下降**，于是权重趋于相等，熵趋于 $\ln 64$：未经训练的层无论 query 是什么都返回所有值的平均。梯度停在权重相等时的水平。训练可以把 query 和 key 变长来补救，所以有些极宽模型的配方确实除以 `dim`。
#
# </details>
#
# 2. 验证 `diag(w) - w w^T` 是 softmax 的 Jacobian 矩阵。
#
# <details><summary>答案</summary>
#
# ```python
# scores = jax.random.normal(jax.random.key(0), (5,))
# w = jax.nn.softmax(scores)
# np.testing.assert_allclose(jax.jacobian(jax.nn.softmax)(scores), jnp.diag(w) - jnp.outer(w, w), atol=1e-6)
# ```
#
# </details>
#
# 3. 既然头不花参数，为什么不让头数与特征数一样多？看分数：每行加减一个常数，分数就是权重的对数。对宽度 32 的层、12 个 token，头数为1、4、8、16 时，`jnp.log(weights)` 减去每行的平均之后，秩是多少？
#
# <details><summary>答案</summary>
#
# ```python
# for heads, layer in layers.items():
#     scores = jnp.log(layer.with_weights(x)[1][0])
#     singular = np.linalg.svd(scores - scores.mean(axis=-1, keepdims=True), compute_uv=False)
#     print(heads, (singular > 1e-5 * singular[:, :1]).sum(axis=1))
# ```
#
# 每个头的分数是两个矩阵的乘积，它们有 `dim` = 32 / heads 列，所以秩至多为 `dim`。有 16 个头时，一个头只有两个数来说明它要哪些 token：再也不能寻找任意的模式。Bhojanapalli et al. 2020（"Low-Rank Bottleneck in Multi-head Attention Models"）讲的就是这件事。
#
# </details>
#
# 4. **只有一个**头时，输出投影增加了什么？比较 `output_projection=False` 时 `dependence` 的秩，再在上面的任务上训练“一个头、没有投影”。
#
# <details><summary>答案</summary>
#
# 没有增加 value 核做不到的任何东西：$M$ 是两个核的乘积，两个方阵的乘积还是一个方阵。两种情况下秩都是 1，最终的误差也一样，不同的只是训练的路径。所以只有一个头的模型 `ViTConfig.tiles()` 不用它。
#
# </details>
