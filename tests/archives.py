"""Tiny data sets in the exact on-disk formats of the real ones."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
WNIDS = ("n02124075", "n01443537")  # not sorted, as in the stock archive


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, *, count: int = 6, packed: bool = True) -> dict[str, np.ndarray]:
    """The four files of MNIST; returns their arrays by name."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: random_pixels(count, 28, 28, seed=place)
        if "images" in name
        else np.arange(count, dtype=np.uint8) % 10
        for place, name in enumerate(IDX_NAMES)
    }
    for name, array in arrays.items():
        data = idx_bytes(array)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    return arrays


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def cifar_records(count: int, classes: int, *, label_bytes: int, seed: int) -> np.ndarray:
    """uint8 [count, label_bytes + 3072]; the class is the last label byte."""
    records = random_pixels(count, label_bytes + 3072, seed=seed)
    records[:, label_bytes - 1] = np.arange(count) % classes
    return records


def cifar10_members(count: int = 4) -> dict[str, bytes]:
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    members = {
        f"cifar-10-batches-bin/{name}": cifar_records(count, 10, label_bytes=1, seed=seed).tobytes()
        for seed, name in enumerate(names)
    }
    words = b"airplane automobile bird cat deer dog frog horse ship truck"
    members["cifar-10-batches-bin/batches.meta.txt"] = words.replace(b" ", b"\n") + b"\n\n"
    members["cifar-10-batches-bin/readme.html"] = b"<html></html>"
    return members


def cifar100_members(count: int = 4) -> dict[str, bytes]:
    fine = "".join(f"class_{number}\n" for number in range(100))
    return {
        "cifar-100-binary/coarse_label_names.txt": b"coarse\n" * 20,
        "cifar-100-binary/fine_label_names.txt": fine.encode(),
        "cifar-100-binary/train.bin": cifar_records(count, 100, label_bytes=2, seed=0).tobytes(),
        "cifar-100-binary/test.bin": cifar_records(count, 100, label_bytes=2, seed=1).tobytes(),
    }


def picture(color: tuple[int, int, int] | int, size: int = 64, format: str = "JPEG") -> bytes:
    """An image file of one colour, or grey where one number is given."""
    mode = "L" if isinstance(color, int) else "RGB"
    buffer = io.BytesIO()
    Image.new(mode, (size, size), color).save(buffer, format)
    return buffer.getvalue()


def tiny_imagenet_members() -> dict[str, bytes]:
    """Two classes, two training and one validation image each; one of the images is grey."""
    top = "tiny-imagenet-200"
    red, green = WNIDS
    return {
        f"{top}/wnids.txt": f"{red}\n{green}\n".encode(),
        f"{top}/words.txt": f"{red}\tEgyptian cat\n{green}\tgoldfish, Carassius auratus\n".encode(),
        f"{top}/train/{red}/{red}_boxes.txt": b"",
        f"{top}/train/{red}/images/{red}_0.JPEG": picture((250, 0, 0)),
        f"{top}/train/{red}/images/{red}_1.JPEG": picture((200, 0, 0)),
        f"{top}/train/{green}/images/{green}_0.JPEG": picture((0, 250, 0)),
        f"{top}/train/{green}/images/{green}_1.JPEG": picture(128),
        f"{top}/test/images/test_0.JPEG": picture((0, 0, 250)),
        f"{top}/val/images/val_0.JPEG": picture((0, 250, 0)),
        f"{top}/val/images/val_1.JPEG": picture((250, 0, 0)),
        f"{top}/val/val_annotations.txt": (
            f"val_0.JPEG\t{green}\t0\t32\t44\t62\nval_1.JPEG\t{red}\t52\t55\t57\t59\n"
        ).encode(),
    }


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path
