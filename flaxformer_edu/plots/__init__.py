"""Pictures: one function each, which returns a matplotlib figure that belongs to no window.

They are about 900 pixels wide, as a notebook is, and their colours (viridis, and those of Okabe and Ito) stay apart for
colour-blind readers. `save_figure(figure, Path("name.png"))` writes one; .svg and .pdf do as well.
"""

from flaxformer_edu.plots.attention import attended_words, attention_grid, attention_map, attention_received
from flaxformer_edu.plots.confusion import confusion_counts, confusion_matrix, frequent_confusions
from flaxformer_edu.plots.curves import training_curves
from flaxformer_edu.plots.panels import show_image
from flaxformer_edu.plots.pictures import captioned_pictures, misclassified, neighbours
from flaxformer_edu.plots.positions import position_similarity
from flaxformer_edu.plots.saving import check_figure_name, save_figure
from flaxformer_edu.plots.side_by_side import side_by_side

__all__ = [
    "attended_words",
    "attention_grid",
    "attention_map",
    "attention_received",
    "captioned_pictures",
    "check_figure_name",
    "confusion_counts",
    "confusion_matrix",
    "frequent_confusions",
    "misclassified",
    "neighbours",
    "position_similarity",
    "save_figure",
    "show_image",
    "side_by_side",
    "training_curves",
]
