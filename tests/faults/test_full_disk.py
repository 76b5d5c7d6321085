"""A disk that fills up at any moment of a run: it fails, and with more room ends as if it had not been full.

The disk is a small tmpfs, which takes Linux and the right to mount one.
"""

import multiprocessing
import random
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from training.test_kill import assert_same_folders, child


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, whose size `resize` changes."""
    place = tmp_path / "disk"
    place.mkdir()
    if not sys.platform.startswith("linux") or mount(place, "size=1m").returncode:
        pytest.skip("mounting a small disk takes Linux, and root")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def mount(place: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Mount a tmpfs, or with "remount" change its size and how many files and folders it can hold."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", place]
    return subprocess.run(command, capture_output=True, check=False)


def run(context, folder: Path, cache: Path) -> int | None:
    process = context.Process(target=child, args=(folder, cache))
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.one_mode
@pytest.mark.parametrize("trials", [1, pytest.param(200, marks=pytest.mark.slow)])
def test_a_run_goes_on_where_there_is_room_again(disk, trials, tmp_path, outcomes):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flaxformer_edu.training", "orbax.checkpoint"])
    cache, whole = Path(jax.config.jax_compilation_cache_dir), tmp_path / "whole"
    assert run(context, whole, cache) == 0
    needed = sum(-(-path.stat().st_size // 4096) * 4 for path in whole.rglob("*") if path.is_file())  # KiB
    files = len(list(whole.rglob("*")))

    draw = random.Random(trials)
    for trial in range(trials):
        folder = disk / f"run{trial}"
        least = f"size={draw.randrange(8, needed)}k" if trial % 2 == 0 else f"nr_inodes={draw.randrange(2, files)}"
        mount(disk, "remount", least).check_returncode()
        failed = run(context, folder, cache)
        mount(disk, "remount", "size=64m", "nr_inodes=100k").check_returncode()
        assert run(context, folder, cache) == 0
        assert_same_folders(folder, whole)
        outcomes["recovered" if failed else "harmless"] += 1
        subprocess.run(["rm", "-r", folder], check=True)
    assert outcomes["recovered"]
