"""Records of finished runs whose folder is elsewhere: a file of one, or what a sweep saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..experiments.saved import loads
from ..training.errors import BadInput
from ..training.folder import missing_in

_OF_A_RUN = {"schema_version", "method", "settings"}
_OF_A_SWEEP = {"schema_version", "recipe", "runs"}


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records in a file; none where it is about something else.

    Args:
        path: a copy of a run's `record.json`, or what `sparsetrain sweep --save` wrote, whose rows
            have no sparsity of the layers.
    Raises:
        BadInput: it cannot be read, or a record in it is not whole.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}.") from error
    names = data.keys() if isinstance(data, dict) else set()
    records = [data] if names >= _OF_A_RUN else []
    if names >= _OF_A_SWEEP:
        try:
            records = [dict(row) for row in loads(text).rows]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BadInput(f"{path} is damaged, or of another version.") from error
    for record in records:
        if missing := missing_in(record):
            raise BadInput(f"{path} has no {missing}.")
    return records
