"""The command `flaxformer-edu`: its subcommands, whose options are in `commands/options`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitSubcommandPrefixes, arg

from flaxformer_edu import door
from flaxformer_edu.commands.options.data import data
from flaxformer_edu.commands.options.models import caption, classify, explain, features, identify, translate
from flaxformer_edu.commands.options.weights import compare, convert


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


def doctor(json: Annotated[Path | None, arg(metavar="FILE")] = None) -> int:
    """Say what runs here, on one page for a bug report, and whether its compiler computes what it should.

    The exit status is 1 where it does not, and the line that cures it is printed.

    For example:
    $ flaxformer-edu doctor
    $ flaxformer-edu doctor --json doctor.json

    Args:
        json: also write the page to this file.
    """
    from flaxformer_edu.commands.doctor import run

    return run(json)


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


COMMANDS = (verify, doctor, demo, data, caption, translate, classify, features, explain, identify, convert, compare)


def run() -> int | None:
    """Run the subcommand that the command line names; its exit status."""
    app = tyro.extras.SubcommandApp()
    for command in COMMANDS:
        app.command(command)
    return app.cli(
        prog="flaxformer-edu",
        description="Transformers in JAX, checked against PyTorch.",
        config=(OmitSubcommandPrefixes,),
    )


def main() -> None:
    """The command; wrong input becomes one line on standard error and exit status 2."""
    door.through(run)


if __name__ == "__main__":
    main()
