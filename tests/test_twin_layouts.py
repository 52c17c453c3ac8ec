"""Each reader reads its twin back exactly: signals, features, eye features and recordings."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.signal

from emo_lib.base.facts import SPECS
from emo_lib.data.cnt import open_cnt, read_cnt_header
from emo_lib.data.datasets import DATASETS, open_dataset, verify
from emo_lib.data.seed_vii import STARTS
from emo_lib.twins.brain import TwinSettings, effect_table, session_traits, twin_trial
from emo_lib.twins.eyes import EYE, twin_eye
from emo_lib.twins.layouts import (
    STEPS,
    TWIN_FEATURES,
    WITHOUT_EYES,
    TwinRequest,
    seed_vii_steps,
    vii_stem,
)
from emo_lib.twins.recordings import raw_channels, recorded_bounds, recording_blocks
from emo_lib.twins.twin import twin_set, write_twin

pytestmark = pytest.mark.slow  # writes or reads whole twins

# Seconds per trial that are no multiple of the window: the remainder must be dropped.
SECONDS = {"SEED": 9, "SEED-IV": 9, "SEED-V": 9, "SEED-VII": 8.5, "FACED": 3}
WITH_RECORDINGS = ("SEED", "SEED-V", "SEED-VII")


def digest(root):
    "{path: SHA-256} of all files of a folder."
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def settings_of(name, **parameters):
    return TwinSettings(name, seconds_per_trial=SECONDS[name], **parameters)


@pytest.fixture(scope="session")
def roots(tmp_path_factory):
    "A folder with a twin of two subjects of every data set."
    folder = tmp_path_factory.mktemp("layouts")
    for name in SPECS:
        write_twin(name, folder / name, subjects=2, seconds_per_trial=SECONDS[name])
    return folder


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    "A folder with a twin of one subject with recordings only, where the release has them."
    folder = tmp_path_factory.mktemp("recorded")
    only_recordings = dict(features=None, signals=False, raw="int32")
    for name in WITH_RECORDINGS:
        write_twin(name, folder / name, subjects=1, seconds_per_trial=4, **only_recordings)
    return folder


@pytest.fixture(params=list(SPECS))
def ds(request, roots):
    return open_dataset(request.param, roots / request.param)


def test_every_data_set_has_a_twin_and_a_reader():
    assert set(STEPS) == set(TWIN_FEATURES) == set(SPECS)
    assert set(SPECS) <= set(DATASETS)


def test_no_fault_and_nothing_missing(ds, roots):
    name, spec = ds.spec.name, ds.spec
    summary, problems = verify(name, roots / name)
    assert problems == []
    assert len(summary) == 2 * spec.n_sessions
    assert ds.provenance == "synthetic"
    assert tuple(ds.subjects) == spec.subjects[:2]
    assert set(TWIN_FEATURES[name]) <= set(ds.available_features())
    record = json.loads((roots / name / "TWIN.json").read_text())
    assert record["complete"]
    assert record["synthetic"]
    assert {*record["files"], "TWIN.json"} == set(digest(roots / name))


# ---- read back


def released_features():
    "(data set, feature, window_s) of all releases."
    for name, features in TWIN_FEATURES.items():
        windows = (1.0, 4.0) if name == "SEED" else (SPECS[name].window_s,)
        yield from ((name, feature, window_s) for feature in features for window_s in windows)


@pytest.mark.parametrize("name, feature, window_s", list(released_features()))
def test_features_and_eyes_are_read_back_exactly(name, feature, window_s, roots):
    found = open_dataset(name, roots / name).features(feature, window_s=window_s)
    truth = twin_set(settings_of(name), feature, window_s, SPECS[name].subjects[:2])
    has_eyes = bool(SPECS[name].eye) and window_s == 4
    assert ("eye" in found) == ("eye" in truth) == has_eyes
    compared = {*truth.data_vars, *truth.coords} - {"channel", "band", "eye_feature"}
    for variable in compared:
        assert np.array_equal(found[variable].values, truth[variable].values), variable
    assert found.fingerprint == truth.fingerprint


def test_signals_are_read_back_exactly(ds):
    if ds.spec.name == "SEED-V":  # this release has no preprocessed signals
        with pytest.raises(ValueError, match="holds no signals"):
            next(ds.trials())
        return
    settings, spec = settings_of(ds.spec.name), ds.spec
    trials = list(ds.trials(subjects=[spec.subjects[1]], sessions=[spec.n_sessions]))
    assert len(trials) == spec.n_trials(spec.n_sessions)
    for trial in trials:
        truth = twin_trial(settings, trial.subject, trial.session, trial.trial)
        assert np.array_equal(trial.signal.values, truth[: len(spec.channels)])
        assert trial.sfreq == spec.sfreq
        assert trial.label == spec.labels[trial.session][trial.trial - 1]


def test_volts_are_read_as_microvolts(roots):
    "Subject 0 of the FACED twin is written in volts; subject 1, in microvolts, is read above."
    trial = next(open_dataset("FACED", roots / "FACED").trials(subjects=[0]))
    truth = twin_trial(settings_of("FACED"), 0, 1, 1)[:30]
    assert np.allclose(trial.signal.values, truth, rtol=1e-12, atol=1e-9)


def test_the_multimodal_part_is_read_back_exactly(roots):
    found = open_dataset("SEED", roots / "SEED").features("de", window_s=4.0)
    truth = twin_set(settings_of("SEED"), "de_LDS", 4.0, (1, 2))
    for variable in ("eeg", "eye", "trial"):
        assert np.array_equal(found[variable].values, truth[variable].values)


@pytest.mark.parametrize("columns", ["channel", "band"])
def test_both_orders_of_the_310_columns(columns, tmp_path):
    write_twin("SEED-V", tmp_path, subjects=1, seconds_per_trial=9, columns=columns)
    found = open_dataset("SEED-V", tmp_path).features("de")
    assert found.fingerprint == twin_set(settings_of("SEED-V"), "de").fingerprint


def test_subjects_without_eyes(tmp_path):
    parameters = dict(subjects=7, seconds_per_trial=4, signals=False, features=("de_LDS",))
    write_twin("SEED", tmp_path, **parameters)
    folder = tmp_path / "SEED_Multimodal/Chinese/04-Eye-tracking-feature/eye_tracking_feature"
    subjects = {int(path.name.split("_")[0]) for path in folder.iterdir()}
    assert subjects == {1, 2, 3, 4, 5}
    assert not subjects & set(WITHOUT_EYES)


def test_event_statistics_of_seed_vii_are_constant_in_a_trial(roots):
    fs = open_dataset("SEED-VII", roots / "SEED-VII").features("de", subjects=[1], sessions=[1])
    n = EYE["event"].count
    for trial in range(1, 21):
        first, second = fs.eye.values[fs.trial.values == trial]
        assert np.array_equal(first[-n:], second[-n:])
        assert not np.any(first[:-n] == second[:-n])


# ---- recordings


@pytest.mark.parametrize("name", WITH_RECORDINGS)
def test_recordings_are_read_back(name, recorded):
    "Bounds and labels of every recording, and the samples of one to half a step of its resolution."
    settings = TwinSettings(name, seconds_per_trial=4)
    spec = settings.spec
    recordings = list(open_dataset(name, recorded / name).recordings())
    assert len(recordings) == spec.n_sessions
    for recording in recordings:
        bounds, _ = recorded_bounds(settings, recording.session)
        assert np.allclose(recording.bounds, bounds, atol=1e-3)
        assert tuple(recording.labels) == spec.labels[recording.session]
        assert tuple(recording.clips) == spec.clips[recording.session]
        assert {*recording.drop, *recording.eog} >= set(spec.raw_drop)

    first = recordings[0]
    raw = open_cnt(first.path)
    block = next(recording_blocks(settings, first.subject, first.session))
    _, length = recorded_bounds(settings, first.session)
    assert tuple(raw.ch_names) == raw_channels(spec)
    assert raw.info["sfreq"] == 1000
    assert raw.n_times == 1000 * length
    assert np.abs(raw.get_data(stop=block.shape[1]) * 1e6 - block).max() < 0.02


def highpass(x, sfreq):
    sos = scipy.signal.butter(4, 0.5, "highpass", fs=sfreq, output="sos")
    return scipy.signal.sosfiltfilt(sos, x, axis=1)


def first_seconds(settings, subject, seconds):
    "The beginning of a recording, the 62 electrodes only."
    blocks = []
    for block in recording_blocks(settings, subject, 1):
        blocks.append(block)
        if sum(b.shape[1] for b in blocks) > 1000 * seconds:
            break
    rows = [raw_channels(settings.spec).index(channel) for channel in settings.spec.channels]
    return np.concatenate(blocks, axis=1)[rows]


def test_a_cleaned_recording_is_the_trial():
    "High-pass, notch and a fifth of the rate leave only the trial at the back of the head."
    settings = TwinSettings("SEED", seconds_per_trial=8)
    channels = settings.spec.channels
    subject = next(i for i in range(1, 16) if session_traits(settings, i, 1).bad is None)
    raw = first_seconds(settings, subject, 40)
    y = highpass(raw, 1000.0)
    for hum in (50.0, 100.0):
        y = scipy.signal.filtfilt(*scipy.signal.iirnotch(hum, 30.0, fs=1000.0), y, axis=1)
    start, end = (round(200 * t) for t in recorded_bounds(settings, 1)[0][1])
    found = scipy.signal.resample_poly(y, 1, 5, axis=1)[:, start:end]
    truth = highpass(twin_trial(settings, subject, 1, 2), 200.0)[:, :1600]
    r = {c: np.corrcoef(a, b)[0, 1] for c, a, b in zip(channels, found, truth)}
    assert min(r[c] for c in ("CZ", "PZ", "OZ", "O1", "O2")) > 0.95
    assert r["F7"] < 0.95  # the gaze is still there
    # Before the filters, drift and hum were larger than the brain.
    pz = channels.index("PZ")
    assert np.std(raw[pz]) > 2 * truth[pz].std()


@pytest.mark.parametrize("width", ["int16", "int32"])
def test_both_widths_of_a_recording(width, tmp_path):
    only_recordings = dict(signals=False, features=None, eye=False, raw=width)
    write_twin("SEED", tmp_path, subjects=1, seconds_per_trial=2, **only_recordings)
    files = sorted(tmp_path.rglob("*.cnt"))
    assert [file.name for file in files] == ["1_1.cnt", "1_2.cnt", "1_3.cnt"]
    assert {read_cnt_header(file).n_bytes for file in files} == {int(width[3:]) // 8}


def test_a_recording_repeats_byte_for_byte(tmp_path):
    only_recordings = dict(signals=False, features=None, eye=False, raw="int16")
    for root in (tmp_path / "a", tmp_path / "b"):
        write_twin("SEED", root, subjects=1, seconds_per_trial=2, **only_recordings)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_the_two_recordings_with_faulty_triggers(tmp_path):
    "Their events alone would give wrong bounds; the reader must use the table."
    settings = TwinSettings("SEED-VII", seconds_per_trial=4)
    request = TwinRequest(settings=settings, features=None, signals=False, raw="int16")
    for step in seed_vii_steps(request, (9, 14)):
        step.write(tmp_path)
    ds = open_dataset("SEED-VII", tmp_path, strict=False)
    found = {recording.path.stem: recording for recording in ds.recordings()}
    assert len(found) == 8
    assert set(STARTS) < set(found)
    for name, recording in found.items():
        bounds, _ = recorded_bounds(settings, recording.session)
        assert np.allclose(recording.bounds, bounds, atol=2e-3), name
        codes = [text for _, text in read_cnt_header(recording.path).annotations]
        is_regular = codes == ["1", "2"] * 20
        assert is_regular == (name not in STARTS)
    assert vii_stem(14, 1) == "14_20221015_1"
    assert vii_stem(9, 3) == "9_20221111_3"


@pytest.mark.slow
def test_a_recording_needs_little_memory(tmp_path):
    "Fifteen trials of a minute; the peak must not grow with the session."
    code = f"""
