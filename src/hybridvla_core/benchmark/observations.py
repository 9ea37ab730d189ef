"""A few observations in one file, for a computer with neither a simulator nor a data set."""
from __future__ import annotations

import zipfile
from pathlib import Path
from typing import List, Sequence

import numpy as np

from hybridvla_core.contracts import Observation
from hybridvla_core.errors import DataError
from hybridvla_core.transforms.pictures import decode

QUALITY = 95


def keep(observations: Sequence[Observation], file: Path) -> None:
    """Writes observations with the same views to an .npz; pictures become JPEGs."""
    import cv2

    views = sorted(observations[0].images)
    jpegs = [cv2.imencode(".jpg", np.ascontiguousarray(np.asarray(one.images[view])[:, :, ::-1]),
                          [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].ravel() for one in observations for view in views]
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, views=np.array(views), instructions=np.array([one.instruction for one in observations]),
             states=np.stack([one.state for one in observations]), stamps=np.array([one.stamp_ns for one in observations]),
             ends=np.cumsum([len(jpeg) for jpeg in jpegs]), pictures=np.concatenate(jpegs))


def kept(file: Path) -> List[Observation]:
    """Reads the observations of a file that `keep` wrote.

    Args:
        file: File of the observations.

    Returns:
        The observations, in order.

    Raises:
        DataError: The file is not one that `keep` wrote.
    """  # noqa: DOC501  # the ValueError is caught here
    try:
        with np.load(file, allow_pickle=False) as data:
            views, texts = [str(view) for view in data["views"]], [str(text) for text in data["instructions"]]
            states, stamps = data["states"], data["stamps"]
            parts = np.split(data["pictures"], data["ends"][:-1])
        if not len(views) * len(texts) == len(parts) or not len(texts) == len(states) == len(stamps):
            raise ValueError("its arrays do not fit each other")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: holds no observations ({error}); write it with `hybridvla bench --precision-report "
                        "--keep-observations FILE.npz`") from error
    return [Observation({view: decode(parts[row * len(views) + column].tobytes(), f"{file}: observation {row}, view {view}")
                         for column, view in enumerate(views)}, text, states[row], int(stamps[row]))
            for row, text in enumerate(texts)]
