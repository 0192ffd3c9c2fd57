"""`predict`: kernel times of measured-data rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwsim.validation.predict import Predictions


def predict(file: str | Path, hardware: str | None = None) -> Predictions:
    """Kernel times of the rows of a measured-data CSV: ``.pred_us``, ``.low_us``, ``.high_us`` a good row.

    `hardware` overrides the ``gpu`` column. Bad rows are in ``.table.problems`` with their line.
    Raises InputError where the file as a whole cannot be used.
    """
    from hwsim.validation.predict import predict_file

    return predict_file(Path(file), hw=hardware)