import resource
from pathlib import Path
from emo_lib.twins.brain import TwinSettings, twin_trial
from emo_lib.data.cnt import write_cnt
from emo_lib.twins.recordings import raw_channels, recording_blocks


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


settings = TwinSettings("SEED", seconds_per_trial=60)
twin_trial(settings, 1, 1, 1)
before = peak()
path, names = Path({str(tmp_path)!r}) / "a.cnt", raw_channels(settings.spec)
n = write_cnt(path, recording_blocks(settings, 1, 1), names, 1000.0, n_bits=16)
print(round(peak() - before), n)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, n = map(int, run.stdout.split())
    assert n == 1000 * (15 * 60 + 16 * 4)
    assert grown < 250, f"{grown} MB more for {n * 66 * 4 / 2**20:.0f} MB of numbers"


# ---- the same twin, always


# Values of the first release of the twins, microvolts.
SEED_VALUES = (6.320, 3.949, 4.340, 2.168, 12.535, 9.621)
SEED_VALUES += (1.082, -4.309, -15.930, -14.660, -6.859, -3.492)
SEED_IV_VALUES = (-4.145, -6.949, 0.426, -13.004, 2.840, 8.629)
SEED_IV_VALUES += (-11.734, -20.020, -4.879, 7.102, -5.285, 8.527)


