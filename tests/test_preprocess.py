"""The raw path: decimation, steps against a known truth, records, memory, refusals."""

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from emo_lib.base.errors import LayoutError
from emo_lib.base.facts import SEED, DatasetSpec, Recording
from emo_lib.base.montage import CHANNELS, positions
from emo_lib.data.cnt import write_cnt
from emo_lib.samples.featuresets import make_recipe, session_features
from emo_lib.signals.features import differential_entropy
from emo_lib.signals.preprocess import (
    PIPELINES,
    Preprocessed,
    Read,
    antialias,
    decimate_blocks,
    preprocess,
    process,
    settle,
)

NAMES, N = [*CHANNELS, *SEED.raw_drop], 40_000
BOUNDS = ((2.0, 12.0), (14.003, 24.0), (26.0, 38.0))


def shape_spectrum(x, gain):
    return np.fft.irfft(np.fft.rfft(x) * gain, x.shape[-1])


def simulate_brain(n, seed):
    "(62, n) between 1 and 40 Hz at 1000 Hz from 20 bursting sources."
    rng, electrodes, f = np.random.default_rng(seed), positions(), np.fft.rfftfreq(n, 1 / 1000)
    in_band = (f > 1) & (f < 40)
    sources = rng.standard_normal((20, n))
    sources = shape_spectrum(sources, np.where(in_band, 1 / np.sqrt(np.maximum(f, 1)), 0))
    swell = shape_spectrum(rng.standard_normal((20, n)), f < 0.5)
    sources = shape_spectrum(sources * np.exp(swell / swell.std()), in_band)
    places = electrodes[rng.permutation(62)[:20]]
    distance2 = ((electrodes[:, None] - places) ** 2).sum(-1)
    x = np.exp(-distance2 / (2 * 0.06**2)) @ (sources / sources.std(1, keepdims=True))
    return 12 * x / x.std()


def weights_near(place):
    return np.exp(-((positions() - place) ** 2).sum(1) / (2 * 0.04**2))


def simulate_recording(clean, seed=5):
    "Offsets, mains, noise, blinks (front, VEO), glances (HEO), one flat and one noisy electrode."
    rng, n = np.random.default_rng(seed), clean.shape[1]
    t = np.arange(n) / 1000
    blinks = 200 * np.exp(-((((t % 3.1) - 1.5) / 0.08) ** 2))
    glances = 50 * np.tanh(np.sin(2 * np.pi * t / 4.7) * 20)
    sideways = weights_near([0.06, 0.08, 0]) - weights_near([-0.06, 0.08, 0])
    x = clean + np.outer(weights_near([0, 0.11, 0.01]), blinks) + np.outer(sideways, glances)
    x = np.vstack([x, x[[23, 31]] * 0.3, [1.5 * blinks, 1.5 * glances]])
    mains, offsets = 10 * np.sin(2 * np.pi * 50 * t), rng.uniform(-200, 200, (66, 1))
    x = x + mains + offsets + 0.5 * rng.standard_normal(x.shape)
    x[CHANNELS.index("C3")] = 0.02 * rng.standard_normal(n)
    x[CHANNELS.index("P6")] += 150 * rng.standard_normal(n)
    return x


CLEAN = simulate_brain(N, 0)
RECORDED = simulate_recording(CLEAN)


def write_recording(folder, name="1_1.cnt", x=RECORDED, names=NAMES, **kw):
    write_cnt(folder / name, x, names, 1000, **kw)
    return Recording(
        path=folder / name,
        dataset="SEED",
        subject=1,
        session=1,
        bounds=BOUNDS,
        labels=SEED.labels[1][:3],
        clips=SEED.clips[1][:3],
        drop=SEED.raw_drop,
        eog=SEED.raw_eog,
        provenance="synthetic",
        evidence="test",
    )


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("raw"))


@dataclass
class Reader:
    "A data set of given recordings."

    given: list
    root: str = "."
    spec: DatasetSpec = field(default_factory=lambda: SEED)
    provenance: str = "synthetic"

    def recordings(self, subjects=None, sessions=None):
        return iter(self.given)

    def problems(self, deep=False):
        return []


def steps_of(trial):
    return json.loads(trial.signal.attrs["steps"])


def slow_decimation(x, factor, taps):
    half = len(taps) // 2
    padded = np.pad(x, ((0, 0), (half, half)), mode="edge")
    return np.array([np.convolve(row, taps, mode="valid") for row in padded])[:, ::factor]


# ---- reading


