"""SEED-VII: whole folders are read as they were written, and one pass finds every fault."""

import shutil
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.signal
from damage import contents, refusal, single
from damage import write_mat as write

from emo_lib.base.facts import SPECS
from emo_lib.data.cnt import write_cnt
from emo_lib.data.datasets import LayoutError, open_dataset, verify
from emo_lib.data.seed_vii import SeedViiReader, place_of

pytestmark = pytest.mark.slow  # writes or reads whole twins

VII = SPECS["SEED-VII"]
WINDOWS = {k: 1 + k % 3 for k in place_of(VII)}
KINDS = ("EEG_preprocessed", "EEG_features", "EYE_features")
ONSETS = np.round(2 + np.cumsum(np.random.default_rng(1).uniform(0.9, 2.5, 40)), 3)
EVENTS = [(float(t), "12"[i % 2]) for i, t in enumerate(ONSETS)]


def change(path, f):
    data = contents(path)
    f(data)
    write(path, data)


def make(root, subjects=(2,)):
    for i in subjects:
        rng = np.random.default_rng(i)
        write(
            root / f"EEG_preprocessed/{i}.mat",
            {str(k): rng.normal(0, 20, (62, 800 * w)).astype("i1") for k, w in WINDOWS.items()},
        )
        write(
            root / f"EEG_features/{i}.mat",
            {
                f"{n}_{k}": rng.normal(20, 2, (w, 5, 62))
                for n in ("psd", "de", "de_LDS")
                for k, w in WINDOWS.items()
            },
        )
        eye = {str(k): rng.normal(0, 1, (w, 33)) for k, w in WINDOWS.items()}
        for x in eye.values():
            x[:, 24:] = x[0, 24:]
        write(root / f"EYE_features/{i}.mat", eye)
        write(
            root / f"continuous_labels/{i}.mat",
            {str(k): rng.uniform(0, 1, (1, w)) for k, w in WINDOWS.items()},
        )
    return root


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    return make(tmp_path_factory.mktemp("seed_vii") / "SEED-VII", (2, 10))


@pytest.fixture
def vii(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "SEED-VII"))


def faults(root, **kw):
    return refusal("SEED-VII", root, **kw)


def only(root, **kw):
    return single(faults(root, **kw))


# ---- whole folders


def test_everything_comes_back_as_it_was_written(vii):
    ds = open_dataset("SEED-VII", vii)
    assert ds.problems(deep=True) == []
    assert ds.subjects == [2, 10]
    assert ds.provenance == "synthetic"
    assert ds.window_lengths() == [4.0]
    for name in ("psd", "de", "de_LDS"):
        fs, start = ds.features(name, subjects=[10]), 0
        data, eye = contents(vii / "EEG_features/10.mat"), contents(vii / "EYE_features/10.mat")
        for k, (session, trial) in place_of(VII).items():
            one = fs.isel(window=slice(start, start := start + WINDOWS[k]))
            assert np.array_equal(
                one.eeg.values, data[f"{name}_{k}"].transpose(0, 2, 1).astype("f4")
            )
            assert np.array_equal(one.eye.values, eye[str(k)].astype("f4"))
            assert set(
                zip(one.session.values, one.trial.values, one["clip"].values, one.label.values)
            ) == {(session, trial, k, VII.labels[session][trial - 1])}
            assert one.start_s.values.tolist() == [4.0 * i for i in range(WINDOWS[k])]
        assert start == fs.sizes["window"] == sum(WINDOWS.values())
    signals = contents(vii / "EEG_preprocessed/2.mat")
    for t in ds.trials(subjects=[2]):
        assert np.array_equal(t.signal.values, signals[str(t.clip)])
        assert t.sfreq == 200
    feeling = contents(vii / "continuous_labels/2.mat")
    for t, x in ds.continuous_labels(2, 3).items():
        assert np.array_equal(x, feeling[str(40 + t)].ravel())


