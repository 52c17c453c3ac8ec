"""Scaling: what each choice computes on samples of a twin, and what it refuses."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.preprocessing import StandardScaler

from emo_lib.protocols.registry import make_protocol
from emo_lib.samples.samples import from_arrays, make_samples
from emo_lib.samples.scaling import Scaling
from emo_lib.twins.brain import TwinSettings
from emo_lib.twins.twin import twin_set

GROUPS = ("trial", "session", "subject", "dataset")


@pytest.fixture(scope="module")
def features():
    "DE and eye features of a SEED-V twin: two subjects, two sessions."
    settings = TwinSettings("SEED-V", seed=2, seconds_per_trial=24)
    return twin_set(settings, "de", subjects=(1, 2), sessions=(1, 2))


@pytest.fixture(scope="module")
def windows(features):
    return make_samples(features, modalities=("eeg", "eye"))


@pytest.fixture(scope="module")
def padded(features):
    "Whole trials of which every third has lost windows at its end, padded."
    lost = (features.trial % 3 == 0) & (features.start_s >= 12)
    rest = features.isel(window=np.flatnonzero(~lost.values))
    return make_samples(rest, "trial", modalities=("eeg", "eye"), short="pad")


def rows_of(samples, **values):
    keep = np.ones(len(samples), bool)
    for column, value in values.items():
        keep &= (samples.meta[column] == value).to_numpy()
    return np.flatnonzero(keep)


def test_per_window_z_scores(windows):
    samples = replace(windows, eye=None)
    scaled = Scaling(by="window").apply(samples)
    for i in (0, 17, len(samples) - 1):
        known = samples.eeg[i][samples.there[i]].astype(float)
        expected = (known - known.mean()) / known.std()
        assert np.allclose(scaled.eeg[i][samples.there[i]], expected, atol=1e-4)


def test_per_band_z_scores(padded):
    samples = replace(padded, eye=None)
    scaled = Scaling(by="band").apply(samples)
    for i in (0, 2, 11):
        known = samples.there[i] & samples.steps[i][:, None]
        for band in range(5):
            values = samples.eeg[i, :, :, band][known].astype(float)
            expected = (values - values.mean()) / values.std()
            assert np.allclose(scaled.eeg[i, :, :, band][known], expected, atol=1e-4)


@pytest.mark.parametrize("by", ["window", "band"])
def test_a_sample_alone_is_scaled_like_in_company(windows, by):
    samples = replace(windows, eye=None)
    whole = Scaling(by=by).apply(samples)
    alone = Scaling(by=by).apply(samples[[5]])
    assert np.array_equal(whole.eeg[5], alone.eeg[0])


def test_by_data_set_it_is_the_standard_scaler(windows):
    train = rows_of(windows, session=1)
    scaled = Scaling(by="dataset").apply(windows, train)
    for ours, x in ((scaled.eeg, windows.eeg), (scaled.eye, windows.eye)):
        flat = x.reshape(len(x), -1).astype(float)
        expected = StandardScaler().fit(flat[train]).transform(flat)
        assert np.allclose(ours.reshape(len(x), -1), expected, atol=1e-3)


@pytest.mark.parametrize("by", GROUPS)
def test_own_statistics_give_mean_0_and_std_1_within_each_group(windows, by):
    scaled = Scaling(by=by, fit_on="own").apply(windows)
    columns = ["subject", "session", "trial"][: {"trial": 3, "session": 2, "subject": 1}.get(by, 0)]
    groups = windows.meta.groupby(columns).indices.values() if columns else [range(len(windows))]
    for rows in groups:
        for x in (scaled.eeg[rows], scaled.eye[rows]):
            assert np.abs(x.mean(axis=(0, 1), dtype=float)).max() < 1e-4
            std = x.std(axis=(0, 1), dtype=float)
            assert (np.isclose(std, 1, atol=1e-3) | (std < 1e-3)).all()  # constant: 0


def test_statistics_come_from_training_rows_only(windows):
    train = rows_of(windows, session=1)
    test = rows_of(windows, session=2)
    changed = replace(windows, eeg=windows.eeg.copy(), eye=windows.eye.copy())
    changed.eeg[test[1:]] += 100
    changed.eye[test[1:]] *= 7
    for by in ("dataset", "subject"):
        one = Scaling(by=by).apply(windows, train)
        other = Scaling(by=by).apply(changed, train)
        keep = np.append(train, test[0])
        assert np.array_equal(one.eeg[keep], other.eeg[keep])
        assert np.array_equal(one.eye[keep], other.eye[keep])
        seen = Scaling(by=by, fit_on="own").apply(changed, train)
        assert not np.allclose(seen.eeg[keep], one.eeg[keep])


def test_labels_are_never_used(windows):
    blind = windows.without_labels()
    for settings in (dict(by="dataset"), dict(by="session", fit_on="own")):
        train = rows_of(windows, session=1)
        one, other = (Scaling(**settings).apply(s, train) for s in (windows, blind))
        assert np.array_equal(one.eeg, other.eeg)


SETTINGS = [
    dict(by="dataset"),
    dict(by="dataset", fit_on="all"),
    dict(by="subject"),
    dict(by="session", fit_on="own"),
    dict(by="trial", fit_on="own"),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_padding_stays_padding_and_enters_no_statistics(padded, settings):
    train = rows_of(padded, session=1)
    padding = ~padded.steps
    assert padding.any()
    scaled = Scaling(**settings).apply(padded, train)
    assert (scaled.eeg[padding] == 0).all()
    assert (scaled.eye[padding] == 0).all()
    assert not scaled.there[padding].any()
    assert np.array_equal(scaled.steps, padded.steps)
    noisy = replace(padded, eeg=padded.eeg.copy(), eye=padded.eye.copy())
    noisy.eeg[padding] = noisy.eye[padding] = 1e9
    again = Scaling(**settings).apply(noisy, train)
    assert np.array_equal(again.eeg, scaled.eeg)
    assert np.array_equal(again.eye, scaled.eye)


def test_padded_trials_have_the_statistics_of_their_windows(features, padded):
    lost = (features.trial % 3 == 0) & (features.start_s >= 12)
    windows = make_samples(
        features.isel(window=np.flatnonzero(~lost.values)), modalities=("eeg", "eye")
    )
    scaling = Scaling(by="session", fit_on="own")
    by_trial, by_window = scaling.apply(padded), scaling.apply(windows)
    assert np.allclose(by_trial.eeg[by_trial.steps], by_window.eeg[:, 0], atol=1e-4)
    assert np.allclose(by_trial.eye[by_trial.steps], by_window.eye[:, 0], atol=1e-4)


@pytest.mark.parametrize("settings", [*SETTINGS, dict(by="window"), dict(by="band")])
def test_bad_electrodes_stay_out(windows, settings):
    there = windows.there.copy()
    there[::4, :, 7] = False
    samples = replace(windows, there=there, eye=None)
    noisy = replace(samples, eeg=windows.eeg.copy())
    noisy.eeg[~there] = -1e9
    train = rows_of(windows, session=1)
    one, other = (Scaling(**settings).apply(s, train) for s in (samples, noisy))
    assert np.array_equal(one.eeg, other.eeg)
    assert (one.eeg[~there] == 0).all()
    assert np.array_equal(one.there, there)


def test_an_electrode_without_training_values_counts_as_not_measured(windows):
    train = rows_of(windows, session=1)
    there = windows.there.copy()
    there[train, :, 3] = False
    scaled = Scaling(by="dataset").apply(replace(windows, there=there), train)
    assert not scaled.there[:, :, 3].any()
    assert (scaled.eeg[:, :, 3] == 0).all()
    assert scaled.there[:, :, :3].all()
    assert np.isfinite(scaled.eeg).all()


def test_constant_features_become_zero():
    x = np.full((6, 3, 2), 0.1, "float32")
    scaled = Scaling(by="dataset").apply(from_arrays(x, channels="abc"), np.arange(3))
    assert (np.abs(scaled.eeg) < 1e-6).all()


def test_the_input_is_left_alone(windows):
    before = windows.eeg.copy(), windows.eye.copy(), windows.there.copy()
    scaled = Scaling(by="session", fit_on="own").apply(windows)
    assert all(map(np.array_equal, before, (windows.eeg, windows.eye, windows.there)))
    assert scaled.eeg.dtype == scaled.eye.dtype == np.float32
    assert scaled.meta is windows.meta


def test_folds_of_a_subject_are_scaled_by_subject_and_nothing_else_is(windows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fold = next(make_protocol("cross_session").split(windows))
    used = np.concatenate([fold.train, fold.test])
    scaled = Scaling(by="subject").apply(windows, fold.train, used)
    assert np.isfinite(scaled[used].eeg).all()
    others = np.setdiff1d(np.arange(len(windows)), used)
    assert np.isnan(scaled[others].eeg).all()
    own = windows[used]
    alone = Scaling(by="subject").apply(own, np.arange(len(fold.train)))
    assert np.array_equal(alone.eeg, scaled[used].eeg)


@pytest.mark.parametrize(
    "by, line",
    [
        ("session", r"found 2 without any, subject 1, session 2 first; use fit_on 'own'"),
        ("trial", r"found 30 without any, subject 1, session 2, trial 1 first"),
    ],
)
def test_a_group_without_training_samples_is_refused(windows, by, line):
    with pytest.raises(ValueError, match=line):
        Scaling(by=by).apply(windows, rows_of(windows, session=1))
    with pytest.raises(ValueError, match="found 1 without any, the data set first"):
        Scaling(by="dataset").apply(windows)


@pytest.mark.parametrize("by", ["window", "band"])
def test_eye_features_have_no_common_unit(windows, by):
    with pytest.raises(ValueError, match=f"scaling by {by}: eye features have no common unit"):
        Scaling(by=by).apply(windows)


def test_plain_arrays_have_no_sessions():
    samples = from_arrays(np.random.default_rng(0).normal(size=(4, 62, 5)))
    assert np.isfinite(Scaling(by="dataset").apply(samples, [0, 1]).eeg).all()
    with pytest.raises(ValueError, match="expected samples with a subject, session"):
        Scaling(by="session", fit_on="own").apply(samples)


def test_what_is_not_clean_has_a_caveat():
    for by in ("window", "band", *GROUPS):
        for fit_on in ("train", "own", "all"):
            is_clean = fit_on == "train" or by in ("window", "band")
            assert (Scaling(by=by, fit_on=fit_on).caveats == ()) == is_clean
    assert Scaling(by="session", fit_on="own").caveats == (
        "features are z-scored with statistics of all samples of the same session, "
        "the unlabelled test samples among them",
    )


@pytest.mark.parametrize(
    "settings", [dict(), dict(by="channel"), dict(by="window", fit_on="test"), dict(how="trial")]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        Scaling(**settings)
