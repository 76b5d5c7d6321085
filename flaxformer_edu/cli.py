"""The command `flaxformer-edu`. Each subcommand imports what it needs when it is called, so that help comes at once."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from tyro.conf import arg

from flaxformer_edu.errors import InputError

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


def main() -> None:
    """Run the subcommand; wrong input becomes one line on standard error and exit status 2."""
    try:
        status = app.cli(prog="flaxformer-edu", description="Transformers in JAX, checked against PyTorch.")
    except (InputError, FileNotFoundError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", markup=True, highlight=False)
        status = 2
    sys.exit(status or 0)


if __name__ == "__main__":
    main()