def test_subject_numbers_are_not_string_sorted(vii):
    fs = open_dataset("SEED-VII", vii).features("de")
    assert list(dict.fromkeys(fs.subject.values.tolist())) == [2, 10]


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (2, 0, 1), (2, 1, 0), (1, 2, 0)])
def test_any_single_order_of_axes_is_found_and_noted(vii, axes):
    before = open_dataset("SEED-VII", vii).features("de_LDS", subjects=[2])
    change(
        vii / "EEG_features/2.mat", lambda d: d.update({k: x.transpose(axes) for k, x in d.items()})
    )
    after = open_dataset("SEED-VII", vii).features("de_LDS", subjects=[2])
    assert after.identical(before.assign_attrs(axes=after.attrs["axes"]))
    assert ("the release has" in after.attrs["axes"]) == (axes != (0, 1, 2))


def test_contradictory_axes_are_refused(vii):
    change(vii / "EEG_features/2.mat", lambda d: d.update(de_7=d["de_7"].transpose(0, 2, 1)))
    p = only(vii)
    assert p.path == str(vii / "EEG_features/2.mat")
    assert "different orders" in p.found


def test_undecided_axes_take_the_order_of_the_release_with_a_note(vii):
    shutil.rmtree(vii / "EEG_preprocessed")
    shutil.rmtree(vii / "EYE_features")
    for i in (2, 10):
        change(
            vii / f"EEG_features/{i}.mat",
            lambda d: d.update({k: np.resize(x, (5, 5, 62)) for k, x in d.items()}),
        )
    ds = open_dataset("SEED-VII", vii)
    fs = ds.features("de", subjects=[2], sessions=[1])
    assert "do not decide" in fs.attrs["axes"]
    assert np.array_equal(
        fs.eeg[:5].values,
        contents(vii / "EEG_features/2.mat")["de_1"].transpose(0, 2, 1).astype("f4"),
    )


# ---- files that cannot be read


@pytest.mark.parametrize(
    "spoil, found",
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-2000]), "truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "truncated"),
        (lambda p: p.write_bytes(b""), "empty file (0 bytes)"),
        (lambda p: p.write_text("<html>404 Not Found</html>"), "no MATLAB 5 file"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500)), "MATLAB 7.3"),
        (lambda p: write(p, {"note": "text"}), "no variables with numbers"),
    ],
)
@pytest.mark.parametrize("folder", [*KINDS, "continuous_labels"])
def test_unreadable_file(vii, folder, spoil, found):
    spoil(vii / folder / "2.mat")
    p = only(vii)
    assert p.path == str(vii / folder / "2.mat")
    assert found in p.found


@pytest.mark.parametrize(
    "folder, key, stem",
    [
        ("EEG_preprocessed", "17", ""),
        ("EEG_features", "de_17", "de_"),
        ("EYE_features", "17", ""),
        ("continuous_labels", "17", ""),
    ],
)
def test_missing_and_surplus_keys(vii, folder, key, stem):
    path = vii / folder / "10.mat"
    change(path, lambda d: d.pop(key))
    p = only(vii)
    assert p.path == str(path)
    assert p.found == f"no {key}"
    assert f"{stem}1 to {stem}80" in p.expected
    change(path, lambda d: d.update({key: d[f"{stem}18"], f"{stem}81": d[f"{stem}18"]}))
    assert any(p.found == f"also {stem}81" for p in faults(vii))


@pytest.mark.parametrize(
    "folder, what", list(zip(KINDS, ("signals", "released features", "eye features")))
)
def test_a_missing_session_leaves_the_others(vii, folder, what):
    change(
        vii / folder / "2.mat",
        lambda d: [d.pop(k) for k in list(d) if 41 <= int(k.split("_")[-1]) <= 60],
    )
    p = only(vii)
    assert p.found.startswith("no session 3")
    assert what in p.expected
    assert "2.mat" in p.fix
    ds = open_dataset("SEED-VII", vii, strict=False)
    fs = ds.features("de", subjects=[10])
    assert fs.sizes["window"] == sum(WINDOWS.values())
    assert "eye" in fs
    if folder == "EEG_features":
        assert set(ds.features("de", subjects=[2]).session.values) == {1, 2, 4}
    if folder == "EEG_preprocessed":
        assert {t.session for t in ds.trials(subjects=[2])} == {1, 2, 4}


