"""How far it is from pixels to update: the files that one step of training goes through, and what imports what.

$ python -m benchmarks.straight_walk

Follows one iteration of `fit`'s loop on `train.vit --dataset digits`, in which the step is traced and run: every
function of this repository that is called on the way, with its file. Beside it `train/tiny.py`, and the sizes of the
rooms to read, the circles of imports, and how many imports in recipes, notebooks and tests go deeper than a room.
"""

import ast
import io
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = "flaxformer_edu"
# Lower rooms first: nothing imports upwards.
ROOMS = (
    *("errors", "remedies", "failures", "door", "waiting", "files", "locks", "download", "compiler", "canaries"),
    *("layers", "data", "models", "decode", "plots", "runs", "convert", "training", "reference", "compare"),
    *("commands", "cli", "notebook"),
)


class Walk:
    """What was called: `functions` of each file, and the greatest `depth` of frames of this repository."""

    def __init__(self) -> None:
        self.functions: dict[Path, set[str]] = defaultdict(set)
        self.depth = 0

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Note all calls made within."""
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not (path := own_file(frame)):
            return
        self.functions[path].add(frame.f_code.co_qualname)
        depth, outer = 0, frame
        while outer is not None:
            depth += own_file(outer) is not None
            outer = outer.f_back
        self.depth = max(self.depth, depth)

    def report(self, title: str) -> str:
        """Files with their lines and functions, and the sums."""
        rows = [(path.relative_to(ROOT), lines_of(path), len(names)) for path, names in sorted(self.functions.items())]
        total = f"{title}: {len(rows)} files, {sum(row[1] for row in rows)} lines, "
        total += f"{sum(row[2] for row in rows)} functions, {self.depth} frames deep"
        return "\n".join([total, *(f"  {lines:5} lines {count:3} functions  {path}" for path, lines, count in rows)])


def own_file(frame: FrameType) -> Path | None:
    """The file of a frame, if it is the package's or a recipe."""
    path = Path(frame.f_code.co_filename)
    if path.is_relative_to(ROOT / PACKAGE) or path.is_relative_to(ROOT / "train"):
        return path
    return None


def lines_of(path: Path) -> int:
    """Of code, comments and blank ones."""
    return len(path.read_text().splitlines())


def walk_fit() -> Walk:
    """From one batch's being asked for to the next one's, inside `fit`."""
    from flax import nnx
    from rich.console import Console

    from flaxformer_edu.data import Batches, load_digits
    from flaxformer_edu.models import VisionTransformer
    from flaxformer_edu.training import LoopConfig, fit
    from train import vit

    walk, digits, preset = Walk(), load_digits()["train"], vit.PRESETS["digits"]

    class Watched(Batches):
        """Turns the profiler on when the first batch is asked for, and off at the second."""

        def __call__(self, step: int) -> dict[str, Any]:
            sys.setprofile(walk._note if step == 0 else None)
            return super().__call__(step)

    try:
        fit(
            VisionTransformer(preset.model(), rngs=nnx.Rngs(0)),
            vit.task_of(preset, vit.SOURCES["digits"], digits.pixels).loss_fn,
            preset.optimizer,
            Watched(digits, preset.batch_size, seed=0),
            LoopConfig(steps=2, ema_decay=preset.ema_decay),
            console=Console(file=io.StringIO()),
        )
    finally:
        sys.setprofile(None)
    return walk


def walk_tiny() -> Walk:
    """Two steps of `train/tiny.py`, and the evaluation of what they trained."""
    from train import tiny

    walk = Walk()
    with walk.followed():
        tiny.evaluate(tiny.train(2)[0])
    return walk


def imports() -> dict[str, set[str]]:
    """The modules of the package that each of them imports, wherever it does so, except for type checkers only."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / PACKAGE).rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in _statements(ast.parse(path.read_text())):
            for target in _targets(node):
                # `from package import module` means the module, `from module import name` the module it is in.
                while target and target not in modules:
                    target = target.rpartition(".")[0]
                if target and target != name:
                    found[name].add(target)
    return found


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            yield node
            yield from _statements(node)


def _targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def room(module: str) -> str:
    """The room, or the file at the top of the package, that a module belongs to; "" for the package itself."""
    return module.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]


def between_rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph of rooms instead of modules."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for name, targets in graph.items():
        rooms[room(name)] |= {room(target) for target in targets} - {room(name), ""}
    return dict(rooms)


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of nodes from each of which all the others can be reached (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            group = set(stack[stack.index(node) :])
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(group)

    for node in graph:
        if node not in index:
            visit(node)
    return found


def upwards(graph: dict[str, set[str]]) -> list[str]:
    """Imports of a room by one that stands below it, as "layers imports compare"."""
    rooms = between_rooms(graph)
    arrows = [(source, target) for source in ROOMS for target in rooms.get(source, ())]
    return [f"{source} imports {target}" for source, target in arrows if ROOMS.index(target) > ROOMS.index(source)]


def room_sizes() -> str:
    """Files and lines of what a reader of the model family and its training reads."""
    parts = {
        "training": list((ROOT / PACKAGE / "training").glob("*.py")),
        "layers": list((ROOT / PACKAGE / "layers").glob("*.py")),
        "models/vit*": list((ROOT / PACKAGE / "models").glob("vit*.py")),
    }
    rows = [f"  {name}: {len(files)} files, {sum(map(lines_of, files))} lines" for name, files in parts.items()]
    every = [path for files in parts.values() for path in files]
    return "\n".join([f"to read: {len(every)} files, {sum(map(lines_of, every))} lines", *rows])


def deeper_than_a_room(folder: str) -> str:
    """How many of the imports from the package, in the Python files of a folder, name more than one of its rooms."""
    files = (ROOT / folder).rglob("*.py")
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    own = [name for name in names if name.partition(".")[0] == PACKAGE]
    return f"{folder} {sum(name.count('.') > 1 for name in own)} of {len(own)}"


if __name__ == "__main__":
    print(walk_fit().report("one step of fit"))
    print(walk_tiny().report("train/tiny.py"))
    print(room_sizes())
    print("imports deeper than a room:", ", ".join(map(deeper_than_a_room, ("train", "notebooks", "tests"))))
    graph = imports()
    print("circles between files:", circles(graph) or "none")
    print("circles between rooms:", circles(between_rooms(graph)) or "none")
    print("imports upwards:", upwards(graph) or "none")
