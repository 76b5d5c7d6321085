"""The options of the commands that use a trained model."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


def caption(
    pictures: Positional[tuple[Path, ...]] = (),
    *,
    checkpoint: Annotated[Path, arg(metavar="FOLDER")],
    data: Annotated[Path | None, arg(metavar="FOLDER")] = None,
    split: Literal["train", "val"] = "val",
    index: tuple[int, ...] = (),
    beam: int = 1,
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
    json: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> int:
    """Say in a sentence what is on pictures, with a captioner trained by `python -m train.captioning --out FOLDER`.

    A model trained on pixels is given image files, or pictures of a data folder; one trained on features can be given
    the pictures of its data folder alone, whose features are there.

    For example:
    $ flaxformer-edu caption --checkpoint runs/pixels beach.jpg dog.jpg --out captions.png
    $ flaxformer-edu caption --checkpoint runs/coco --data coco_captioning --split val --index 3 5 9 --beam 4

    Args:
        pictures: image files.
        checkpoint: the folder that training wrote to.
        data: a folder in the layout of CS231n's coco_captioning, whose pictures `index` names.
        split: the part of it.
        index: the pictures' numbers there, from 0.
        beam: the width of the beam search that writes the captions; 1 is greedy decoding.
        out: also draw the pictures with their captions (.png, .pdf, .svg, .jpg).
        json: also write the rows to this file.
    """
    from flaxformer_edu.commands.caption import caption as run

    return run(pictures, checkpoint=checkpoint, data=data, split=split, index=index, beam=beam, out=out, json=json)


def translate(
    texts: Positional[tuple[str, ...]],
    *,
    checkpoint: Annotated[Path, arg(metavar="FOLDER")],
    beam: int = 1,
    json: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> int:
    """Translate texts, with a model trained by `python -m train.seq2seq --out FOLDER`.

    For example:
    $ flaxformer-edu translate --checkpoint runs/dates "the 3rd of may 1998" "friday 5 june 2026"
    $ flaxformer-edu translate --checkpoint runs/reverse 31415926535 --beam 4 --json reversed.json

    Args:
        texts: what to translate, in the characters that the model was trained on.
        checkpoint: the folder that training wrote to.
        beam: the width of the beam search that writes the translations; 1 is greedy decoding.
        json: also write the rows to this file.
    """
    from flaxformer_edu.commands.translate import translate as run

    return run(texts, checkpoint=checkpoint, beam=beam, json=json)


def classify(
    pictures: Positional[tuple[Path, ...]],
    *,
    checkpoint: Annotated[str, arg(metavar="SOURCE")],
    classes: Annotated[tuple[str, ...], arg(metavar="NAMES_OR_FILE")] = (),
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
    json: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> int:
    """Say what is on pictures, with a Vision Transformer that was trained here or published elsewhere.

    Pictures become what the model sees as its preprocessing says, which is kept with it.

    For example:
    $ flaxformer-edu classify --checkpoint runs/cifar10 cat.jpg ship.png
    $ flaxformer-edu classify --checkpoint runs/cifar10 cat.jpg --out classified.png --json classes.json
    $ flaxformer-edu classify --checkpoint hf://google/vit-base-patch16-224 cat.jpg
    $ flaxformer-edu classify --checkpoint torchvision://vit_b_16 cat.jpg --classes imagenet_classes.txt

    Args:
        pictures: image files.
        checkpoint: the folder that training or `convert` wrote to, a folder of transformers, a file of weights, or a
            name: hf://OWNER/NAME, torchvision://vit_b_16.
        classes: the names of the classes, if the checkpoint has none: words, or a text file with one per line.
        out: also draw the pictures with their classes (.png, .pdf, .svg, .jpg).
        json: also write the rows to this file.
    """
    from flaxformer_edu.commands.classify import classify as run

    return run(pictures, checkpoint=checkpoint, classes=classes, out=out, json=json)


def features(
    places: Annotated[Positional[tuple[Path, ...]], arg(metavar="FOLDER_OR_FILES")],
    *,
    checkpoint: Annotated[str, arg(metavar="SOURCE")],
    out: Annotated[Path, arg(metavar="FILE")],
    neighbours: Annotated[Path | None, arg(metavar="FILE")] = None,
    batch: int = 32,
) -> int:
    """Write what a Vision Transformer makes of each picture, the vector that its classifier sees, to one file.

    For example:
    $ flaxformer-edu features my_pictures --checkpoint hf://facebook/dinov2-small --out features.npz
    $ flaxformer-edu features holiday --checkpoint runs/mine --out features.parquet --neighbours alike.png

    A .npz file holds the arrays `files` and `features` (for numpy.load), a .parquet file the columns file and features
    (with the extra parquet).

    Args:
        places: folders, of which all pictures are taken, and image files.
        checkpoint: the folder that training or `convert` wrote to, a folder of transformers, a file of weights, or a
            name: hf://OWNER/NAME, torchvision://vit_b_16.
        out: the file to write (.npz or .parquet).
        neighbours: also draw some pictures with those most like them (.png, .pdf, .svg, .jpg).
        batch: how many pictures are computed at once.
    """
    from flaxformer_edu.commands.features import features as run

    return run(places, checkpoint=checkpoint, out=out, neighbours=neighbours, batch=batch)


def explain(
    picture: Positional[Path],
    *,
    checkpoint: Annotated[str, arg(metavar="SOURCE")],
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("explained"),
    layer: int | None = None,
    head: int | None = None,
    caption: str | None = None,
    kind: Literal["png", "svg"] = "png",
) -> int:
    """Draw what a model looks at in a picture: attention maps and rollout, or what each word of a caption looked at.

    For example:
    $ flaxformer-edu explain --checkpoint runs/rotary seven.png
    $ flaxformer-edu explain --checkpoint runs/cifar10 cat.jpg --layer 3 --head 2 --out cat_explained --kind svg
    $ flaxformer-edu explain --checkpoint runs/pixels ball.png --caption "a red ball"

    Args:
        picture: an image file; it becomes what the model sees as its preprocessing says.
        checkpoint: the folder that training or `convert` wrote to, a folder of transformers, a file of weights, or a
            name: hf://OWNER/NAME, torchvision://vit_b_16.
        out: where the pictures go.
        layer: whose attention is drawn large, from 1; without it, the last layer's.
        head: whose attention that is, from 1; without it, the mean of all heads.
        caption: of a captioner: explain these words instead of those that the model writes.
        kind: of the pictures.
    """
    from flaxformer_edu.commands.explain import explain as run

    return run(picture, checkpoint=checkpoint, out=out, layer=layer, head=head, caption=caption, kind=kind)


def identify(
    words: Positional[tuple[str, ...]] = (),
    model: Annotated[Path | None, arg(metavar="DIR")] = None,
    json: bool = False,
) -> int:
    """Say which language each word is from: English, Spanish, Finnish, Dutch or Polish.

    For example:
    $ flaxformer-edu identify hyvää päivää
    $ flaxformer-edu identify --json < words.txt
    $ flaxformer-edu identify --model my_model fietspad

    Args:
        words: the words; without any, they are read from standard input.
        model: a folder that `python -m train.language_id --out DIR` wrote, in place of the bundled model.
        json: print JSON instead of a table.
    """
    from flaxformer_edu.commands.identify import identify as run

    return run(words, model, json)