@pytest.mark.parametrize(
    "folder, f, found",
    [
        ("EEG_preprocessed", lambda d: d.update({"9": d["9"][:61]}), "(61, "),
        ("EEG_preprocessed", lambda d: d.update({"9": d["9"].T}), ", 62) in 9"),
        (
            "EEG_features",
            lambda d: d.update(de_LDS_9=d["de_LDS_9"][..., :61]),
            "5, 61) in de_LDS_9",
        ),
        ("EEG_features", lambda d: d.update(psd_9=d["psd_9"][:, :4]), "4, 62) in psd_9"),
        ("EYE_features", lambda d: d.update({"9": d["9"][:, :31]}), ", 31) in 9"),
        ("EYE_features", lambda d: d.update({"9": d["9"].T}), "(33, "),
        (
            "EEG_features",
            lambda d: d.update(de_9=np.repeat(d["de_9"], 3, axis=0)),
            "in trial key 9",
        ),
    ],
)
def test_wrong_shapes(vii, folder, f, found):
    change(vii / folder / "2.mat", f)
    p = only(vii)
    assert p.path == str(vii / folder / "2.mat")
    assert found in p.found


def test_a_feature_that_only_some_files_have(vii):
    make(vii, (3,))
    change(vii / "EEG_features/3.mat", lambda d: [d.pop(k) for k in list(d) if k.startswith("psd")])
    p = only(vii)
    assert p.path == str(vii / "EEG_features/3.mat")
    assert p.found == "no psd"


# ---- numbers


@pytest.mark.parametrize("folder, key", [("EEG_features", "de_9"), ("EYE_features", "9")])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_nan_and_infinities_are_reported_and_never_returned(vii, folder, key, value):
    change(vii / folder / "2.mat", lambda d: d[key].__setitem__((0, 2), value))
    _, problems = verify("SEED-VII", vii)
    assert [p.path for p in problems] == [str(vii / folder / "2.mat")]
    assert "NaN or infinite" in problems[0].found
    assert "trial 9" in problems[0].found
    with pytest.raises(LayoutError, match="NaN or infinite"):
        open_dataset("SEED-VII", vii).features("de", subjects=[2], sessions=[1])


def test_nan_in_signals(vii):
    change(
        vii / "EEG_preprocessed/2.mat",
        lambda d: d.update({"9": np.full((62, 800 * WINDOWS[9]), np.nan, "f4")}),
    )
    _, problems = verify("SEED-VII", vii)
    assert len(problems) == 1
    assert "session 1 trial 9" in problems[0].found
    trials = open_dataset("SEED-VII", vii).trials(subjects=[2], sessions=[1])
    with pytest.raises(LayoutError, match="NaN"):
        list(trials)


@pytest.mark.parametrize("folder", KINDS)
def test_two_files_with_one_content(vii, folder):
    shutil.copy(vii / folder / "2.mat", vii / folder / "10.mat")
    _, problems = verify("SEED-VII", vii)
    assert len(problems) == 1
    assert "same content" in problems[0].found
    assert all(str(vii / folder / f"{i}.mat") in str(problems[0]) for i in (2, 10))


@pytest.mark.parametrize(
    "folder, stems", [("EEG_preprocessed", [""]), ("EEG_features", ["psd_", "de_", "de_LDS_"])]
)
def test_a_session_copied_within_a_file(vii, folder, stems):
    "Trials 31 to 60 are those of 1 to 30; the counts of windows have period three and agree."
    change(
        vii / folder / "2.mat",
        lambda d: d.update({f"{s}{k}": d[f"{s}{k - 30}"] for s in stems for k in range(31, 61)}),
    )
    _, problems = verify("SEED-VII", vii)
    assert [p.path for p in problems] == [str(vii / folder / "2.mat")]
    assert "the same numbers" in problems[0].found
    assert "26 more" in problems[0].found


# ---- eyes


@pytest.mark.parametrize("by", [1, -1])
def test_eyes_one_window_off_are_cut_and_noted(vii, by):
    k = 5  # three windows
    change(
        vii / "EYE_features/2.mat",
        lambda d: d.update({str(k): np.resize(d[str(k)], (WINDOWS[k] + by, 33))}),
    )
    fs = open_dataset("SEED-VII", vii).features("de", subjects=[2], sessions=[1])
    one = fs.sel(window=fs.trial == k)
    assert one.sizes["window"] == min(WINDOWS[k], WINDOWS[k] + by)
    assert (
        f"trial {k}: {WINDOWS[k]} windows of EEG, {WINDOWS[k] + by} of the eye"
        in fs.attrs["eye_cut"]
    )


