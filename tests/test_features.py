"""Edge cases of features, smoothing and feature sets; the notebooks show the ordinary ones."""

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
from click.testing import CliRunner
from pykalman import KalmanFilter

from emo_lib.base.facts import SPECS, Trial, make_signal
from emo_lib.base.store import file_fingerprint
from emo_lib.cli.main import main
from emo_lib.data.datasets import open_dataset
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
from emo_lib.samples.samples import make_samples
from emo_lib.signals.features import band_bins, band_variance, differential_entropy, psd
from emo_lib.signals.smoothing import lds, moving_average
from emo_lib.twins.twin import write_twin

pytestmark = pytest.mark.slow  # writes or reads whole twins

rng = np.random.default_rng(0)
METHODS = ("variance", "psd", "seed_vii")

# ---- features


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sample", [0, 399, 400])  # the last belongs to no window
def test_values_that_are_not_finite_are_refused(method, value, sample):
    x = rng.normal(size=(3, 401))
    x[1, sample] = value
    with pytest.raises(ValueError, match="1 NaN or infinite"):
        differential_entropy(x, 200, method=method)


def test_two_infinities_that_cancel_are_refused():
    x = np.zeros((2, 400))
    x[0, 0], x[1, 0] = np.inf, -np.inf
    with pytest.raises(ValueError, match="2 NaN or infinite"):
        band_variance(x, 200)


