"""CS231n's captioning folder, downloaded and unpacked."""

import hashlib
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from flaxformer_edu.data.captions.coco import load_coco
from flaxformer_edu.data.formats.checks import check_size
from flaxformer_edu.download import RemoteFile, download
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import cache_folder, written_folder

COCO_ZIP = RemoteFile(url="http://cs231n.stanford.edu/coco_captioning.zip", size=None, sha256=None)  # about 1 GB
COCO_MEMBERS = {  # the SHA-256 of each file, None where it was not published
    "coco2014_captions.h5": "4035d7ff55145f1f01b9ee9f3e24eb6ba6da3bdcd69f927c75390f11f74f891d",
    "coco2014_vocab.json": "0cf30d2a349e9d24df4c9b0fa3dca46ad69b05876595546fdd690559a8c8da53",
    "train2014_vgg16_fc7_pca.h5": "ec0a10c585909761d15778a1c4a5dbad92e1672853d9b5bad08e6a36fd21c779",
    "val2014_vgg16_fc7_pca.h5": "6619466e3385ef1e913fae9470ef802df283675533ce0dc34d88abac5e7d1cf9",
    "train2014_vgg16_fc7.h5": "8e15fc883ea70730d5d1319f34712bcb706b2807645cd876f7886d61ff94a5d8",
    "val2014_vgg16_fc7.h5": "21ebb9bda6232c7697c8d883916d6bc582d0a101ddcad30512f5444196e14f63",
    "train2014_urls.txt": "7616ec66526a3acc4ad323aef4ca6642a6bb9e7e4ad4f1541786dc07e6841ae2",
    "val2014_urls.txt": None,
    "train2014_images.txt": None,
    "val2014_images.txt": None,
}
_CHUNK = 1 << 20
_REMEDY = "delete it and fetch coco again"


def fetch_coco(folder: Path, remote: RemoteFile = COCO_ZIP, members: dict[str, str | None] = COCO_MEMBERS) -> Path:
    """Download the zip (about 1 GB), unpack what `load_coco` reads, check it, and delete the zip.

    The folder appears only when all is well. Raises `InputError` where the server cannot be reached, or a file is
    missing or has another checksum.
    """
    with written_folder(folder) as draft:
        archive = download(remote, cache_folder() / "downloads")
        unpack(archive, members, draft)
        load_coco(draft)
    archive.unlink()
    return folder


def unpack(path: Path, members: dict[str, str | None], folder: Path) -> None:
    """Write the members, wherever they are in the zip file, side by side into the folder, checking each SHA-256."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = {PurePosixPath(name).name: name for name in archive.namelist()}
            for name, sha256 in members.items():
                if name in found:
                    digest = _extract(archive, found[name], folder / name)
                    if sha256 not in (None, digest):
                        raise InputError(f"{path} holds a {name} of another SHA-256 than published; {_REMEDY}")
                elif sha256 is not None:
                    raise InputError(f"{path} holds no {name}; {_REMEDY}")
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"{path} is truncated or no zip file ({error}); {_REMEDY}") from error


def _extract(archive: zipfile.ZipFile, member: str, target: Path) -> str:
    info = archive.getinfo(member)
    check_size(f"{archive.filename}: {member}", info.file_size, info.compress_size)
    digest = hashlib.sha256()
    with archive.open(member) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
