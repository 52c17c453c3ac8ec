"""The contract of `open_dataset`, on twins of data sets and on a small BIDS folder."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from bids_writer import write_recording

from emo_lib.base.facts import META, SPECS
from emo_lib.data.datasets import DATASETS, LayoutError, open_dataset, verify
from emo_lib.samples.featuresets import (
    extract,
    load_features,
    open_features,
    save_features,
    write_features,
)
from emo_lib.twins.twin import write_twin

SECONDS = {"SEED": 6, "SEED-IV": 12}


def small_bids(root):
    "SYNTHETIC: one subject, two sessions, four electrodes."
    rng, names = np.random.default_rng(0), ["F3", "F4", "O1", "AF7"]
    events = pd.DataFrame(
        dict(
            onset=[1.0, 8.0],
            duration=6.0,
            trial_type=["sad", "happy"],
            stim_file=["a.mp4", "b.mp4"],
        )
    )
    for s in "12":
        write_recording(
            root, "01", s, "01", 15 * rng.standard_normal((4, 16 * 128)), names, 128, events
        )


@pytest.fixture(scope="session")
def roots(tmp_path_factory):
    "A folder for each data set: two subjects of SEED and SEED-IV with short trials, one of BIDS."
    base = tmp_path_factory.mktemp("contract")
    for name, seconds in SECONDS.items():
        write_twin(name, base / name, subjects=2, seed=0, seconds_per_trial=seconds)
    small_bids(base / "BIDS")
    return base


@pytest.fixture(params=["SEED", "SEED-IV", "BIDS"])  # all five layouts: test_twin_layouts.py
def ds(request, roots):
    return open_dataset(request.param, roots / request.param)


@pytest.fixture(params=["SEED", "SEED-IV"])
def official(request, roots):
    return open_dataset(request.param, roots / request.param)


def is_int(x):
    return isinstance(x, (int, np.integer)) and not isinstance(x, bool)


def test_names(roots):
    assert set(DATASETS) >= {"SEED", "SEED-IV", "BIDS"}
    with pytest.raises(ValueError, match="SEED-IV"):
        open_dataset("SEED-4", roots)
    with pytest.raises(LayoutError):
        open_dataset("SEED", roots / "BIDS")


def test_reader(ds):
    spec = ds.spec
    assert (
        isinstance(spec.classes, tuple)
        and all(isinstance(c, str) for c in spec.classes)
        and len(set(spec.channels)) == len(spec.channels)
    )
    assert (
        ds.provenance == "synthetic"
        and ds.problems() == []
        and spec.sfreq > 0
        and spec.window_s > 0
    )
    for s in ds.subjects:
        assert ds.sessions(s) == list(range(1, spec.n_sessions + 1))
    assert isinstance(ds.available_features(), list)


def test_subjects_are_numbers_in_numeric_order_or_labels(ds):
    kind = str if ds.spec.name == "BIDS" else int
    assert all(type(s) is kind for s in ds.subjects)
    assert list(ds.subjects) == sorted(ds.subjects)


def test_trial(ds):
    subject = ds.subjects[0]
    trials = list(ds.trials(subjects=[subject], sessions=[2]))
    assert [t.trial for t in trials] == list(range(1, len(trials) + 1))
    for t in trials:
        assert t.signal.dims == ("channel", "time") and tuple(t.signal.channel.values) == tuple(
            ds.spec.channels
        )
        assert (
            t.signal.dtype.kind == "f"
            and np.isfinite(t.signal.values).all()
            and t.sfreq == ds.spec.sfreq
        )
        assert np.allclose(t.signal.time.values[:3] * t.sfreq, [0, 1, 2])
        assert t.subject == subject and t.session == 2
        assert all(is_int(v) for v in (t.session, t.trial, t.label, t.clip)) and 0 <= t.label < len(
            ds.spec.classes
        )
    assert 1 < np.median([float(t.signal.std()) for t in trials]) < 500  # microvolts


def test_trials_are_lazy(ds):
    iterator = ds.trials()
    assert iter(iterator) is iterator
    first = next(iterator)
    assert (first.session, first.trial) == (1, 1) and first.subject == ds.subjects[0]


def test_trials_agree_with_the_documented_labels(official):
    for s in official.sessions(1):
        trials = list(official.trials(subjects=[1], sessions=[s]))
        assert (
            tuple(t.label for t in trials) == SPECS[official.spec.name].labels[s]
            and tuple(t.clip for t in trials) == SPECS[official.spec.name].clips[s]
        )


def test_feature_set(official):
    fs = official.features("de_LDS")
    assert (
        isinstance(fs, xr.Dataset)
        and fs.eeg.dims == ("window", "channel", "band")
        and fs.eeg.dtype == np.float32
    )
    assert tuple(fs.channel.values) == tuple(official.spec.channels) and tuple(
        fs.band.values
    ) == tuple(official.spec.bands)
    for c in META:
        assert fs[c].dims == ("window",), c
    for c in ("subject", "session", "trial", "clip", "label"):
        assert fs[c].dtype.kind == "i", c
    assert fs.start_s.dtype.kind == "f" and np.isfinite(fs.eeg.values).all()
    for a in ("dataset", "feature", "window_s", "provenance", "fingerprint", "classes"):
        assert a in fs.attrs, a
    assert (
        fs.attrs["dataset"] == official.spec.name
        and fs.attrs["feature"] == "de_LDS"
        and fs.attrs["provenance"] == "synthetic"
    )
    assert (
        fs.attrs["window_s"] == official.spec.window_s
        and tuple(json.loads(fs.attrs["classes"])) == official.spec.classes
    )
    assert len(fs.attrs["fingerprint"]) == 16 and int(fs.attrs["fingerprint"], 16) >= 0


def test_windows_of_a_trial_follow_each_other(official):
    fs = official.features("de_LDS", subjects=[2], sessions=[3])
    meta = pd.DataFrame({c: fs[c].values for c in META})
    assert set(meta.subject) == {2} and set(meta.session) == {3}
    windows = SECONDS[official.spec.name] // official.spec.window_s
    for _, t in meta.groupby("trial"):
        assert (
            np.allclose(t.start_s, np.arange(windows) * official.spec.window_s)
            and t["label"].nunique() == t["clip"].nunique() == 1
        )
    order = meta.trial.to_numpy()
    assert (np.diff(order) >= 0).all() and order[0] == 1


def test_selection_is_part_of_the_whole_and_has_its_own_fingerprint(official):
    whole, part = (
        official.features("de_LDS"),
        official.features("de_LDS", subjects=[2], sessions=[1]),
    )
    inside = ((whole.subject == 2) & (whole.session == 1)).values
    assert np.array_equal(whole.eeg.values[inside], part.eeg.values)
    assert (
        whole.attrs["fingerprint"]
        != part.attrs["fingerprint"]
        == official.features("de_LDS", subjects=[2], sessions=[1]).attrs["fingerprint"]
    )


def test_every_released_feature_reads(official):
    names = official.available_features()
    assert "de_LDS" in names
    sizes = {}
    for n in names:
        fs = official.features(n, subjects=[1], sessions=[1])
        sizes.setdefault(fs.attrs["window_s"], {})[n] = fs.eeg.shape
    assert all(len(set(s.values())) == 1 for s in sizes.values()), (
        sizes
    )  # the same windows in all features of one length


def test_clips(roots):
    seed = open_dataset("SEED", roots / "SEED").features("de_LDS", subjects=[1])
    assert all(
        set(seed["clip"].values[seed.session.values == s]) == set(range(1, 16)) for s in (1, 2, 3)
    )  # the same 15 films on each day
    iv = open_dataset("SEED-IV", roots / "SEED-IV").features("de_LDS", subjects=[1])
    assert set(iv["clip"].values) == set(range(1, 73))  # other films each day


def test_what_does_not_exist_is_refused(ds):
    with pytest.raises(ValueError):
        ds.features("de_lds")
    with pytest.raises(ValueError):
        list(ds.trials(subjects=[99 if ds.spec.name != "BIDS" else "99"]))


def test_verify(ds, roots):
    table, problems = verify(ds.spec.name, roots / ds.spec.name)
    assert problems == [] and len(table) == len(ds.subjects) * ds.spec.n_sessions
    assert {"subject", "session", "trials"} <= set(table.columns) and set(ds.spec.classes) <= set(
        table.columns
    )


def test_feature_set_survives_netcdf(official, tmp_path):
    fs = official.features("de_LDS", subjects=[1], sessions=[1])
    save_features(tmp_path / "a.nc", fs)
    again = open_features(tmp_path / "a.nc")
    assert (
        again.eeg.dtype == np.float32
        and again.attrs["fingerprint"] == fs.attrs["fingerprint"]
        and np.array_equal(again.eeg.values, fs.eeg.values)
    )
    for c in (*META, "channel", "band"):
        assert again[c].values.tolist() == fs[c].values.tolist(), c


def test_readers_import_neither_torch_nor_mne():
    modules = (
        "emo_lib.data.datasets",
        "emo_lib.data.seed",
        "emo_lib.data.bids",
        "emo_lib.signals.features",
        "emo_lib.protocols.cross_session",
    )
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "mne", "mne_bids"} & set(run.stdout.split())


def test_reading_a_session_does_not_read_the_others(official, monkeypatch):
    "One file at a time: the first trial opens one .mat file of signals."
    import scipy.io

    opened, loadmat = [], scipy.io.loadmat
    monkeypatch.setattr(
        scipy.io,
        "loadmat",
        lambda path, *a, **k: (
            opened.append(str(getattr(path, "name", path))) or loadmat(path, *a, **k)
        ),
    )
    next(official.trials())
    assert len(set(opened)) == 1, opened


def test_an_unknown_argument_is_named_with_the_known_ones(roots):
    with pytest.raises(ValueError, match="SEED: unknown argument nonsense; known are: bands_axis"):
        open_dataset("SEED", roots / "SEED", nonsense=1)
    with pytest.raises(
        ValueError, match="BIDS: unknown argument nonsense; known are: trial_types, tmin, duration"
    ):
        verify("BIDS", roots / "BIDS", nonsense=1)


def first_session(root):
    return sorted((root / "eeg_raw_data" / "1").glob("*.mat"))


@pytest.fixture
def own(tmp_path):
    "A twin of SEED-IV that a test may damage."
    write_twin("SEED-IV", tmp_path / "IV", subjects=2, seed=0, seconds_per_trial=12)
    return tmp_path / "IV"


def test_sessions_without_signals_are_left_out_with_a_warning(own, tmp_path):
    first_session(own)[0].unlink()
    ds = open_dataset("SEED-IV", own, strict=False)
    with pytest.warns(UserWarning, match="no signals, so left out: subject . session 1$"):
        write_features(ds, tmp_path / "out", progress=False)
    fs = load_features(tmp_path / "out")
    assert len(set(zip(fs.subject.values, fs.session.values))) == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_features(
            ds, tmp_path / "released", source="released", progress=False
        )  # the released features are all there
    for path in (own / "eeg_raw_data").glob("*/*.mat"):
        path.unlink()
    with pytest.raises(ValueError, match="holds no signals"):
        extract(open_dataset("SEED-IV", own, strict=False))


def test_nan_in_a_file_points_to_verify_for_all(own, tmp_path):
    import scipy.io

    for path in first_session(own):
        data = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
        key = min(k for k in data if k.endswith("eeg1"))
        data[key] = data[key].astype("f8")
        data[key][3, 7] = np.nan
        scipy.io.savemat(path, data)
    with pytest.raises(LayoutError, match="NaN.*`emo verify` names those of all files"):
        write_features(open_dataset("SEED-IV", own), tmp_path / "out", progress=False)
    assert sum("NaN" in str(p) for p in verify("SEED-IV", own)[1]) == 2
