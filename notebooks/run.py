"""Execute the notebooks from their sources, and write what they print and draw beside them.

For example:
$ python notebooks/run.py            # all of them: NN_title.py -> NN_title.ipynb
$ python notebooks/run.py 01 03      # these
$ python notebooks/run.py --check    # on the small budget; nothing is written, and stale .ipynb files are found

With FLAXFORMER_EDU_FAST=1, --check is meant. The exit status is 1 where a cell fails or takes too long, a picture is
too large, an output tells about this machine, or (checking) an .ipynb is not of its .py.
"""

import json
import os
import platform
import re
import sys
import time
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jupytext
import nbformat
import tyro
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from psutil import Process
from rich.console import Console
from rich.markup import escape
from tyro.conf import Positional, arg

from flaxformer_edu.compiler import QUICK_TO_COMPILE
from flaxformer_edu.errors import InputError
from flaxformer_edu.notebook import FAST, is_fast

FOLDER = Path(__file__).parent
CELL = 60.0  # seconds of processor time, unless a cell says otherwise: "# %% budget=90"
NOTEBOOK, FAST_NOTEBOOK = 180.0, 45.0
HANGS = 1200  # seconds by the clock after which a cell is given up, however busy the machine
PICTURE = 100_000  # bytes
KERNEL = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The command line."""

    names: Positional[tuple[str, ...]] = ()
    """Which notebooks: how their names begin. Default: all."""
    check: bool = False
    """Execute on the small budget, write nothing, and compare the .ipynb files with their sources."""
    folder: Annotated[Path, arg(metavar="FOLDER")] = FOLDER
    """Where the notebooks are."""


class NotebookError(Exception):
    """A notebook is not as it should be; the message names the cell."""


def find_sources(folder: Path, names: tuple[str, ...] = ()) -> list[Path]:
    """The notebooks' sources. Raises InputError for a name that none begins with, or an .ipynb without a source."""
    sources = sorted(folder.glob("[0-9][0-9]_*.py"))
    if not sources:
        raise InputError(f"{folder} has no notebooks: their sources are named NN_title.py")
    for name in names:
        if not any(path.name.startswith(name) for path in sources):
            raise InputError(f"no notebook begins with {name!r}: choose of {', '.join(path.stem for path in sources)}")
    for path in folder.glob("*.ipynb"):
        if path.with_suffix(".py") not in sources:
            raise InputError(f"{path.name} has no source: write {path.stem}.py, or remove it")
    return [path for path in sources if path.name.startswith(names or "")]


def read_source(path: Path) -> NotebookNode:
    """The notebook of a py:percent file, not executed, its cells numbered."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(KERNEL)
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number:02}"
    return notebook


def compare_pair(source: NotebookNode, path: Path) -> None:
    """Raise NotebookError unless the .ipynb at `path` has the source's cells, all of them executed."""
    if not path.exists():
        raise NotebookError("it has no .ipynb yet: execute it")
    committed = nbformat.read(path, as_version=4)
    theirs = [(cell.cell_type, cell.source, cell.metadata) for cell in committed.cells]
    ours = [(cell.cell_type, cell.source, cell.metadata) for cell in source.cells]
    for number, (new, old) in enumerate(zip(ours, theirs, strict=False), 1):
        if new != old:
            raise NotebookError(f"the .ipynb is stale from cell {number} on: execute it again\n{new[1]}")
    if len(ours) != len(theirs):
        raise NotebookError(f"the .ipynb is stale, of {len(theirs)} cells instead of {len(ours)}: execute it again")
    if any(cell.cell_type == "code" and cell.source and not cell.execution_count for cell in committed.cells):
        raise NotebookError("the .ipynb has cells that were not executed: execute it again")
    check_outputs(committed)
    for file, picture in shown_elsewhere(committed, path.parent).items():
        if not file.exists() or file.read_bytes() != picture:
            raise NotebookError(f"{file.name}, which the README shows, is not the notebook's picture: execute it again")


