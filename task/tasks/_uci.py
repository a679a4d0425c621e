"""UCI's own files of smartphone activity data: HAPT's raw recordings and HAR's windows."""

from __future__ import annotations

import shutil
import tempfile
import urllib.request
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.tasks._locks import locked

LENGTH = 128
STRIDE = 64
CHANNELS = 6
ACTIVITY_COUNT = 6
"""HAPT's activities 7 to 12 are transitions between postures, too short for windows."""

# No checksum is published; zip's own, and the files that the labels promise, are checked instead.
HAPT_URL = (
    "https://archive.ics.uci.edu/static/public/341/"
    "smartphone+based+recognition+of+human+activities+and+postural+transitions.zip"
)
SIGNALS = ("total_acc_x", "total_acc_y", "total_acc_z", "body_gyro_x", "body_gyro_y", "body_gyro_z")

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Windows:
    """Windows of readings at 50 Hz.

    Attributes
    ----------
    x : ndarray of float32, shape (n, 128, 6)
        Acceleration in g, gravity included, and angular velocity in rad/s.
    y : ndarray of int64, shape (n,)
        Activities 0 to 5.
    subject : ndarray of int64, shape (n,)
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    subject: NDArray[np.int64]


def read(folder: Path) -> Windows:
    """Read HAPT (``RawData``) or HAR (``UCI HAR Dataset``), whichever is at `folder`.

    Raises
    ------
    FedproofError
        If neither is there, or its files are incomplete or damaged.
    """
    for raw in (folder / "RawData", folder):
        if (raw / "labels.txt").is_file():
            return _hapt(raw)
    for har in (folder / "UCI HAR Dataset", folder):
        parts = [har / part for part in ("train", "test") if (har / part).is_dir()]
        if parts:
            return _join([_har(part) for part in parts])
    raise FedproofError(
        f"no activity data at {folder}: task.path must be an .npz file or a folder with UCI's "
        "RawData (HAPT) or UCI HAR Dataset; task.download=true fetches HAPT."
    )


def download(folder: Path) -> None:
    """Fetch HAPT's raw recordings from UCI to `folder` if they are not there.

    Raises
    ------
    FedproofError
        If UCI cannot be reached or sends something else.
    """
    with locked(folder):
        if (folder / "RawData" / "labels.txt").is_file():
            return
        with tempfile.TemporaryDirectory(dir=folder) as name:
            archive, unpacked = Path(name) / "hapt.zip", Path(name) / "RawData"
            try:
                with (
                    urllib.request.urlopen(HAPT_URL, timeout=60) as answer,
                    archive.open("wb") as f,
                ):
                    shutil.copyfileobj(answer, f)
                _unpack(archive, unpacked)
                read(unpacked)
            except (OSError, zipfile.BadZipFile, FedproofError) as error:
                raise FedproofError(
                    f"the download of HAPT from {HAPT_URL} failed or is damaged "
                    f"({str(error).rstrip('.')}): try again, or unpack UCI's archive at {folder}."
                ) from None
            # Only what is whole gets the name that later runs trust.
            unpacked.rename(folder / "RawData")


def _unpack(archive: Path, target: Path) -> None:
    """Extract the files of ``RawData``, wherever in the archive that folder is."""
    target.mkdir()
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            place = Path(member.filename)
            if place.parent.name == "RawData" and place.suffix == ".txt":
                # Its bare name: an archive must not write outside the folder.
                (target / place.name).write_bytes(content.read(member))


def _hapt(raw: Path) -> Windows:
    """Cut windows with 50 % overlap out of each stretch of one activity.

    A line of ``labels.txt`` has experiment, user, activity, first and last reading, from 1.
    """
    recordings: dict[tuple[int, int], Table] = {}
    x: list[Table] = []
    y: list[int] = []
    subject: list[int] = []
    for experiment, user, activity, first, last in _table(raw / "labels.txt", 5).astype(int):
        key = (int(experiment), int(user))
        if key not in recordings:
            suffix = f"exp{experiment:02d}_user{user:02d}.txt"
            parts = [_table(raw / f"{sensor}_{suffix}", 3) for sensor in ("acc", "gyro")]
            if len(parts[0]) != len(parts[1]):
                raise FedproofError(f"{raw}: acc_{suffix} and gyro_{suffix} differ in length.")
            recordings[key] = np.hstack(parts)
        if activity > ACTIVITY_COUNT:
            continue
        if not (activity >= 1 and 1 <= first <= last <= len(recordings[key])):
            raise FedproofError(
                f"{raw / 'labels.txt'}: readings {first} to {last} of experiment {experiment}, "
                f"activity {activity}, do not exist."
            )
        for start in range(first - 1, last - LENGTH + 1, STRIDE):
            x.append(recordings[key][start : start + LENGTH])
            y.append(int(activity) - 1)
            subject.append(int(user))
    if not x:
        raise FedproofError(f"{raw / 'labels.txt'} has no activity of {LENGTH} readings or more.")
    return Windows(np.stack(x).astype(np.float32), np.array(y), np.array(subject))


def _har(part: Path) -> Windows:
    """Read the windows of HAR's ``train`` or ``test``; whole acceleration, like HAPT's."""
    signals = [
        _table(part / "Inertial Signals" / f"{signal}_{part.name}.txt", LENGTH)
        for signal in SIGNALS
    ]
    y, subject = (
        _table(part / f"{name}_{part.name}.txt", 1)[:, 0].astype(np.int64)
        for name in ("y", "subject")
    )
    if len({len(column) for column in (*signals, y, subject)}) != 1:
        raise FedproofError(f"{part}: signals, y and subject differ in their number of rows.")
    if y.min() < 1 or y.max() > ACTIVITY_COUNT:
        raise FedproofError(f"{part}: y must hold activities 1 to {ACTIVITY_COUNT}.")
    return Windows(np.stack(signals, axis=-1).astype(np.float32), y - 1, subject)


def _join(parts: list[Windows]) -> Windows:
    return Windows(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.y for part in parts]),
        np.concatenate([part.subject for part in parts]),
    )


def _table(file: Path, columns: int) -> Table:
    if not file.is_file():
        raise FedproofError(f"{file} is missing: UCI's folder is incomplete.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # An empty file is refused below.
            table = np.loadtxt(file, ndmin=2)
    except ValueError:
        table = np.empty((0, 0))
    if table.shape[1] != columns or not len(table) or not np.isfinite(table).all():
        raise FedproofError(f"{file} is damaged: it needs rows of {columns} numbers.")
    return table
