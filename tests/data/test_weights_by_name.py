"""Weights by name: downloaded once, compared with the published checksum, and one line where they cannot be had."""

import hashlib
import sys
from pathlib import Path

import pytest
from conftest import Server

from flaxformer_edu.convert import sources
from flaxformer_edu.convert.sources import fetch
from flaxformer_edu.download import RemoteFile, download
from flaxformer_edu.errors import InputError

pytestmark = pytest.mark.no_nnx

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def publish(server: Server, monkeypatch: pytest.MonkeyPatch, digest: str = DIGEST[:8]) -> None:
    server.files[f"/vit_b_16-{digest}.pth"] = CONTENT
    monkeypatch.setattr(sources, "PUBLISHED", f"{server.url}/")
    monkeypatch.setitem(sources.TORCHVISION_FILES, "vit_b_16", f"vit_b_16-{digest}.pth")


def test_paths_are_themselves():
    assert fetch("runs/vit") == Path("runs/vit")


def test_torchvisions_file_is_downloaded_once(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    publish(server, monkeypatch)
    for _ in range(2):
        assert fetch("torchvision://vit_b_16").read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert [path.name for path in cache.rglob("*") if path.is_file()] == [f"vit_b_16-{DIGEST[:8]}.pth"]


def test_another_file_is_refused(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    publish(server, monkeypatch, digest="c867db91")
    with pytest.raises(InputError, match=rf"vit_b_16-c867db91\.pth has SHA-256 {DIGEST}, expected c867db91"):
        fetch("torchvision://vit_b_16")
    assert not any(path.is_file() for path in cache.rglob("*"))


def test_without_a_network_it_is_one_line(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    publish(server, monkeypatch)
    server.close()
    with pytest.raises(InputError, match=r"cannot download .*vit_b_16.*refused.*put it at .*weights") as error:
        fetch("torchvision://vit_b_16")
    assert "\n" not in str(error.value)


def test_the_published_names_are_torchvisions_own():
    models = pytest.importorskip("parity.vit_libraries").library("torchvision").models
    for name, file in sources.TORCHVISION_FILES.items():
        weights = models.get_model_weights(name)["IMAGENET1K_V1"]
        assert weights.url == sources.PUBLISHED + file


def test_a_name_that_is_unknown(cache: Path):
    with pytest.raises(InputError, match="torchvision's 'resnet50' is not known here: choose one of vit_b_16,"):
        fetch("torchvision://resnet50")


def test_the_whole_checksum_is_compared_where_it_is_published(server: Server, tmp_path: Path):
    server.files["/a.bin"] = CONTENT
    wrong = DIGEST[:-1] + ("0" if DIGEST[-1] != "0" else "1")
    with pytest.raises(InputError, match="has SHA-256"):
        download(RemoteFile(url=f"{server.url}/a.bin", size=None, sha256=wrong), tmp_path)


class TestHub:
    """The client is the hub's own: which files it is asked for, and what is made of its errors."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
        asked: list[tuple[str, list[str]]] = []

        def snapshot(name: str, allow_patterns: list[str]) -> str:
            asked.append((name, allow_patterns))
            if name == "owner/none":
                raise hub.errors.HFValidationError("no such repository\nsecond line")
            if "model*.safetensors*" in allow_patterns and name == "owner/safe":
                (tmp_path / "model.safetensors").write_bytes(b"")
            return str(tmp_path)

        monkeypatch.setattr(hub, "snapshot_download", snapshot)
        return asked

    def test_safetensors_are_enough(self, asked, tmp_path: Path):
        assert fetch("hf://owner/safe") == tmp_path
        assert asked == [("owner/safe", ["config.json", "preprocessor_config.json", "model*.safetensors*"])]

    def test_pickled_weights_where_there_are_no_others(self, asked, tmp_path: Path):
        assert fetch("hf://owner/old") == tmp_path
        assert [patterns[-1] for _, patterns in asked] == ["model*.safetensors*", "pytorch_model*.bin*"]

    def test_errors_are_one_line(self, asked):
        with pytest.raises(InputError, match=r"hf://owner/none cannot be fetched \(HFValidationError: no") as error:
            fetch("hf://owner/none")
        assert "\n" not in str(error.value)

    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(InputError, match=r"needs the extra hub: pip install 'flaxformer-edu\[hub\]'"):
            fetch("hf://owner/name")
