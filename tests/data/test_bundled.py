"""What the package brings along is what was published with it; what it downloads is pinned."""

import hashlib
from pathlib import Path

import pytest

import flaxformer_edu
from flaxformer_edu.convert.sources import TORCHVISION_FILES
from flaxformer_edu.data.captions.coco_download import COCO_MEMBERS
from flaxformer_edu.data.image_sets.builders import FlaxformerCifar10, FlaxformerMnist

pytestmark = pytest.mark.no_nnx
PACKAGE = Path(flaxformer_edu.__file__).parent
BUNDLED = {
    "data/words/gated.safetensors": "1e8e6016765fdccd0102279506db691b9dbe449d3b32390cce6b5b346ee3b30a",
    "data/words/words.txt.gz": "1d7d3f5ef73d4e0fef1560ea635bed0b9c12c17b70921d75022bdca454b38012",
    "reference/expected_tensors.json": "d96459471011968838d4be46a4a7b9c319a37efc6fa3616e469b7d5d54639f5f",
}
PROGRAMS = {".py", ".pyc", ".md"}
UNPINNED = {"val2014_urls.txt", "train2014_images.txt", "val2014_images.txt"}  # nobody has published theirs


def test_bundled_files():
    found = {
        path.relative_to(PACKAGE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in PROGRAMS
    }
    assert found == BUNDLED


def test_downloads_are_pinned():
    for file in (*FlaxformerMnist.FILES, *FlaxformerCifar10.FILES):
        assert file.size
        assert len(file.sha256 or "") == 64
    assert {name for name, sha256 in COCO_MEMBERS.items() if sha256 is None} == UNPINNED
    for name in TORCHVISION_FILES.values():
        int(name.rpartition("-")[2].removesuffix(".pth"), 16)