def test_eyes_many_windows_off_are_refused(vii):
    change(vii / "EYE_features/2.mat", lambda d: d.update({"5": np.resize(d["5"], (9, 33))}))
    p = only(vii)
    assert p.path == str(vii / "EYE_features/2.mat")
    assert "9 against 3 in session 1, trial 5" in p.found
    assert "eye" not in open_dataset("SEED-VII", vii, strict=False).features("de", subjects=[2])


def test_the_caveat_travels_and_follows_the_data(vii):
    ds = open_dataset("SEED-VII", vii)
    caveat = ds.features("de", sessions=[2]).attrs["eye_caveat"]
    assert caveat.startswith("9 of 33 features (eye_25, ")
    assert "luminance" in caveat
    assert "eye_caveat" not in ds.features("de", eye=False).attrs
    assert ds.eye_notes(ds.eye(2, 2))["eye_caveat"].startswith("9 of 33 features")
    change(
        vii / "EYE_features/2.mat",
        lambda d: d.update(
            {k: np.random.default_rng(0).normal(size=x.shape) for k, x in d.items()}
        ),
    )
    assert (
        "no feature is constant"
        in open_dataset("SEED-VII", vii).features("de", subjects=[2]).attrs["eye_caveat"]
    )


def test_continuous_labels_that_are_not_there_or_no_series(vii):
    ds = open_dataset("SEED-VII", vii)
    for subject, session in ((3, 1), (2, 9)):
        with pytest.raises(ValueError, match="there are: subjects 2, 10"):
            ds.continuous_labels(subject, session)
    with pytest.raises(ValueError, match="none"):
        SeedViiReader(vii.parent).continuous_labels(2, 1)
    change(
        vii / "continuous_labels/2.mat",
        lambda d: d.update({"2": np.zeros((2, 3)), "25": np.full((1, 4), np.nan)}),
    )
    ds = open_dataset("SEED-VII", vii)
    with pytest.raises(LayoutError, match=r"one series of numbers.*\(2, 3\) in 2"):
        ds.continuous_labels(2, 1)
    with pytest.raises(LayoutError, match="NaN"):
        ds.continuous_labels(2, 2)


# ---- folders and names


def test_wrong_folders(vii, tmp_path):
    assert "did you mean" in only(tmp_path).fix
    assert str(vii) in only(tmp_path).fix
    assert f"folder above as root: {vii}" in only(vii / "EEG_features").fix
    assert only(vii / "EEG_features" / "2.mat").found == "a file"
    assert only(vii / "nowhere").found == "no such folder"


@pytest.mark.parametrize("name", ["2 (1).mat", "s2.mat", "2_20221011.mat", "21.mat", "0.mat"])
def test_renamed_subject_file(vii, name):
    (vii / "EEG_features/2.mat").rename(vii / "EEG_features" / name)
    p = only(vii)
    assert p.path == str(vii / "EEG_features" / name)
    assert p.found == name
    assert "{subject}.mat" in p.expected


def test_a_file_under_the_number_of_another_subject(vii):
    "Windows tell: a subject's features that are not as long as the signals of the same number."
    change(
        vii / "EEG_features/2.mat",
        lambda d: d.update({k: np.resize(x, (5, 5, 62)) for k, x in d.items()}),
    )
    (vii / "EEG_features/2.mat").replace(vii / "EEG_features/10.mat")
    p = only(vii)
    assert p.path == str(vii / "EEG_features/10.mat")
    assert "another subject's" in p.fix
    assert str(vii / "EEG_preprocessed/10.mat") in p.expected


def test_an_empty_folder_and_hidden_files(vii):
    (vii / "EEG_raw").mkdir()
    (vii / "EEG_features/._2.mat").write_bytes(b"x")
    p = only(vii)
    assert p.path == str(vii / "EEG_raw")
    assert p.found == "none"


# ---- recordings


@lru_cache
def noise(seconds=80):
    return scipy.signal.lfilter(
        [1], [1, -0.995], np.random.default_rng(0).normal(0, 1, (67, 1000 * seconds)), axis=1
    )


def cnt(path, events=EVENTS, channels=(*VII.channels, *VII.raw_drop)):
    "SYNTHETIC slow noise with events."
    path.parent.mkdir(parents=True, exist_ok=True)
    write_cnt(
        path,
        noise()[: len(channels)],
        list(channels),
        1000,
        events,
        n_bits=16,
        start=datetime(2022, 10, 11, 9, 0, 1),
    )
    return path