@pytest.mark.parametrize("factor", [1, 2, 4, 5, 10])
@pytest.mark.parametrize("n", [1, 7, 500, 5003])
def test_decimation_in_blocks_equals_the_whole(factor, n):
    rng = np.random.default_rng(n)
    x, taps = rng.standard_normal((2, n)).cumsum(1) + 1000, antialias(factor, 1000.0)
    cuts = np.unique([0, n, *rng.integers(0, n + 1, 6)])
    blocks = (x[:, a:b] for a, b in zip(cuts, cuts[1:]))
    decimated = np.concatenate(list(decimate_blocks(blocks, factor, taps)), 1)
    assert decimated.shape == (2, -(-n // factor))
    assert np.allclose(decimated, slow_decimation(x, factor, taps), atol=1e-9, rtol=0)


def test_decimation_refuses_a_filter_of_another_length():
    with pytest.raises(ValueError, match="multiple of 10 and one"):
        next(decimate_blocks([np.zeros((1, 99))], 5, np.ones(12)))


def test_reading_is_the_decimated_file(recording):
    raw, found = Read(block_s=3.7).load(recording)
    expected = slow_decimation(RECORDED[[*range(62), 64, 65]], 5, antialias(5, 1000.0))
    assert raw.ch_names == [*CHANNELS, "VEO", "HEO"]
    assert raw.info["sfreq"] == 200
    assert found["n_bytes"] == 4
    assert found["left_out"] == ["M1", "M2"]
    assert np.abs(1e6 * raw.get_data() - expected).max() < 0.02
    places = {channel["ch_name"]: channel["loc"][:3] for channel in raw.info["chs"]}
    assert np.allclose([places[name] for name in CHANNELS], positions())


@pytest.mark.parametrize("n_bits", [16, 32])
def test_order_case_and_width_do_not_matter(recording, tmp_path, n_bits):
    order = np.random.default_rng(2).permutation(66)
    names = [NAMES[i].lower() for i in order]
    shuffled = write_recording(
        tmp_path, x=RECORDED[order], names=names, n_bits=n_bits, uv_per_bit=0.03
    )
    pairs = zip(
        preprocess(recording, "resattentionet"),
        preprocess(shuffled, "resattentionet"),
        strict=True,
    )
    for a, b in pairs:
        assert np.abs(a.signal - b.signal).max() < 1e-6
        assert b.signal.channel.values.tolist() == list(CHANNELS)


def test_own_rate_is_the_file_itself(recording):
    trials = preprocess(recording, ["read"], read=dict(sfreq=None))
    for trial, (start, end) in zip(trials, BOUNDS, strict=True):
        in_file = RECORDED[:62, round(1000 * start) : round(1000 * end)]
        assert trial.sfreq == 1000
        assert np.abs(trial.signal - in_file).max() <= 0.0151


# ---- the steps


def fidelity(trials):
    "Correlation with the truth, (trial, channel)."
    rows = []
    for trial, (start, end) in zip(trials, BOUNDS, strict=True):
        truth = CLEAN[:, ::5][:, round(200 * start) : round(200 * end)]
        pairs = zip(trial.signal.values, truth)
        rows.append([np.corrcoef(a, b)[0, 1] for a, b in pairs])
    return np.array(rows)


def test_trials_are_the_embedded_truth(recording):
    bad = [CHANNELS.index(c) for c in ("C3", "P6")]
    front = [CHANNELS.index(c) for c in ("FPZ", "FP1", "FP2", "F7", "F8")]
    behind = np.setdiff1d(np.flatnonzero(positions()[:, 1] < 0), bad)  # far from the eyes
    before = fidelity(preprocess(recording, "seed"))
    repaired = fidelity(preprocess(recording, "resattentionet"))
    full = fidelity(preprocess(recording, "full"))
    assert np.median(before[:, behind]) < 0.9
    assert np.median(full[:, behind]) > 0.98
    # a filter from 0.1 Hz needs 16.5 s before and after: only the second trial has them
    assert np.median(repaired[1, behind]) > 0.98
    assert np.abs(before[:, bad]).max() < 0.5
    assert repaired[1, bad].min() > 0.95
    assert np.median(repaired[:, front]) < 0.7
    assert np.median(full[:, front]) > 0.9


@pytest.mark.parametrize("name, masked", [("full", ("C3", "P6")), ("resattentionet", ())])
def test_the_record_holds_every_step(recording, name, masked):
    trials = list(preprocess(recording, name))
    steps = steps_of(trials[1])
    assert [s["step"] for s in steps] == [step for step, _ in PIPELINES[name]] + ["cut"]
    assert trials[1].signal.attrs["bads"] == masked
    assert sorted(steps[3]["found"]["bad"]) == ["C3", "P6"]
    assert steps[-1]["parameters"] == dict(start_s=14.003, end_s=24.0)
    assert steps[-1]["found"]["evidence"] == "test"
    assert steps[0]["parameters"]["attenuation_db"] == 80
    assert "smoothness" in steps[0]["found"]["n_bytes_why"]
    for i, trial in enumerate(trials):
        expected = (1, 1, i + 1, SEED.labels[1][i], i + 1)
        assert (trial.subject, trial.session, trial.trial, trial.label, trial.clip) == expected


def test_the_record_of_ica(recording):
    found = steps_of(next(preprocess(recording, "full")))[4]["found"]
    assert found["converged"]
    assert max(found["scores"]["VEO"]) > 0.9
    assert len(found["excluded"]) == 2


def test_runs_repeat_and_seeds_come_from_names(recording):
    for a, b in zip(preprocess(recording, "full"), preprocess(recording, "full"), strict=True):
        assert np.array_equal(a.signal, b.signal)
        assert a.signal.attrs == b.signal.attrs
    seeds = set()
    for change in ({}, dict(session=2), dict(subject=2)):
        first = next(preprocess(replace(recording, **change), "full"))
        seeds.add(steps_of(first)[4]["parameters"]["seed"])
    assert len(seeds) == 3


def test_filters_commute_with_the_lower_rate(recording):
    pipeline = ["read", ("bandpass", dict(low=0.5, high=45.0))]
    at_200 = next(preprocess(recording, pipeline)).signal.values
    at_1000 = next(preprocess(recording, pipeline, read=dict(sfreq=None))).signal.values
    difference = np.abs(at_200 - at_1000[:, ::5])[:, 200:-200]
    assert difference.max() < 0.5  # microvolts, of a signal of 12 and mains of 10


def test_channels_that_the_file_marks_bad(tmp_path):
    raw, history = process(write_recording(tmp_path, bads=["OZ", "VEO"]), settle("resattentionet"))
    assert history[0]["found"]["marked_bad"] == ["OZ"]
    assert history[3]["found"]["marked"] == ["OZ"]
    assert set(history[3]["found"]["bad"]) == {"OZ", "C3", "P6"}
    assert raw.info["bads"] == []


# ---- refusals


@pytest.mark.parametrize(
    "change, text",
    [
        (dict(pipeline="none"), "expected one of"),
        (dict(pipeline=["bandpass"]), "'read' once"),
        (dict(pipeline=["read", "wavelet"]), "wavelet"),
        (dict(ica={}), "options for"),
        (dict(bandpass=dict(lo=1)), "bandpass.lo"),
        (dict(read=None), "cannot be left out"),
        (dict(pipeline=["read", "read"]), "'read' once"),
    ],
)
def test_wrong_steps_are_refused_at_once(recording, change, text):
    with pytest.raises(ValueError, match=text):
        preprocess(recording, **change)


@pytest.mark.parametrize(
    "change, text",
    [
        (dict(bandpass=dict(low=90, high=20)), "bandpass.high: expected low < high, found 90"),
        (dict(bandpass=dict(low=20, high=20)), "low < high"),
        (dict(bandpass=dict(low="a")), "bandpass.low: expected a number, found 'a'"),
        (dict(bandpass=dict(low_trans="b")), "bandpass.low_trans: expected a number, found 'b'"),
        (dict(bandpass=dict(high=100.0)), "bandpass: expected frequencies below 100 Hz"),
        (dict(ica=dict(low=100.0)), "ica: expected frequencies below 100 Hz"),
        (dict(notch=dict(freq=-1)), "notch.freq: expected at least 1, found -1"),
        (dict(notch=dict(freq=float("nan"))), "notch.freq: expected a finite number"),
        (dict(read=dict(block_s=0)), "read.block_s: expected at least 0.01, found 0"),
        (dict(read=dict(edge=2)), "read.edge: expected at most 0.99, found 2"),
        (dict(read=dict(n_bytes=3)), "read.n_bytes: expected None, 2 or 4, found 3"),
        (dict(read=dict(n_samples=3)), "read.n_samples: expected None or 'event table'"),
        (dict(bads=dict(window_s=0)), "bads.window_s"),
        (
            dict(bads=dict(z_max="x", interpolate="maybe")),
            "bads.z_max.*bads.interpolate: expected true or false, found 'maybe'",
        ),
        (dict(ica=dict(components=2.5)), "ica.components: expected a whole number, found 2.5"),
        (dict(ica=dict(fit_s=0)), "ica.fit_s"),
        (dict(ica=dict(threshold=True)), "ica.threshold: expected a number, found True"),
        (dict(ica=dict(seed=-1)), "ica.seed"),
        (dict(ica={1: 2}), "ica.1"),
        (dict(ica=3), "expected a dict"),
    ],
)
def test_wrong_values_are_refused_at_once(recording, change, text):
    with pytest.raises(ValueError, match=text):
        preprocess(recording, "full", **change)


def test_all_wrong_values_are_named_together():
    with pytest.raises(ValueError) as caught:
        settle("full", read=dict(edge=2), notch=dict(freq=-1, hz=3), ica=dict(seed=-1))
    for name in ("read.edge", "notch.freq", "notch.hz", "ica.seed"):
        assert name in str(caught.value)


def test_settled_steps_can_be_settled_again():
    for name in PIPELINES:
        steps = settle(name)
        assert settle(json.loads(json.dumps(steps))) == steps


def test_what_cannot_be_repaired_is_refused_by_name(recording, tmp_path):
    late = tuple((start + 10, end + 10) for start, end in BOUNDS)
    silent_eye = np.where(np.arange(66)[:, None] == 64, 0, RECORDED)
    no_eye = write_recording(tmp_path, "flat.cnt", silent_eye)
    few = write_recording(tmp_path, "few.cnt", RECORDED[1:], NAMES[1:])
    cut = write_recording(tmp_path, "cut.cnt")
    cut.path.write_bytes(cut.path.read_bytes()[:5_000_000])
    cases = [
        (replace(recording, bounds=late), "seed", {}, "last trial ends at 48"),
        (recording, "seed", dict(read=dict(sfreq=300)), "no whole multiple"),
        (replace(recording, eog=()), "full", {}, "no eye channel"),
        (replace(recording, provenance="real"), "seed", {}, "synthetic recording among real"),
        (no_eye, "full", {}, "without a signal: VEO"),
        (few, "seed", {}, "without FP1"),
        (cut, "seed", {}, "truncated"),
        (recording, "full", dict(bads=dict(max_share=0.01)), "2 bad channels of 62"),
        (recording, "full", dict(ica=dict(threshold=0.0)), "follow the eyes"),
    ]
    for wrong, pipeline, options, text in cases:
        with pytest.raises(LayoutError, match=text) as caught:
            next(preprocess(wrong, pipeline, **options))
        assert caught.value.problems[0].path == str(wrong.path)
        assert caught.value.problems[0].fix


# ---- a data set


def test_preprocessed_has_the_interface_of_a_reader(recording):
    subjects = [recording, replace(recording, subject=10), replace(recording, subject=2)]
    ds = Preprocessed(Reader(subjects), "resattentionet", notch=None)
    assert ds.subjects == [1, 2, 10]
    assert ds.sessions(2) == [1]
    assert ds.sessions(3) == []
    assert ds.files(10, 1) == [recording.path]
    assert ds.pipeline == "resattentionet"
    assert [step for step, _ in json.loads(ds.settings)] == ["read", "bandpass", "bads"]
    assert "SEED (synthetic), raw" in repr(ds)
    assert ds.spec.sfreq == 200
    assert Preprocessed(Reader([recording]), read=dict(sfreq=None)).spec.sfreq == 1000
    with pytest.raises(ValueError, match=r"subjects \[4\]"):
        ds.trials(subjects=[4])
    with pytest.raises(ValueError, match="in sessions"):
        ds.trials(sessions=[3])
    numbers = [(trial.subject, trial.trial) for trial in ds.trials(subjects=[10, 2])]
    assert numbers == [(2, 1), (2, 2), (2, 3), (10, 1), (10, 2), (10, 3)]


def test_features_from_the_raw_path(recording):
    ds = Preprocessed(Reader([recording]), "full")
    features = session_features(ds, 1, 1, make_recipe(ds, "de", window_s=1.0))
    third = list(ds.trials())[2].signal.values
    assert features.eeg.shape == (10 + 9 + 12, 62, 5)
    assert features.attrs["provenance"] == "synthetic"
    assert not features.valid.values[:, [CHANNELS.index(c) for c in ("C3", "P6")]].any()
    expected = np.moveaxis(differential_entropy(third, 200.0, window_s=1.0), -2, 0)
    valid = features.valid.values[-12:]
    assert valid.mean() > 0.9
    assert np.allclose(features.eeg.values[-12:][valid], expected[valid], atol=1e-3)


MEASURE = """
import resource, sys
import mne, scipy.signal
from emo_lib.base.facts import Recording
from emo_lib.signals.preprocess import preprocess

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

before = peak()
recording = Recording(
    sys.argv[1], "SEED", 1, 1, ((10.0, 20.0),), (0,), (1,), (), ("VEO", "HEO"), "synthetic", "test"
)
for trial in preprocess(recording, "full", ica=dict(fit_s=60.0)):
    pass
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_hold_the_recording_at_its_own_rate(tmp_path):
    write_cnt(tmp_path / "long.cnt", (RECORDED for _ in range(18)), NAMES, 1000)  # 12 minutes
    run = [sys.executable, "-c", MEASURE, str(tmp_path / "long.cnt")]
    grown = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    whole = 64 * 18 * N * 8 / 2**20
    assert grown < 0.8 * whole, (
        f"{grown} MiB more; at 1000 Hz the recording alone has {whole:.0f} MiB"
    )
