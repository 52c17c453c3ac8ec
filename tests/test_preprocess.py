"""The raw path: decimation while reading, every step on a recording whose truth is known, its record, its memory, and what it refuses."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from emo_lib.base.errors import LayoutError

from emo_lib.base.facts import SEED, Recording
from emo_lib.base.montage import CHANNELS, positions
from emo_lib.data.cnt import write_cnt
from emo_lib.samples.featuresets import make_recipe, session_features
from emo_lib.signals.features import differential_entropy
from emo_lib.signals.preprocess import (
    PIPELINES,
    Preprocessed,
    antialias,
    decimate_blocks,
    preprocess,
    process,
    read,
    settle,
)

NAMES, N = [*CHANNELS, *SEED.raw_drop], 40_000
BOUNDS = ((2.0, 12.0), (14.003, 24.0), (26.0, 38.0))


def sources(n, seed):
    "(62, n) between 1 and 40 Hz at 1000 Hz from 20 bursting sources."
    rng, pos, f = np.random.default_rng(seed), positions(), np.fft.rfftfreq(n, 1 / 1000)
    within = lambda x, gain: np.fft.irfft(np.fft.rfft(x) * gain, n)
    s = within(
        rng.standard_normal((20, n)), np.where((f > 1) & (f < 40), 1 / np.sqrt(np.maximum(f, 1)), 0)
    )
    swell = within(rng.standard_normal((20, n)), f < 0.5)
    s = within(s * np.exp(swell / swell.std()), (f > 1) & (f < 40))
    x = np.exp(-((pos[:, None] - pos[rng.permutation(62)[:20]]) ** 2).sum(-1) / (2 * 0.06**2)) @ (
        s / s.std(1, keepdims=True)
    )
    return 12 * x / x.std()


def dirty(clean, seed=5):
    "What is recorded: offsets, mains, noise, blinks in front and in VEO, glances in HEO, one flat and one noisy electrode."
    rng, pos, n = np.random.default_rng(seed), positions(), clean.shape[1]
    t = np.arange(n) / 1000
    v = 200 * np.exp(-((((t % 3.1) - 1.5) / 0.08) ** 2))
    h = 50 * np.tanh(np.sin(2 * np.pi * t / 4.7) * 20)
    near = lambda p: np.exp(-((pos - p) ** 2).sum(1) / (2 * 0.04**2))
    x = (
        clean
        + np.outer(near([0, 0.11, 0.01]), v)
        + np.outer(near([0.06, 0.08, 0]) - near([-0.06, 0.08, 0]), h)
    )
    x = np.vstack([x, x[[23, 31]] * 0.3, [1.5 * v, 1.5 * h]])
    x += (
        10 * np.sin(2 * np.pi * 50 * t)
        + rng.uniform(-200, 200, (66, 1))
        + 0.5 * rng.standard_normal(x.shape)
    )
    x[CHANNELS.index("C3")] = 0.02 * rng.standard_normal(n)
    x[CHANNELS.index("P6")] += 150 * rng.standard_normal(n)
    return x


CLEAN = sources(N, 0)
DIRTY = dirty(CLEAN)


def made(folder, name="1_1.cnt", x=DIRTY, names=NAMES, **kw):
    write_cnt(folder / name, x, names, 1000, **kw)
    return Recording(
        folder / name,
        "SEED",
        1,
        1,
        BOUNDS,
        SEED.labels[1][:3],
        SEED.clips[1][:3],
        SEED.raw_drop,
        SEED.raw_eog,
        "synthetic",
        "test",
    )


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return made(tmp_path_factory.mktemp("raw"))


def reader(*recordings, root="."):
    return SimpleNamespace(
        root=root,
        spec=SEED,
        provenance="synthetic",
        recordings=lambda *a, **k: iter(recordings),
        problems=lambda deep=False: [],
    )


def slow(x, factor, taps):
    half = len(taps) // 2
    return np.array(
        [np.convolve(r, taps, mode="valid") for r in np.pad(x, ((0, 0), (half, half)), mode="edge")]
    )[:, ::factor]


@pytest.mark.parametrize("factor", [1, 2, 4, 5, 10])
@pytest.mark.parametrize("n", [1, 7, 500, 5003])
def test_decimation_in_blocks_equals_the_whole(factor, n):
    rng = np.random.default_rng(n)
    x, taps = rng.standard_normal((2, n)).cumsum(1) + 1000, antialias(factor, 1000.0)
    cuts = np.unique([0, n, *rng.integers(0, n + 1, 6)])
    got = np.concatenate(
        list(decimate_blocks((x[:, a:b] for a, b in zip(cuts, cuts[1:])), factor, taps)), 1
    )
    assert got.shape == (2, -(-n // factor)) and np.allclose(
        got, slow(x, factor, taps), atol=1e-9, rtol=0
    )


def test_decimation_refuses_a_filter_of_another_length():
    with pytest.raises(ValueError, match="multiple of 10 and one"):
        next(decimate_blocks([np.zeros((1, 99))], 5, np.ones(12)))


def test_reading_is_the_decimated_file(recording):
    raw, found = read(recording, block_s=3.7)
    want = slow(DIRTY[[*range(62), 64, 65]], 5, antialias(5, 1000.0))
    assert (
        raw.ch_names == [*CHANNELS, "VEO", "HEO"]
        and raw.info["sfreq"] == 200
        and found["n_bytes"] == 4
        and found["left_out"] == ["M1", "M2"]
    )
    assert np.abs(1e6 * raw.get_data() - want).max() < 0.02
    at = {c["ch_name"]: c["loc"][:3] for c in raw.info["chs"]}
    assert np.allclose([at[c] for c in CHANNELS], positions())


@pytest.mark.parametrize("n_bits", [16, 32])
def test_order_case_and_width_do_not_matter(recording, tmp_path, n_bits):
    order = np.random.default_rng(2).permutation(66)
    other = made(
        tmp_path,
        x=DIRTY[order],
        names=[NAMES[i].lower() for i in order],
        n_bits=n_bits,
        uv_per_bit=0.03,
    )
    for a, b in zip(
        preprocess(recording, "resattentionet"), preprocess(other, "resattentionet"), strict=True
    ):
        assert np.abs(
            a.signal - b.signal
        ).max() < 1e-6 and a.signal.channel.values.tolist() == list(CHANNELS)


def test_own_rate_is_the_file_itself(recording):
    for t, (s, e) in zip(
        preprocess(recording, ["read"], read=dict(sfreq=None)), BOUNDS, strict=True
    ):
        assert (
            t.sfreq == 1000
            and np.abs(t.signal - DIRTY[:62, round(1000 * s) : round(1000 * e)]).max() <= 0.0151
        )


def fidelity(trials):
    return np.array(
        [
            [
                np.corrcoef(a, b)[0, 1]
                for a, b in zip(t.signal.values, CLEAN[:, ::5][:, round(200 * s) : round(200 * e)])
            ]
            for t, (s, e) in zip(trials, BOUNDS, strict=True)
        ]
    )


def test_trials_are_the_embedded_truth(recording):
    bad, front = (
        [CHANNELS.index(c) for c in ("C3", "P6")],
        [CHANNELS.index(c) for c in ("FPZ", "FP1", "FP2", "F7", "F8")],
    )
    rest = [
        i for i in np.flatnonzero(positions()[:, 1] < 0) if i not in bad
    ]  # behind, far from the eyes
    before, repaired, full = (
        fidelity(preprocess(recording, p)) for p in ("seed", "resattentionet", "full")
    )
    assert np.median(before[:, rest]) < 0.9 < 0.98 < np.median(full[:, rest])
    assert (
        np.median(repaired[1, rest]) > 0.98
    )  # the second trial: a filter from 0.1 Hz needs 16.5 s before and after
    assert np.abs(before[:, bad]).max() < 0.5 and repaired[1, bad].min() > 0.95
    assert np.median(repaired[:, front]) < 0.7 and np.median(full[:, front]) > 0.9


def test_the_record_says_everything(recording):
    for name, masked in (("full", ("C3", "P6")), ("resattentionet", ())):
        trials = list(preprocess(recording, name))
        steps = json.loads(trials[1].signal.attrs["steps"])
        assert [s["step"] for s in steps] == [s for s, _ in PIPELINES[name]] + ["cut"] and trials[
            1
        ].signal.attrs["bads"] == masked
        assert (
            sorted(steps[3]["found"]["bad"]) == ["C3", "P6"]
            and steps[-1]["parameters"] == dict(start_s=14.003, end_s=24.0)
            and steps[-1]["found"]["evidence"] == "test"
        )
        assert (
            steps[0]["parameters"]["attenuation_db"] == 80
            and "smoothness" in steps[0]["found"]["n_bytes_why"]
        )
        assert [(t.subject, t.session, t.trial, t.label, t.clip) for t in trials] == [
            (1, 1, i + 1, SEED.labels[1][i], i + 1) for i in range(3)
        ]
    ica = json.loads(next(preprocess(recording, "full")).signal.attrs["steps"])[4]
    assert (
        ica["found"]["converged"]
        and max(ica["found"]["scores"]["VEO"]) > 0.9
        and len(ica["found"]["excluded"]) == 2
    )


def test_runs_repeat_and_seeds_come_from_names(recording):
    a, b = (list(preprocess(recording, "full")) for _ in range(2))
    assert all(
        np.array_equal(s.signal, t.signal) and s.signal.attrs == t.signal.attrs
        for s, t in zip(a, b)
    )
    seeds = {
        json.loads(next(preprocess(replace(recording, **k), "full")).signal.attrs["steps"])[4][
            "parameters"
        ]["seed"]
        for k in ({}, dict(session=2), dict(subject=2))
    }
    assert len(seeds) == 3


def test_filters_commute_with_the_lower_rate(recording):
    at200 = next(preprocess(recording, ["read", ("bandpass", dict(low=0.5, high=45.0))]))
    at1000 = next(
        preprocess(
            recording, ["read", ("bandpass", dict(low=0.5, high=45.0))], read=dict(sfreq=None)
        )
    )
    inner = slice(200, -200)
    assert (
        np.abs(at200.signal.values[:, inner] - at1000.signal.values[:, ::5][:, inner]).max() < 0.5
    )  # microvolts, of a signal of 12 and mains of 10


def test_channels_that_the_file_marks_bad(tmp_path):
    raw, history = process(made(tmp_path, bads=["OZ", "VEO"]), settle("resattentionet"))
    assert (
        history[0]["found"]["marked_bad"] == ["OZ"]
        and history[3]["found"]["marked"] == ["OZ"]
        and set(history[3]["found"]["bad"]) == {"OZ", "C3", "P6"}
    )
    assert raw.info["bads"] == []


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
        (dict(bandpass=dict(low=90, high=20)), "low < high"),
        (dict(bandpass=dict(low="a")), "bandpass.low: expected a number"),
        (dict(bandpass=dict(high=100.0)), "below 100 Hz"),
        (dict(notch=dict(freq=-1)), "notch.freq: expected"),
        (dict(notch=dict(freq=float("nan"))), "notch.freq: expected"),
        (dict(read=dict(block_s=0)), "read.block_s"),
        (dict(read=dict(edge=2)), "read.edge"),
        (dict(read=dict(n_bytes=3)), "None or 2 or 4"),
        (dict(bads=dict(window_s=0)), "bads.window_s"),
        (
            dict(bads=dict(z_max="x", interpolate="maybe")),
            "bads.z_max.*bads.interpolate: expected True or False",
        ),
        (dict(ica=dict(components=2.5)), "a whole number"),
        (dict(ica=dict(fit_s=0)), "ica.fit_s"),
        (dict(ica=dict(threshold=True)), "ica.threshold"),
        (dict(ica=3), "expected a dict"),
    ],
)
def test_wrong_values_are_refused_at_once(recording, change, text):
    with pytest.raises(ValueError, match=text):
        preprocess(recording, "full", **change)


def test_what_cannot_be_repaired_is_refused_by_name(recording, tmp_path):
    late = tuple((s + 10, e + 10) for s, e in BOUNDS)
    no_eye = made(tmp_path, "flat.cnt", np.where(np.arange(66)[:, None] == 64, 0, DIRTY))
    few = made(tmp_path, "few.cnt", DIRTY[1:], NAMES[1:])
    cut = made(tmp_path, "cut.cnt")
    cut.path.write_bytes(cut.path.read_bytes()[:5_000_000])
    for rec, pipeline, options, text in [
        (replace(recording, bounds=late), "seed", {}, "last trial ends at 48"),
        (recording, "seed", dict(read=dict(sfreq=300)), "no whole multiple"),
        (replace(recording, eog=()), "full", {}, "no channel that sees"),
        (replace(recording, provenance="real"), "seed", {}, "synthetic recording among real"),
        (no_eye, "full", {}, "without a signal: VEO"),
        (few, "seed", {}, "without FP1"),
        (cut, "seed", {}, "truncated"),
        (recording, "full", dict(bads=dict(max_share=0.01)), "2 bad channels of 62"),
        (recording, "full", dict(ica=dict(threshold=0.0)), "follow the eyes"),
    ]:
        with pytest.raises(LayoutError, match=text) as e:
            next(preprocess(rec, pipeline, **options))
        assert e.value.problems[0].path == str(rec.path) and e.value.problems[0].fix


def test_preprocessed_stands_where_a_reader_stands(recording):
    ds = Preprocessed(
        reader(recording, replace(recording, subject=10), replace(recording, subject=2)),
        "resattentionet",
        notch=None,
    )
    assert (
        ds.subjects == [1, 2, 10]
        and ds.sessions(2) == [1]
        and ds.sessions(3) == []
        and ds.files(10, 1) == [recording.path]
    )
    assert (
        ds.pipeline == "resattentionet"
        and [s for s, _ in json.loads(ds.settings)] == ["read", "bandpass", "bads"]
        and "SEED (synthetic), raw" in repr(ds)
    )
    assert (
        ds.spec.sfreq == 200
        and Preprocessed(reader(recording), read=dict(sfreq=None)).spec.sfreq == 1000
    )
    with pytest.raises(ValueError, match=r"subjects \[4\]"):
        ds.trials(subjects=[4])
    with pytest.raises(ValueError, match="in sessions"):
        ds.trials(sessions=[3])
    assert [(t.subject, t.trial) for t in ds.trials(subjects=[10, 2])] == [
        (2, 1),
        (2, 2),
        (2, 3),
        (10, 1),
        (10, 2),
        (10, 3),
    ]


def test_features_from_the_raw_path(recording):
    ds = Preprocessed(reader(recording), "full")
    fs = session_features(ds, 1, 1, make_recipe(ds, "de", window_s=1.0))
    trials = list(ds.trials())
    assert (
        fs.eeg.shape == (10 + 9 + 12, 62, 5)
        and fs.attrs["provenance"] == "synthetic"
        and not fs.valid.values[:, [CHANNELS.index(c) for c in ("C3", "P6")]].any()
    )
    want = np.moveaxis(differential_entropy(trials[2].signal.values, 200.0, window_s=1.0), -2, 0)
    ok = fs.valid.values[-12:]
    assert ok.mean() > 0.9 and np.allclose(fs.eeg.values[-12:][ok], want[ok], atol=1e-3)


MEASURE = """
import resource, sys
import mne, scipy.signal
from emo_lib.base.facts import Recording
from emo_lib.signals.preprocess import preprocess
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024
before = peak()
recording = Recording(sys.argv[1], "SEED", 1, 1, ((10., 20.),), (0,), (1,), (), ("VEO", "HEO"), "synthetic", "test")
for t in preprocess(recording, "full", ica=dict(fit_s=60.)): pass
print(peak() - before)
"""


def test_memory_does_not_hold_the_recording_at_its_own_rate(tmp_path):
    write_cnt(tmp_path / "long.cnt", (DIRTY for _ in range(18)), NAMES, 1000)  # 12 minutes
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "long.cnt")],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, whole = int(out.stdout), 64 * 18 * N * 8 / 2**20
    assert grown < 0.8 * whole, (
        f"{grown} MiB more; at 1000 Hz the recording alone has {whole:.0f} MiB"
    )