def trigger_csv(root, name, start, onsets=ONSETS):
    (root / "save_info").mkdir(exist_ok=True)
    rows = [
        f"{'12'[i % 2]},{datetime.fromisoformat(start) + timedelta(seconds=float(t))}"
        for i, t in enumerate(onsets)
    ]
    (root / "save_info" / f"{name}_trigger_info.csv").write_text("\n".join(rows))


@pytest.fixture
def raw(tmp_path):
    "One recording, and no complaint that the other sessions are not there."
    root = tmp_path / "VII"
    for s in (1, 2, 3, 4):
        cnt(root / f"EEG_raw/2_2022101{s}_{s}.cnt")
    return root


def test_bounds_from_events_without_the_keys(raw):
    cnt(
        raw / "EEG_raw/2_20221011_1.cnt",
        EVENTS + [(4.1, "KeyPad Response 1"), (9.9, "KeyPad Response 2")],
    )
    recs = list(open_dataset("SEED-VII", raw).recordings())
    assert [(r.subject, r.session) for r in recs] == [(2, 1), (2, 2), (2, 3), (2, 4)]
    for r in recs:
        assert np.allclose(np.ravel(r.bounds), ONSETS, atol=0.002)
        assert r.labels == VII.labels[r.session]
        assert r.clips == VII.clips[r.session]
        assert r.drop == VII.raw_drop
        assert r.evidence.startswith("annotations")
        assert r.provenance == "synthetic"
    assert "2 other event" in recs[0].evidence


@pytest.mark.parametrize(
    "events, found",
    [
        (EVENTS[:9] + EVENTS[10:], "no end between"),
        (EVENTS + [(EVENTS[8][0] + 0.05, "1")], "no end between"),
        (EVENTS[:8] + EVENTS[9:], "no start before"),
        (EVENTS[:38], "19 whole trials of 20"),
        (EVENTS + [(78.1, "1"), (78.9, "2")], "21 whole trials of 20"),
        ([], "0 whole trials of 20"),
    ],
)
def test_missing_or_doubled_triggers(raw, events, found):
    cnt(raw / "EEG_raw/2_20221012_2.cnt", events)
    p = only(raw)
    assert p.path.endswith("2_20221012_2.cnt")
    assert found in p.found
    assert "2_20221012_2_trigger_info.csv" in p.fix
    trigger_csv(raw, "2_20221012_2", "2022-10-12 10:11:12.5")
    if not events:  # nothing to lay the clock times over
        assert "HH:MM:SS" in only(raw).fix
        assert "09:00:01" in only(raw).fix
    starts = {} if events else {"2_20221012_2": "10:11:12.500"}
    rec = list(open_dataset("SEED-VII", raw, starts=starts).recordings())[1]
    assert np.allclose(np.ravel(rec.bounds), ONSETS, atol=0.003)
    assert rec.evidence.startswith("trigger_info.csv")


def test_the_two_recordings_whose_triggers_are_known_to_be_bad(tmp_path):
    root = tmp_path / "VII"
    cnt(root / "EEG_raw/14_20221015_1.cnt", [])
    cnt(root / "EEG_raw/9_20221111_3.cnt", [(t + 0.7, c) for t, c in EVENTS])  # whole, and wrong
    ps = [p for p in faults(root) if p.path.endswith(".cnt")]
    assert len(ps) == 2
    assert all("save_info" in p.found for p in ps)
    trigger_csv(root, "14_20221015_1", "2022-10-15 14:25:34")
    trigger_csv(root, "9_20221111_3", "2022-11-11 14:01:27")
    for rec in open_dataset("SEED-VII", root, strict=False).recordings():
        assert np.allclose(np.ravel(rec.bounds), ONSETS, atol=0.002)
        assert "recording start 14:" in rec.evidence


@pytest.mark.parametrize(
    "text, found",
    [
        ("", "0 triggers"),
        ("1,2022-10-12 10:00:00\n", "1 triggers"),
        ("<html>\n<b>1</b>\n", "0 triggers"),
        ("nonsense", "0 triggers"),
    ],
)
def test_nonsense_in_the_csv(raw, text, found):
    cnt(raw / "EEG_raw/2_20221012_2.cnt", EVENTS[:9] + EVENTS[10:])
    (raw / "save_info").mkdir()
    (raw / "save_info/2_20221012_2_trigger_info.csv").write_text(text)
    assert found in only(raw).found
    assert "2_20221012_2_trigger_info.csv" in only(raw).found


