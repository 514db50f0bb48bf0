"""Small pictures for classification: 3,000 of Fashion-MNIST. data/README.md has the datasheet.

    clothes = fashion_mnist()
    clothes.train.images.shape, clothes.classes[clothes.train.labels[0]]
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from peftlab.tasks import datasets
from peftlab.tasks.data_files import damaged, data_folder, missing

SIDE = 28  # pixels


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """images: (n, 28, 28), uint8, 0 black to 255 white; labels: (n,), int64. A slice of it is an ImageSplit again."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> Self:
        if not isinstance(rows, slice):
            raise TypeError("A split is cut with a slice, such as split[:480].")
        return type(self)(self.images[rows], self.labels[rows])

    def __repr__(self) -> str:
        return f"ImageSplit({len(self):,} images of {' x '.join(map(str, self.images.shape[1:]))} pixels)"


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Pictures with fixed splits. `classes[label]` is a label's name."""

    name: str
    classes: tuple[str, ...]
    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(getattr(self, split)):,}" for split in datasets.SPLITS)
        return f"ImageDataset({self.name!r}: {len(self.classes)} classes; {sizes})"


def fashion_mnist() -> ImageDataset:
    """2,000 / 400 / 600 pictures of clothes, 10 classes (Xiao et al. 2017, arXiv:1708.07747).

    Classes take turns: the first n pictures of a split hold them in equal parts wherever 10 divides n.
    Raises PeftLabError if the file is missing or damaged.
    """
    path = data_folder() / "fashion_mnist.npz"
    arrays = _arrays(path)
    classes = tuple(str(name) for name in arrays["classes"])
    splits = [_split(path, arrays, name, len(classes)) for name in datasets.SPLITS]
    return ImageDataset("fashion_mnist", classes, *splits)


def _split(path: Path, arrays: dict[str, np.ndarray], name: str, how_many_classes: int) -> ImageSplit:
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    bytes_only = images.dtype == labels.dtype == np.uint8
    if not bytes_only or not len(labels) or images.shape != (*labels.shape, SIDE, SIDE):
        raise damaged(path, f"{name} has images {images.shape} and labels {labels.shape}")
    if labels.max() >= how_many_classes:
        raise damaged(path, f"{name} has label {labels.max()}, and there are {how_many_classes} classes")
    return ImageSplit(torch.from_numpy(images), torch.from_numpy(labels).long())


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file by name. Nothing is unpickled."""
    names = [f"{split}_{kind}" for split in datasets.SPLITS for kind in ("images", "labels")] + ["classes"]
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except FileNotFoundError:
        raise missing(path) from None
    # Not a zip file, cut short, a changed byte, an array that is missing, an array that only pickle could read.
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile) as error:
        raise damaged(path, str(error)) from None