@pytest.mark.parametrize(
    "settings, place, n_samples, values",
    [
        (TwinSettings("SEED", seconds_per_trial=6), (2, 3, 5), 1201, SEED_VALUES),
        (TwinSettings("SEED-IV", seed=3, seconds_per_trial=9), (1, 2, 20), 1800, SEED_IV_VALUES),
    ],
)
def test_the_twins_are_those_of_the_first_release(settings, place, n_samples, values):
    x = twin_trial(settings, *place)
    assert x.shape == (62, n_samples)
    # Two processors may differ by a few steps of 1/256 microvolt.
    assert np.allclose(x[[0, 23, 59], 200:1200:250].ravel(), values, atol=1 / 16)


@pytest.mark.parametrize("name", ["SEED-V", "SEED-VII", "FACED"])
def test_same_bytes_and_independent_subjects(name, tmp_path):
    a, b, smaller = tmp_path / "a", tmp_path / "b", tmp_path / "smaller"
    parameters = dict(seconds_per_trial=SPECS[name].window_s, seed=5)
    for root, subjects in ((a, 2), (b, 2), (smaller, 1)):
        write_twin(name, root, subjects=subjects, **parameters)
    assert digest(a) == digest(b)
    one, two = digest(smaller), digest(a)
    of_subject = {k: v for k, v in one.items() if k not in ("TWIN.json", "Recording_info.csv")}
    assert len(of_subject) < len(two) - 1
    assert of_subject.items() <= two.items()

    write_twin(name, b, subjects=1, **parameters | dict(seed=6))
    without_seed = ("Recording_info.csv", "trial_start_end_timestamp.txt")
    seeded = {(k, v) for k, v in one.items() if k not in without_seed and "trigger" not in k}
    assert not set(digest(b).items()) & seeded