class Execution:
    """Runs a notebook's cells one by one, and measures each by the processor time of the kernel.

    A busy machine hardly adds to that, as it does to the time on the clock.
    """

    def __init__(self, notebook: NotebookNode, folder: Path, *, fast: bool):
        self.notebook, self.fast = notebook, fast
        self.limit = FAST_NOTEBOOK if fast else NOTEBOOK
        self.seconds = 0.0  # of processor time, up to now
        self.client = NotebookClient(
            notebook,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            timeout=HANGS,
            startup_timeout=600,
            record_timing=False,
            coalesce_streams=True,
            on_cell_executed=self._measure,
            extra_arguments=["--log-level=CRITICAL"],
        )

    def run(self) -> None:
        """Raises NotebookError where a cell fails or takes too long; what the notebook prints is kept in it."""
        try:
            self.client.execute(env=environment(self.fast))
        except CellTimeoutError as error:
            raise NotebookError(f"a cell hangs: {str(error).splitlines()[0]}") from error
        except CellExecutionError as error:
            raise NotebookError(f"a cell fails\n{without_colours(str(error))}") from error
        except DeadKernelError as error:
            raise NotebookError("the kernel died: out of memory?") from error

    def _measure(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        before, self.seconds = self.seconds, self._processor_time()
        if execute_reply["content"]["status"] != "ok":
            return
        taken, allowed = self.seconds - before, cell_budget(cell)
        if taken > allowed:
            raise NotebookError(f"cell {cell_index + 1} took {taken:.1f} s, its budget is {allowed:g} s\n{cell.source}")
        if self.seconds > self.limit:
            raise NotebookError(f"up to cell {cell_index + 1} it took {self.seconds:.1f} s, of at most {self.limit:g}")

    def _processor_time(self) -> float:
        kernel: Any = self.client.km  # jupyter_client's types do not know the process
        times = Process(kernel.provisioner.pid).cpu_times()
        return times.user + times.system


def environment(fast: bool) -> dict[str, str]:
    """The environment variables of the kernel: on the processor, unless JAX_PLATFORMS says otherwise."""
    variables = {"JAX_PLATFORMS": "cpu", **os.environ, FAST: "1" if fast else "0"}
    if fast:
        variables["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # most of a small budget would go into compiling
        variables["XLA_FLAGS"] = f"{QUICK_TO_COMPILE} {variables.get('XLA_FLAGS', '')}"
    return variables


def cell_budget(cell: NotebookNode) -> float:
    """How many seconds of processor time a cell may take."""
    return float(cell.metadata.get("budget", CELL))


def strip_outputs(notebook: NotebookNode) -> str:
    """Leave out what was written to standard error, and return it."""
    warnings = ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            warnings += "".join(output.text for output in cell.outputs if output.get("name") == "stderr")
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = nbformat.from_dict(KERNEL)  # without the version of Python that it ran on
    return warnings


def pictures(notebook: NotebookNode) -> list[tuple[int, int]]:
    """The number of its cell, and the size in bytes, of each picture."""
    return [
        (number, len(b64decode(data) if kind in ("image/png", "image/jpeg") else data))
        for number, cell in enumerate(notebook.cells, 1)
        for output in cell.get("outputs", [])
        for kind, data in output.get("data", {}).items()
        if kind.startswith("image/")
    ]


def shown_elsewhere(notebook: NotebookNode, folder: Path) -> dict[Path, bytes]:
    """The pictures that the README shows, by their files: those of the cells marked `# %% picture="name"`."""
    return {
        folder / "pictures" / f"{cell.metadata.picture}.png": b64decode(output.data["image/png"])
        for cell in notebook.cells
        if "picture" in cell.metadata
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    }


def check_outputs(notebook: NotebookNode) -> None:
    """Raise NotebookError for pictures that are too large, and for outputs that name this machine or its folders."""
    for number, size in pictures(notebook):
        if size > PICTURE:
            raise NotebookError(f"cell {number} draws a picture of {size:,} bytes, of at most {PICTURE:,}")
    names = {str(Path.home()), str(FOLDER.resolve().parent), "/tmp"}
    names |= {platform.node()} if len(platform.node()) > 7 else set()  # a short one may be a word
    local = "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names)
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            data = {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
            if trace := re.search(local, json.dumps([data, output.get("text")])):
                raise NotebookError(f"cell {number} prints {trace[0]!r}, which is of this machine alone")


def without_colours(text: str) -> str:
    """The text without the codes that colour it on a terminal."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def process(path: Path, *, check: bool) -> str:
    """Execute one notebook; with `check` compare it, otherwise write it. Returns a line about it."""
    notebook = read_source(path)
    if check:
        compare_pair(notebook, path.with_suffix(".ipynb"))
    execution, started = Execution(notebook, path.parent, fast=check), time.monotonic()
    execution.run()
    warnings = strip_outputs(notebook)
    check_outputs(notebook)
    if not check:
        nbformat.write(notebook, path.with_suffix(".ipynb"))
        for file, picture in shown_elsewhere(notebook, path.parent).items():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(picture)
    sizes = [size for _, size in pictures(notebook)]
    line = f"{execution.seconds:.0f} s of processor time, {time.monotonic() - started:.0f} s by the clock"
    line += f", {len(sizes)} pictures of at most {max(sizes, default=0) / 1000:.0f} kB"
    return line + (f"\nleft out, from standard error:\n{warnings}" if warnings else "")


def main() -> None:
    """Run the command; wrong input becomes one line on standard error and exit status 2."""
    config, console = tyro.cli(Config, description=__doc__), Console(soft_wrap=True, highlight=False)
    check, failed = config.check or is_fast(), 0
    try:
        sources = find_sources(config.folder, config.names)
    except InputError as error:
        Console(stderr=True).print("[red]error:[/red]", escape(str(error)), highlight=False, soft_wrap=True)
        sys.exit(2)
    for path in sources:
        try:
            with console.status(path.stem):
                console.print(f"{path.stem}:", escape(process(path, check=check)))
        except NotebookError as error:
            failed += 1
            console.print(f"[red]{path.stem}:[/red]", escape(str(error)))
    console.print(f"{len(sources) - failed} of {len(sources)} notebooks are as they should be")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
