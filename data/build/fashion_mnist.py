"""Build data/fashion_mnist.npz: 3,000 pictures of clothes from Fashion-MNIST, 10 classes, fixed splits.

Source: Debian package dataset-fashion-mnist 0.0~git20200523.55506a9-1. The rows depend on nothing but its four
files, so every run on every machine writes the same bytes.

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb somewhere
    python data/build/fashion_mnist.py somewhere/usr/share/datasets/fashion-mnist

Without an argument the script reads /usr/share/datasets/fashion-mnist (the package, installed). Needs numpy.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np

PACKAGE = "dataset-fashion-mnist"
VERSION = "0.0~git20200523.55506a9-1"
DEB_SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
TARGET = Path(__file__).resolve().parents[1] / "fashion_mnist.npz"

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
# Ours -> the file of Zalando's split from which it is drawn, and how many pictures of each class.
SPLITS = {"train": ("train", 200), "validation": ("train", 40), "test": ("t10k", 60)}
UNSIGNED_BYTE = 0x08  # the code of an idx file's element type


def read_idx(folder: Path, name: str) -> np.ndarray:
    """The array in one idx file: two zero bytes, element type, number of axes, each axis' length, the elements.

    Raises SystemExit, saying what to do, if the file is not there or is not the one we know.
    """
    path = folder / name
    if not path.is_file():
        raise SystemExit(
            f"{path} does not exist. Give the folder that holds {name}, or install it:\n"
            f"  apt-get install {PACKAGE}={VERSION}"
        )
    packed = path.read_bytes()
    if (found := hashlib.sha256(packed).hexdigest()) != SHA256[name]:
        raise SystemExit(
            f"{path} is not the file this data set is built from (sha256 {found[:12]}..., not "
            f"{SHA256[name][:12]}...). It must come from Debian {PACKAGE} {VERSION}."
        )
    content = gzip.decompress(packed)
    element, axes = content[2], content[3]
    if content[:2] != b"\0\0" or element != UNSIGNED_BYTE:
        raise SystemExit(f"{path} does not hold unsigned bytes.")
    start = 4 + 4 * axes
    shape = np.frombuffer(content, ">u4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def draw(images: np.ndarray, labels: np.ndarray, per_class: int, taken: set[bytes]) -> np.ndarray:
    """Row numbers of `per_class` pictures of each class, classes in turn. No picture is drawn that was `taken`.

    images: (n, 28, 28), labels: (n,). The order is that of a hash of the pixels, a lottery that does not depend on
    numpy's random generator. What was drawn is added to `taken`.
    """
    lottery = sorted(range(len(images)), key=lambda row: draw_key(images[row]))
    seats: list[list[int]] = [[] for _ in CLASSES]
    for row in lottery:
        seat, pixels = seats[labels[row]], images[row].tobytes()
        if len(seat) < per_class and pixels not in taken:
            seat.append(row)
            taken.add(pixels)
    return np.array(seats).T.reshape(-1)  # (class, row) -> first of every class, second of every class, ...


def draw_key(image: np.ndarray) -> str:
    return hashlib.sha256(b"fashion_mnist/" + image.tobytes()).hexdigest()


def build(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of the file by name: for each split `..._images` (n, 28, 28) and `..._labels` (n,), and `classes`."""
    arrays: dict[str, np.ndarray] = {}
    taken: set[bytes] = set()
    for split, (part, per_class) in SPLITS.items():
        images = read_idx(folder, f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(folder, f"{part}-labels-idx1-ubyte.gz")
        rows = draw(images, labels, per_class, taken)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[rows], labels[rows]
    arrays["classes"] = np.array(CLASSES, dtype="<U11")
    return arrays


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    """What np.load reads, the same bytes every time.

    np.savez_compressed would do, but how well deflate packs differs from one zlib to another; so nothing is packed
    here, and the entries carry the oldest date that a zip file can have.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # otherwise Windows would write another byte here
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            archive.writestr(entry, content.getvalue())
    return out.getvalue()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=INSTALLED, help=f"default: {INSTALLED}")
    parser.add_argument("--out", type=Path, default=TARGET, help=f"default: {TARGET.name} in data/")
    arguments = parser.parse_args(argv)

    arrays = build(arguments.folder)
    content = npz(arrays)
    # peftlab.files does this too, but these scripts run with Python and numpy alone.
    temporary = arguments.out.with_name(f"{arguments.out.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, arguments.out)
    pictures = sum(len(arrays[f"{split}_labels"]) for split in SPLITS)
    print(f"{arguments.out.name}: {pictures:,} pictures, {len(content):,} bytes")
    print(f"sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv[1:])
