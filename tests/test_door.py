"""The door: whatever goes wrong in one of our programs ends in one line and an exit status, never in a traceback."""

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from flaxformer_edu import door
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx
COMMAND = [sys.executable, "-m", "flaxformer_edu.cli"]


class FromALibrary(Exception):
    """An error of a kind that nobody here knows."""


def through(capsys, program):
    """The exit status, and what was said."""
    with pytest.raises(SystemExit) as end:
        door.through(program)
    return end.value.code, capsys.readouterr().err


def raising(error):
    def program():
        raise error

    return program


@pytest.mark.parametrize("status", [0, 1, None])
def test_the_exit_status_of_a_program_is_what_it_returns(status, capsys):
    assert through(capsys, lambda: status) == (status or 0, "")


FORESEEN = [
    (InputError("no [/red] file"), r"no \[/red\] file"),
    (FileNotFoundError("no data: fetch it"), "no data: fetch it"),
    (PermissionError(errno.EACCES, "Permission denied", "runs"), r"runs cannot be used \(Permission denied\): check"),
    (OSError(errno.EROFS, "Read-only file system", b"a\xff"), r"a\\udcff cannot be used \(Read-only"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "b" * 300), r"b+ cannot be used .*: choose a shorter name"),
    (OSError(errno.ENOSPC, "No space left on device"), r"standard output, or a file, cannot be written .*: free some"),
    (FromALibrary("x failed: No space left on device [y]"), "a disk is full: free some space"),
    (MemoryError("Unable to allocate 285. TiB"), r"out of memory: choose a smaller batch.*\(Unable to allocate 285"),
    (MemoryError(), "out of memory: choose a smaller batch"),
    (FromALibrary("RESOURCE_EXHAUSTED: Out of memory\nallocating 99"), r"out of memory.*Out of memory allocating 99\)"),
    (RuntimeError("Unable to initialize backend 'tpu': no"), "JAX finds no such device: set JAX_PLATFORMS to one that"),
    (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), r"'a\\udcff' is not UTF-8, .* name"),
    (TimeoutError("ChainedFuture completed 1/7 futures but timed out after 9.0 s"), "a save took too long, by a clock"),
    (OSError(errno.EMFILE, "Too many open files", "f"), "by `ulimit -n 4096`"),
]


@pytest.mark.parametrize(("error", "said"), FORESEEN, ids=range(len(FORESEEN)))
def test_what_is_foreseen_is_one_line_with_the_remedy(error, said, capsys):
    status, line = through(capsys, raising(error))
    assert status == 2
    assert re.match(f"error: .*{said}", line)
    assert line[-1] == "\n"
    assert line[:-1].isprintable()  # and so in one line


def test_the_reason_may_be_below_what_a_library_made_of_it(capsys):
    def program():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise FromALibrary("save failed") from error

    status, line = through(capsys, program)
    assert status == 2
    assert line == "error: a disk is full: free some space, or choose a place on another disk (save failed)\n"


def test_names_are_shown_as_they_are_and_cannot_write_on_the_terminal(capsys):
    said = through(capsys, raising(InputError("no file [/red] \x1b[2J \udcff é\nand no other")))[1]
    assert said == "error: no file [/red] \\x1b[2J \\udcff é\nand no other\n"


def test_whoever_reads_the_output_may_go(capsys):
    assert through(capsys, raising(BrokenPipeError(errno.EPIPE, "Broken pipe"))) == (141, "")


