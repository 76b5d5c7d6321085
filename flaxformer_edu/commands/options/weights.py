"""The options of `flaxformer-edu convert` and `compare`: a model's weights, ours and PyTorch's."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


def convert(
    source: Positional[str],
    target: Positional[Path],
    *,
    layout: str | None = None,
    preset: str | None = None,
    set: Annotated[tuple[str, ...], arg(metavar="FIELD=VALUE")] = (),
    target_layout: str | None = None,
    built_with: Annotated[tuple[str, ...], arg(metavar="FIELD")] = (),
    image_size: int | None = None,
    resize: Literal["antialiased", "plain", "corners", "linear"] | None = None,
    verbose: bool = False,
    dry_run: bool = False,
) -> int:
    """Bring a model's weights from PyTorch, Hugging Face or Google, or take them there.

    For example:
    $ flaxformer-edu convert vit_b_16.pth runs/vit
    $ flaxformer-edu convert runs/captioner captioner.pth --verbose
    $ flaxformer-edu convert torchvision://vit_b_16 vit_for_transformers --target-layout hf_vit
    $ flaxformer-edu convert mine.pth runs/mine --set heads=6 activation=relu
    $ flaxformer-edu convert B_16.npz vit_384.pth --target-layout timm --built-with activation --image-size 384

    Args:
        source: a .pth, .pt, .bin, .safetensors or .npz file, a folder of ours or of Hugging Face, or a name:
            torchvision://vit_b_16, hf://OWNER/NAME.
        target: a file with one of these endings, or a folder: our own, or, with --target-layout hf_vit, one that
            transformers opens.
        layout: whose names the source has (torchvision, timm, hf_vit, google_npz, scratch, cs231n, ...); otherwise seen
            from the names.
        preset: the Vision Transformer in a bare file (b16, b32, l16, s16, ti16, scratch, ...); otherwise the one that
            fits.
        set: what no tensor of a bare file tells, as heads=6 activation=relu: any field of ViTConfig.
        target_layout: whose names to write; otherwise the source's.
        built_with: fields in which the target's own module is built otherwise than by default (norm_epsilon, ...): a
            file of weights cannot say so, and is refused without.
        image_size: resample the positions for images of this size, in pixels.
        resize: as timm does it (antialiased), transformers (plain), torchvision (corners), or as Google did (linear);
            otherwise as the library does whose names the source has.
        verbose: print a table of what went where.
        dry_run: print the table, and write nothing.
    """
    from flaxformer_edu.commands.convert import convert as run

    options = {"layout": layout, "preset": preset, "set": set}
    options |= {"target_layout": target_layout, "built_with": built_with}
    return run(source, target, **options, image_size=image_size, resize=resize, verbose=verbose, dry_run=dry_run)


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
    referee: bool = True,
    gradients: bool = False,
    compiled: bool = True,
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
        input: one .npy file for each of the model's arguments; images are batch, height, width, channel.
        record: only run theirs, and write what it computes to this .npz file.
        layout: whose names the PyTorch model has (torchvision, timm, hf_vit, cs231n, ...); otherwise seen from them.
        tolerance: of the largest difference, relative to a layer's largest value; otherwise it follows from rounding.
        float64: compute both in float64 alone.
        referee: also run both in float64, where no fault hides in rounding; it costs about as much again.
        gradients: also compare (or record) those of each layer's output and each parameter, of the sum of y + y^3 / 3.
        compiled: also compile ours, and compare that with ours run one operation at a time.
        json: also write the report to this file.
        html: also write it to this file as a page for the browser, which needs no network.
    """
    from flaxformer_edu.commands.compare import compare as run

    models = {"ours": ours, "theirs": theirs, "torch_model": torch_model, "inputs": input, "record": record}
    asked = {"tolerance": tolerance, "float64": float64, "referee": referee}
    asked |= {"gradients": gradients, "compiled": compiled}
    return run(**models, layout=layout, **asked, json=json, html=html)
