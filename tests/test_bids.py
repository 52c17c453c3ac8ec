"""BIDS folders: refusals, formats, and real headband recordings where EMO_BIDS_REAL names them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bids_writer import write_recording

from emo_lib.data import bids
from emo_lib.data.bids import BidsReader
from emo_lib.data.datasets import LayoutError, open_dataset, verify

NAMES, RATE = ["F3", "F4", "Cz", "O1", "AF7"], 128
RECORDINGS = [(s, t, r) for s in ("01", "02") for t in ("1", "2", "3") for r in ("01", "02")]
EVENTS = pd.DataFrame(dict(onset=[1.0, 4.0, 7.0], duration=2.0, trial_type=["sad", "happy", "sad"]))


def record(root, subject="01", session="1", run="01", seconds=10, seed=0, **kw):
    x = 15 * np.random.default_rng(seed).standard_normal(
        (len(kw.get("channels", NAMES)), seconds * RATE)
    )
    args = dict(channels=NAMES, sfreq=RATE, events=EVENTS) | kw
    return write_recording(root, subject, session, run, x, **args)


@pytest.fixture
def root(tmp_path):
    "SYNTHETIC: two subjects, three sessions, two runs of three trials each."
    root = tmp_path / "bids"
    for i, (s, t, r) in enumerate(RECORDINGS):
        record(root, s, t, r, seed=i)
    return root


def side(root, suffix, session="1", run="01"):
    return (
        root
        / "sub-01"
        / f"ses-{session}"
        / "eeg"
        / f"sub-01_ses-{session}_task-film_run-{run}_{suffix}"
    )


def refused(root, *words, **kw):
    "open_dataset refuses with a message that contains every word, and complete problems."
    with pytest.raises(LayoutError) as e:
        open_dataset("BIDS", root, **kw)
    text = str(e.value)
    for w in words:
        assert w in text, (w, text)
    assert all(p.path and p.expected and p.found and p.fix for p in e.value.problems)
    return e.value.problems


def test_whole_folder(root):
    ds = open_dataset("BIDS", root)
    assert (
        ds.problems(deep=True) == []
        and ds.provenance == "synthetic"
        and ds.available_features() == []
    )
    trials = list(ds.trials(["01"], [2]))
    assert [(t.trial, t.label) for t in trials] == [
        (1, 1),
        (2, 0),
        (3, 1),
        (4, 1),
        (5, 0),
        (6, 1),
    ]  # numbered across the two runs
    assert (
        trials[0].signal.shape == (5, 256)
        and trials[0].signal.attrs["bads"] == ()
        and trials[0].clip == 0
    )
    assert 10 < float(trials[0].signal.std()) < 20  # microvolts
    assert ds.cells["AF7"] not in (None, "F3", "F4", "CZ", "O1")
    assert ds.summary().trials.tolist() == [6] * 6


def test_wrong_folders(tmp_path, root):
    refused(tmp_path / "nowhere", "no such folder")
    (tmp_path / "a file").touch()
    assert [p.found for p in refused(tmp_path / "a file", "a BIDS folder")] == ["a file"]
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / "1_20131027.mat").write_bytes(b"")
    refused(tmp_path / "seed", "1_20131027.mat", "dataset_description.json")
    refused(tmp_path, "sub-*")
    refused(root, "'rest'", "film", task="rest")


def test_missing_description_is_a_fault(root):
    (root / "dataset_description.json").unlink()
    refused(root, "dataset_description.json")
    assert open_dataset("BIDS", root, strict=False).subjects == ["01", "02"]


def test_missing_events(root):
    side(root, "events.tsv").unlink()
    problems = refused(root, "run-01_events.tsv", "no such file")
    assert len(problems) == 1
    assert (
        len(list(open_dataset("BIDS", root, strict=False).trials(["01"], [1]))) == 3
    )  # the other run is read


@pytest.mark.parametrize(
    "text, word",
    [
        ("", "EmptyDataError"),
        ("onset\tduration\n1\t2\n", "trial_type"),
        ("onset\tduration\ttrial_type\nn/a\t2\tsad\n", "line 2"),
        ("onset\tduration\ttrial_type\none\t2\tsad\n", "'one'"),
    ],
)
def test_bad_events(root, text, word):
    side(root, "events.tsv").write_text(text)
    refused(root, word, "run-01_events.tsv")


def test_unknown_trial_types(root):
    refused(root, "angry", "happy, sad", trial_types=("happy", "angry"))
    refused(root, "angry", strict=False, trial_types="angry")


def test_missing_session_keeps_the_numbers_of_the_others(root):
    shutil.rmtree(root / "sub-02" / "ses-2")
    refused(root, "sub-02", "session 2 (ses-2)")
    ds = open_dataset("BIDS", root, strict=False)
    assert ds.sessions("02") == [1, 3] and ds.session_labels["02", 3] == "3"
    table, problems = verify("BIDS", root)
    assert len(table) == 5 and len(problems) == 1


def test_event_after_the_end(root):
    record(root, events=EVENTS.assign(onset=[1.0, 4.0, 9.0]))
    refused(root, "an end after the last sample in 1 of 3 trials", "onset 9 s", "10 s")
    assert [t.trial for t in open_dataset("BIDS", root, strict=False).trials(["01"], [1])] == [
        1,
        2,
        4,
        5,
        6,
    ]


def test_event_before_the_start(root):
    refused(root, "before the first sample", tmin=-2)


@pytest.mark.parametrize("length", [np.nan, 0.0])
def test_events_without_length(root, length):
    record(root, events=EVENTS.assign(duration=[2.0, length, 2.0]))
    refused(root, "no duration or 0 in 1 of 3", "duration=")
    assert {t.signal.sizes["time"] for t in open_dataset("BIDS", root, duration=1.5).trials()} == {
        192
    }


def test_truncated_recording(root):
    "BrainVision reads without an error when the file was cut; the length and the events tell."
    path = side(root, "eeg.eeg")
    path.write_bytes(path.read_bytes()[: 5 * 4 * RATE * 5])  # 5 of 10 s
    _, problems = verify("BIDS", root)
    text = " ".join(map(str, problems))
    assert "cut off" in text and "run-01_eeg" in text and "found 5 s" in text
    with pytest.raises(LayoutError, match="after the last sample"):
        list(open_dataset("BIDS", root).trials(["01"], [1]))
    path.write_bytes(b"")
    assert "run-01_eeg" in " ".join(map(str, verify("BIDS", root)[1]))
    with pytest.raises(LayoutError):
        list(open_dataset("BIDS", root).trials(["01"], [1]))


def test_cut_inside_a_sample(root):
    path = side(root, "eeg.eeg")
    path.write_bytes(path.read_bytes()[:-7])
    for p in verify("BIDS", root)[1]:
        assert "run-01_eeg" in p.path


@pytest.mark.filterwarnings("ignore:MNE-Python currently")
def test_unreadable_header(root):
    side(root, "eeg.vhdr").write_text("not a header")
    assert any(
        "run-01_eeg.vhdr" in p.path and "readable" in p.expected for p in verify("BIDS", root)[1]
    )
    with pytest.raises(LayoutError, match="readable recording"):
        next(open_dataset("BIDS", root).trials())


def test_other_channels_are_refused_and_both_named(root):
    record(root, session="2", run="02", channels=NAMES[:4] + ["Pz"])
    refused(root, "ses-2_task-film_run-02_eeg.vhdr", "AF7", "Pz")
    ds = open_dataset("BIDS", root, strict=False)
    assert len(list(ds.trials(["01"], [2]))) == 3 and ds.channels == tuple(NAMES)


def test_same_channels_in_another_order_are_fine(root):
    record(root, session="2", run="02", channels=NAMES[::-1])
    ds = open_dataset("BIDS", root)
    assert all(t.signal.channel.values.tolist() == NAMES for t in ds.trials(["01"], [2]))


def test_wrong_unit_is_found(root):
    path = side(root, "eeg.vhdr")
    path.write_text(path.read_text().replace("µV", "V"))
    assert any("microvolts" in p.expected for p in verify("BIDS", root)[1])


def test_nan_is_found(root):
    path = side(root, "eeg.eeg")
    x = np.fromfile(path, "<f4")
    x[100] = np.nan
    x.tofile(path)
    assert any("NaN" in p.found for p in verify("BIDS", root)[1])


def test_unknown_electrode(root):
    for s, t, r in RECORDINGS:
        record(root, s, t, r, channels=NAMES[:4] + ["Q17"])
    assert any("Q17" in p.found for p in verify("BIDS", root)[1])
    assert "Q17" not in open_dataset("BIDS", root, exclude=("Q17",)).cells


def test_exchanged_sides_are_found(root):
    from emo_lib.base.montage import positions

    record(root, pos=dict(zip(NAMES, positions(NAMES) * [-1, 1, 1])))
    assert any("left and right" in p.found for p in verify("BIDS", root)[1])


def test_unknown_subject_and_session(root):
    ds = open_dataset("BIDS", root)
    with pytest.raises(ValueError, match="'03'"):
        ds.trials(["03"])
    with pytest.raises(ValueError, match=r"\[7\]"):
        ds.trials(sessions=[7])
    assert next(ds.trials(["sub-02"])).subject == "02"


def test_features_refuse_with_a_remedy(root):
    with pytest.raises(ValueError, match="emo features"):
        open_dataset("BIDS", root).features("de_LDS")


def test_short_trials_are_left_out_and_numbers_stay(root):
    record(root, events=EVENTS.assign(duration=[2.0, 0.5, 2.0]))
    assert [t.trial for t in open_dataset("BIDS", root, min_trial_s=1).trials(["01"], [1])] == [
        1,
        3,
        4,
        5,
        6,
    ]
    refused(root, "trials of 60 s or more", min_trial_s=60)


def test_one_recording_at_a_time(root, monkeypatch):
    opened, real_open = [], bids.open_recording

    def counted(recording):
        opened.append(recording.file.name)
        return real_open(recording)

    monkeypatch.setattr(bids, "open_recording", counted)
    ds = open_dataset("BIDS", root)
    trials = ds.trials()
    assert opened == []  # nothing is opened before the first trial is asked for
    for _ in range(3):
        next(trials)
    assert len(opened) == 1
    next(trials)
    assert len(opened) == 2


# ---- other forms that BIDS allows


def write_edf(path, x, names, rate):
    "EDF by hand: (channel, time) in microvolts, one record a second, 0.01 microvolt a step."
    n, seconds = len(names), x.shape[1] // rate
    start = "01.01.2000.00.00"
    patient = [("0", 8), ("X X X X", 80), ("Startdate X X X X", 80), (start, 16)]
    sizes = [(256 * (n + 1), 8), ("", 44), (seconds, 8), (1, 8), (n, 4)]
    columns = [
        (names, 16),
        ([""] * n, 80),
        (["uV"] * n, 8),
        ([-327.68] * n, 8),
        ([327.67] * n, 8),
        ([-32768] * n, 8),
        ([32767] * n, 8),
        ([""] * n, 80),
        ([rate] * n, 8),
        ([""] * n, 32),
    ]
    fields = patient + sizes + [(v, width) for values, width in columns for v in values]
    header = "".join(str(value).ljust(width)[:width] for value, width in fields)
    samples = np.round(x * 100).astype("<i2").reshape(n, seconds, rate).swapaxes(0, 1)
    path.write_bytes(header.encode("ascii") + samples.tobytes())


def write_set(path, x, names, rate):
    "EEGLAB by hand."
    from scipy.io import savemat

    chanlocs = np.array([(c,) for c in names], dtype=[("labels", "O")])
    savemat(
        path,
        dict(
            EEG=dict(
                setname="toy",
                nbchan=len(names),
                trials=1,
                pnts=x.shape[1],
                srate=rate,
                xmin=0.0,
                xmax=(x.shape[1] - 1) / rate,
                data=x.astype("f4"),
                chanlocs=chanlocs,
                event=np.zeros((0, 0)),
                icawinv=np.zeros((0, 0)),
                icasphere=np.zeros((0, 0)),
                icaweights=np.zeros((0, 0)),
            )
        ),
        appendmat=False,
    )


@pytest.mark.parametrize("suffix, write", [(".edf", write_edf), (".set", write_set)])
def test_other_formats_give_the_same_trials(root, suffix, write):
    before = [t.signal.values for t in open_dataset("BIDS", root).trials(["01"], [1])]
    x = np.fromfile(side(root, "eeg.eeg"), "<f4").reshape(-1, len(NAMES)).T
    for old in ("eeg.eeg", "eeg.vhdr", "eeg.vmrk"):
        side(root, old).unlink()
    write(side(root, f"eeg{suffix}"), x, NAMES, RATE)
    ds = open_dataset("BIDS", root)
    assert ds.problems(deep=True) == []
    for a, t in zip(before, ds.trials(["01"], [1]), strict=True):
        assert np.allclose(a, t.signal, atol=0.006)


def test_one_recording_in_two_formats_is_refused(root):
    write_edf(side(root, "eeg.edf"), np.zeros((5, 1280)), NAMES, RATE)
    refused(root, "2 with different suffixes")


def test_no_sessions_and_inherited_files(tmp_path):
    "sub-01/eeg without session or run, channels.tsv once for the whole folder."
    record(tmp_path / "from")
    source, folder = (
        tmp_path / "from" / "sub-01" / "ses-1" / "eeg",
        tmp_path / "to" / "sub-01" / "eeg",
    )
    folder.mkdir(parents=True)
    for f in source.iterdir():
        name, text = f.name.replace("_ses-1", "").replace("_run-01", ""), f.read_bytes()
        (folder / name).write_bytes(
            text if f.suffix == ".eeg" else text.replace(b"_ses-1", b"").replace(b"_run-01", b"")
        )
    shutil.copy(tmp_path / "from" / "dataset_description.json", tmp_path / "to")
    shutil.move(
        folder / "sub-01_task-film_channels.tsv", tmp_path / "to" / "task-film_channels.tsv"
    )
    ds = open_dataset("BIDS", tmp_path / "to")
    assert (
        ds.sessions("01") == [1]
        and ds.session_labels["01", 1] == ""
        and len(list(ds.trials())) == 3
    )


def test_provenance(root):
    path = root / "dataset_description.json"
    path.write_text(json.dumps({"Name": "my lab", "BIDSVersion": "1.9.0"}))
    assert BidsReader(root).provenance == "real"
    path.write_text(
        json.dumps(
            {"Name": "my lab", "BIDSVersion": "1.9.0", "GeneratedBy": [{"Name": "SYNTHETIC twin"}]}
        )
    )
    assert BidsReader(root).provenance == "synthetic"
    path.write_text(json.dumps({"Name": "my lab", "BIDSVersion": "1.9.0"}))
    (root / "TWIN.json").write_text("{}")
    assert BidsReader(root).provenance == "synthetic"


# ---- real recordings

HERE = Path(__file__).resolve().parents[1]
REAL = next(
    (
        p
        for p in (
            Path(os.environ.get("EMO_BIDS_REAL") or "no"),
            HERE.parent / "shared" / "data" / "muse-p300",
        )
        if (p / "dataset_description.json").exists()
    ),
    None,
)
needs_real = pytest.mark.skipif(
    REAL is None, reason="no real BIDS folder here; EMO_BIDS_REAL=... says where one is"
)


@needs_real
def test_real_counts():
    ds = open_dataset("BIDS", REAL)
    assert (
        ds.provenance == "real"
        and ds.subjects == ["01"]
        and ds.sessions("01") == [1, 2, 3]
        and len(ds.recordings) == 16
    )
    assert (
        ds.channels == ("TP9", "AF7", "AF8", "TP10")
        and ds.spec.sfreq == 256
        and ds.spec.classes == ("nontarget", "target")
    )
    table = ds.summary()
    assert (
        table.runs.tolist() == [6, 5, 5]
        and table.target.sum() == 483
        and table.nontarget.sum() == 2606
    )
    assert set(ds.cells.values()) == {"TP7", "TP8", "FP1", "FP2"}


@needs_real
def test_real_signals():
    ds = open_dataset("BIDS", REAL)
    trials = list(ds.trials(sessions=[2]))
    assert (
        len(trials) == 966
        and {t.signal.shape for t in trials} == {(4, 205)}
        and trials[0].sfreq == 256
    )
    scale = np.median([t.signal.values.std(axis=1) for t in trials], axis=0)
    assert (scale > 1).all() and (scale < 200).all(), scale  # microvolts, not volts
    # the same numbers as mne alone reads
    import mne

    raw = mne.io.read_raw_brainvision(ds.recordings[6].file, verbose="ERROR")
    start = round(float(ds.table[ds.table.session == 2].onset.iloc[0]) * 256)
    assert np.allclose(trials[0].signal, raw.get_data(start=start, stop=start + 205) * 1e6)
