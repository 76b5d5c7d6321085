"""All faults by name."""

from collections.abc import Callable
from functools import partial

from benchmarks.false_alarms import faults_around as around
from benchmarks.false_alarms import faults_in_attention as attention
from benchmarks.false_alarms import faults_in_maps as maps
from benchmarks.false_alarms.sites import Site

FAULTS: dict[str, Callable[[Site], str]] = {
    "norm: another epsilon": maps.epsilon,
    "norm: unbiased variance": partial(maps.norm, change=maps.unbiased),
    "norm: root mean square": partial(maps.norm, change=maps.root_mean_square),
    "norm: no bias": partial(maps.norm, change=maps.without_bias),
    "norm: scale plus one": partial(maps.norm, change=maps.scale_from_one),
    "norm: left out": partial(maps.norm, change=lambda module, x, y: x),
    "norm: the other one's weights": maps.other_norm,
    "norm: not loaded": around.norms_not_loaded,
    "linear: no bias": partial(maps.linear, change=maps.without_bias),
    "linear: transposed": maps.transposed,
    "linear: branch scaled": maps.scaled,
    "linear: layer scale": maps.layer_scaled,
    "linear: one feature scaled": maps.one_row_scaled,
    "linear: two features swapped": maps.swapped_features,
    "linear: narrow type": maps.narrow,
    "linear: last token lost": partial(maps.linear, change=maps.last_token_lost),
    "linear: soft cap": maps.soft_cap,
    "activation": maps.activation,
    "attention: scores scaled": attention.scaled_scores,
    "attention: query and key swapped": partial(attention.attention, weights=lambda x: x.mT.softmax(-1)),
    "attention: softmax over queries": partial(attention.attention, weights=lambda x: x.softmax(-2)),
    "attention: causal": partial(attention.attention, weights=attention.causal),
    "attention: last token hidden": partial(attention.attention, weights=attention.hidden_last),
    "attention: heads reversed": partial(attention.attention, weights=lambda x: x.softmax(-1).flip(1)),
    "attention: softmax plus one": partial(attention.attention, weights=attention.one_more),
    "attention: scores capped": attention.capped,
    "attention: narrow softmax": attention.narrow_softmax,
    "attention: heads merged otherwise": attention.merged_heads,
    "block: scaled": around.block_scaled,
    "block: residual doubled": around.residual_doubled,
    "block: left out": around.block_left_out,
    "block: twice": around.block_twice,
    "block: dropout on": around.dropout_on,
    "tokens: class token zeroed": around.class_token_zeroed,
    "tokens: class token last": around.class_token_last,
    "tokens: positions shifted": around.positions_shifted,
    "tokens: positions scaled": around.positions_scaled,
    "pixels: not normalised": partial(around.pixels, change=lambda x: 0.5 * x + 0.5),
    "pixels: BGR": partial(around.pixels, change=lambda x: x.flip(1)),
    "pixels: rows for columns": partial(around.pixels, change=lambda x: x.mT),
    "patches: no bias": around.patch_bias,
    "head: no bias": around.head_bias,
    "head: temperature": around.temperature,
    "weights: a row perturbed": around.row_perturbed,
    "weights: transposed": around.kernel_transposed,
    "weights: rounded": around.kernel_rounded,
    "weights: one bias off": around.bias_element,
    "weights: of two blocks swapped": around.blocks_swapped,
}