def test_clock_times_of_another_recording(raw):
    cnt(raw / "EEG_raw/2_20221012_2.cnt", EVENTS[:9] + EVENTS[10:])
    trigger_csv(
        raw,
        "2_20221012_2",
        "2022-10-12 10:00:00",
        2 + np.cumsum(np.random.default_rng(5).uniform(5, 90, 40)),
    )
    assert "coincide" in only(raw).found
    trigger_csv(raw, "2_20221012_2", "2022-10-12 10:00:00")
    assert "ends at" in only(raw, starts={"2_20221012_2": "09:00:00"}).found
    assert "before the recording began" in only(raw, starts={"2_20221012_2": "11:00:00"}).found


def test_starts_must_be_times(raw):
    with pytest.raises(ValueError, match="14:25:34"):
        SeedViiReader(raw, starts={"2_20221012_2": "half past two"})


@pytest.mark.parametrize(
    "spoil, found",
    [
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), ""),
        (lambda p: p.write_bytes(b""), ""),
        (lambda p: p.write_text("<html>404</html>"), ""),
        (lambda p: cnt(p, channels=[*VII.channels[:-1], "X1", *VII.raw_drop]), VII.channels[-1]),
        (lambda p: cnt(p, channels=[*VII.channels, *VII.raw_drop[1:]]), "M1"),
    ],
)
def test_broken_recordings(raw, spoil, found):
    spoil(raw / "EEG_raw/2_20221013_3.cnt")
    p = only(raw)
    assert p.path.endswith("2_20221013_3.cnt")
    assert found in p.found


def test_channels_in_another_order_and_case(raw):
    names = [c.capitalize() for c in (*VII.channels, *VII.raw_drop)]
    cnt(raw / "EEG_raw/2_20221013_3.cnt", channels=names[::-1])
    assert open_dataset("SEED-VII", raw).problems() == []


def test_names_and_doubles_of_recordings(raw):
    shutil.copy(raw / "EEG_raw/2_20221011_1.cnt", raw / "EEG_raw/2_20221120_1.cnt")
    p = only(raw)
    assert "one file of raw recordings for subject 2, session 1" in p.expected
    (raw / "EEG_raw/2_20221120_1.cnt").rename(raw / "EEG_raw/2_20221120.cnt")
    assert only(raw).found == "2_20221120.cnt"
    (raw / "EEG_raw/2_20221120.cnt").unlink()
    shutil.copy(raw / "EEG_raw/2_20221011_1.cnt", raw / "EEG_raw/2_20221012_2.cnt")
    _, problems = verify("SEED-VII", raw)
    assert any("same content" in p.found and "2_20221012_2.cnt" in str(p) for p in problems)


# ---- all at once


def test_all_faults_in_one_pass(vii):
    (vii / "EEG_preprocessed/2.mat").write_bytes(
        (vii / "EEG_preprocessed/2.mat").read_bytes()[:-500]
    )
    change(vii / "EEG_features/2.mat", lambda d: d.update(de_9=d["de_9"][..., :61]))
    change(vii / "EEG_features/10.mat", lambda d: d.pop("psd_70"))
    change(vii / "EYE_features/2.mat", lambda d: [d.pop(str(k)) for k in range(1, 21)])
    (vii / "EYE_features/10.mat").rename(vii / "EYE_features/10 copy.mat")
    (vii / "continuous_labels/10.mat").write_bytes(b"")
    cnt(vii / "EEG_raw/10_20221013_3.cnt", EVENTS[1:])
    ps = faults(vii)
    assert len(ps) == 8, "\n".join(map(str, ps))
    assert sorted(Path(p.path).relative_to(vii).as_posix() for p in ps) == sorted(
        [
            "EEG_preprocessed/2.mat",
            "EEG_features/2.mat",
            "EEG_features/10.mat",
            "EYE_features",
            "EYE_features/10 copy.mat",
            "continuous_labels/10.mat",
            "EEG_raw/10_20221013_3.cnt",
            "EEG_raw",
        ]
    )
