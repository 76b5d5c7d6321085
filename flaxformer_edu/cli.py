"""The command `flaxformer-edu`. Each subcommand imports what it needs when it is called, so that help comes at once."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from flaxformer_edu.errors import InputError

Action = Callable[[], int]  # run by the command: tyro takes errors while it parses for its own

app = tyro.extras.SubcommandApp()


@app.command
def verify(
    edition: Literal["cs231n", "xcs231n", "both"] = "both",
    json: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> int:
    """Recompute the tensors that the course prints, and compare them digit by digit. No PyTorch needed.

    For example:
    $ flaxformer-edu verify
    $ flaxformer-edu verify --edition xcs231n --json report.json

    Args:
        edition: cs231n was printed on an Intel processor, xcs231n on another.
        json: also write the rows to this file.
    """
    from flaxformer_edu.commands.verify import run

    return run(edition, json)


@app.command
def demo(out: Annotated[Path, arg(metavar="FOLDER")] = Path("demo_output")) -> int:
    """Verify, train a captioner and a Vision Transformer, and draw pictures: two minutes, no data, no network.

    For example:
    $ flaxformer-edu demo
    $ flaxformer-edu demo --out pictures

    Args:
        out: where the pictures go.
    """
    from flaxformer_edu.commands.demo import run

    return run(out)


def data_list(json: Annotated[Path | None, arg(metavar="FILE")] = None) -> Action:
    """List the data sets: what each is, whether it is on this machine, where, and how large.

    For example:
    $ flaxformer-edu data list
    $ flaxformer-edu data list --json data.json

    Args:
        json: also write the rows to this file.
    """
    from flaxformer_edu.commands.data import list_sources

    return partial(list_sources, json)


def data_fetch(name: Positional[str], out: Annotated[Path | None, arg(metavar="FOLDER")] = None) -> Action:
    """Download a data set (checked against its published checksum), or draw it.

    For example:
    $ flaxformer-edu data fetch cifar10
    $ flaxformer-edu data fetch pictures --out my_pictures

    Args:
        name: cifar10, mnist, coco or pictures.
        out: the folder to make (coco and pictures); otherwise one in the cache, which FLAXFORMER_EDU_CACHE can name.
    """
    from flaxformer_edu.commands.data import fetch

    return partial(fetch, name, out)


def data_show(
    name: Positional[str],
    out: Annotated[Path, arg(metavar="FILE")],
    folder: Path | None = None,
    split: str = "train",
    count: int = 24,
    seed: int = 0,
) -> Action:
    """Draw a sheet of examples with their labels or captions.

    For example:
    $ flaxformer-edu data show digits --out digits.png
    $ flaxformer-edu data show coco --folder coco_captioning --split val --out captions.png

    Args:
        name: digits, pictures, mnist, cifar10, coco or lang_id.
        out: the picture to write; its ending (.png, .pdf, .svg) says which kind.
        folder: where the data is, if not in the cache.
        split: train, or test, dev or val, as the data set calls its other parts.
        count: how many examples to draw.
        seed: which examples are chosen.
    """
    from flaxformer_edu.commands.data import show

    return partial(show, name, out, folder, split, count, seed)


@app.command
def data(
    action: Annotated[Action, subcommand("list", constructor=data_list)]
    | Annotated[Action, subcommand("fetch", constructor=data_fetch)]
    | Annotated[Action, subcommand("show", constructor=data_show)],
) -> int:
    """Which data sets there are; get them; look at them.

    For example:
    $ flaxformer-edu data list
    $ flaxformer-edu data show digits --out digits.png
    """
    return action()


@app.command
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


@app.command
def translate(
    texts: Positional[tuple[str, ...]],
    *,
    checkpoint: Annotated[Path, arg(metavar="FOLDER")],
    beam: int = 1,
    json: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> int:
    """Turn texts into others, with a model trained by `python -m train.seq2seq --out FOLDER`.

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


