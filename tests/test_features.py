"""Edge cases of features, smoothing and feature sets that are no lesson; the lessons stand in notebooks 11, 12 and 15."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emo_lib.base.facts import SPECS, Trial, make_signal
from emo_lib.base.store import file_fingerprint
from emo_lib.samples.featuresets import (
    Recipe,
    extract,
    finished,
    in_single,
    load_features,
    open_features,
    save_features,
    write_features,
)
from emo_lib.signals.features import band_bins, band_variance, differential_entropy, psd
from emo_lib.signals.smoothing import lds, moving_average

rng = np.random.default_rng(0)
METHODS = ("variance", "psd", "seed_vii")

# ---- features


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "where", [0, 399, 400]
)  # the last sample belongs to no window and is checked all the same
def test_not_finite(method, value, where):
    x = rng.normal(size=(3, 401))
    x[1, where] = value
    with pytest.raises(ValueError, match="1 NaN or infinite"):
        differential_entropy(x, 200, method=method)


def test_two_infinities_that_cancel():
    x = np.zeros((2, 400))
    x[0, 0], x[1, 0] = np.inf, -np.inf
    with pytest.raises(ValueError, match="2 NaN or infinite"):
        band_variance(x, 200)


@pytest.mark.parametrize("method", METHODS)
def test_views_and_integers_give_the_same(method):
    x = rng.integers(-50, 50, (2, 3, 800))
    want = differential_entropy(x.astype(float), 200, method=method)
    assert want.shape == (2, 3, 4, 5)
    for same in (
        x,
        x.astype("i2"),
        np.asfortranarray(x.astype(float)),
        np.repeat(x.astype(float), 2, axis=-1)[..., ::2],
        x.astype(">f8"),
    ):
        assert np.allclose(differential_entropy(same, 200, method=method), want, rtol=1e-12)
    assert np.allclose(
        differential_entropy(x[0, 0], 200, method=method), want[0, 0]
    )  # (time,) -> (window, band)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_dead_channel_is_finite(method, dtype):
    x = np.full((2, 400), 3.0, dtype)
    x[1] = 0
    assert np.isfinite(differential_entropy(x, 200, method=method)).all()


def test_rates_and_windows():
    x = rng.normal(size=(4, 1000))
    assert differential_entropy(x, 256, window_s=0.8).shape == (4, 1000 // 205, 5)
    assert differential_entropy(x, 250.0, window_s=1).shape == (4, 4, 5)
    assert differential_entropy(x, 200, window_s=5).shape == (4, 1, 5)
    for sfreq, window_s, match in (
        (200, 6, "at least one window"),
        (200, 0, "at least 2 samples"),
        (90, 1, "45 Hz"),
        (200, 0.2, "holds no Fourier"),
    ):
        with pytest.raises(ValueError, match=match):
            differential_entropy(x, sfreq, window_s=window_s)


def test_bands():
    assert band_variance(np.ones((1, 400)), 200, [(1, 4), (4, 100)]).shape == (1, 2, 2)
    for bands in ({}, {"a": (4, 4)}, {"a": (8, 4)}, {"a": (-1, 4)}, {"a": (50, 101)}):
        with pytest.raises(ValueError):
            band_bins(bands, 200, 200)
    assert band_bins([(0, 4)], 200, 200) == [slice(1, 4)]  # the mean belongs to no band
    with pytest.raises(ValueError, match="seed_vii"):
        psd(np.ones((1, 400)), 200, [(0.5, 4)], method="seed_vii")


def test_whole_spectrum_is_the_whole_variance():
    x = rng.normal(size=(1, 201))  # odd: no coefficient at half the rate
    assert np.isclose(band_variance(x, 201, [(0.5, 100.5)])[0, 0, 0], x.var())


def test_unknown_words():
    x = np.ones((1, 400))
    for kw in ({"method": "welch"}, {"taper": "hamming"}, {"method": "psd", "taper": "hann"}):
        with pytest.raises(ValueError):
            differential_entropy(x, 200, **kw)
    with pytest.raises(ValueError):
        psd(x, 200, method="variance")


def test_many_short_windows_and_one_channel_with_many():
    x = rng.normal(size=(300, 2, 200))
    assert np.allclose(differential_entropy(x, 200)[137, 1], differential_entropy(x[137, 1], 200))
    assert np.allclose(
        differential_entropy(x.reshape(-1), 200)[275], differential_entropy(x[137, 1], 200)[0]
    )


# ---- smoothing


@pytest.mark.parametrize("f", [lds, moving_average, lambda x, axis=0: lds(x, axis, causal=True)])
def test_axes_types_and_refusals(f):
    x = rng.normal(size=(3, 40, 2))
    want = np.stack([np.stack([f(x[i, :, j]) for j in range(2)], -1) for i in range(3)])
    for axis in (1, -2):
        assert np.allclose(f(x, axis=axis), want)
    kept = x.copy()
    f(x, axis=1)
    assert np.array_equal(x, kept)  # the input stays as it was
    assert f(x.astype("f4"), axis=1).dtype == np.float32 and f(np.arange(9)).dtype == np.float64
    for bad in (np.array(1.0), np.zeros((0, 3)), np.zeros((3, 0)), np.array([1, np.inf])):
        with pytest.raises(ValueError):
            f(bad)
    for axis in (3, -4):
        with pytest.raises(ValueError):
            f(x, axis=axis)


def test_long_series_with_an_offset():
    from pykalman import KalmanFilter

    y = 1e4 + np.cumsum(rng.normal(size=1000))
    kf = KalmanFilter(
        transition_matrices=1,
        observation_matrices=1,
        transition_covariance=1e-3,
        observation_covariance=1,
        initial_state_mean=y.mean(),
        initial_state_covariance=0.1,
    )
    assert np.abs(lds(y) - kf.smooth(y)[0].ravel()).max() < 1e-9


def test_start_of_the_state():
    x = rng.normal(size=(20, 3, 2))
    start = rng.normal(size=(3, 2))
    assert np.allclose(lds(x, m0=start)[:, 1, 0], lds(x[:, 1, 0], m0=start[1, 0]))
    assert np.allclose(lds(x, m0="mean"), lds(x))
    for kw in ({"q": -1}, {"r": np.nan}, {"p0": 0}, {"m0": np.zeros(7)}):
        with pytest.raises(ValueError):
            lds(x, **kw)
    for width in (0, -1, 2, 2.5):
        with pytest.raises(ValueError, match="width"):
            moving_average(x, width=width)
    assert moving_average(x, width=2, causal=True).shape == x.shape


# ---- feature sets


class Toy:
    "A reader in small: two subjects with a letter, four channels, three trials of 5 s a session."

    spec, provenance, root, cells = (
        SPECS["SEED"],
        "synthetic",
        None,
        {"a": "FP1", "b": "FPZ", "c": "FP2", "d": None},
    )
    subjects, stop_at, bads, nan = ["A", "B"], None, (), None

    def sessions(self, subject):
        return [1, 2]

    def available_features(self):
        return []

    def trials(self, subjects=None, sessions=None):
        for who in subjects:
            for k in sessions:
                for t in range(3):
                    if (who, k, t) == self.stop_at:
                        raise KeyboardInterrupt
                    x = np.random.default_rng([ord(who), k, t]).normal(0, 10, (4, 1000))
                    if self.nan == t:
                        x[2, 5] = np.nan
                    signal = make_signal(x, "abcd", 200.0)
                    signal.attrs["bads"] = list(self.bads)
                    yield Trial(signal, 200.0, who, k, t + 1, t % 3, 0)


def test_names_cells_and_marked_channels(tmp_path):
    ds = Toy()
    ds.bads = ["b", "not there"]
    write_features(ds, tmp_path, "psd_movingAve", progress=False)
    fs = load_features(tmp_path, subjects=["B"])
    assert (
        fs.sizes["window"] == 2 * 3 * 5
        and set(fs.subject.values) == {"B"}
        and fs.cell.values.tolist() == ["FP1", "FPZ", "FP2", ""]
    )
    assert (
        not fs.valid.sel(channel="b").any()
        and fs.valid.sel(channel="a").all()
        and (fs.eeg.sel(channel="b") == 0).all()
    )
    ds.bads = "abcd"
    with pytest.raises(ValueError, match="subject A, session 1, trial 1: all 4 channels"):
        next(extract(ds))


def test_nan_is_a_bad_channel_or_an_error_with_a_name():
    ds = Toy()
    ds.nan = 1
    fs = next(extract(ds))
    assert fs.valid.sel(channel="c").values.tolist() == [True] * 5 + [False] * 5 + [True] * 5
    with pytest.raises(ValueError, match="subject A, session 1, trial 2: .*NaN"):
        next(extract(ds, find_bad=False))


def test_refused_before_any_work(tmp_path):
    ds = Toy()
    ds.stop_at = ("A", 1, 0)  # a trial that is opened would interrupt
    for error, kw in (
        (TypeError, {"windows": 3}),
        (ValueError, {"q": 0}),
        (ValueError, {"width": 4}),
        (ValueError, {"method": "fft"}),
        (ValueError, {"window_s": -1}),
        (ValueError, {"source": "raw"}),
        (ValueError, {"source": "released"}),
        (ValueError, {"subjects": ["C"]}),
        (TypeError, {"source": "released", "q": 1.0}),
    ):
        with pytest.raises(error):
            write_features(ds, tmp_path, progress=False, **kw)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_run_goes_on(tmp_path):
    ds = Toy()
    ds.stop_at = ("B", 1, 1)
    with pytest.raises(KeyboardInterrupt):
        write_features(ds, tmp_path, progress=False)
    assert sorted(os.listdir(tmp_path)) == ["sub-A_ses-1.nc", "sub-A_ses-2.nc"]
    with pytest.raises(FileNotFoundError, match="never finished"):
        load_features(tmp_path)
    times = {p: os.stat(tmp_path / p).st_mtime_ns for p in os.listdir(tmp_path)}
    write_features(Toy(), tmp_path, progress=False)
    assert (
        all(os.stat(tmp_path / p).st_mtime_ns == t for p, t in times.items())
        and load_features(tmp_path).sizes["window"] == 4 * 15
    )


def test_shards_share_a_folder_and_other_parameters_do_not_mix(tmp_path):
    for who in "BA":
        write_features(Toy(), tmp_path, subjects=[who], progress=False)
    assert list(dict.fromkeys(load_features(tmp_path).subject.values)) == ["A", "B"]
    write_features(Toy(), tmp_path, subjects=["A"], q=0.1, progress=False)
    assert set(load_features(tmp_path).subject.values) == {"A"}  # B's files are of another q


def test_another_input_is_noticed(tmp_path):
    ds = Toy()
    ds.root = tmp_path / "data"
    ds.root.mkdir()
    (ds.root / "a.mat").write_text("one")
    out = ds.root / "features"  # inside the data: its own files are no input
    write_features(ds, out, progress=False)
    before = (out / "sub-A_ses-1.nc").stat().st_mtime_ns
    write_features(ds, out, progress=False)
    assert (out / "sub-A_ses-1.nc").stat().st_mtime_ns == before
    (ds.root / "a.mat").write_text("another")
    write_features(ds, out, progress=False)
    assert (out / "sub-A_ses-1.nc").stat().st_mtime_ns > before


def test_damaged_and_foreign_files(tmp_path):
    write_features(Toy(), tmp_path, progress=False)
    path = tmp_path / "sub-A_ses-1.nc"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    i = whole.find(open_features(path).eeg.values.astype(">f4").tobytes())
    flipped[i + 40] ^= 0xFF
    for content in (
        b"",
        b"CDF",
        whole[: len(whole) // 2],
        b"\x89HDF\r\n\x1a\n" + b"0" * 500,
        bytes(flipped),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="sub-A_ses-1.nc"):
            load_features(tmp_path)
        assert not finished(path, "", "")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="sub-A_ses-1.nc"):
        load_features(tmp_path)
    (tmp_path / "features.json").write_text("[]")
    with pytest.raises(ValueError, match="features.json"):
        load_features(tmp_path)
    write_features(Toy(), tmp_path, progress=False)
    assert path.read_bytes() == whole


def test_a_file_exchanged_for_another(tmp_path):
    write_features(Toy(), tmp_path, progress=False)
    (tmp_path / "sub-A_ses-1.nc").write_bytes((tmp_path / "sub-B_ses-1.nc").read_bytes())
    with pytest.raises(ValueError, match="not the file"):
        load_features(tmp_path)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match="choose another output folder"):
        write_features(Toy(), tmp_path / "out", progress=False)


def test_a_disk_that_takes_no_more(tmp_path):
    fs = next(extract(Toy()))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        with pytest.raises(OSError, match="full.nc"):
            save_features(tmp_path / "full.nc", fs)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_channels_that_change_within_a_session():
    class Changing(Toy):
        def trials(self, *a, **k):
            for t in super().trials(*a, **k):
                yield (
                    t if t.trial < 3 else Trial(t.signal[:3], 200.0, t.subject, t.session, 3, 0, 0)
                )

    with pytest.raises(ValueError, match="trial 3: expected the channels"):
        next(extract(Changing()))


def test_manifest_says_what_was_done(tmp_path):
    made = json.loads(
        write_features(Toy(), tmp_path, "de", method="seed_vii", progress=False).read_text()
    )
    assert (
        made["parameters"]["bands"]["gamma"] == [31, 49]
        and made["parameters"]["source"] == "preprocessed"
        and len(made["files"]) == 4
    )
    assert {
        "file",
        "subject",
        "session",
        "windows",
        "fingerprint",
        "skipped_trials",
        "source_files",
    } == set(made["files"][0])


@pytest.mark.parametrize("window_s", [0, -1, np.inf, -np.inf, np.nan])
def test_impossible_windows_are_refused_before_any_work(window_s, tmp_path):
    with pytest.raises(ValueError, match="window_s: expected (more than 0|a finite number), found"):
        write_features(Toy(), tmp_path, window_s=window_s, progress=False)
    with pytest.raises(ValueError, match="window_s"):
        Recipe(window_s=window_s)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("window_s", [6, 1e9, 1e308])
def test_a_window_longer_than_every_trial(window_s):
    with pytest.raises(
        ValueError,
        match="subject A, session 1, trial 1: expected at least one window .* found 5.00 s",
    ):
        next(extract(Toy(), window_s=window_s))
    with pytest.raises(ValueError, match="3 shorter ones and no other"):
        next(extract(Toy(), window_s=window_s, short="skip"))


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        "null",
        "",
        "{",
        "[" * 100_000,
        '{"a": 1}',
        '{"files": {}}',
        '{"files": [{}]}',
        '{"files": [1]}',
        '{"files": [{"subject": [1]}]}',
        '{"files": [{"subject": 1, "session": 1, "file": "a.nc"}]}',
        '{"files": [{"subject": 1, "session": 1, "fingerprint": "0"}]}',
        '{"files": [{"subject": 1, "session": 1, "file": "../a.nc", "fingerprint": "0"}]}',
        '{"files": []}',
    ],
)
def test_a_damaged_manifest_is_named_with_what_to_do(content, tmp_path):
    (tmp_path / "features.json").write_text(content)
    with pytest.raises(
        ValueError,
        match=r"features\.json: (?s:.*)delete features\.json and run `snakemake` \(or `emo features`\) again",
    ):
        load_features(tmp_path)


def test_all_damaged_files_are_told_at_once_and_the_advice_mends_them(tmp_path):
    write_features(Toy(), tmp_path, progress=False)
    whole = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.glob("*.nc")}
    (tmp_path / "sub-A_ses-1.nc").write_bytes(b"half")
    (tmp_path / "sub-A_ses-2.nc").write_bytes(whole["sub-B_ses-2.nc"][0])
    (tmp_path / "sub-B_ses-1.nc").unlink()
    with pytest.raises(ValueError) as e:
        load_features(tmp_path)
    text = str(e.value)
    assert (
        text.startswith("3 files")
        and all(f"sub-{s}.nc: " in text for s in ("A_ses-1", "A_ses-2", "B_ses-1"))
        and "B_ses-2" not in text
        and text.count("delete features.json") == 1
    )
    (tmp_path / "features.json").unlink()
    write_features(Toy(), tmp_path, progress=False)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.nc")} == {
        n: b for n, (b, _) in whole.items()
    }
    assert (tmp_path / "sub-B_ses-2.nc").stat().st_mtime_ns == whole["sub-B_ses-2.nc"][
        1
    ] and load_features(tmp_path).sizes["window"] == 4 * 15


@pytest.mark.parametrize("content", [b"", b"not netCDF", b"CDF"])
def test_a_damaged_neighbour_does_not_stop_a_run(content, tmp_path):
    (tmp_path / "sub-B_ses-1.nc").write_bytes(content)
    write_features(Toy(), tmp_path, subjects=["A"], progress=False)
    assert set(load_features(tmp_path).subject.values) == {"A"}


def test_features_need_neither_torch_nor_mne():
    code = "import sys, emo_lib.samples.featuresets; sys.exit(any(m in sys.modules for m in ('torch', 'mne')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- several processes, where features come from, and the eye


class OnDisk(Toy):
    "The toy with a file for each session, and one that can break, kill its process, or see."

    def __init__(self, root):
        self.root = root

    broken, deadly, seconds, counts = None, None, 0, None

    def files(self, subject, session):
        return [self.root / f"{subject}_{session}.mat"]

    def trials(self, subjects=None, sessions=None):
        for t in super().trials(subjects, sessions):
            if (t.subject, t.session, t.trial) == self.broken:
                t.signal[:] = 0
            if (t.subject, t.session, t.trial) == self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(self.seconds)
            yield t


@pytest.fixture
def disk(tmp_path, monkeypatch):
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for who in "AB":
        for k in (1, 2):
            (tmp_path / "data" / f"{who}_{k}.mat").write_text(f"{who}{k}")
    return OnDisk(tmp_path / "data")


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_any_number_of_processes_writes_the_same_bytes(disk, tmp_path):
    for jobs in (1, 2, 3):
        write_features(disk, tmp_path / str(jobs), jobs=jobs, progress=False)
    assert (
        content(tmp_path / "1") == content(tmp_path / "2") == content(tmp_path / "3")
        and len(content(tmp_path / "1")) == 5
    )
    for jobs in (0, -1, 1.5):
        with pytest.raises(ValueError, match="jobs: expected a number of processes"):
            write_features(disk, tmp_path / "4", jobs=jobs, progress=False)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_names_the_file_and_what_is_finished_stays(jobs, disk, tmp_path):
    disk.broken = ("B", 1, 2)
    with pytest.raises(
        ValueError, match=r"B_1\.mat: subject B, session 1, trial 2: all 4 channels"
    ):
        write_features(disk, tmp_path / "out", jobs=jobs, progress=False)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.nc")}
    assert (
        set(before) & {"sub-A_ses-1.nc", "sub-A_ses-2.nc"}
        and "sub-B_ses-1.nc" not in before
        and not (tmp_path / "out" / "features.json").exists()
    )
    disk.broken = None
    write_features(disk, tmp_path / "out", jobs=jobs, progress=False)
    write_features(disk, tmp_path / "whole", progress=False)
    assert (
        content(tmp_path / "out") == content(tmp_path / "whole")
        and before.items()
        <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.nc")}.items()
    )


def test_a_fault_of_ours_names_the_file_too(disk, tmp_path, monkeypatch):
    monkeypatch.setattr("emo_lib.samples.featuresets.session_features", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError) as e:
        write_features(disk, tmp_path / "out", progress=False)
    assert any("A_1.mat" in note for note in e.value.__notes__)


def test_a_killed_process_is_told_and_the_next_run_goes_on(disk, tmp_path):
    disk.deadly = ("B", 2, 3)
    with pytest.raises(
        ChildProcessError,
        match="memory was full; finished files are kept: run again with fewer jobs",
    ):
        write_features(disk, tmp_path / "out", jobs=2, progress=False)
    disk.deadly = None
    write_features(disk, tmp_path / "out", jobs=2, progress=False)
    write_features(disk, tmp_path / "whole", progress=False)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_leaves_whole_files_and_no_process(how, disk, tmp_path):
    disk.seconds = 0.3
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's background jobs are deaf to SIGINT, and so would be their children
    code = f"{listen}; import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_features import *; ds = OnDisk(Path({str(disk.root)!r})); ds.seconds = 0.3; write_features(ds, {str(tmp_path / 'out')!r}, jobs=2, progress=False)"
    run = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.time() + 60
    while not list((tmp_path / "out").glob("*.nc")) and time.time() < until:
        time.sleep(0.05)
    run.send_signal(how)
    assert run.wait(30) != 0
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("sub*.nc")}
    assert kept and len(kept) < 4 and not (tmp_path / "out" / "features.json").exists()
    until = time.time() + 20
    while (
        time.time() < until
        and subprocess.run(["pgrep", "-s", str(run.pid)], capture_output=True).stdout
    ):
        time.sleep(0.2)
    assert not subprocess.run(
        ["pgrep", "-s", str(run.pid)], capture_output=True
    ).stdout  # no worker outlives the run
    disk.seconds = 0
    write_features(disk, tmp_path / "out", progress=False)
    write_features(disk, tmp_path / "whole", progress=False)
    assert {p: b for p, b in content(tmp_path / "out").items() if ".tmp" not in p} == content(
        tmp_path / "whole"
    )
    assert all((tmp_path / "out" / n).stat().st_mtime_ns == t for n, t in kept.items())


def test_the_content_of_the_input_counts_not_its_time(disk, tmp_path):
    out = tmp_path / "out"
    write_features(disk, out, progress=False)
    times = {p.name: p.stat().st_mtime_ns for p in out.glob("*.nc")}
    os.utime(disk.root / "A_1.mat")  # touched: the same content
    write_features(disk, out, progress=False)
    assert {p.name: p.stat().st_mtime_ns for p in out.glob("*.nc")} == times
    was = (disk.root / "B_2.mat").stat().st_mtime_ns
    (disk.root / "B_2.mat").write_text("B3")
    os.utime(disk.root / "B_2.mat", ns=(was, was))  # the same size and time, another content
    write_features(disk, out, progress=False)
    assert [p.name for p in out.glob("*.nc") if p.stat().st_mtime_ns != times[p.name]] == [
        "sub-B_ses-2.nc"
    ]


def test_features_say_which_files_they_come_from(disk, tmp_path):
    made = json.loads(write_features(disk, tmp_path / "out", progress=False).read_text())
    assert [r["source_files"] for r in made["files"]] == [
        {f"{w}_{k}.mat": file_fingerprint(disk.root / f"{w}_{k}.mat")} for w in "AB" for k in (1, 2)
    ]
    all_, one = load_features(tmp_path / "out"), load_features(tmp_path / "out", subjects=["B"])
    assert (
        (all_.attrs["source_count"], one.attrs["source_count"]) == (4, 2)
        and len(all_.attrs["source_fingerprint"]) == 16
        and all_.attrs["source_fingerprint"] != one.attrs["source_fingerprint"]
    )
    assert "source_files" not in all_.attrs
    (disk.root / "A_1.mat").write_text("other")
    write_features(disk, tmp_path / "out", progress=False)
    again = load_features(tmp_path / "out")
    assert (
        again.attrs["fingerprint"] == all_.attrs["fingerprint"]
        and again.attrs["source_fingerprint"] != all_.attrs["source_fingerprint"]
    )


def test_the_input_that_cannot_be_read_is_named(disk, tmp_path):
    (disk.root / "B_1.mat").unlink()
    with pytest.raises(FileNotFoundError, match="B_1.mat"):
        write_features(disk, tmp_path / "out", progress=False)


class Seeing(OnDisk):
    counts = {1: 5, 2: 6, 3: 4}
    spec = replace(SPECS["SEED"], eye=("pupil_1", "blink_1"))

    def eye_notes(self, seen):
        return {}

    def eye(self, subject, session, window_s):
        return (
            {t: np.full((n, 2), t, "f4") for t, n in self.counts.items()} if window_s == 1 else {}
        )


def test_the_eye_comes_along_cut_and_said(disk, tmp_path):
    ds = Seeing(disk.root)
    write_features(ds, tmp_path / "out", progress=False)
    fs = load_features(tmp_path / "out", subjects=["A"])
    assert (
        fs.sizes["window"] == 2 * (5 + 5 + 4)
        and (fs.eye == fs.trial).all()
        and fs.eye_feature.values.tolist() == ["pupil_1", "blink_1"]
    )
    assert (
        open_features(tmp_path / "out" / "sub-A_ses-1.nc").attrs["eye_cut"]
        == "trial 2: 5 windows of EEG, 6 of the eye, cut to 5; trial 3: 5 windows of EEG, 4 of the eye, cut to 4"
    )
    for kw in ({"eye": False}, {"window_s": 2.0}):
        assert "eye" not in load_features(
            write_features(ds, tmp_path / str(kw), progress=False, **kw).parent
        )


def test_an_eye_of_another_recording_is_refused(disk, tmp_path):
    ds = Seeing(disk.root)
    ds.counts = {1: 5, 2: 5, 3: 2}
    with pytest.raises(
        ValueError,
        match="A_1.mat: subject A, session 1: expected as many windows of the eye .* found 2 and 5 in trial 3",
    ):
        write_features(ds, tmp_path / "out", progress=False)
    ds.counts = {1: 5, 2: 5}
    with pytest.raises(ValueError, match="found none of trial 3"):
        write_features(ds, tmp_path / "out", progress=False)
    write_features(ds, tmp_path / "out", eye=False, progress=False)


def test_single_precision_is_enough():
    for offset in (0, 5e3, 1e5):
        x = np.asfortranarray(offset + rng.normal(0, 10, (8, 4000)))
        one = in_single(x)
        assert (
            one.dtype == np.float32
            and one.flags.c_contiguous
            and np.abs(one - (x - x.mean(1, keepdims=True))).max() < 10
        )
        assert np.abs(differential_entropy(one, 200) - differential_entropy(x, 200)).max() < 1e-4
    x[3, 7], x[4, 0], x[5, 9] = np.nan, np.inf, 1e300
    assert np.argwhere(~np.isfinite(in_single(x))).tolist() == [[3, 7], [4, 0], [5, 9]]
    assert np.abs(in_single(np.arange(10)[None])).max() == 9


class Telling(OnDisk):
    "A reader and pipeline that found something out about each recording."

    def trials(self, subjects=None, sessions=None):
        for t in super().trials(subjects, sessions):
            steps = [
                dict(step="notch", parameters={"freq": 50.0}, found={}),
                dict(step="cut", parameters={"start_s": t.trial}, found={}),
            ]
            t.signal = t.signal.assign_attrs(
                unit_in_file=f"V, subject {t.subject}",
                rate_in_file=250.0,
                steps=json.dumps(steps),
                odd=["no text"],
            )
            yield t


def test_what_was_found_out_about_a_recording_is_kept(disk, tmp_path):
    write_features(Telling(disk.root), tmp_path / "out", progress=False)
    one = open_features(tmp_path / "out" / "sub-A_ses-1.nc").attrs
    assert (
        one["unit_in_file"] == "V, subject A"
        and json.loads(one["preprocessing"])
        == [dict(step="notch", parameters={"freq": 50.0}, found={})]
        and "odd" not in one
        and "units" not in one
    )
    all_ = load_features(tmp_path / "out").attrs
    assert (
        json.loads(all_["unit_in_file"])
        == {f"{w}/{k}": f"V, subject {w}" for w in "AB" for k in (1, 2)}
        and all_["rate_in_file"] == 250.0
        and "preprocessing" not in all_
    )
