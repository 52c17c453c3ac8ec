"""Twins: the request is what is written, nothing else is overwritten, the difficulty is calibrated.

Calibrated means: chance without emotion, and with it an accuracy between two limits.
"""

import hashlib
import json
import shutil

import numpy as np
import pytest
import scipy.io

import emo_lib.twins.layouts as layouts
from emo_lib.base.facts import SPECS
from emo_lib.data.datasets import open_dataset, verify
from emo_lib.samples.compare import score
from emo_lib.twins.brain import (
    TwinSettings,
    effect_table,
    session_traits,
    subject_traits,
    twin_trial,
)
from emo_lib.twins.layouts import MAT_HEADER
from emo_lib.twins.twin import write_twin

pytestmark = pytest.mark.slow  # writes or reads whole twins


def digest(root):
    "{path: SHA-256} of all files of a folder."
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


# ---- difficulty


def accuracies(name, root, seconds, subjects, **parameters):
    "Accuracy of a linear SVM per subject on a twin of features only: across and within sessions."
    only_features = dict(signals=False, features=("de_LDS",), seconds_per_trial=seconds)
    write_twin(name, root, subjects=subjects, **only_features, **parameters)
    fs = open_dataset(name, root).features("de_LDS")
    scores = score(fs, splits=("sessions", "trials"))
    return {split: rows.accuracy for split, rows in scores.groupby("split")}


def chance(name):
    return 1 / len(SPECS[name].classes)


