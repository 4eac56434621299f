"""Loaded by a worker's interpreter before anything else, where this folder leads its path: makes it a worker of the version to come.

Its rows have the next version; one byte of a user row, which this version leaves at 0, says where the row began: 1 with a worker of the version to
come, 2 lifted from a row of ours. So a test sees who has written what, and the layout stays the one that kernels were compiled for.
"""

from __future__ import annotations

import numpy as np

from models import item_rows, user_row
from models.row_formats import Older, RowFormat

BORN, LIFTED = 1, 2
users, items = user_row.FORMAT, item_rows.FORMAT


def lift_user(rows: np.ndarray) -> np.ndarray:
    lifted = rows.copy()
    lifted["version"], lifted["reserved"][:, 0] = users.version + 1, LIFTED
    return lifted


def lift_item(rows: np.ndarray) -> np.ndarray:
    lifted = rows.copy()
    lifted["version"] = items.version + 1
    return lifted


user_row.FORMAT = RowFormat(users.version + 1, users.dtype, {users.version: Older(users.dtype, lift_user)})
item_rows.FORMAT = RowFormat(items.version + 1, items.dtype, {items.version: Older(items.dtype, lift_item)})
user_row.EMPTY_ROW["version"] = users.version + 1
user_row.EMPTY_ROW["reserved"][0] = BORN
