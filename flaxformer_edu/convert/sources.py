"""Sources of weights that are names: what torchvision publishes, and Hugging Face's hub."""

from pathlib import Path

from flaxformer_edu.download import RemoteFile, download
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import cache_folder

TORCHVISION, HUB = "torchvision://", "hf://"
PUBLISHED = "https://download.pytorch.org/models/"
# torchvision.models.ViT_*_Weights.IMAGENET1K_V1; the name of each file holds the beginning of its SHA-256.
TORCHVISION_FILES = {
    "vit_b_16": "vit_b_16-c867db91.pth",
    "vit_b_32": "vit_b_32-d86f8d99.pth",
    "vit_l_16": "vit_l_16-852ce7e3.pth",
}
CONFIGS, SAFE, PICKLED = ("config.json", "preprocessor_config.json"), "model*.safetensors*", "pytorch_model*.bin*"


def fetch(source: str) -> Path:
    """A local path of what `source` names: itself, or what is downloaded for `torchvision://` or `hf://OWNER/NAME`.

    Raises InputError for a name that is not known, and where it cannot be downloaded.
    """
    if source.startswith(TORCHVISION):
        return _fetch_torchvision(source.removeprefix(TORCHVISION))
    return _fetch_hub(source.removeprefix(HUB)) if source.startswith(HUB) else Path(source)


def _fetch_torchvision(name: str) -> Path:
    if name not in TORCHVISION_FILES:
        raise InputError(f"torchvision's {name!r} is not known here: choose one of {', '.join(TORCHVISION_FILES)}")
    file = TORCHVISION_FILES[name]
    digest = file.rpartition("-")[2].removesuffix(".pth")
    return download(RemoteFile(url=PUBLISHED + file, size=None, sha256=digest), cache_folder() / "weights")


def _fetch_hub(name: str) -> Path:
    """The folder in the hub's own cache; pickled weights are fetched only where there are no others."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(f"{HUB}{name} needs the extra hub: pip install 'flaxformer-edu[hub]'") from None
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*CONFIGS, SAFE]))
        if not any(folder.glob(SAFE)):
            folder = Path(snapshot_download(name, allow_patterns=[*CONFIGS, PICKLED]))
    except Exception as error:  # of the network, of the hub, of a name that cannot be: each has its own class
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{HUB}{name} cannot be fetched ({reason:.300}): get its files in another way") from error
    return folder
