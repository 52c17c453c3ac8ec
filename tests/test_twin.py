"""The twins: what is asked is what is written, nothing else is overwritten, and the difficulty is calibrated: chance without emotion, a band with it."""

import hashlib
import json

import numpy as np
import pytest
import scipy.io

import emo_lib.twins.layouts as L
import emo_lib.twins.twin as T
from emo_lib.base.facts import SPECS
from emo_lib.data.datasets import open_dataset, verify


def digest(root):
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def scores(name, root, seconds, subjects, **kw):
    "Calibration on a twin of features only."
    T.write_twin(
        name,
        root,
        subjects=subjects,
        seconds_per_trial=seconds,
        signals=False,
        features=("de_LDS",),
        **kw,
    )
    return T.calibrate(open_dataset(name, root).features("de_LDS"))


def across(r):
    return r[r.train_session != r.test_session].accuracy.mean()


def within(r):
    return r[r.train_session == r.test_session].accuracy.mean()


@pytest.mark.parametrize("name, seconds", [("SEED", 20), ("SEED-IV", 24)])
@pytest.mark.parametrize("seed", [0, 1])
def test_default_lies_in_the_band(name, seconds, seed, tmp_path):
    r, chance = scores(name, tmp_path, seconds, 3, seed=seed), 1 / len(SPECS[name].classes)
    by_subject = r[r.train_session != r.test_session].groupby("subject").accuracy.mean()
    assert chance + 0.10 < across(r) < 0.90 and within(r) > across(r) + 0.03
    assert by_subject.min() > chance + 0.05 and by_subject.max() - by_subject.min() > 0.03


@pytest.mark.parametrize("name, seconds", [("SEED", 12), ("SEED-IV", 20)])
def test_without_emotion_chance(name, seconds, tmp_path):
    r, chance, spec = (
        scores(name, tmp_path, seconds, 4, emotion=0),
        1 / len(SPECS[name].classes),
        SPECS[name],
    )
    trials = 4 * sum(
        spec.n_trials(s) for s in (1, 2, 3)
    )  # a trial is the independent unit, not a window; each is tested in two pairs
    assert abs(across(r) - chance) < 3 * np.sqrt(chance * (1 - chance) / trials)


def test_without_emotion_nothing_knows_the_label_or_the_film():
    "The signal of a trial without emotion does not change when labels and clips do."
    import dataclasses

    spec, cfg = SPECS["SEED"], T.TwinSettings(seconds_per_trial=2, emotion=0)
    other = dataclasses.replace(
        spec,
        labels={s: spec.labels[s][::-1] for s in spec.labels},
        clips={s: spec.clips[s][::-1] for s in spec.clips},
    )

    class Other(T.TwinSettings):
        @property
        def spec(self):
            return other

    for trial in (1, 2, 9):
        assert np.array_equal(
            T.twin_trial(cfg, 1, 2, trial),
            T.twin_trial(Other(seconds_per_trial=2, emotion=0), 1, 2, trial),
        )
    on = dict(seconds_per_trial=2, emotion=1.0)
    assert not np.array_equal(
        T.twin_trial(T.TwinSettings(**on), 1, 2, 2), T.twin_trial(Other(**on), 1, 2, 2)
    )


def test_strengths_act(tmp_path):
    still, wild = (
        across(scores("SEED", tmp_path / str(d), 12, 2, session_drift=d)) for d in (0, 3)
    )
    assert still > wild + 0.15
    weak, strong = (
        across(scores("SEED", tmp_path / f"e{e}", 12, 2, emotion=e)) for e in (0.3, 2.0)
    )
    assert strong > weak + 0.15
    a, b = (
        T.twin_trial(
            T.TwinSettings(seconds_per_trial=2, subject_effect=0, session_drift=0, emotion=0),
            i,
            1,
            1,
        )
        for i in (1, 2)
    )
    assert not np.array_equal(a, b)  # still other people, with the same statistics
    assert np.array_equal(
        *(T.subject_traits(T.TwinSettings(subject_effect=0), i).gain_db for i in (1, 2))
    )