# ---- the emotion


def simulated(settings, subject, session, trial):
    "Signal and eye features of a trial."
    signal = twin_trial(settings, subject, session, trial)
    if not settings.spec.eye:
        return [signal]
    return [signal, twin_eye(settings, subject, session, trial)]


@pytest.mark.parametrize("trial", [1, 2, 9])
@pytest.mark.parametrize("name", list(SPECS))
def test_without_emotion_nothing_depends_on_label_or_film(name, trial, monkeypatch):
    spec = SPECS[name]
    place = spec.subjects[0], spec.n_sessions, trial
    without = TwinSettings(name, seconds_per_trial=4, emotion=0)
    with_emotion = TwinSettings(name, seconds_per_trial=4)
    before, before_with = simulated(without, *place), twin_trial(with_emotion, *place)
    reversed_order = dataclasses.replace(
        spec,
        labels={k: v[::-1] for k, v in spec.labels.items()},
        clips={k: v[::-1] for k, v in spec.clips.items()},
    )
    assert (
        reversed_order.clips[spec.n_sessions][trial - 1] != spec.clips[spec.n_sessions][trial - 1]
    )
    monkeypatch.setitem(SPECS, name, reversed_order)
    for a, b in zip(before, simulated(without, *place), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(before_with, twin_trial(with_emotion, *place))


@pytest.mark.parametrize("name", list(SPECS))
def test_the_classes_of_a_data_set_differ(name):
    classes = SPECS[name].classes
    table = effect_table(classes).reshape(len(classes), -1)
    distance = np.linalg.norm(table[:, None] - table[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 7


# ---- refusals


@pytest.mark.parametrize(
    "parameters, message",
    [
        (dict(name="SEED-IV", raw=True), "raw: SEED-IV has no .cnt"),
        (dict(name="FACED", raw="int16"), "raw: FACED has no .cnt"),
        (dict(raw="int8"), "raw: expected False, True .*'int16'"),
        (dict(raw=[16]), "raw: expected False, True .*'int16'"),
        (dict(name="SEED-V", columns="rows"), "columns: expected 'channel' or 'band'"),
        (dict(name="FACED", subjects=124), "1 to 123"),
        (dict(name="SEED-V", features="de_LDS"), "there are: de"),
        (dict(name="SEED-VII", features=("de_movingAve",)), "psd, de, de_LDS"),
        (dict(name="FACED", signals=False, features=None), "nothing to write"),
        (dict(name="SEED-V", signals=False, features=None, eye=False), "nothing to write"),
        (dict(signals="no"), "signals: expected true or false, found 'no'"),
    ],
)
def test_impossible_requests(parameters, message, tmp_path):
    parameters = dict(name="SEED", seconds_per_trial=4, subjects=1) | parameters
    with pytest.raises(ValueError, match=message):
        write_twin(root=tmp_path / "x", **parameters)
    assert not (tmp_path / "x").exists()


def test_another_twin_replaces_every_file(tmp_path):
    "Pickles without extension, .npz, .csv and .cnt of an earlier twin are removed, notes are not."
    write_twin("SEED", tmp_path, subjects=1, seconds_per_trial=4, raw="int16")
    (tmp_path / "notes").write_text("my notes")
    for name in ("SEED-VII", "FACED", "SEED-V", "SEED-IV"):
        path = write_twin(name, tmp_path, subjects=1, seconds_per_trial=4, signals=False)
        listed = json.loads(path.read_text())["files"]
        assert set(digest(tmp_path)) == {"TWIN.json", "notes", *listed}


@pytest.mark.parametrize(
    "path", ["SEED_EEG/notes.txt", "thesis/1_1.docx", "a/../../1_1", "1_20131027.mat.bak"]
)
def test_a_forged_record_removes_nothing(path, tmp_path):
    "One unknown name, and no file is touched."
    root = tmp_path / "twin"
    root.mkdir()
    (root / "TWIN.json").write_text(json.dumps({"files": ["1_1.npz", path]}))
    (root / "1_1.npz").write_text("another file")
    with pytest.raises(ValueError, match="no twin wrote"):
        write_twin("FACED", root, subjects=1, seconds_per_trial=2)
    assert (root / "1_1.npz").exists()
