"""A small writer of BIDS recordings in BrainVision format, for tests and the notebooks of BIDS.

For real data use `mne_bids.write_raw_bids`.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

HEADER = """Brain Vision Data Exchange Header File Version 1.0
[Common Infos]
Codepage=UTF-8
DataFile={stem}_eeg.eeg
MarkerFile={stem}_eeg.vmrk
DataFormat=BINARY
DataOrientation=MULTIPLEXED
NumberOfChannels={n_channels}
SamplingInterval={interval:.10g}
[Binary Infos]
BinaryFormat=IEEE_FLOAT_32
[Channel Infos]
{channels}
"""
MARKERS = """Brain Vision Data Exchange Marker File, Version 1.0
[Common Infos]
Codepage=UTF-8
DataFile={stem}_eeg.eeg
[Marker Infos]
"""


def write_tsv(path, table):
    pd.DataFrame(table).to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def write_recording(
    root,
    subject,
    session,
    run,
    signal,
    channels,
    sfreq,
    events,
    types=None,
    bads=(),
    pos=None,
    task="film",
    name="SYNTHETIC toy",
):
    """Write one recording in BIDS and return the path of its header.

    Parameters
    ----------
    root : Path
    subject, session, run, task, name : str
        Labels, and the name of the data set in dataset_description.json.
    signal : array (channel, time)
        Microvolts.
    channels, types, bads : sequence of str
        Names, BIDS channel types (default: all "EEG"), and names of bad channels.
    sfreq : float
        Hz.
    events : DataFrame
        onset and duration (s), trial_type and others.
    pos : dict {name: (3,)}, optional
        Metres, written to electrodes.tsv.
    """
    folder = Path(root) / f"sub-{subject}" / f"ses-{session}" / "eeg"
    folder.mkdir(parents=True, exist_ok=True)
    stem, n = f"sub-{subject}_ses-{session}_task-{task}_run-{run}", len(channels)
    lines = "\n".join(f"Ch{i}={c},,1,µV" for i, c in enumerate(channels, 1))
    header = HEADER.format(stem=stem, n_channels=n, interval=1e6 / sfreq, channels=lines)
    (folder / f"{stem}_eeg.vhdr").write_text(header, encoding="utf8")
    (folder / f"{stem}_eeg.vmrk").write_text(MARKERS.format(stem=stem), encoding="utf8")
    np.asarray(signal, dtype="<f4").T.tofile(folder / f"{stem}_eeg.eeg")
    sidecar = {
        "TaskName": task,
        "SamplingFrequency": sfreq,
        "RecordingDuration": np.shape(signal)[1] / sfreq,
        "PowerLineFrequency": 50,
        "EEGReference": "n/a",
        "SoftwareFilters": "n/a",
    }
    (folder / f"{stem}_eeg.json").write_text(json.dumps(sidecar, indent=1))
    status = ["bad" if c in bads else "good" for c in channels]
    table = dict(name=channels, type=types or ["EEG"] * n, units=["µV"] * n, status=status)
    write_tsv(folder / f"{stem}_channels.tsv", table)
    write_tsv(folder / f"{stem}_events.tsv", events)
    description = {"Name": name, "BIDSVersion": "1.9.0", "DatasetType": "raw"}
    (Path(root) / "dataset_description.json").write_text(json.dumps(description, indent=1))
    if pos is not None:
        write_positions(folder / f"sub-{subject}_ses-{session}", channels, pos)
    return folder / f"{stem}_eeg.vhdr"


def write_positions(stem, channels, pos):
    "electrodes.tsv, and coordsystem.json, which states the frame and unit of the places."
    x, y, z = np.array([pos.get(c, [np.nan] * 3) for c in channels]).T
    write_tsv(f"{stem}_electrodes.tsv", dict(name=channels, x=x, y=y, z=z))
    system = {"EEGCoordinateSystem": "CapTrak", "EEGCoordinateUnits": "m"}
    Path(f"{stem}_coordsystem.json").write_text(json.dumps(system))