@pytest.mark.parametrize(
    "name, kw", [("SEED", {}), ("SEED", {"generation": "old"}), ("SEED-IV", {})]
)
def test_same_bytes_and_no_fault(name, kw, tmp_path):
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for root, n in ((a, 2), (b, 2), (c, 1)):
        T.write_twin(name, root, subjects=n, seconds_per_trial=4, seed=5, **kw)
    assert digest(a) == digest(b)
    one, two = digest(c), digest(a)
    assert all(one[k] == two[k] for k in one if k.endswith(".mat")) and len(one) < len(two)
    summary, problems = verify(name, a)
    assert problems == [] and len(summary) == 6
    for p in a.rglob("*.mat"):
        assert p.read_bytes()[:116] == T.MAT_HEADER
    T.write_twin(name, b, subjects=2, seconds_per_trial=4, seed=6, **kw)
    assert not set(digest(b).items()) & {(k, v) for k, v in two.items() if "label" not in k}


def test_official_shapes(tmp_path):
    T.write_twin("SEED", tmp_path, subjects=1, seconds_per_trial=7)
    signals = scipy.io.loadmat(tmp_path / "SEED_EEG/Preprocessed_EEG/1_20131027.mat")
    assert signals["twin_eeg15"].shape == (62, 1401) and signals["twin_eeg1"].dtype == np.float64
    features = scipy.io.loadmat(tmp_path / "SEED_EEG/ExtractedFeatures_1s/1_20131027.mat")
    assert features["de_LDS3"].shape == (62, 7, 5) and 5 < np.median(features["de_movingAve1"]) < 28
    label = scipy.io.loadmat(tmp_path / "SEED_EEG/Preprocessed_EEG/label.mat")["label"]
    assert label.shape == (1, 15) and label[0, :3].tolist() == [1, 0, -1]


def test_official_lengths():
    assert [T.TwinSettings().samples(1, k) for k in (1, 15)] == [235 * 200 + 1, 206 * 200 + 1]
    assert sum(T.TwinSettings("SEED-IV").samples(1, k) for k in range(1, 25)) == 851 * 800


def test_truth_is_recorded(tmp_path):
    record = json.loads(
        T.write_twin(
            "SEED-IV", tmp_path, subjects=2, seconds_per_trial=4, features=None, emotion=0.5
        ).read_text()
    )
    assert (
        record["synthetic"]
        and record["complete"]
        and record["parameters"]["emotion"] == 0.5
        and record["parameters"]["subjects"] == 2
    )
    truth = record["truth"]
    assert np.allclose(
        truth["effect_db"], 0.5 * T.effect_table(SPECS["SEED-IV"].classes), atol=1e-4
    )
    assert (
        np.shape(truth["source_directions"]) == (len(truth["source_region"]), 3)
        and len(truth["sessions"]) == 6
    )
    assert all(len(s["gain_db"]) == 62 and len(s["intensity"]) == 24 for s in truth["sessions"])
    assert sorted(record["files"]) == sorted(
        p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.mat")
    )


def test_bad_electrode_is_where_the_truth_says():
    cfg = T.TwinSettings(seconds_per_trial=5)
    bad = {(i, s): T.session_traits(cfg, i, s).bad for i in range(1, 16) for s in (1, 2, 3)}
    assert 1 <= sum(b is not None for b in bad.values()) <= 15
    for (i, s), b in bad.items():
        if b is None:
            continue
        x = T.twin_trial(cfg, i, s, 4)
        r = np.abs(np.corrcoef(x)[b[0]])
        r[b[0]] = 0
        assert r.max() < 0.2 and (x[b[0]].std() < 0.5) == (b[1] == "flat")


def test_windows_of_a_trial_resemble_each_other(tmp_path):
    "The leak that window-shuffled splits have: without any emotion, windows tell their trial."
    T.write_twin(
        "SEED",
        tmp_path,
        subjects=1,
        seconds_per_trial=20,
        emotion=0,
        signals=False,
        features=("de_movingAve",),
    )
    fs = open_dataset("SEED", tmp_path).features("de_movingAve", sessions=[1])
    x, trial = fs.eeg.values.reshape(fs.sizes["window"], -1), fs.trial.values
    x = (x - x.mean(0)) / x.std(0)
    r = np.corrcoef(x)
    same = trial[:, None] == trial[None]
    far = (
        np.abs(fs.start_s.values[:, None] - fs.start_s.values[None]) > 5
    )  # no shared windows of the moving average
    assert r[same & far].mean() > r[~same & far].mean() + 0.05


