"""Files are there whole or not at all, over what may be written over, and a failure says what to do."""

import json
import os
import stat
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from flaxformer_edu.errors import InputError
from flaxformer_edu.files import (
    cache_folder,
    check_target,
    made_once,
    make_folder,
    read_json,
    read_json_object,
    write_json,
    write_text,
    written_file,
    written_folder,
)

pytestmark = pytest.mark.no_nnx


def interrupted(writing: AbstractContextManager[Path], error: type[BaseException]) -> None:
    """Something goes wrong in the middle of writing."""
    with writing as draft:
        write_text(draft / "half" if draft.is_dir() else draft, "ne")
        raise error


def fill(writing: AbstractContextManager[Path]) -> None:
    """A file cannot be written in the new folder."""
    with writing as draft:
        (draft / "half").mkdir()
        write_text(draft / "half", "")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A device that is always full, of the test's own: no mistake may cost the machine's /dev/full."""
    try:
        os.mknod(tmp_path / "full", stat.S_IFCHR | 0o666, Path("/dev/full").stat().st_rdev)
        (tmp_path / "full").open("rb").close()  # a file system may forbid devices
    except OSError as error:
        pytest.skip(f"such a device cannot be made here: {error}")
    return tmp_path / "full"


class TestFile:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_new_and_again(self, kind, tmp_path: Path):
        target = kind(tmp_path / "made" / "on the way" / "text.txt")
        write_text(target, "first")
        write_text(target, "zweite Fassung, größer")
        assert Path(target).read_text(encoding="utf-8") == "zweite Fassung, größer"
        assert names(Path(target).parent) == ["text.txt"]

    def test_a_failure_leaves_the_old_one_and_nothing_else(self, tmp_path: Path):
        write_text(tmp_path / "file", "old")
        for error in (KeyError, KeyboardInterrupt):
            with pytest.raises(error):
                interrupted(written_file(tmp_path / "file"), error)
            assert names(tmp_path) == ["file"]
            assert (tmp_path / "file").read_text() == "old"

    def test_neighbours_of_any_name_are_left_alone(self, tmp_path: Path):
        neighbours = ("r.part", "r.json.part", ".r.json", "r.json~", "r.tmp")
        for name in neighbours:
            (tmp_path / name).write_text("somebody else's")
        write_json(tmp_path / "r.json", [1])
        assert names(tmp_path) == sorted((*neighbours, "r.json"))
        assert all((tmp_path / name).read_text() == "somebody else's" for name in neighbours)

    def test_the_draft_keeps_the_ending(self, tmp_path: Path):
        with written_file(tmp_path / "figure.svg") as draft:
            assert draft.suffix == ".svg"
            assert draft.parent == tmp_path
            draft.touch()
        longest = "x." + "a" * 253
        write_text(tmp_path / longest, "fits")
        assert (tmp_path / longest).read_text() == "fits"

    def test_permissions_stay(self, tmp_path: Path):
        (tmp_path / "file").touch()
        (tmp_path / "file").chmod(0o640)
        write_text(tmp_path / "file", "new")
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
        mask = os.umask(0o027)
        try:
            write_text(tmp_path / "other", "new")
        finally:
            os.umask(mask)
        assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o640  # as any program makes one

    def test_of_a_link_the_file_behind_it_is_replaced(self, tmp_path: Path):
        (tmp_path / "there").mkdir()
        write_text(tmp_path / "there" / "real", "old")
        (tmp_path / "link").symlink_to(tmp_path / "there" / "real")
        (tmp_path / "link to link").symlink_to("link")
        write_text(tmp_path / "link to link", "new")
        assert (tmp_path / "link to link").is_symlink()
        assert (tmp_path / "link").is_symlink()
        assert not (tmp_path / "there" / "real").is_symlink()
        assert (tmp_path / "there" / "real").read_text() == "new"
        (tmp_path / "dangling").symlink_to(tmp_path / "there" / "not yet")
        write_text(tmp_path / "dangling", "made")
        assert (tmp_path / "there" / "not yet").read_text() == "made"
        assert names(tmp_path / "there") == ["not yet", "real"]

    def test_folders_and_what_lies_below_files_are_refused(self, tmp_path: Path):
        (tmp_path / "folder").mkdir()
        with pytest.raises(InputError, match=r"folder is a folder: choose the name of a file"):
            write_json(tmp_path / "folder", 1)
        write_text(tmp_path / "file", "precious")
        with pytest.raises(InputError, match=r"below cannot be written .*: a part of its path is a file, so choose"):
            write_json(tmp_path / "file" / "below", 1)
        with pytest.raises(InputError, match=r"cannot be written \(File name too long\): choose a shorter name"):
            write_json(tmp_path / ("n" * 256), 1)
        assert names(tmp_path) == ["file", "folder"]
        assert (tmp_path / "file").read_text() == "precious"

    def test_a_full_device_stays_a_device(self, full: Path):
        with pytest.raises(InputError, match=f"^{full} cannot be written .No space left on device.: free some space"):
            write_json(full, {"figures": [1, 2]})
        assert full.is_char_device()
        assert names(full.parent) == ["full"]

    def test_a_pipe_is_written_to(self, tmp_path: Path):
        os.mkfifo(tmp_path / "pipe")
        read: list[str] = []
        reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
        reader.start()
        write_json(tmp_path / "pipe", [1])
        reader.join()
        assert json.loads(read[0]) == [1]
        assert (tmp_path / "pipe").is_fifo()

    def test_what_is_open_already_is_written_on(self, tmp_path: Path):
        """Standard output in a file: what was printed before stays, and what is printed later comes after it."""
        program = "from flaxformer_edu.files import write_json; print('before'); write_json('/dev/stdout', [1])"
        with (tmp_path / "out").open("wb") as out:
            subprocess.run([sys.executable, "-c", program + "; print('after')"], stdout=out, check=True)
        assert (tmp_path / "out").read_text() == "before\n[\n 1\n]\nafter\n"
        assert names(tmp_path) == ["out"]

    def test_a_place_can_be_tried_before(self, tmp_path: Path):
        write_text(tmp_path / "file", "precious")
        for fine in ("file", "new", "new/below"):
            check_target(tmp_path / fine)
        with pytest.raises(InputError, match="is a folder: choose the name of a file"):
            check_target(tmp_path)
        with pytest.raises(InputError, match=r"below/it cannot be written .*: a part of its path is a file"):
            check_target(tmp_path / "file" / "below" / "it")
        assert names(tmp_path) == ["file"]

    def test_a_full_disk(self, tmp_path: Path):
        """The process may write 1,000 bytes in a file, and no more: what a full disk is to a program."""
        program = """if True:
            import resource, signal, sys
            from flaxformer_edu.errors import InputError
            from flaxformer_edu.files import write_text
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
            write_text(sys.argv[1], "new" * 300)
            try:
                write_text(sys.argv[1], "newer" * 300)
            except InputError as error:
                print(error)
        """
        command = [sys.executable, "-c", program, str(tmp_path / "file")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"{tmp_path / 'file'} cannot be written (File too large)")
        assert (tmp_path / "file").read_text() == "new" * 300
        assert names(tmp_path) == ["file"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="to root nothing is forbidden")
    def test_what_is_write_protected_is_refused(self, tmp_path: Path):
        write_text(tmp_path / "closed" / "file", "old")
        (tmp_path / "closed" / "file").chmod(0o444)
        with pytest.raises(InputError, match="is write-protected"):
            write_text(tmp_path / "closed" / "file", "new")
        (tmp_path / "closed").chmod(0o555)
        try:
            with pytest.raises(InputError, match=r"cannot be written \(Permission denied\): choose a place you may"):
                write_text(tmp_path / "closed" / "new", "new")
            assert names(tmp_path / "closed") == ["file"]
        finally:
            (tmp_path / "closed").chmod(0o755)

    def test_many_at_once(self, tmp_path: Path):
        """Whoever reads finds one writer's text, and never a part of it."""
        texts = [str(digit) * 100_000 for digit in range(4)]
        wrong: list[str] = []

        def write(text: str) -> None:
            for _ in range(20):
                write_text(tmp_path / "file", text)
                if (tmp_path / "file").read_text() not in texts:
                    wrong.append(text[0])

        threads = [threading.Thread(target=write, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert names(tmp_path) == ["file"]


class TestFolder:
    def test_made_where_it_is_not_there(self, tmp_path: Path):
        for _ in range(2):
            assert make_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
        write_text(tmp_path / "file", "")
        for target in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(InputError, match=f"{target} cannot be written .*: a part of its path is a file"):
                make_folder(target)

    def test_new_into_an_empty_one_and_through_a_link(self, tmp_path: Path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "link").symlink_to("empty")
        for target in (tmp_path / "new" / "one", tmp_path / "link"):
            with written_folder(target) as draft:
                write_text(draft / "a", "a")
                assert not target.exists() or names(target) == []
            assert names(target) == ["a"]
        assert (tmp_path / "link").is_symlink()
        assert names(tmp_path) == ["empty", "link", "new"]

    def test_what_is_there_is_replaced_on_request_alone(self, tmp_path: Path):
        with written_folder(tmp_path / "folder") as draft:
            write_text(draft / "old", "precious")
        with pytest.raises(InputError, match="folder already exists: choose another"):
            interrupted(written_folder(tmp_path / "folder"), KeyError)
        with pytest.raises(KeyError):
            interrupted(written_folder(tmp_path / "folder", replace=True), KeyError)
        assert names(tmp_path / "folder") == ["old"]
        with written_folder(tmp_path / "folder", replace=True) as draft:
            write_text(draft / "new", "")
        assert names(tmp_path / "folder") == ["new"]
        assert names(tmp_path) == ["folder"]

    def test_the_old_one_comes_back_where_the_name_cannot_be_taken(self, tmp_path: Path):
        with written_folder(tmp_path / "folder") as draft:
            write_text(draft / "old", "precious")
        new = written_folder(tmp_path / "folder", replace=True)
        with pytest.raises(InputError, match="folder cannot be written"), new as draft:
            draft.rmdir()
        assert (tmp_path / "folder" / "old").read_text() == "precious"
        assert names(tmp_path) == ["folder"]

    def test_a_failure_within_is_told_of_the_target(self, tmp_path: Path):
        new = written_folder(tmp_path / "folder")
        with pytest.raises(InputError, match=f"^{tmp_path / 'folder'}/half is a folder"):
            fill(new)
        assert names(tmp_path) == []

    def test_a_file_is_refused(self, tmp_path: Path):
        write_text(tmp_path / "file", "precious")
        for replace in (False, True):
            with pytest.raises(InputError, match="file already exists"):
                interrupted(written_folder(tmp_path / "file", replace=replace), KeyError)
        assert (tmp_path / "file").read_text() == "precious"


class TestJson:
    def test_there_and_back(self, tmp_path: Path):
        value = {"name": "größe 大", "file": os.fsdecode(b"not \xff utf-8"), "figures": [1, 2.5, None, True]}
        write_json(tmp_path / "value.json", value)
        assert read_json(tmp_path / "value.json") == value
        assert "大" in (tmp_path / "value.json").read_bytes().decode("utf-8")

    def test_numbers_that_json_has_not_are_null(self, tmp_path: Path):
        inf = float("inf")
        write_json(tmp_path / "value.json", {"loss": float("nan"), "rows": [(1.0, inf), [-inf]], "name": "NaN"})
        assert read_json(tmp_path / "value.json") == {"loss": None, "rows": [[1.0, None], [None]], "name": "NaN"}
        assert "NaN," not in (tmp_path / "value.json").read_text()

    @pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\xff", b"[" * 100_000, b"{'a': 1}"])
    def test_what_is_none_is_named(self, content, tmp_path: Path):
        (tmp_path / "model.json").write_bytes(content)
        with pytest.raises(InputError, match=r"model\.json is not valid JSON \(.{,100}\): get the file again"):
            read_json(tmp_path / "model.json")

    def test_missing_a_folder_or_no_object(self, tmp_path: Path):
        with pytest.raises(InputError, match=r"no file .*gone\.json: start afresh"):
            read_json(tmp_path / "gone.json", remedy="start afresh")
        with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
            read_json(tmp_path)
        for value in ([], "text", None):
            write_json(tmp_path / "value.json", value)
            with pytest.raises(InputError, match=r"value\.json holds a \w+, expected a JSON object"):
                read_json_object(tmp_path / "value.json")


class TestCache:
    def test_its_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("FLAXFORMER_EDU_CACHE", str(tmp_path))
        assert cache_folder() == tmp_path
        monkeypatch.delenv("FLAXFORMER_EDU_CACHE")
        assert cache_folder() == Path.home() / ".cache" / "flaxformer_edu"

    def test_made_once(self, tmp_path: Path):
        def make(folder: Path) -> None:
            with written_folder(folder) as draft:
                write_text(draft / "a", "made")

        def make_too_late(folder: Path) -> None:
            make(folder)  # another process
            make(folder)

        made_once(tmp_path / "first", make_too_late)
        (tmp_path / "first" / "a").write_text("kept")
        made_once(tmp_path / "first", make)
        assert (tmp_path / "first" / "a").read_text() == "kept"
        with pytest.raises(InputError, match="no network"):
            made_once(tmp_path / "second", fail)


def fail(folder: Path) -> None:
    raise InputError(f"no network to make {folder}")