@pytest.mark.parametrize("method", METHODS)
def test_views_and_integers_give_the_same(method):
    x = rng.integers(-50, 50, (2, 3, 800))
    expected = differential_entropy(x.astype(float), 200, method=method)
    assert expected.shape == (2, 3, 4, 5)
    with_gaps = np.repeat(x.astype(float), 2, axis=-1)[..., ::2]
    fortran = np.asfortranarray(x.astype(float))
    for same in (x, x.astype("i2"), fortran, with_gaps, x.astype(">f8")):
        assert np.allclose(differential_entropy(same, 200, method=method), expected, rtol=1e-12)
    one_channel = differential_entropy(x[0, 0], 200, method=method)  # (window, band)
    assert np.allclose(one_channel, expected[0, 0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_dead_channel_is_finite(method, dtype):
    x = np.full((2, 400), 3.0, dtype)
    x[1] = 0
    assert np.isfinite(differential_entropy(x, 200, method=method)).all()


@pytest.mark.parametrize(
    "sfreq, window_s, shape",
    [(256, 0.8, (4, 1000 // 205, 5)), (250.0, 1, (4, 4, 5)), (200, 5, (4, 1, 5))],
)
def test_rates_and_windows(sfreq, window_s, shape):
    assert differential_entropy(np.ones((4, 1000)), sfreq, window_s=window_s).shape == shape


@pytest.mark.parametrize(
    "sfreq, window_s, text",
    [
        (200, 6, "at least one window"),
        (200, 0, "at least 2 samples"),
        (90, 1, "45 Hz"),
        (200, 0.2, "holds no Fourier"),
    ],
)
def test_impossible_rates_and_windows(sfreq, window_s, text):
    with pytest.raises(ValueError, match=text):
        differential_entropy(np.ones((4, 1000)), sfreq, window_s=window_s)


def test_bands_may_be_a_list():
    assert band_variance(np.ones((1, 400)), 200, [(1, 4), (4, 100)]).shape == (1, 2, 2)


@pytest.mark.parametrize(
    "bands", [{}, {"a": (4, 4)}, {"a": (8, 4)}, {"a": (-1, 4)}, {"a": (50, 101)}]
)
def test_impossible_bands(bands):
    with pytest.raises(ValueError):
        band_bins(bands, 200, 200)


def test_the_mean_belongs_to_no_band():
    assert band_bins([(0, 4)], 200, 200) == [slice(1, 4)]
    with pytest.raises(ValueError, match="seed_vii"):
        psd(np.ones((1, 400)), 200, [(0.5, 4)], method="seed_vii")


def test_whole_spectrum_is_the_whole_variance():
    x = rng.normal(size=(1, 201))  # odd: no coefficient at half the rate
    assert np.isclose(band_variance(x, 201, [(0.5, 100.5)])[0, 0, 0], x.var())


@pytest.mark.parametrize(
    "options", [{"method": "welch"}, {"taper": "hamming"}, {"method": "psd", "taper": "hann"}]
)
def test_unknown_words(options):
    with pytest.raises(ValueError):
        differential_entropy(np.ones((1, 400)), 200, **options)


def test_unknown_method_of_psd():
    with pytest.raises(ValueError):
        psd(np.ones((1, 400)), 200, method="variance")


def test_many_short_windows_and_one_channel_with_many():
    x = rng.normal(size=(300, 2, 200))
    together = differential_entropy(x, 200)[137, 1]
    one_channel = differential_entropy(x.reshape(-1), 200)
    assert np.allclose(together, differential_entropy(x[137, 1], 200))
    assert np.allclose(one_channel[275], together)


# ---- smoothing


def causal_lds(x, axis=0):
    return lds(x, axis, causal=True)


@pytest.mark.parametrize("smooth", [lds, moving_average, causal_lds])
def test_axes_types_and_refusals(smooth):
    x = rng.normal(size=(3, 40, 2))
    original = x.copy()
    expected = np.empty_like(x)
    for i, j in np.ndindex(3, 2):
        expected[i, :, j] = smooth(x[i, :, j])
    for axis in (1, -2):
        assert np.allclose(smooth(x, axis=axis), expected)
    assert np.array_equal(x, original)
    assert smooth(x.astype("f4"), axis=1).dtype == np.float32
    assert smooth(np.arange(9)).dtype == np.float64
    for wrong in (np.array(1.0), np.zeros((0, 3)), np.zeros((3, 0)), np.array([1, np.inf])):
        with pytest.raises(ValueError):
            smooth(wrong)
    for axis in (3, -4):
        with pytest.raises(ValueError):
            smooth(x, axis=axis)


def test_long_series_with_an_offset():
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
    x, start = rng.normal(size=(20, 3, 2)), rng.normal(size=(3, 2))
    assert np.allclose(lds(x, m0=start)[:, 1, 0], lds(x[:, 1, 0], m0=start[1, 0]))
    assert np.allclose(lds(x, m0="mean"), lds(x))


@pytest.mark.parametrize(
    "options",
    [{"q": -1}, {"r": np.nan}, {"p0": 0}, {"m0": np.zeros(7)}, {"m0": "first"}],
)
def test_impossible_parameters_of_lds(options):
    with pytest.raises(ValueError):
        lds(rng.normal(size=(20, 3, 2)), **options)


@pytest.mark.parametrize("width", [0, -1, 2, 2.5])
def test_impossible_widths(width):
    with pytest.raises(ValueError, match="width"):
        moving_average(np.zeros((20, 3)), width=width)


def test_an_even_width_may_be_causal():
    assert moving_average(np.zeros((20, 3)), width=2, causal=True).shape == (20, 3)


# ---- feature sets


class Toy:
    "A small reader: two subjects with a letter, four channels, three trials of 5 s per session."

    spec, provenance, root = SPECS["SEED"], "synthetic", None
    cells = {"a": "FP1", "b": "FPZ", "c": "FP2", "d": None}
    subjects, stop_at, bads, nan = ["A", "B"], None, (), None

    def sessions(self, subject):
        return [1, 2]

    def available_features(self):
        return []

    def make_trial(self, subject, session, i):
        if (subject, session, i) == self.stop_at:
            raise KeyboardInterrupt
        x = np.random.default_rng([ord(subject), session, i]).normal(0, 10, (4, 1000))
        if self.nan == i:
            x[2, 5] = np.nan
        marked = make_signal(x, "abcd", 200.0).assign_attrs(bads=list(self.bads))
        return Trial(marked, 200.0, subject, session, i + 1, i % 3, 0)

    def trials(self, subjects=None, sessions=None):
        for subject in subjects:
            for session in sessions:
                for i in range(3):
                    yield self.make_trial(subject, session, i)


def write(ds, out, *args, **kw):
    "The manifest of the features of `ds`, which are written without a progress bar."
    return write_features(ds, out, *args, progress=False, **kw)


def times_of(folder, pattern="*.nc"):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_names_cells_and_marked_channels(tmp_path):
    ds = Toy()
    ds.bads = ["b", "not there"]
    write(ds, tmp_path, "psd_movingAve")
    fs = load_features(tmp_path, subjects=["B"])
    assert fs.sizes["window"] == 2 * 3 * 5
    assert set(fs.subject.values) == {"B"}
    assert fs.cell.values.tolist() == ["FP1", "FPZ", "FP2", ""]
    assert not fs.valid.sel(channel="b").any()
    assert fs.valid.sel(channel="a").all()
    assert (fs.eeg.sel(channel="b") == 0).all()


def test_a_trial_without_a_good_channel_is_named():
    ds = Toy()
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


@pytest.mark.parametrize(
    "error, options",
    [
        (TypeError, {"windows": 3}),
        (ValueError, {"q": 0}),
        (ValueError, {"width": 4}),
        (ValueError, {"method": "fft"}),
        (ValueError, {"window_s": -1}),
        (ValueError, {"source": "raw"}),
        (ValueError, {"source": "released"}),
        (ValueError, {"subjects": ["C"]}),
        (TypeError, {"source": "released", "q": 1.0}),
    ],
)
def test_refused_before_any_work(error, options, tmp_path):
    ds = Toy()
    ds.stop_at = ("A", 1, 0)  # a trial that is opened would interrupt
    with pytest.raises(error):
        write(ds, tmp_path, **options)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_run_is_resumed(tmp_path):
    ds = Toy()
    ds.stop_at = ("B", 1, 1)
    with pytest.raises(KeyboardInterrupt):
        write(ds, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["sub-A_ses-1.nc", "sub-A_ses-2.nc"]
    with pytest.raises(FileNotFoundError, match="never finished"):
        load_features(tmp_path)
    times = times_of(tmp_path)
    write(Toy(), tmp_path)
    assert times.items() <= times_of(tmp_path).items()
    assert load_features(tmp_path).sizes["window"] == 4 * 15


def test_shards_share_a_folder_and_other_parameters_do_not_mix(tmp_path):
    for subject in "BA":
        write(Toy(), tmp_path, subjects=[subject])
    assert list(dict.fromkeys(load_features(tmp_path).subject.values)) == ["A", "B"]
    write(Toy(), tmp_path, subjects=["A"], q=0.1)
    assert set(load_features(tmp_path).subject.values) == {"A"}  # B's files are of another q


def test_another_input_is_noticed(tmp_path):
    ds = Toy()
    ds.root = tmp_path / "data"
    ds.root.mkdir()
    (ds.root / "a.mat").write_text("one")
    out = ds.root / "features"  # inside the data: its own files are no input
    write(ds, out)
    before = (out / "sub-A_ses-1.nc").stat().st_mtime_ns
    write(ds, out)
    assert (out / "sub-A_ses-1.nc").stat().st_mtime_ns == before
    (ds.root / "a.mat").write_text("another")
    write(ds, out)
    assert (out / "sub-A_ses-1.nc").stat().st_mtime_ns > before


def test_damaged_and_foreign_files(tmp_path):
    write(Toy(), tmp_path)
    path = tmp_path / "sub-A_ses-1.nc"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    i = whole.find(open_features(path).eeg.values.astype(">f4").tobytes())
    flipped[i + 40] ^= 0xFF
    hdf = b"\x89HDF\r\n\x1a\n" + b"0" * 500
    for damaged in (b"", b"CDF", whole[: len(whole) // 2], hdf, bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="sub-A_ses-1.nc"):
            load_features(tmp_path)
        assert not finished(path, "", "")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="sub-A_ses-1.nc"):
        load_features(tmp_path)
    (tmp_path / "features.json").write_text("[]")
    with pytest.raises(ValueError, match="features.json"):
        load_features(tmp_path)
    write(Toy(), tmp_path)
    assert path.read_bytes() == whole


def test_a_file_exchanged_for_another(tmp_path):
    write(Toy(), tmp_path)
    (tmp_path / "sub-A_ses-1.nc").write_bytes((tmp_path / "sub-B_ses-1.nc").read_bytes())
    with pytest.raises(ValueError, match="not the file"):
        load_features(tmp_path)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match="choose another output folder"):
        write(Toy(), tmp_path / "out")


def test_a_full_disk(tmp_path):
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


class Changing(Toy):
    "The third trial lacks a channel."

    def make_trial(self, subject, session, i):
        trial = super().make_trial(subject, session, i)
        return replace(trial, signal=trial.signal[:3]) if i == 2 else trial


def test_channels_that_change_within_a_session():
    with pytest.raises(ValueError, match="trial 3: expected the channels"):
        next(extract(Changing()))


def test_the_manifest_records_what_was_done(tmp_path):
    manifest = json.loads(write(Toy(), tmp_path, "de", method="seed_vii").read_text())
    assert manifest["parameters"]["bands"]["gamma"] == [31, 49]
    assert manifest["parameters"]["source"] == "preprocessed"
    assert len(manifest["files"]) == 4
    assert set(manifest["files"][0]) == {
        "file",
        "subject",
        "session",
        "windows",
        "fingerprint",
        "skipped_trials",
        "source_files",
    }


@pytest.mark.parametrize("window_s", [0, -1, np.inf, -np.inf, np.nan])
def test_impossible_windows_are_refused_before_any_work(window_s, tmp_path):
    with pytest.raises(ValueError, match="window_s: expected (more than 0|a finite number), found"):
        write(Toy(), tmp_path, window_s=window_s)
    with pytest.raises(ValueError, match="window_s"):
        Recipe(window_s=window_s)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("window_s", [6, 1e9, 1e308])
def test_a_window_longer_than_every_trial(window_s):
    expected = "subject A, session 1, trial 1: expected at least one window .* found 5.00 s"
    with pytest.raises(ValueError, match=expected):
        next(extract(Toy(), window_s=window_s))
    with pytest.raises(ValueError, match="3 shorter ones and no other"):
        next(extract(Toy(), window_s=window_s, short="skip"))


@pytest.mark.parametrize(
    "text",
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
def test_a_damaged_manifest_is_named_with_what_to_do(text, tmp_path):
    (tmp_path / "features.json").write_text(text)
    remedy = r"delete features\.json and run `snakemake` \(or `emo features`\) again"
    with pytest.raises(ValueError, match=r"features\.json: (?s:.*)" + remedy):
        load_features(tmp_path)


def test_all_damaged_files_are_listed_and_the_remedy_works(tmp_path):
    write(Toy(), tmp_path)
    (tmp_path / "features.json").unlink()
    whole, times = content(tmp_path), times_of(tmp_path)
    write(Toy(), tmp_path)
    (tmp_path / "sub-A_ses-1.nc").write_bytes(b"half")
    (tmp_path / "sub-A_ses-2.nc").write_bytes(whole["sub-B_ses-2.nc"])
    (tmp_path / "sub-B_ses-1.nc").unlink()
    with pytest.raises(ValueError) as caught:
        load_features(tmp_path)
    text = str(caught.value)
    assert text.startswith("3 files")
    for name in ("sub-A_ses-1.nc", "sub-A_ses-2.nc", "sub-B_ses-1.nc"):
        assert f"{name}: " in text
    assert "B_ses-2" not in text
    assert text.count("delete features.json") == 1
    (tmp_path / "features.json").unlink()
    write(Toy(), tmp_path)
    assert load_features(tmp_path).sizes["window"] == 4 * 15
    (tmp_path / "features.json").unlink()
    assert content(tmp_path) == whole
    assert times_of(tmp_path)["sub-B_ses-2.nc"] == times["sub-B_ses-2.nc"]


@pytest.mark.parametrize("damaged", [b"", b"not netCDF", b"CDF"])
def test_a_damaged_neighbour_does_not_stop_a_run(damaged, tmp_path):
    (tmp_path / "sub-B_ses-1.nc").write_bytes(damaged)
    write(Toy(), tmp_path, subjects=["A"])
    assert set(load_features(tmp_path).subject.values) == {"A"}


def test_features_need_neither_torch_nor_mne():
    code = (
        "import sys, emo_lib.samples.featuresets\n"
        "sys.exit(bool({'torch', 'mne'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- several processes, where features come from, and the eye


class OnDisk(Toy):
    "The toy with a file per session; a trial can be broken, slow, or kill its process."

    broken, deadly, seconds = None, None, 0

    def __init__(self, root):
        self.root = root

    def files(self, subject, session):
        return [self.root / f"{subject}_{session}.mat"]

    def make_trial(self, subject, session, i):
        trial = super().make_trial(subject, session, i)
        if (subject, session, i + 1) == self.broken:
            trial.signal[:] = 0
        if (subject, session, i + 1) == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return trial


@pytest.fixture
def disk(tmp_path, monkeypatch):
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for name in ("A1", "A2", "B1", "B2"):
        (tmp_path / "data" / f"{name[0]}_{name[1]}.mat").write_text(name)
    return OnDisk(tmp_path / "data")


def test_any_number_of_processes_writes_the_same_bytes(disk, tmp_path):
    for jobs in (1, 2, 3):
        write(disk, tmp_path / str(jobs), jobs=jobs)
    assert len(content(tmp_path / "1")) == 5
    assert content(tmp_path / "2") == content(tmp_path / "1")
    assert content(tmp_path / "3") == content(tmp_path / "1")


@pytest.mark.parametrize("jobs", [0, -1, 1.5])
def test_impossible_numbers_of_processes(jobs, disk, tmp_path):
    with pytest.raises(ValueError, match="jobs: expected a number of processes"):
        write(disk, tmp_path / "out", jobs=jobs)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_names_the_file_and_keeps_what_is_finished(jobs, disk, tmp_path):
    out = tmp_path / "out"
    disk.broken = ("B", 1, 2)
    with pytest.raises(ValueError, match=r"B_1\.mat: subject B, session 1, trial 2: all 4 chan"):
        write(disk, out, jobs=jobs)
    before = times_of(out)
    assert set(before) & {"sub-A_ses-1.nc", "sub-A_ses-2.nc"}
    assert "sub-B_ses-1.nc" not in before
    assert not (out / "features.json").exists()
    disk.broken = None
    write(disk, out, jobs=jobs)
    write(disk, tmp_path / "whole")
    assert content(out) == content(tmp_path / "whole")
    assert before.items() <= times_of(out).items()


def test_a_fault_of_the_library_names_the_file_too(disk, tmp_path, monkeypatch):
    monkeypatch.setattr("emo_lib.samples.featuresets.session_features", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        write(disk, tmp_path / "out")
    assert any("A_1.mat" in note for note in caught.value.__notes__)


def test_a_killed_process_is_reported_and_the_run_resumed(disk, tmp_path):
    disk.deadly = ("B", 2, 3)
    expected = "memory was full; finished files are kept: run again with fewer jobs"
    with pytest.raises(ChildProcessError, match=expected):
        write(disk, tmp_path / "out", jobs=2)
    disk.deadly = None
    write(disk, tmp_path / "out", jobs=2)
    write(disk, tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


# a shell's background jobs ignore SIGINT, and so would their children
SLOW_RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
from test_features import *
ds = OnDisk(Path(sys.argv[2]))
ds.seconds = 0.3
write(ds, sys.argv[3], jobs=2)
"""


def wait_until(condition, seconds):
    end = time.time() + seconds
    while not condition() and time.time() < end:
        time.sleep(0.1)
    return condition()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_leaves_whole_files_and_no_process(how, disk, tmp_path):
    out = tmp_path / "out"
    arguments = [str(Path(__file__).parent), str(disk.root), str(out)]
    run = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, *arguments],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def no_process_left():
        return not subprocess.run(["pgrep", "-s", str(run.pid)], capture_output=True).stdout

    wait_until(lambda: list(out.glob("*.nc")), 60)
    run.send_signal(how)
    assert run.wait(30) != 0
    kept = times_of(out, "sub*.nc")
    assert 0 < len(kept) < 4
    assert not (out / "features.json").exists()
    assert wait_until(no_process_left, 20)
    write(disk, out)
    write(disk, tmp_path / "whole")
    without_partial = {name: data for name, data in content(out).items() if ".tmp" not in name}
    assert without_partial == content(tmp_path / "whole")
    assert kept.items() <= times_of(out).items()


def test_the_content_of_the_input_counts_not_its_time(disk, tmp_path):
    out = tmp_path / "out"
    write(disk, out)
    times = times_of(out)
    os.utime(disk.root / "A_1.mat")  # the same content
    write(disk, out)
    assert times_of(out) == times
    before = (disk.root / "B_2.mat").stat().st_mtime_ns
    (disk.root / "B_2.mat").write_text("B3")
    os.utime(disk.root / "B_2.mat", ns=(before, before))  # same size and time, other content
    write(disk, out)
    assert dict(times_of(out).items() - times.items()).keys() == {"sub-B_ses-2.nc"}


def test_features_record_which_files_they_come_from(disk, tmp_path):
    manifest = json.loads(write(disk, tmp_path / "out").read_text())
    for entry in manifest["files"]:
        name = f"{entry['subject']}_{entry['session']}.mat"
        assert entry["source_files"] == {name: file_fingerprint(disk.root / name)}
    whole = load_features(tmp_path / "out").attrs
    one = load_features(tmp_path / "out", subjects=["B"]).attrs
    assert whole["source_count"] == 4
    assert one["source_count"] == 2
    assert len(whole["source_fingerprint"]) == 16
    assert whole["source_fingerprint"] != one["source_fingerprint"]
    assert "source_files" not in whole
    (disk.root / "A_1.mat").write_text("other")
    write(disk, tmp_path / "out")
    again = load_features(tmp_path / "out").attrs
    assert again["fingerprint"] == whole["fingerprint"]
    assert again["source_fingerprint"] != whole["source_fingerprint"]


def test_the_input_that_cannot_be_read_is_named(disk, tmp_path):
    (disk.root / "B_1.mat").unlink()
    with pytest.raises(FileNotFoundError, match="B_1.mat"):
        write(disk, tmp_path / "out")


class WithEyes(OnDisk):
    "Eye features: numbers of windows per trial."

    counts = {1: 5, 2: 6, 3: 4}
    spec = replace(SPECS["SEED"], eye=("pupil_1", "blink_1"))

    def eye_notes(self, seen):
        return {}

    def eye(self, subject, session, window_s):
        if window_s != 1:
            return {}
        return {trial: np.full((n, 2), trial, "f4") for trial, n in self.counts.items()}


def test_eye_features_are_cut_and_recorded(disk, tmp_path):
    ds = WithEyes(disk.root)
    write(ds, tmp_path / "out")
    fs = load_features(tmp_path / "out", subjects=["A"])
    assert fs.sizes["window"] == 2 * (5 + 5 + 4)
    assert (fs.eye == fs.trial).all()
    assert fs.eye_feature.values.tolist() == ["pupil_1", "blink_1"]
    assert open_features(tmp_path / "out" / "sub-A_ses-1.nc").attrs["eye_cut"] == (
        "trial 2: 5 windows of EEG, 6 of the eye, cut to 5; "
        "trial 3: 5 windows of EEG, 4 of the eye, cut to 4"
    )


@pytest.mark.parametrize("options", [{"eye": False}, {"window_s": 2.0}])
def test_eye_features_can_be_left_out(options, disk, tmp_path):
    write(WithEyes(disk.root), tmp_path / "out", **options)
    assert "eye" not in load_features(tmp_path / "out")


def test_eye_features_of_another_recording_are_refused(disk, tmp_path):
    ds = WithEyes(disk.root)
    ds.counts = {1: 5, 2: 5, 3: 2}
    expected = (
        "A_1.mat: subject A, session 1: expected as many windows of the eye .* "
        "found 2 and 5 in trial 3"
    )
    with pytest.raises(ValueError, match=expected):
        write(ds, tmp_path / "out")
    ds.counts = {1: 5, 2: 5}
    with pytest.raises(ValueError, match="found none of trial 3"):
        write(ds, tmp_path / "out")
    write(ds, tmp_path / "out", eye=False)


# ---- the eye, held over shorter windows

HELD = [("SEED-IV", "preprocessed", {}), ("SEED-V", "raw", {"raw": "int16"})]


@pytest.fixture(scope="module", params=HELD, ids=["SEED-IV", "SEED-V"])
def held_twin(request, tmp_path_factory):
    "A twin with trials of 10 s, so 2 windows of the eye, and what its features are made from."
    name, source, parameters = request.param
    root = tmp_path_factory.mktemp(name)
    write_twin(name, root, subjects=1, seconds_per_trial=10, **parameters)
    return open_dataset(name, root), source


# SEED-V is computed from recordings of 1000 Hz, which takes longer
SEED_IV_ONLY = pytest.mark.parametrize("held_twin", HELD[:1], indirect=True, ids=["SEED-IV"])


def write_and_load(ds, out, **options):
    write(ds, out, "de", **options)
    return load_features(out)


def test_eye_features_are_held_over_shorter_windows(held_twin, tmp_path):
    ds, source = held_twin
    options = dict(window_s=1.0, source=source)
    fs = write_and_load(ds, tmp_path / "held", eye="hold", **options)
    without = write_and_load(ds, tmp_path / "without", eye=True, **options)
    n_trials = sum(len(ds.spec.labels[session]) for session in ds.sessions(1))
    assert without.sizes["window"] == 10 * n_trials
    assert "eye" not in without
    assert "eye_held" not in without.attrs
    row = 0
    for session in ds.sessions(1):
        eye = ds.eye(1, session, 4.0)
        for trial in range(1, len(ds.spec.labels[session]) + 1):
            assert len(eye[trial]) == 2
            assert (eye[trial][0] != eye[trial][1]).any()
            for i in range(8):  # the last two of ten windows have no eye
                assert (fs.session[row], fs.trial[row], fs.start_s[row]) == (session, trial, i)
                assert np.array_equal(fs.eye[row], eye[trial][i // 4])
                row += 1
    assert row == fs.sizes["window"]
    assert np.array_equal(fs.eeg, without.eeg[without.start_s.values < 8])
    assert fs.attrs["eye_held"] == (
        "eye features of 4-s windows are held over windows of 1 s; "
        "the EEG after the last of them in a trial is left out"
    )
    assert json.loads(fs.attrs["parameters"])["eye"] == "hold"
    samples = make_samples(fs, modalities=("eeg", "eye"))
    assert samples.meta.attrs["caveats"] == [fs.attrs["eye_held"]]


@SEED_IV_ONLY
def test_windows_as_long_as_those_of_the_eye_need_no_hold(held_twin, tmp_path):
    ds, source = held_twin
    held = write_and_load(ds, tmp_path / "held", eye="hold", source=source)
    plain = write_and_load(ds, tmp_path / "plain", source=source)
    assert held.attrs["fingerprint"] == plain.attrs["fingerprint"]
    assert "eye_held" not in held.attrs


@pytest.mark.parametrize("window_s", [1.5, 3.0, 8.0])
def test_a_window_that_does_not_divide_the_eyes_is_refused(held_twin, window_s, tmp_path):
    ds, source = held_twin
    expected = rf"eye: 'hold' expects windows of 4 s, .* found window_s {window_s:g}; use for ex"
    with pytest.raises(ValueError, match=expected):
        write(ds, tmp_path / "out", window_s=window_s, source=source, eye="hold")
    assert not (tmp_path / "out").exists()


def test_hold_needs_eye_features_and_a_known_word(held_twin, tmp_path):
    ds, source = held_twin
    for reader, options, words in (
        (Toy(), dict(eye="hold"), "eye: 'hold' expects eye features, found none of SEED"),
        (ds, dict(eye="hold", source="released"), "eye: 'hold' is for features that are computed"),
        (ds, dict(eye="held", source=source), "eye: expected true, false or 'hold', found 'held'"),
    ):
        with pytest.raises(ValueError, match=words):
            write(reader, tmp_path / "out", "de", **options)
    assert not (tmp_path / "out").exists()


@SEED_IV_ONLY
def test_trials_that_differ_by_a_window_of_the_eye_are_cut(held_twin, tmp_path, monkeypatch):
    ds, source = held_twin
    read, counts = ds.eye, {1: 1, 2: 2, 3: 3}

    def eye(subject, session, window_s):
        trials = read(subject, session, window_s)
        return {t: np.resize(x, (counts.get(t, 2), x.shape[1])) for t, x in trials.items()}

    monkeypatch.setattr(ds, "eye", eye)
    fs = write_and_load(ds, tmp_path / "out", window_s=1.0, source=source, eye="hold")
    windows = [int((fs.trial == trial).sum()) for trial in (1, 2, 3)]
    assert windows == [4 * 3, 8 * 3, 8 * 3]  # of three sessions
    assert open_features(tmp_path / "out" / "sub-1_ses-1.nc").attrs["eye_cut"] == (
        "in windows of 4 s: trial 1: 2 windows of EEG, 1 of the eye, cut to 1; "
        "trial 3: 2 windows of EEG, 3 of the eye, cut to 2"
    )
    counts[2] = 4
    with pytest.raises(ValueError, match="found 4 and 2 in trial 2"):
        write(ds, tmp_path / "other", "de", window_s=1.0, source=source, eye="hold")


@SEED_IV_ONLY
def test_the_command_holds_eye_features(held_twin, tmp_path):
    ds, source = held_twin
    arguments = ["features", "--dataset", ds.spec.name, "--root", ds.root, "--feature", "de"]
    arguments += ["--from", source, "--window-s", 1, "--subject", 1]
    for flags, value in (([], True), (["--hold-eye"], "hold"), (["--no-eye", "--hold-eye"], False)):
        out = tmp_path / "-".join(["out", *flags])
        done = CliRunner().invoke(main, [str(a) for a in [*arguments, *flags, "--out", out]])
        assert done.exit_code == 0, done.output
        assert json.loads(load_features(out).attrs["parameters"])["eye"] == value


@pytest.mark.parametrize("offset", [0, 5e3, 1e5])
def test_single_precision_is_enough(offset):
    x = np.asfortranarray(offset + rng.normal(0, 10, (8, 4000)))
    single = in_single(x)
    assert single.dtype == np.float32
    assert single.flags.c_contiguous
    assert np.abs(single - (x - x.mean(1, keepdims=True))).max() < 10
    assert np.abs(differential_entropy(single, 200) - differential_entropy(x, 200)).max() < 1e-4


def test_single_precision_keeps_what_is_not_finite():
    x = rng.normal(0, 10, (8, 4000))
    x[3, 7], x[4, 0], x[5, 9] = np.nan, np.inf, 1e300
    assert np.argwhere(~np.isfinite(in_single(x))).tolist() == [[3, 7], [4, 0], [5, 9]]


def test_single_precision_of_integers():
    assert np.abs(in_single(np.arange(10)[None])).max() == 9


class WithFindings(OnDisk):
    "A reader and pipeline that found something out about each recording."

    def make_trial(self, subject, session, i):
        trial = super().make_trial(subject, session, i)
        steps = [
            dict(step="notch", parameters={"freq": 50.0}, found={}),
            dict(step="cut", parameters={"start_s": i + 1}, found={}),
        ]
        signal_ = trial.signal.assign_attrs(
            unit_in_file=f"V, subject {subject}",
            rate_in_file=250.0,
            steps=json.dumps(steps),
            odd=["no text"],
        )
        return replace(trial, signal=signal_)


def test_findings_about_a_recording_are_kept(disk, tmp_path):
    write(WithFindings(disk.root), tmp_path / "out")
    one = open_features(tmp_path / "out" / "sub-A_ses-1.nc").attrs
    notch = dict(step="notch", parameters={"freq": 50.0}, found={})
    assert one["unit_in_file"] == "V, subject A"
    assert json.loads(one["preprocessing"]) == [notch]
    assert "odd" not in one
    assert "units" not in one
    whole = load_features(tmp_path / "out").attrs
    sessions = ("A/1", "A/2", "B/1", "B/2")
    assert json.loads(whole["unit_in_file"]) == {s: f"V, subject {s[0]}" for s in sessions}
    assert whole["rate_in_file"] == 250.0
    assert "preprocessing" not in whole