@pytest.mark.parametrize(
    "kw, said",
    [
        (dict(name="SEED-X"), "SEED-IV"),
        (dict(subjects=0), "1 to 15"),
        (dict(subjects=16), "1 to 15"),
        (dict(subjects=True), "1 to 15"),
        (dict(subjects=2.5), "1 to 15"),
        (dict(seconds_per_trial=0.5), "at least one window"),
        (dict(name="SEED-IV", seconds_per_trial=3.9), "at least one window"),
        (dict(seconds_per_trial=float("nan")), "at least one window"),
        (dict(emotion=-1), "emotion"),
        (dict(subject_effect=-0.1), "subject_effect"),
        (dict(session_drift=float("inf")), "session_drift"),
        (dict(emotion="strong"), "emotion"),
        (dict(seed="a"), "seed"),
        (dict(generation="newest"), "generation"),
        (dict(features=("de_LDS", "dasm_LDS")), "dasm_LDS"),
        (dict(features=None, signals=False), "nothing to write"),
    ],
)
def test_impossible_parameters(kw, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        T.write_twin(**{"name": "SEED", "root": tmp_path / "x", "seconds_per_trial": 4, **kw})
    assert not (tmp_path / "x").exists()


def test_never_overwrites_recordings(tmp_path):
    real = tmp_path / "Preprocessed_EEG" / "1_20131027.mat"
    real.parent.mkdir()
    real.write_bytes(b"a real recording")
    with pytest.raises(FileExistsError, match="no TWIN.json"):
        T.write_twin("SEED", tmp_path, subjects=1, seconds_per_trial=2)
    assert real.read_bytes() == b"a real recording" and len(list(tmp_path.rglob("*"))) == 2


def test_a_smaller_twin_leaves_nothing_of_the_larger(tmp_path):
    T.write_twin("SEED", tmp_path, subjects=2, seconds_per_trial=2)
    (tmp_path / "notes.txt").write_text("mine")
    T.write_twin("SEED", tmp_path, subjects=1, seconds_per_trial=2, generation="old", features=None)
    assert sorted(
        p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()
    ) == sorted(
        ["TWIN.json", "notes.txt", "Preprocessed_EEG/label.mat"]
        + [f"Preprocessed_EEG/1_{d}.mat" for d in (20131027, 20131030, 20131107)]
    )
    assert not (tmp_path / "SEED_EEG").exists()


@pytest.mark.parametrize("files", [["../outside.mat"], ["/etc/x.mat"], ["TWIN.txt"]])
def test_a_forged_record_removes_nothing(files, tmp_path):
    root = tmp_path / "twin"
    root.mkdir()
    (tmp_path / "outside.mat").write_bytes(b"mine")
    (root / "TWIN.json").write_text(json.dumps({"files": files}))
    with pytest.raises(ValueError, match="no twin wrote"):
        T.write_twin("SEED", root, subjects=1, seconds_per_trial=2)
    assert (tmp_path / "outside.mat").exists()


def test_a_killed_writer_is_repaired(tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    T.write_twin("SEED", whole, subjects=1, seconds_per_trial=2)
    real = L.twin_trial

    def fails(cfg, subject, session, trial):
        if (session, trial) == (2, 3):
            raise KeyboardInterrupt
        return real(cfg, subject, session, trial)

    half = tmp_path / "half"
    monkeypatch.setattr(L, "twin_trial", fails)
    with pytest.raises(KeyboardInterrupt):
        T.write_twin("SEED", half, subjects=1, seconds_per_trial=2)
    assert (
        json.loads((half / "TWIN.json").read_text())["complete"] is False
        and len(list(half.rglob("1_*.mat"))) == 2
        and not list(half.rglob(".*"))
    )
    monkeypatch.setattr(L, "twin_trial", real)
    T.write_twin("SEED", half, subjects=1, seconds_per_trial=2)
    assert digest(half) == digest(whole)


def test_disk_too_small(tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10, 10, 10**9))
    with pytest.raises(OSError, match="needs 17.1"):
        T.write_twin("SEED", tmp_path / "x", subjects=15)
    assert not (tmp_path / "x").exists()
