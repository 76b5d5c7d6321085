"""A converted folder whose files are no longer as they were written is refused, and so is a damaged list of them."""

import shutil
import subprocess
from pathlib import Path

import pytest
from flax import nnx

from flaxformer_edu import convert
from flaxformer_edu.convert.sums import check_sums
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig

NOTES = {"mean": (0.5,), "std": (0.5,)}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "hf"
    config = ViTConfig.b16(image_size=8, patch_size=4, width=8, heads=2, hidden=8, layers=1, classes=2)
    convert.save_huggingface(folder, VisionTransformer(config, rngs=nnx.Rngs(0)), NOTES)
    return folder


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {"flip": flip, "cut": cut, "gone": Path.unlink}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors", "SHA256SUMS"])
def test_damage_is_named(converted, tmp_path, name, how):
    folder = shutil.copytree(converted, tmp_path / "copy")
    assert check_sums(folder)
    DAMAGES[how](folder / name)
    if (name, how) == ("SHA256SUMS", "gone"):
        assert not check_sums(folder)
        convert.open_huggingface(folder)
    else:
        said = f"{name} (is not as it was written|is damaged)|there is no .*config.json"
        with pytest.raises(InputError, match=said):
            convert.open_huggingface(folder)


def test_other_programs_can_check_it(converted):
    if shutil.which("sha256sum") is None:
        pytest.skip("takes the program sha256sum")
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=converted, check=True)
