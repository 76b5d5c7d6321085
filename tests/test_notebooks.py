"""The program that executes the notebooks, on small ones: what it writes, and all that it must refuse."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from flaxformer_edu.errors import InputError
from flaxformer_edu.notebook import FAST, budget
from notebooks import run

pytestmark = pytest.mark.no_nnx

NOTEBOOKS = {
    "01_fine": (
        "# %% [markdown]\n# # Text\n\n# %% budget=30\nimport sys\n\nfrom flaxformer_edu.notebook import budget\n\n"
        "print(budget('full', 'fast'))\nprint('a warning', file=sys.stderr)\n\n# %%\n1 + 1\n"
    ),
    "02_fails": "# %%\nprint(1)\n\n# %%\n1 / 0\n",
    "03_slow": "# %% budget=0.2\nimport time\n\nwhile time.process_time() < 2:\n    pass\n",
    "04_large": "# %%\nfrom IPython.display import Image\n\nImage(data=b'\\x89PNG' + bytes(100_000), format='png')\n",
    "05_local": "# %%\nfrom pathlib import Path\n\nprint(Path.cwd())\n",
}


def execute(folder: Path, *arguments: str, fast: str = "0") -> tuple[int, str]:
    """The exit status of the program, and all that it prints."""
    command = [sys.executable, run.__file__, *arguments, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, FAST: fast})
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A folder with all of `NOTEBOOKS`, after the program was run on it; its exit status and what it printed."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name, source in NOTEBOOKS.items():
        (folder / f"{name}.py").write_text(source)
    return folder, *execute(folder)


def pair(folder: Path, source: str, executed: Path) -> tuple[Path, Path]:
    """A source in a new folder, and beside it the notebook that was executed."""
    (folder / "01_fine.py").write_text(source)
    (folder / "01_fine.ipynb").write_bytes((executed / "01_fine.ipynb").read_bytes())
    return folder / "01_fine.py", folder / "01_fine.ipynb"


def test_outputs_are_written_without_warnings_times_and_versions(executed):
    folder, _, printed = executed
    notebook = nbformat.read(folder / "01_fine.ipynb", as_version=4)
    assert [cell.id for cell in notebook.cells] == ["cell-01", "cell-02", "cell-03"]
    assert [cell.metadata for cell in notebook.cells] == [{}, {"budget": 30}, {}]
    _, first, second = notebook.cells
    assert [output.text for output in first.outputs] == ["full\n"]
    assert second.outputs[0].data == {"text/plain": "2"}
    assert notebook.metadata == run.KERNEL
    assert "a warning" in printed  # for the author, not for the readers


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("02_fails", "ZeroDivisionError: division by zero"),
        ("03_slow", "its budget is 0.2 s"),
        ("04_large", "cell 1 draws a picture of 100,004 bytes, of at most 100,000"),
        ("05_local", "which is of this machine alone"),
    ],
)
def test_what_is_refused_is_named_and_not_written(executed, name, message):
    folder, status, printed = executed
    assert status == 1
    (report,) = [part for part in printed.split("\n0") if name.removeprefix("0") in part.splitlines()[0]]
    assert message in report
    assert not (folder / f"{name}.ipynb").exists()


def test_check_runs_the_small_budget_and_writes_nothing(executed, tmp_path):
    source, written = pair(tmp_path, NOTEBOOKS["01_fine"] + "assert budget(False, True)\n", executed[0])
    notebook = nbformat.read(written, as_version=4)
    notebook.cells[-1].source += "\nassert budget(False, True)"
    nbformat.write(notebook, written)
    before = written.read_bytes()
    status, printed = execute(tmp_path, "01", "--check")
    assert status == 0, printed
    assert written.read_bytes() == before
    assert source.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda source: source.replace("# # Text", "# # Another text"), "stale from cell 1 on"),
        (lambda source: source.replace("1 + 1", "1 + 2"), "stale from cell 3 on"),
        (lambda source: source.replace("budget=30", "budget=40"), "stale from cell 2 on"),
        (lambda source: source + "\n# %%\n3\n", "stale, of 3 cells instead of 4"),
    ],
)
def test_a_stale_pair_is_found(executed, tmp_path, change, message):
    source, written = pair(tmp_path, change(NOTEBOOKS["01_fine"]), executed[0])
    with pytest.raises(run.NotebookError, match=message):
        run.compare_pair(run.read_source(source), written)


def test_a_committed_notebook_must_have_been_executed(executed, tmp_path):
    source, written = pair(tmp_path, NOTEBOOKS["01_fine"], executed[0])
    run.compare_pair(run.read_source(source), written)
    notebook = nbformat.read(written, as_version=4)
    notebook.cells[1].execution_count = None
    nbformat.write(notebook, written)
    with pytest.raises(run.NotebookError, match="not executed"):
        run.compare_pair(run.read_source(source), written)


@pytest.mark.parametrize(
    ("output", "refused"),
    [
        ({"output_type": "stream", "name": "stdout", "text": "written to /tmp/run"}, True),
        ({"output_type": "display_data", "data": {"text/html": "<b>/tmp/run</b>"}, "metadata": {}}, True),
        ({"output_type": "display_data", "data": {"image/png": "AAA/tmp/AAAA"}, "metadata": {}}, False),
        ({"output_type": "stream", "name": "stdout", "text": "a/tmp"}, False),
    ],
)
def test_folders_of_this_machine_are_found_in_texts_alone(output, refused):
    notebook = nbformat.from_dict({"cells": [{"cell_type": "code", "outputs": [output]}]})
    if refused:
        with pytest.raises(run.NotebookError, match=r"cell 1 prints '/tmp'"):
            run.check_outputs(notebook)
    else:
        run.check_outputs(notebook)


def test_the_environment_asks_for_the_check(tmp_path):
    (tmp_path / "01_new.py").write_text("# %%\n1\n")
    status, printed = execute(tmp_path, fast="1")
    assert status == 1
    assert "01_new: it has no .ipynb yet" in printed


def test_names_are_chosen_by_their_beginnings_and_must_exist(tmp_path):
    with pytest.raises(InputError, match=r"has no notebooks"):
        run.find_sources(tmp_path)
    for name in ("01_one", "02_two", "run"):
        (tmp_path / f"{name}.py").touch()
    assert [path.stem for path in run.find_sources(tmp_path)] == ["01_one", "02_two"]
    assert [path.stem for path in run.find_sources(tmp_path, ("02",))] == ["02_two"]
    with pytest.raises(InputError, match=r"no notebook begins with '03': choose of 01_one, 02_two"):
        run.find_sources(tmp_path, ("01", "03"))
    (tmp_path / "03_three.ipynb").touch()
    with pytest.raises(InputError, match=r"03_three.ipynb has no source"):
        run.find_sources(tmp_path)


@pytest.mark.parametrize(("value", "steps"), [(None, 600), ("", 600), ("0", 600), ("1", 20)])
def test_budget(monkeypatch, value, steps):
    monkeypatch.delenv(FAST, raising=False)
    if value is not None:
        monkeypatch.setenv(FAST, value)
    assert budget(600, 20) == steps


def test_all_notebooks_install_in_the_same_way():
    sources = [run.read_source(path) for path in run.find_sources(run.FOLDER)]
    first = [next(cell.source for cell in source.cells if cell.cell_type == "code") for source in sources]
    assert len(set(first)) == 1
    assert "pip" in first[0]


def test_a_translation_has_the_code_of_its_original():
    code = [
        [cell.source for cell in run.read_source(run.FOLDER / f"{stem}.py").cells if cell.cell_type == "code"]
        for stem in ("01_attention", "01_attention_zh")
    ]
    assert code[0] == code[1]
