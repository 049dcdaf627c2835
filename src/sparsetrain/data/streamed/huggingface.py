"""Any image data set that the Hugging Face `datasets` library reads."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ..dataset import DataError
from ..splits import split
from .dataset import Reading, Streamed

PREFIX = "hf:"
_LABELS = ("label", "labels", "fine_label")
_TEST = ("test", "validation", "valid", "val")
_HELD_OUT = 0.2
_SEED = 0  # of the split where the set has none; no other seed of a run changes it


class Rows:
    """Images as rows of a table that lies on the disk.

    Args:
        rows: a `datasets.Dataset` whose only column holds undecoded images.
        labels: of each row.
        title: what messages call the table.
    """

    def __init__(self, rows: Any, labels: Tensor, title: str) -> None:
        self._rows, self._labels, self._title = rows, labels, title
        (self._column,) = rows.column_names

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        return self._labels

    def name(self, place: int) -> str:
        """The table and the row, from 0."""
        return f"row {place} of {self._title}"

    def read(self, place: int) -> Path | IO[bytes]:
        """The bytes of a row's image, or the file that it names."""
        image = self._rows[place][self._column]
        return Path(image["path"]) if image["bytes"] is None else io.BytesIO(image["bytes"])


def load(
    name: str,
    *,
    side: int = 224,
    root: Path | None = None,
    download: bool = True,
    reading: Reading | None = None,
) -> Streamed:
    """Read a data set's table; images are decoded later.

    The test images are the split "test" where it is labelled, else "validation"; without either, a
    fifth of each class of "train", with a fixed seed. Other splits are not used.

    Args:
        name: of a data set on the Hub, `NAME` or `NAME:CONFIGURATION`; or a folder that
            `save_to_disk` has written or `load_dataset` reads.
        side: pixels of a side of what the network sees.
        root: where the library keeps what it downloads; None: its own cache.
        download: whether it may.
        reading: how images are read; None is the default.
    Returns:
        the data set.
    Raises:
        DataError: the library is missing, the set is not to be had, or it lacks a training split,
            an image column or a label column.
    """
    parts = _opened(name, root, download)
    title = f"{PREFIX}{name}"
    if "train" not in parts:
        raise DataError(f"{title} has no split named train, but {', '.join(parts) or 'none'}.")
    image, label = _columns(title, parts["train"].features)
    labels = {key: _numbers(part, label) for key, part in parts.items()}
    test = next((key for key in _TEST if key in parts and bool((labels[key] >= 0).all())), None)
    chosen = {"train": parts["train"]} | ({} if test is None else {"test": parts[test]})
    found = {key: labels[test if key == "test" and test else key] for key in chosen}
    if test is None:
        kept, held = split(labels["train"], _HELD_OUT, seed=_SEED)
        chosen = {"train": parts["train"].select(kept), "test": parts["train"].select(held)}
        found = {"train": labels["train"][kept], "test": labels["train"][held]}
    classes = _class_names(title, parts["train"].features[label], found)
    rows = {key: _undecoded(part, image) for key, part in chosen.items()}
    return Streamed(
        name=title,
        train=Rows(rows["train"], found["train"], f"{title}, train"),
        test=Rows(rows["test"], found["test"], f"{title}, {test or 'train'}"),
        classes=classes,
        side=side,
        reading=reading or Reading(),
    )


def _opened(name: str, root: Path | None, download: bool) -> Mapping[str, Any]:
    """Split -> table."""
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"{PREFIX}{name} needs the datasets library: pip install 'sparsetrain[datasets]'."
        ) from error
    path = Path(name).expanduser()
    try:
        if (path / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(path))
        if (path / "state.json").is_file():  # one split, saved alone
            return {"train": datasets.load_from_disk(str(path))}
        what, _, configuration = (str(path), "", "") if path.is_dir() else name.partition(":")
        return datasets.load_dataset(
            what,
            configuration or None,
            cache_dir=None if root is None else str(root),
            download_config=datasets.DownloadConfig(local_files_only=not download),
        )
    except Exception as error:  # of many kinds, and of the network's
        what = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else ""
        raise DataError(
            f"{PREFIX}{name} cannot be read ({what or type(error).__name__}); check the name, the "
            "network, or give the path of a data set saved with save_to_disk."
        ) from error


def _columns(title: str, features: Mapping[str, Any]) -> tuple[str, str]:
    """Names of the image and the label column."""
    datasets = import_module("datasets")
    images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    classes = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    named = [key for key in _LABELS if key in features]
    label = named[0] if named else classes[0] if len(classes) == 1 else None
    if not images or label is None:
        raise DataError(
            f"{title} needs a column of images and one of class labels named label, got "
            f"{', '.join(features)}; rename its columns and save it with save_to_disk."
        )
    return images[0], label


def _numbers(part: Any, label: str) -> Tensor:
    if label not in part.column_names:
        return torch.full((len(part),), -1)
    return torch.from_numpy(np.array(part.with_format("numpy")[label][:]).astype(np.int64))


def _class_names(title: str, feature: Any, labels: Mapping[str, Tensor]) -> tuple[str, ...]:
    names = getattr(feature, "names", None)
    count = 1 + max(int(part.max()) for part in labels.values())
    lowest = min(int(part.min()) for part in labels.values())
    if lowest < 0 or (names is not None and count > len(names)):
        raise DataError(f"{title} has labels outside its classes, from {lowest} to {count - 1}.")
    return tuple(map(str, range(count))) if names is None else tuple(names)


def _undecoded(part: Any, image: str) -> Any:
    kind = import_module("datasets").Image(decode=False)
    return part.select_columns([image]).cast_column(image, kind)