class TestUnforeseen:
    def test_it_is_one_line_and_a_report(self, capsys, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        status, line = through(capsys, raising(ZeroDivisionError("a\nfault")))
        (report,) = tmp_path.iterdir()
        assert status == 70
        asked = "a fault of this program; please report it with the file"
        assert line == f"error: ZeroDivisionError: a fault ({asked} {report})\n"
        text = report.read_text()
        assert text.startswith("command: ")
        assert "Traceback" in text
        assert "test_door.py" in text
        assert "'jaxlib': " in text

    def test_where_no_report_can_be_written_the_line_has_the_place(self, capsys, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
        status, line = through(capsys, raising(ZeroDivisionError()))
        assert status == 70
        assert re.fullmatch(r"error: ZeroDivisionError \(a fault .*test_door\.py, line \d+; no report .*\)\n", line)


def test_what_threads_of_libraries_cannot_deliver_is_not_printed(capsys):
    """Without an object it has no header either: bare tracebacks, by the dozen where a disk is full."""
    nobody = SimpleNamespace(exc_value=RuntimeError("Event loop is closed"), object=None)
    door._on_unraisable(nobody)
    assert capsys.readouterr().err == ""


class TestCtrlC:
    @pytest.fixture
    def _watched(self, monkeypatch):
        """Ctrl-C as in one of our programs."""
        monkeypatch.setattr(door, "_interrupts", 0)
        before = signal.signal(signal.SIGINT, door._on_interrupt)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.usefixtures("_watched")
    def test_it_is_one_line(self, capsys, tmp_path):
        def program():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                (tmp_path / "tidied").touch()

        assert through(capsys, program) == (130, "error: interrupted\n")
        assert (tmp_path / "tidied").exists()

    @pytest.mark.usefixtures("_watched")
    def test_whatever_a_library_makes_of_it(self, capsys):
        def program():
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError("numpy failed") from None

        assert through(capsys, program) == (130, "error: interrupted\n")

    @pytest.mark.parametrize(
        ("module", "mark"),
        [
            ("flaxformer_edu.cli", "flaxformer_edu.compiler"),
            ("flaxformer_edu.cli", "tyro"),
            ("train.vit", "train"),
            ("train.vit", "numpy"),
            ("train.tiny", "jax._src.core"),
        ],
    )
    def test_while_a_program_starts(self, module, mark):
        """Python names on standard error what it has just imported."""
        command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                if line.split("|")[-1].strip() == mark:
                    process.send_signal(signal.SIGINT)
                    break
            rest = [line for line in process.stderr if not line.startswith("import time:")]
        assert process.returncode == 130
        assert rest == ["error: interrupted\n"]

    def test_in_the_middle_of_an_import_no_draft_is_left(self, tmp_path):
        (tmp_path / "interrupted.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
        program = """if True:
            import sys
            from flaxformer_edu import door
            from flaxformer_edu.files import written_folder
            door.watch()
            def program():
                with written_folder("target"):
                    try:
                        import interrupted
                    except BaseException:
                        pass
            sys.path.insert(0, "")
            door.through(program)
        """
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=here(), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
        assert {path.name for path in tmp_path.iterdir()} <= {"interrupted.py", "__pycache__"}


def here(**variables):
    """The environment, in which this repository is found from any folder."""
    return {**os.environ, "PYTHONPATH": str(Path(door.__file__).parents[1]), "TERM": "dumb", **variables}


def shell(line, **variables):
    """The exit status and the output of a line in which $COMMAND is the command."""
    line = line.replace("$COMMAND", " ".join(COMMAND))
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=here(**variables), capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


class TestStreams:
    def test_the_reader_goes_away(self):
        status, _, said = shell("$COMMAND --help | true")
        assert (status, said) == (141, "")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no such device")
    def test_nothing_of_the_output_is_kept(self):
        status, _, said = shell("$COMMAND --help > /dev/full")
        assert status == 2
        assert re.fullmatch(r"error: standard output, .* cannot be written \(No space left on device\): .*\n", said)

    def test_closed_output(self):
        said = "error: standard output is closed: send it to a file, or to /dev/null\n"
        assert shell("$COMMAND --help >&-") == (2, "", said)

    def test_closed_input(self):
        said = "error: no words: give some as arguments, or on standard input\n"
        assert shell("$COMMAND identify <&-") == (2, "", said)

    def test_a_narrow_terminal_of_ascii(self):
        status, printed, said = shell("$COMMAND convert --help", COLUMNS="20", PYTHONIOENCODING="ascii")
        assert (status, said) == (0, "")
        assert printed.isascii()


def test_a_program_that_imports_the_package_is_left_alone():
    program = "import signal, sys, flaxformer_edu; print(sys.excepthook is sys.__excepthook__,"
    program += "signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", program], env=here(), capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"
