"""Each reader reads its twin back exactly, signals, features, eyes and recordings; the twins' bytes, their truth, and two modalities that complete each other."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.io
import scipy.signal

from emo_lib.base.facts import SPECS
from emo_lib.data.cnt import open_cnt, read_cnt_header
from emo_lib.data.datasets import DATASETS, open_dataset, verify
from emo_lib.data.seed_vii import STARTS
from emo_lib.twins.brain import (
    EYE_KINDS,
    TwinSettings,
    effect_table,
    session_traits,
    twin_eye,
    twin_trial,
)
from emo_lib.twins.layouts import STEPS, TWIN_FEATURES, WITHOUT_EYES, vii_stem
from emo_lib.twins.recordings import raw_channels, recorded_bounds, recording_blocks
from emo_lib.twins.twin import modalities, twin_set, write_twin

SECONDS = {
    "SEED": 9,
    "SEED-IV": 9,
    "SEED-V": 9,
    "SEED-VII": 8.5,
    "FACED": 3,
}  # not multiples of the window: what is left over must be dropped
RAW = ("SEED", "SEED-V", "SEED-VII")


def digest(root):
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def cfg(name, **kw):
    return TwinSettings(name, seconds_per_trial=SECONDS[name], **kw)


@pytest.fixture(scope="session")
def roots(tmp_path_factory):
    "A twin of two subjects of every data set."
    base = tmp_path_factory.mktemp("layouts")
    for name in SPECS:
        write_twin(name, base / name, subjects=2, seconds_per_trial=SECONDS[name])
    return base


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    "A twin with recordings, one subject with short trials, of every data set whose release has them."
    base = tmp_path_factory.mktemp("recorded")
    for name in RAW:
        write_twin(
            name,
            base / name,
            subjects=1,
            seconds_per_trial=4,
            features=None,
            signals=False,
            raw="int32",
        )
    return base


@pytest.fixture(params=list(SPECS))
def ds(request, roots):
    return open_dataset(request.param, roots / request.param)


def test_every_data_set_has_a_twin_and_a_reader():
    assert set(STEPS) == set(TWIN_FEATURES) == set(SPECS) <= set(DATASETS)


def test_no_fault_and_all_is_there(ds, roots):
    name, spec = ds.spec.name, ds.spec
    table, problems = verify(name, roots / name)
    assert (
        problems == []
        and len(table) == 2 * spec.n_sessions
        and ds.provenance == "synthetic"
        and tuple(ds.subjects) == spec.subjects[:2]
    )
    assert set(TWIN_FEATURES[name]) <= set(ds.available_features())
    record = json.loads((roots / name / "TWIN.json").read_text())
    assert (
        record["complete"]
        and record["synthetic"]
        and sorted(record["files"]) == sorted(f for f in digest(roots / name) if f != "TWIN.json")
    )


@pytest.mark.parametrize(
    "name, feature, window_s",
    [
        (n, f, w)
        for n in SPECS
        for f in TWIN_FEATURES[n]
        for w in ((1.0, 4.0) if n == "SEED" else (SPECS[n].window_s,))
    ],
)
def test_features_and_eyes_come_back_exactly(name, feature, window_s, roots):
    found = open_dataset(name, roots / name).features(feature, window_s=window_s)
    truth = twin_set(cfg(name), feature, window_s, SPECS[name].subjects[:2])
    assert ("eye" in found) == ("eye" in truth) == (bool(SPECS[name].eye) and window_s == 4)
    for v in set(truth.data_vars) | {*truth.coords} - {"channel", "band", "eye_feature"}:
        assert np.array_equal(found[v].values, truth[v].values), v
    assert found.fingerprint == truth.fingerprint  # EEG, eyes, places, labels: nothing differs


def test_signals_come_back_exactly(ds):
    if ds.spec.name == "SEED-V":  # its release has no preprocessed signals
        with pytest.raises(ValueError, match="holds no signals"):
            next(ds.trials())
        return
    c, seen = cfg(ds.spec.name), 0
    for t in ds.trials(subjects=[c.spec.subjects[1]], sessions=[c.spec.n_sessions]):
        truth = twin_trial(c, t.subject, t.session, t.trial)[: len(c.spec.channels)]
        assert (
            t.sfreq == c.spec.sfreq
            and np.array_equal(t.signal.values, truth)
            and t.label == c.spec.labels[t.session][t.trial - 1]
        )
        seen += 1
    assert seen == c.spec.n_trials(c.spec.n_sessions)


def test_volts_come_back_as_microvolts(roots):
    "Subject 0 of FACED's twin is written in volts; subject 1, in microvolts, is read above."
    t = next(open_dataset("FACED", roots / "FACED").trials(subjects=[0]))
    assert np.allclose(
        t.signal.values, twin_trial(cfg("FACED"), 0, 1, 1)[:30], rtol=1e-12, atol=1e-9
    )


def test_the_multimodal_part_comes_back_exactly(roots):
    ds, c = open_dataset("SEED", roots / "SEED"), cfg("SEED")
    found, truth = ds.features("de", window_s=4.0), twin_set(c, "de_LDS", 4.0, (1, 2))
    assert (
        np.array_equal(found.eeg.values, truth.eeg.values)
        and np.array_equal(found.eye.values, truth.eye.values)
        and np.array_equal(found.trial.values, truth.trial.values)
    )


@pytest.mark.parametrize("name", RAW)
def test_recordings_come_back(name, recorded):
    "Every recording's bounds, and the samples of one, to half a step of its resolution."
    ds, c = open_dataset(name, recorded / name), TwinSettings(name, seconds_per_trial=4)
    recordings = list(ds.recordings())
    assert len(recordings) == c.spec.n_sessions
    for r in recordings:
        assert (
            np.allclose(r.bounds, recorded_bounds(c, r.session)[0], atol=1e-3)
            and tuple(r.labels) == c.spec.labels[r.session]
            and tuple(r.clips) == c.spec.clips[r.session]
        )
        assert set(r.drop) | set(r.eog) >= set(c.spec.raw_drop)
    r = recordings[0]
    raw, block = open_cnt(r.path), next(recording_blocks(c, r.subject, r.session))
    assert (
        tuple(raw.ch_names) == raw_channels(c.spec)
        and raw.info["sfreq"] == 1000
        and raw.n_times == 1000 * recorded_bounds(c, r.session)[1]
    )
    assert np.abs(raw.get_data(stop=block.shape[1]) * 1e6 - block).max() < 0.02


def test_what_is_left_of_a_recording_is_the_trial():
    "High-pass, notch, a fifth of the rate: at the back of the head, far from the eyes, only the trial is left."
    c = TwinSettings("SEED", seconds_per_trial=8)
    subject = next(i for i in range(1, 16) if session_traits(c, i, 1).bad is None)
    blocks = []
    for b in recording_blocks(c, subject, 1):
        blocks.append(b)
        if sum(x.shape[1] for x in blocks) > 40_000:
            break
    raw = np.concatenate(blocks, axis=1)[[raw_channels(c.spec).index(k) for k in c.spec.channels]]
    high = lambda x, fs: scipy.signal.sosfiltfilt(
        scipy.signal.butter(4, 0.5, "highpass", fs=fs, output="sos"), x, axis=1
    )
    y = high(raw, 1000.0)
    for hum in (50.0, 100.0):
        y = scipy.signal.filtfilt(*scipy.signal.iirnotch(hum, 30.0, fs=1000.0), y, axis=1)
    a, b = recorded_bounds(c, 1)[0][1]
    found = scipy.signal.resample_poly(y, 1, 5, axis=1)[:, round(200 * a) : round(200 * b)]
    truth = high(twin_trial(c, subject, 1, 2), 200.0)[:, :1600]
    r = [np.corrcoef(f, t)[0, 1] for f, t in zip(found, truth)]
    assert (
        min(r[c.spec.channels.index(k)] for k in ("CZ", "PZ", "OZ", "O1", "O2"))
        > 0.95
        > r[c.spec.channels.index("F7")]
    )
    assert (
        np.std(raw[c.spec.channels.index("PZ")]) > 2 * truth[c.spec.channels.index("PZ")].std()
    )  # before, drift and hum were larger than the brain


@pytest.mark.parametrize("width", ["int16", "int32"])
def test_both_widths_of_a_recording(width, tmp_path):
    for root in (tmp_path / "a", tmp_path / "b")[: 1 + (width == "int16")]:
        write_twin(
            "SEED",
            root,
            subjects=1,
            seconds_per_trial=2,
            signals=False,
            features=None,
            eye=False,
            raw=width,
        )
    if width == "int16":
        assert digest(tmp_path / "a") == digest(
            tmp_path / "b"
        )  # a recording, too, repeats to the byte
    files = sorted((tmp_path / "a").rglob("*.cnt"))
    assert [f.name for f in files] == ["1_1.cnt", "1_2.cnt", "1_3.cnt"] and all(
        read_cnt_header(f).n_bytes == int(width[3:]) // 8 for f in files
    )


def test_the_two_recordings_with_bad_triggers(tmp_path):
    "Their events alone would give wrong bounds; the reader takes the table, and finds what was written."
    from emo_lib.twins.layouts import Ask, seed_vii_steps

    c = TwinSettings("SEED-VII", seconds_per_trial=4)
    for step in seed_vii_steps(c, (9, 14), Ask((), signals=False, raw=16)):
        step.write(tmp_path)
    found = {r.path.stem: r for r in open_dataset("SEED-VII", tmp_path, strict=False).recordings()}
    assert set(STARTS) < set(found) and len(found) == 8
    for name, r in found.items():
        assert np.allclose(r.bounds, recorded_bounds(c, r.session)[0], atol=2e-3), name
        codes = [text for _, text in read_cnt_header(r.path).annotations]
        assert (codes == ["1", "2"] * 20) == (name not in STARTS)
    assert vii_stem(14, 1) == "14_20221015_1" and vii_stem(9, 3) == "9_20221111_3"


@pytest.mark.parametrize("columns", ["channel", "band"])
def test_both_orders_of_the_310_columns(columns, tmp_path):
    write_twin("SEED-V", tmp_path, subjects=1, seconds_per_trial=9, columns=columns)
    assert (
        open_dataset("SEED-V", tmp_path).features("de").fingerprint
        == twin_set(cfg("SEED-V"), "de").fingerprint
    )


def test_subjects_without_eyes(tmp_path):
    write_twin(
        "SEED", tmp_path, subjects=7, seconds_per_trial=4, signals=False, features=("de_LDS",)
    )
    eyes = {
        int(p.name.split("_")[0])
        for p in (
            tmp_path / "SEED_Multimodal/Chinese/04-Eye-tracking-feature/eye_tracking_feature"
        ).iterdir()
    }
    assert eyes == {1, 2, 3, 4, 5} and not eyes & set(WITHOUT_EYES)


def test_seed_and_seed_iv_did_not_change():
    "Values of the first release of the twins. 1/16 microvolt: what two processors may differ by is rounded to 1/256."
    x, y = (
        twin_trial(TwinSettings("SEED", seconds_per_trial=6), 2, 3, 5),
        twin_trial(TwinSettings("SEED-IV", seed=3, seconds_per_trial=9), 1, 2, 20),
    )
    assert x.shape == (62, 1201) and np.allclose(
        x[[0, 23, 59], 200:1200:250].ravel(), SEED_VALUES, atol=1 / 16
    )
    assert y.shape == (62, 1800) and np.allclose(
        y[[0, 23, 59], 200:1200:250].ravel(), IV_VALUES, atol=1 / 16
    )


SEED_VALUES = (
    6.320,
    3.949,
    4.340,
    2.168,
    12.535,
    9.621,
    1.082,
    -4.309,
    -15.930,
    -14.660,
    -6.859,
    -3.492,
)
IV_VALUES = (
    -4.145,
    -6.949,
    0.426,
    -13.004,
    2.840,
    8.629,
    -11.734,
    -20.020,
    -4.879,
    7.102,
    -5.285,
    8.527,
)


@pytest.mark.parametrize("name", ["SEED-V", "SEED-VII", "FACED"])
def test_same_bytes_and_a_subject_of_its_own(name, tmp_path):
    kw, (a, b, c) = (
        dict(seconds_per_trial=SPECS[name].window_s, seed=5),
        (tmp_path / x for x in "abc"),
    )
    for root, n in ((a, 2), (b, 2), (c, 1)):
        write_twin(name, root, subjects=n, **kw)
    assert digest(a) == digest(b)
    one, two = digest(c), digest(a)
    own = [k for k in one if k not in ("TWIN.json", "Recording_info.csv")]
    assert len(own) < len(two) - 1 and all(one[k] == two[k] for k in own)
    write_twin(name, b, subjects=1, **kw | dict(seed=6))
    assert not set(digest(b).items()) & {
        kv
        for kv in one.items()
        if kv[0] not in ("Recording_info.csv", "trial_start_end_timestamp.txt")
        and "trigger" not in kv[0]
    }


@pytest.mark.parametrize("name", list(SPECS))
def test_without_emotion_nothing_knows_the_label(name, monkeypatch):
    "Signals and eyes of a trial without emotion do not change when labels and clips do."
    import dataclasses

    c, spec = TwinSettings(name, seconds_per_trial=4, emotion=0), SPECS[name]
    i, s = spec.subjects[0], spec.n_sessions
    before = [twin_trial(c, i, s, 2)] + ([twin_eye(c, i, s, 2)] if spec.eye else [])
    other = dataclasses.replace(
        spec,
        labels={k: v[::-1] for k, v in spec.labels.items()},
        clips={k: v[::-1] for k, v in spec.clips.items()},
    )
    assert other.labels[s][1] != spec.labels[s][1] or other.clips[s][1] != spec.clips[s][1]
    monkeypatch.setitem(SPECS, name, other)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(
            before,
            [twin_trial(c, i, s, 2)] + ([twin_eye(c, i, s, 2)] if spec.eye else []),
            strict=True,
        )
    )
    on, monkey = (
        TwinSettings(name, seconds_per_trial=4),
        twin_trial(TwinSettings(name, seconds_per_trial=4), i, s, 2),
    )
    monkeypatch.setitem(SPECS, name, spec)
    assert not np.array_equal(monkey, twin_trial(on, i, s, 2))


def test_classes_of_a_data_set_are_apart():
    for spec in SPECS.values():
        t = effect_table(spec.classes).reshape(len(spec.classes), -1)
        assert (np.linalg.norm(t[:, None] - t[None], axis=-1) + 99 * np.eye(len(t))).min() > 7, (
            spec.name
        )


def test_event_statistics_of_seed_vii_know_their_trial(roots):
    fs = open_dataset("SEED-VII", roots / "SEED-VII").features("de", subjects=[1], sessions=[1])
    for k in range(1, 21):
        x = fs.eye.values[fs.trial.values == k]
        assert (
            len(x) == 2
            and np.array_equal(x[0, -EYE_KINDS["event"] :], x[1, -EYE_KINDS["event"] :])
            and not np.any(x[0, :-9] == x[1, :-9])
        )


@pytest.mark.parametrize(
    "name, feature",
    [("SEED", "de_LDS"), ("SEED-IV", "de_LDS"), ("SEED-V", "de"), ("SEED-VII", "de_LDS")],
)
def test_two_modalities_complete_each_other(name, feature):
    r = modalities(twin_set(TwinSettings(name, seed=2, seconds_per_trial=16), feature, 4.0, (1, 2)))
    chance = 1 / len(set(SPECS[name].labels[1]))
    print(
        f"SYNTHETIC {name}, tested on {r.over[0]}: EEG {r.eeg.mean():.3f}, eye {r.eye.mean():.3f}, both {r.both.mean():.3f}, correlation of the errors {r.phi.mean():.2f}, chance {chance:.2f}"
    )
    assert chance + 0.1 < r.eeg.mean() < 0.9 and chance + 0.1 < r.eye.mean() < 0.9
    assert r.both.mean() > max(r.eeg.mean(), r.eye.mean()) and abs(r.phi.mean()) < 0.25


@pytest.mark.parametrize("name", ["SEED-IV", "SEED-V"])
def test_eyes_at_chance_without_emotion(name):
    r = modalities(
        twin_set(
            TwinSettings(name, seed=2, seconds_per_trial=8, emotion=0),
            "de" if name == "SEED-V" else "de_LDS",
            4.0,
            (1, 2, 3),
        )
    )
    chance, trials = (
        1 / len(SPECS[name].classes),
        3 * sum(SPECS[name].n_trials(s) for s in (1, 2, 3)),
    )
    for m in ("eeg", "eye", "both"):
        assert abs(r[m].mean() - chance) < 3 * np.sqrt(chance * (1 - chance) / trials), m


@pytest.mark.parametrize(
    "kw, said",
    [
        (dict(name="SEED-IV", raw=True), "no .cnt"),
        (dict(name="FACED", raw="int16"), "no .cnt"),
        (dict(raw="int8"), "int16"),
        (dict(name="SEED-V", columns="rows"), "columns"),
        (dict(name="FACED", subjects=124), "1 to 123"),
        (dict(name="SEED-V", features="de_LDS"), "there are: de"),
        (dict(name="SEED-VII", features=("de_movingAve",)), "psd, de, de_LDS"),
        (dict(name="FACED", signals=False, features=None), "nothing to write"),
        (dict(name="SEED-V", features=None, eye=False), None),
    ],
)
def test_impossible_requests(kw, said, tmp_path):
    kw = {"name": "SEED", "root": tmp_path / "x", "seconds_per_trial": 4, "subjects": 1, **kw}
    if said is None:
        kw, said = kw | dict(signals=False), "nothing to write"
    with pytest.raises(ValueError, match=said):
        write_twin(**kw)
    assert not (tmp_path / "x").exists()


def test_another_twin_replaces_every_file(tmp_path):
    "Pickles without extension, .npz, .csv and .cnt of an earlier twin go, somebody's notes stay."
    write_twin("SEED", tmp_path, subjects=1, seconds_per_trial=4, raw="int16")
    (tmp_path / "notes").write_text("mine")
    for name in ("SEED-VII", "FACED", "SEED-V", "SEED-IV"):
        write_twin(name, tmp_path, subjects=1, seconds_per_trial=4, signals=False)
        assert sorted(digest(tmp_path)) == sorted(
            ["TWIN.json", "notes", *json.loads((tmp_path / "TWIN.json").read_text())["files"]]
        )


@pytest.mark.parametrize(
    "files", [["SEED_EEG/notes.txt"], ["thesis/1_1.docx"], ["a/../../1_1"], ["1_20131027.mat.bak"]]
)
def test_a_forged_record_removes_nothing(files, tmp_path):
    root = tmp_path / "twin"
    root.mkdir()
    (root / "TWIN.json").write_text(json.dumps({"files": ["1_1.npz", *files]}))
    (root / "1_1.npz").write_text("mine")
    with pytest.raises(ValueError, match="no twin wrote"):
        write_twin("FACED", root, subjects=1, seconds_per_trial=2)
    assert (root / "1_1.npz").exists()  # one strange name, and none is touched


def test_a_recording_needs_little_memory(tmp_path):
    "Ten trials of full length; the peak must not grow with the session."
    code = f"""
import resource
from pathlib import Path
from emo_lib.twins.brain import TwinSettings, twin_trial
from emo_lib.data.cnt import write_cnt
from emo_lib.twins.recordings import raw_channels, recording_blocks
cfg = TwinSettings("SEED", seconds_per_trial=60); twin_trial(cfg, 1, 1, 1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
before = peak()
n = write_cnt(Path({str(tmp_path)!r})/"a.cnt", recording_blocks(cfg, 1, 1), raw_channels(cfg.spec), 1000., n_bits=16)
print(round(peak() - before), n)"""
    grown, n = map(
        int,
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split(),
    )
    assert n == 1000 * (15 * 60 + 16 * 4) and grown < 250, (
        f"{grown} MB more for {n * 66 * 4 / 2**20:.0f} MB of numbers"
    )