@pytest.mark.slow
@pytest.mark.parametrize("name, seconds", [("SEED", 20), ("SEED-IV", 24)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_default_is_neither_too_hard_nor_too_easy(name, seconds, seed, tmp_path):
    found = accuracies(name, tmp_path, seconds, 3, seed=seed)
    across, within = found["sessions"], found["trials"]
    assert chance(name) + 0.10 < across.mean() < 0.90
    assert within.mean() > across.mean() + 0.03
    assert across.min() > chance(name) + 0.05
    assert across.max() - across.min() > 0.03  # subjects differ


@pytest.mark.slow
@pytest.mark.parametrize("name, seconds", [("SEED", 12), ("SEED-IV", 20)])
def test_chance_without_emotion(name, seconds, tmp_path):
    across = accuracies(name, tmp_path, seconds, 4, emotion=0)["sessions"]
    # A trial, not a window, is the independent unit, although it is tested in two pairs.
    n_trials = 4 * sum(SPECS[name].n_trials(session) for session in (1, 2, 3))
    p = chance(name)
    assert abs(across.mean() - p) < 3 * np.sqrt(p * (1 - p) / n_trials)


@pytest.mark.slow
def test_the_strengths_act(tmp_path):
    def across(**strengths):
        root = tmp_path / str(strengths)
        return accuracies("SEED", root, 12, 2, **strengths)["sessions"].mean()

    assert across(session_drift=0) > across(session_drift=3) + 0.15
    assert across(emotion=2.0) > across(emotion=0.3) + 0.15


def test_without_subject_effect_subjects_share_their_statistics_but_not_their_signals():
    settings = TwinSettings(seconds_per_trial=2, subject_effect=0, session_drift=0, emotion=0)
    one, two = (subject_traits(settings, subject).gain_db for subject in (1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(twin_trial(settings, 1, 1, 1), twin_trial(settings, 2, 1, 1))


def test_windows_of_a_trial_resemble_each_other(tmp_path):
    "Without any emotion, windows identify their trial: a split between windows leaks."
    only_features = dict(signals=False, features=("de_movingAve",), seconds_per_trial=20)
    write_twin("SEED", tmp_path, subjects=1, emotion=0, **only_features)
    fs = open_dataset("SEED", tmp_path).features("de_movingAve", sessions=[1])
    x, trial = fs.eeg.values.reshape(fs.sizes["window"], -1), fs.trial.values
    r = np.corrcoef((x - x.mean(0)) / x.std(0))
    is_same = trial[:, None] == trial[None]
    start = fs.start_s.values
    is_far = np.abs(start[:, None] - start[None]) > 5  # not averaged together
    assert r[is_same & is_far].mean() > r[~is_same & is_far].mean() + 0.05


# ---- files


@pytest.mark.parametrize(
    "name, parameters", [("SEED", {}), ("SEED", {"generation": "old"}), ("SEED-IV", {})]
)
def test_same_bytes_and_no_fault(name, parameters, tmp_path):
    a, b, smaller = tmp_path / "a", tmp_path / "b", tmp_path / "smaller"
    for root, subjects in ((a, 2), (b, 2), (smaller, 1)):
        write_twin(name, root, subjects=subjects, seconds_per_trial=4, seed=5, **parameters)
    assert digest(a) == digest(b)
    one, two = digest(smaller), digest(a)
    assert len(one) < len(two)
    assert {k: v for k, v in one.items() if k.endswith(".mat")}.items() <= two.items()
    summary, problems = verify(name, a)
    assert problems == []
    assert len(summary) == 6
    for path in a.rglob("*.mat"):
        assert path.read_bytes()[:116] == MAT_HEADER

    write_twin(name, b, subjects=2, seconds_per_trial=4, seed=6, **parameters)
    without_labels = {(k, v) for k, v in two.items() if "label" not in k}
    assert not set(digest(b).items()) & without_labels


def test_official_shapes(tmp_path):
    write_twin("SEED", tmp_path, subjects=1, seconds_per_trial=7)
    folder = tmp_path / "SEED_EEG"
    signals = scipy.io.loadmat(folder / "Preprocessed_EEG/1_20131027.mat")
    assert signals["twin_eeg15"].shape == (62, 1401)
    assert signals["twin_eeg1"].dtype == np.float64
    features = scipy.io.loadmat(folder / "ExtractedFeatures_1s/1_20131027.mat")
    assert features["de_LDS3"].shape == (62, 7, 5)
    assert 5 < np.median(features["de_movingAve1"]) < 28
    label = scipy.io.loadmat(folder / "Preprocessed_EEG/label.mat")["label"]
    assert label.shape == (1, 15)
    assert label[0, :3].tolist() == [1, 0, -1]


def test_official_lengths():
    seed, seed_iv = TwinSettings(), TwinSettings("SEED-IV")
    assert [seed.samples(1, k) for k in (1, 15)] == [235 * 200 + 1, 206 * 200 + 1]
    assert sum(seed_iv.samples(1, k) for k in range(1, 25)) == 851 * 800


def test_the_truth_is_recorded(tmp_path):
    parameters = dict(subjects=2, seconds_per_trial=4, features=None, emotion=0.5)
    record = json.loads(write_twin("SEED-IV", tmp_path, **parameters).read_text())
    assert record["synthetic"]
    assert record["complete"]
    assert record["parameters"]["emotion"] == 0.5
    assert record["parameters"]["subjects"] == 2
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mat")}
    assert sorted(record["files"]) == sorted(files)

    truth = record["truth"]
    effects = effect_table(SPECS["SEED-IV"].classes)
    assert np.allclose(truth["effect_db"], 0.5 * effects, atol=1e-4)
    assert np.shape(truth["source_directions"]) == (len(truth["source_region"]), 3)
    assert len(truth["sessions"]) == 6
    assert all(len(session["gain_db"]) == 62 for session in truth["sessions"])
    assert all(len(session["intensity"]) == 24 for session in truth["sessions"])


def test_the_record_repeats_the_numbers_as_they_were_given(tmp_path):
    only_eyes = dict(signals=False, features=None)
    path = write_twin("SEED-IV", tmp_path, 1, seconds_per_trial=4, emotion=2, **only_eyes)
    text = path.read_text()
    assert '"seconds_per_trial": 4,' in text
    assert '"emotion": 2,' in text
    assert '"session_drift": 1.0,' in text


def test_the_bad_electrode_is_the_one_of_the_truth():
    settings = TwinSettings(seconds_per_trial=5)
    sessions = [(subject, session) for subject in range(1, 16) for session in (1, 2, 3)]
    bad = {key: session_traits(settings, *key).bad for key in sessions}
    bad = {key: electrode for key, electrode in bad.items() if electrode}
    assert 1 <= len(bad) <= 15
    for key, electrode in bad.items():
        x = twin_trial(settings, *key, 4)
        r = np.abs(np.corrcoef(x)[electrode.index])
        r[electrode.index] = 0
        assert r.max() < 0.2
        assert (x[electrode.index].std() < 0.5) == (electrode.kind == "flat")


# ---- refusals


@pytest.mark.parametrize(
    "parameters, message",
    [
        (dict(name="SEED-X"), "name: expected .*'SEED-IV'.* found 'SEED-X'"),
        (dict(subjects=0), "subjects: expected at least 1, found 0"),
        (dict(subjects=16), "subjects: expected how many, 1 to 15 in SEED; found 16"),
        (dict(subjects=True), "subjects: expected a whole number, found True"),
        (dict(subjects=2.5), "subjects: expected a whole number, found 2.5"),
        (dict(seconds_per_trial=0.5), "at least one window of 1 s"),
        (dict(name="SEED-IV", seconds_per_trial=3.9), "at least one window of 4 s"),
        (dict(seconds_per_trial=float("nan")), "seconds_per_trial: expected a finite number"),
        (dict(emotion=-1), "emotion: expected at least 0, found -1"),
        (dict(subject_effect=-0.1), "subject_effect: expected at least 0, found -0.1"),
        (dict(session_drift=float("inf")), "session_drift: expected a finite number, found inf"),
        (dict(emotion="strong"), "emotion: expected a number, found 'strong'"),
        (dict(seed="a"), "seed: expected a whole number, found 'a'"),
        (dict(generation="newest"), "generation: expected 'new' or 'old', found 'newest'"),
        (dict(features=("de_LDS", "dasm_LDS")), r"features: \['dasm_LDS'\] cannot be written"),
        (dict(features=None, signals=False), "nothing to write"),
        (dict(emotoin=2), "emotoin: unknown parameter .*known: .*emotion"),
    ],
)
def test_impossible_parameters(parameters, message, tmp_path):
    parameters = dict(name="SEED", root=tmp_path / "x", seconds_per_trial=4) | parameters
    with pytest.raises(ValueError, match=message):
        write_twin(**parameters)
    assert not (tmp_path / "x").exists()


def test_every_fault_of_the_settings_has_its_line():
    with pytest.raises(ValueError) as caught:
        TwinSettings("SEED", seed=0.5, emotion=-1, session_drift="much")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "seed",
        "emotion",
        "session_drift",
    ]


def test_never_overwrites_recordings(tmp_path):
    real = tmp_path / "Preprocessed_EEG" / "1_20131027.mat"
    real.parent.mkdir()
    real.write_bytes(b"a real recording")
    with pytest.raises(FileExistsError, match="no TWIN.json"):
        write_twin("SEED", tmp_path, subjects=1, seconds_per_trial=2)
    assert real.read_bytes() == b"a real recording"
    assert len(list(tmp_path.rglob("*"))) == 2


def test_a_smaller_twin_leaves_nothing_of_the_larger(tmp_path):
    write_twin("SEED", tmp_path, subjects=2, seconds_per_trial=2)
    (tmp_path / "notes.txt").write_text("my notes")
    smaller = dict(subjects=1, seconds_per_trial=2, generation="old", features=None)
    write_twin("SEED", tmp_path, **smaller)
    sessions = {f"Preprocessed_EEG/1_{day}.mat" for day in (20131027, 20131030, 20131107)}
    assert set(digest(tmp_path)) == sessions | {
        "TWIN.json",
        "notes.txt",
        "Preprocessed_EEG/label.mat",
    }
    assert not (tmp_path / "SEED_EEG").exists()


@pytest.mark.parametrize("path", ["../outside.mat", "/etc/x.mat", "TWIN.txt"])
def test_a_forged_record_removes_nothing(path, tmp_path):
    root, outside = tmp_path / "twin", tmp_path / "outside.mat"
    root.mkdir()
    outside.write_bytes(b"another file")
    (root / "TWIN.json").write_text(json.dumps({"files": [path]}))
    with pytest.raises(ValueError, match="no twin wrote"):
        write_twin("SEED", root, subjects=1, seconds_per_trial=2)
    assert outside.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}'])
def test_a_damaged_record_is_refused(text, tmp_path):
    (tmp_path / "TWIN.json").write_text(text)
    with pytest.raises(ValueError, match="expected the record of a twin"):
        write_twin("SEED", tmp_path, subjects=1, seconds_per_trial=2)


def test_an_interrupted_run_is_repaired(tmp_path, monkeypatch):
    whole, half = tmp_path / "whole", tmp_path / "half"
    write_twin("SEED", whole, subjects=1, seconds_per_trial=2)
    simulate = layouts.twin_trial

    def interrupted(settings, subject, session, trial):
        if (session, trial) == (2, 3):
            raise KeyboardInterrupt
        return simulate(settings, subject, session, trial)

    monkeypatch.setattr(layouts, "twin_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_twin("SEED", half, subjects=1, seconds_per_trial=2)
    assert json.loads((half / "TWIN.json").read_text())["complete"] is False
    assert len(list(half.rglob("1_*.mat"))) == 2
    assert not list(half.rglob(".*"))

    monkeypatch.setattr(layouts, "twin_trial", simulate)
    write_twin("SEED", half, subjects=1, seconds_per_trial=2)
    assert digest(half) == digest(whole)


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs 17.1"):
        write_twin("SEED", tmp_path / "x", subjects=15)
    assert not (tmp_path / "x").exists()