@app.command
def classify(
    pictures: Positional[tuple[Path, ...]],
    *,
    checkpoint: Annotated[Path, arg(metavar="FOLDER")],
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
    json: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> int:
    """Say what is on pictures, with a Vision Transformer trained by `python -m train.vit --out FOLDER`.

    For example:
    $ flaxformer-edu classify --checkpoint runs/cifar10 cat.jpg ship.png
    $ flaxformer-edu classify --checkpoint runs/cifar10 cat.jpg --out classified.png --json classes.json

    Args:
        pictures: image files; the middle square of each is resized to what the model was trained on.
        checkpoint: the folder that training wrote to.
        out: also draw the pictures with their classes (.png, .pdf, .svg, .jpg).
        json: also write the rows to this file.
    """
    from flaxformer_edu.commands.classify import classify as run

    return run(pictures, checkpoint=checkpoint, out=out, json=json)


@app.command
def explain(
    picture: Positional[Path],
    *,
    checkpoint: Annotated[Path, arg(metavar="FOLDER")],
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
        picture: an image file; its middle square is resized to what the model was trained on.
        checkpoint: the folder that training wrote to.
        out: where the pictures go.
        layer: whose attention is drawn large, from 1; without it, the last layer's.
        head: whose attention that is, from 1; without it, the mean of all heads.
        caption: of a captioner: explain these words instead of those that the model writes.
        kind: of the pictures.
    """
    from flaxformer_edu.commands.explain import explain as run

    return run(picture, checkpoint=checkpoint, out=out, layer=layer, head=head, caption=caption, kind=kind)


@app.command
def convert(
    source: Positional[str],
    target: Positional[Path],
    *,
    layout: str | None = None,
    preset: str | None = None,
    target_layout: str | None = None,
    image_size: int | None = None,
    resize: Literal["antialiased", "plain", "linear"] = "antialiased",
    verbose: bool = False,
    dry_run: bool = False,
) -> int:
    """Bring a model's weights from PyTorch, Hugging Face or Google, or take them there.

    For example:
    $ flaxformer-edu convert vit_b_16.pth runs/vit
    $ flaxformer-edu convert runs/captioner captioner.pth --verbose
    $ flaxformer-edu convert torchvision://vit_b_16 vit_for_transformers --target-layout hf_vit
    $ flaxformer-edu convert weights.npz vit_384.safetensors --target-layout timm --image-size 384 --resize linear

    Args:
        source: a .pth, .pt, .bin, .safetensors or .npz file, a folder of ours or of Hugging Face, or a name:
            torchvision://vit_b_16, hf://OWNER/NAME.
        target: a file with one of these endings, or a folder: our own, or, with --target-layout hf_vit, one that
            transformers opens.
        layout: whose names the source has (torchvision, timm, hf_vit, google_npz, scratch, cs231n, ...); otherwise seen
            from the names.
        preset: the Vision Transformer in a bare file (b16, b32, l16, s16, ti16, scratch, ...); otherwise the one that
            fits.
        target_layout: whose names to write; otherwise the source's.
        image_size: resample the positions for images of so many pixels a side.
        resize: as timm does it (antialiased), as transformers does (plain), or as Google did (linear).
        verbose: print a table of what went where.
        dry_run: print the table, and write nothing.
    """
    from flaxformer_edu.commands.convert import convert as run

    options = {"layout": layout, "preset": preset, "target_layout": target_layout}
    return run(source, target, **options, image_size=image_size, resize=resize, verbose=verbose, dry_run=dry_run)


@app.command
def compare(
    *,
    theirs: Annotated[Path, arg(metavar="FILE")],
    ours: Annotated[Path | None, arg(metavar="FOLDER")] = None,
    torch_model: Annotated[str | None, arg(metavar="MODULE:FACTORY")] = None,
    input: Annotated[tuple[Path, ...], arg(metavar="FILE")] = (),
    record: Annotated[Path | None, arg(metavar="FILE")] = None,
    layout: str | None = None,
    tolerance: float | None = None,
    float64: bool = False,
    gradients: bool = False,
    json: Annotated[Path | None, arg(metavar="FILE")] = None,
    html: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> int:
    """Run a model and its PyTorch original on the same inputs, and say in which layer they first differ, and why.

    For example:
    $ flaxformer-edu compare --ours runs/vit --theirs vit.pth --torch-model my_package.vit:build --input images.npy
    $ flaxformer-edu compare --ours runs/captioner --theirs c.pth --torch-model m:f --input features.npy words.npy
    $ flaxformer-edu compare --theirs vit.pth --torch-model m:f --input images.npy --gradients --record run.npz
    $ flaxformer-edu compare --ours runs/vit --theirs run.npz --gradients

    The last two do it where PyTorch and JAX are not in one place: the first runs theirs, the second needs no PyTorch.
    The exit status is 1 where anything differs.

    Args:
        theirs: the file of the PyTorch model's weights; without --torch-model, what --record wrote.
        ours: the folder that training or `convert` wrote to.
        torch_model: package.module:factory, where factory() makes the PyTorch model.
        input: a .npy file for each of the model's arguments; images are batch, height, width, channel.
        record: only run theirs, and write what it computes to this .npz file.
        layout: whose names the PyTorch model has (torchvision, timm, hf_vit, cs231n, ...); otherwise seen from them.
        tolerance: of the largest difference, relative to a layer's largest value; otherwise that of the type.
        float64: compute both in float64, where even a small fault stands out.
        gradients: also compare (or record) those of each layer's output and each parameter, of the sum of y + y^3 / 3.
        json: also write the report to this file.
        html: also write it to this file as a page for the browser, which needs no network.
    """
    from flaxformer_edu.commands.compare import compare as run

    models = {"ours": ours, "theirs": theirs, "torch_model": torch_model, "inputs": input, "record": record}
    return run(**models, layout=layout, tolerance=tolerance, float64=float64, gradients=gradients, json=json, html=html)


@app.command
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


def main() -> None:
    """Run the subcommand; wrong input becomes one line on standard error and exit status 2."""
    try:
        status = app.cli(
            prog="flaxformer-edu",
            description="Transformers in JAX, checked against PyTorch.",
            config=(OmitSubcommandPrefixes,),
        )
    except (InputError, FileNotFoundError) as error:
        Console(stderr=True).print("[red]error:[/red]", escape(str(error)), highlight=False, soft_wrap=True)
        status = 2
    sys.exit(status or 0)


if __name__ == "__main__":
    main()
