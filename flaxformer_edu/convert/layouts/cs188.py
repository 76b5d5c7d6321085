"""CS188's machine-learning project: names in the manner of its PyTorch edition, as in `reference.course_twins`."""

from flax import nnx

from flaxformer_edu.convert.layouts.common import linear
from flaxformer_edu.convert.rules import Layout, Rule, within
from flaxformer_edu.models.course import MLP, CausalAttention, ConvDigit
from flaxformer_edu.models.language_id import CharRNN

LAYERS = linear("layers.{i}", "layers.{i}")
CONV_DIGIT = (Rule("convolution_weights", "kernel"), *within("mlp", "mlp", LAYERS))
ATTENTION = (*linear("k_layer", "key"), *linear("q_layer", "query"), *linear("v_layer", "value"))


def gru(torch: str, suffix: str, ours: str) -> tuple[Rule, ...]:
    """One direction of nn.GRU, which has the gates in our order."""
    return (
        Rule(f"{torch}.weight_ih_l0{suffix}", f"{ours}.input.kernel", "gates input -> input gates"),
        Rule(f"{torch}.weight_hh_l0{suffix}", f"{ours}.state.kernel", "gates state -> state gates"),
        Rule(f"{torch}.bias_ih_l0{suffix}", f"{ours}.input.bias"),
        Rule(f"{torch}.bias_hh_l0{suffix}", f"{ours}.state.bias"),
    )


PROJECT_READER = (
    *linear("char_layer", "reader.char"),
    *linear("hidden_layer", "reader.hidden"),
    *linear("middle_layer", "reader.middle"),
)
GATED_READER = (
    *linear("window", "reader.window"),
    *gru("gru", "", "reader.forward"),
    *gru("gru", "_reverse", "reader.backward"),
)

LAYOUTS: dict[type[nnx.Module], Layout] = {
    MLP: Layout(LAYERS),
    ConvDigit: Layout(CONV_DIGIT),
    CausalAttention: Layout(ATTENTION, ignore=("mask",)),
    CharRNN: Layout((*PROJECT_READER, *GATED_READER, *linear("output_layer", "output"))),
}
