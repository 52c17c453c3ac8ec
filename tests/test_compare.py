"""Own against released features: matched by name, never by order; what does not fit is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from emo_lib.base.facts import SEED, concat_features, make_features
from emo_lib.data.datasets import open_dataset
from emo_lib.samples.compare import (
    ComparisonError,
    align,
    band_table,
    compare,
    folds,
    score,
    smoothed,
    step_table,
    steps,
    svm_accuracy,
    trial_rows,
)
from emo_lib.samples.featuresets import extract
from emo_lib.signals.features import BANDS_MSMAE
from emo_lib.signals.smoothing import lds
from emo_lib.twins.twin import write_twin

pytestmark = pytest.mark.slow  # writes or reads whole twins

WINDOWS = {trial: 8 + trial % 3 for trial in range(1, 16)}


def window_record(session, trial, i):
    "The coordinates of one window of subject 3 of SEED."
    return dict(
        subject=3,
        session=session,
        trial=trial,
        clip=SEED.clips[session][trial - 1],
        label=SEED.labels[session][trial - 1],
        start_s=float(i),
    )


def feature_set():
    "SYNTHETIC noise, two sessions of 15 trials of one subject."
    windows = [(s, t, i) for s in (1, 2) for t, n in WINDOWS.items() for i in range(n)]
    meta = pd.DataFrame([window_record(*window) for window in windows])
    x = np.random.default_rng(0).normal(20, 2, (len(meta), 62, 5))
    return make_features(
        x,
        meta,
        SEED.channels,
        SEED.bands,
        dataset="SEED",
        feature="de_LDS",
        window_s=1.0,
        provenance="synthetic",
        classes=SEED.classes,
    )


def with_eeg(fs, x):
    return fs.assign(eeg=(fs.eeg.dims, np.asarray(x, "f4")))


@pytest.fixture
def own():
    return feature_set()


@pytest.fixture
def released(own):
    "A line of `own`, another one for each channel and band, with some noise."
    rng = np.random.default_rng(1)
    scale, offset = rng.uniform(1, 3, (62, 5)), rng.uniform(-5, 5, (62, 5))
    noise = rng.normal(0, 0.3, own.eeg.shape)
    fs = with_eeg(own, scale * own.eeg.values + offset + noise)
    return fs.assign_attrs(feature="de_movingAve")


# ---- the line


def test_a_known_line_is_found(own):
    scale = np.linspace(0.5, 3, 310).reshape(62, 5)
    offset = np.linspace(-9, 9, 310).reshape(62, 5)
    result = compare(own, with_eeg(own, scale * own.eeg.values + offset))
    assert np.allclose(result.scale, scale.T, atol=1e-4)
    assert np.allclose(result.offset, offset.T, atol=1e-2)
    assert np.allclose(result.correlation, 1)
    assert (result.residual < 1e-2).all()
    assert (result.lag == 0).all()
    assert result.attrs["windows"] == own.sizes["window"]
    assert result.attrs["trials"] == 30
    assert json.loads(result.attrs["cut"]) == {}


@pytest.mark.parametrize("channel, band", [(0, 0), (17, 3), (61, 4)])
def test_the_line_agrees_with_numpy(own, released, channel, band):
    result = compare(own, released).isel(band=band, channel=channel)
    x, y = (fs.eeg.values[:, channel, band].astype(float) for fs in (own, released))
    assert np.allclose([result.scale, result.offset], np.polyfit(x, y, 1))
    assert np.isclose(result.correlation, np.corrcoef(x, y)[0, 1])
    trials = [own.session.values, own.trial.values]
    u, v = (z - pd.Series(z).groupby(trials).transform("mean") for z in (x, y))
    assert np.isclose(result.within, np.corrcoef(u, v)[0, 1])


def test_matched_by_name_and_never_by_order(own, released):
    expected, rng = compare(own, released), np.random.default_rng(2)
    shuffled = released.isel(
        window=rng.permutation(released.sizes["window"]),
        channel=rng.permutation(62),
        band=[4, 2, 0, 1, 3],
    )
    reversed_own = own.isel(window=slice(None, None, -1))
    for found in (compare(own, shuffled), compare(reversed_own, released)):
        for name in expected:
            assert np.allclose(expected[name], found[name]), name


def test_bad_channels_do_not_count(own, released):
    valid = np.ones(released.eeg.shape[:2], bool)
    valid[:40, 5] = False
    with_bad = released.assign(valid=(("window", "channel"), valid))
    with_bad.eeg[:40, 5] = 0
    result, expected = compare(own, with_bad), compare(own, released)
    x, y = (fs.eeg.values[40:, 5, 2].astype(float) for fs in (own, released))
    assert np.allclose([result.scale[2, 5], result.offset[2, 5]], np.polyfit(x, y, 1))
    assert np.allclose(result.scale[:, 6:], expected.scale[:, 6:])


def test_a_channel_that_never_changes_has_no_line(own, released):
    flat = own.copy(deep=True)
    flat.eeg[:, 9] = 7
    result = compare(flat, released)
    assert np.isnan(result.scale[:, 9]).all()
    assert np.isfinite(result.scale[:, :9]).all()
    table = band_table(result)
    assert (table["worst channel"] == SEED.channels[9]).all()
    assert np.isfinite(table["scale"]).all()


@pytest.mark.parametrize("shift", [-2, -1, 1, 3])
def test_a_shift_in_time_is_a_lag(own, shift):
    late = own.copy(deep=True)
    for rows in trial_rows(own).values():
        late.eeg[rows] = np.roll(own.eeg.values[rows], shift, axis=0)
    assert (compare(own, late).lag == shift).all()


def test_one_real_and_one_synthetic_is_synthetic(own, released):
    real = own.assign_attrs(provenance="real")
    assert compare(real, released).attrs["provenance"] == "synthetic"
    assert compare(released, real).attrs["provenance"] == "synthetic"
    assert compare(real, real).attrs["provenance"] == "real"


# ---- what does not fit


def test_one_window_less_is_cut_and_counted(own, released):
    is_last = (released.trial == 4) & (released.session == 2) & (released.start_s == WINDOWS[4] - 1)
    shorter = released.isel(window=~is_last.values)
    result = compare(own, shorter)
    assert result.attrs["windows"] == own.sizes["window"] - 1
    assert json.loads(result.attrs["cut"]) == {"3/2/4": [WINDOWS[4], WINDOWS[4] - 1]}
    _, _, cut = align(shorter, own)
    assert cut == {(3, 2, 4): (WINDOWS[4] - 1, WINDOWS[4])}


def without(condition):
    "A function that drops the windows for which condition(feature set) is true."
    return lambda fs: fs.isel(window=~condition(fs).values)


PLACE = "subject 3, session 1, trial "


@pytest.mark.parametrize(
    "spoil, message",
    [
        (without(lambda fs: (fs.trial == 4) & (fs.start_s > 5)), PLACE + "4: expected as many"),
        (without(lambda fs: (fs.trial == 4) & (fs.start_s > 5)), "(released), 2 trials differ"),
        (
            without(lambda fs: (fs.trial == 4) & (fs.start_s == 0)),
            "windows that begin together; found 0 s (own) and 1 s (released)",
        ),
        (
            without(lambda fs: fs.session == 2),
            "15 in the own features only, the first subject 3, session 2, trial 1",
        ),
        (
            lambda fs: fs.assign_coords(subject=fs.subject + 1),
            "in the released features only, the first subject 4",
        ),
        (
            lambda fs: fs.assign_coords(label=2 - fs.label),
            PLACE + "1: expected the same label; found 2 (own) and 0 (released)",
        ),
        (lambda fs: fs.assign_coords(clip=fs["clip"] + 1), PLACE + "1: expected the same clip"),
        (lambda fs: fs.assign_coords(start_s=fs.start_s + 0.5), "begin together"),
        (
            lambda fs: fs.assign_attrs(window_s=4.0),
            "expected the same seconds per window; found 1.0 (own) and 4.0 (released)",
        ),
        (lambda fs: fs.assign_attrs(dataset="SEED-IV"), "expected the same data set"),
        (lambda fs: fs.isel(channel=slice(1, None)), "found ['FP1'] in one of the two only"),
        (lambda fs: fs.isel(band=slice(1, None)), "expected the same bands"),
    ],
)
def test_refusals(own, released, spoil, message):
    with pytest.raises(ComparisonError) as caught:
        compare(own, spoil(released))
    assert message in str(caught.value)


def test_all_problems_are_listed(own, released):
    wrong = released.assign_attrs(window_s=4.0, dataset="X").isel(
        window=(released.session == 1).values, channel=slice(3, None)
    )
    with pytest.raises(ValueError) as caught:
        compare(own, wrong)
    assert len(caught.value.problems) == 4
    assert str(caught.value).count("\n- ") == 4


# ---- splits, smoothing, scaling


@pytest.mark.parametrize("split, n", [("sessions", 2), ("trials", 10), ("windows", 10)])
def test_splits(own, split, n):
    meta = pd.DataFrame({name: own[name].values for name in ("session", "trial", "label")})
    tested = []
    for train, test in folds(meta, split):
        assert not set(train) & set(test)
        assert set(meta.label[test]) <= set(meta.label[train])
        trials, sessions = (
            [set(map(tuple, meta.loc[rows, names].values)) for rows in (train, test)]
            for names in (["session", "trial"], ["session"])
        )
        assert bool(trials[0] & trials[1]) == (split == "windows")
        assert sessions[0].isdisjoint(sessions[1]) == (split == "sessions")
        tested += list(test)
    assert sorted(tested) == list(range(len(meta)))
    assert len(list(folds(meta, split))) == n


def test_smoothing_stays_within_a_trial_and_is_named(own):
    fs = own.assign_attrs(feature="de")
    after = smoothed(fs, "LDS")
    for rows in trial_rows(fs).values():
        assert np.array_equal(after.eeg.values[rows], lds(fs.eeg.values[rows]))
    assert after.attrs["feature"] == "de_LDS"
    assert after.attrs["fingerprint"] != fs.attrs["fingerprint"]
    assert smoothed(fs, "").equals(fs)

    changed = fs.copy(deep=True)
    changed.eeg[trial_rows(fs)[3, 1, 7]] += 5
    difference = np.abs(smoothed(changed, "LDS").eeg - after.eeg).max(("channel", "band"))
    has_moved = (difference > 0).values
    assert set(fs.trial.values[has_moved]) == {7}
    assert set(fs.session.values[has_moved]) == {1}


def test_smoothing_makes_windows_of_noise_identify_their_trial(own):
    noise = own.assign_attrs(feature="de")
    before, after = (
        score(smoothed(noise, smoother), splits=("trials", "windows")).set_index("split").accuracy
        for smoother in ("", "LDS")
    )
    assert before["windows"] < 0.5
    assert after["windows"] > 0.9
    # 15 trials per session: a wide interval around 1/3.
    assert before["trials"] < 0.5
    assert after["trials"] < 0.55


def test_the_unit_of_a_feature_does_not_matter_once_standardised(own):
    easy = own.copy(deep=True)
    easy.eeg[:, :20, 4] += 2 * own.label
    a, b = score(easy), score(with_eeg(easy, easy.eeg.values * 0.5 - 3))
    assert np.allclose(a.accuracy, b.accuracy, atol=0.02)
    assert (a.accuracy > 0.6).all()
    assert list(a.split) == ["sessions", "trials", "windows"]


def test_standardising_each_session_removes_a_shift_between_sessions(own):
    drift = own.copy(deep=True)
    drift.eeg[:, :20, 4] += 3 * own.label
    drift.eeg[(own.session == 2).values] *= 3
    by_train, by_session = (
        score(drift, how, splits=("sessions",)).accuracy[0] for how in ("train", "session")
    )
    assert by_session > 0.95
    assert by_train < by_session - 0.2


@pytest.mark.parametrize("scale", [True, False])
def test_the_svm_is_the_linear_one_of_scikit_learn(own, scale):
    y = own.label.values
    x = own.eeg.values.reshape(own.sizes["window"], -1).astype(float) + 0.5 * y[:, None]
    train, test = np.arange(0, len(x), 2), np.arange(1, len(x), 2)
    pipeline = make_pipeline(StandardScaler(with_std=scale), SVC(kernel="linear"))
    expected = pipeline.fit(x[train], y[train]).score(x[test], y[test])
    assert expected > 0.6
    assert svm_accuracy(x[train], y[train], x[test], y[test], scale) == expected


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda fs: score(fs, "test"), "standardise: expected 'train', 'session' or None"),
        (lambda fs: score(fs, splits=("random",)), r"splits: \['random'\] unknown; .* windows"),
        (lambda fs: smoothed(fs, "kalman"), "smoother: expected one of .*'movingAve'"),
    ],
)
def test_wrong_arguments(own, call, message):
    with pytest.raises(ValueError, match=message):
        call(own)


# ---- a whole download


@pytest.fixture(scope="module")
def ds(tmp_path_factory):
    root = tmp_path_factory.mktemp("seed-iv")
    features = ("de_LDS", "de_movingAve")
    write_twin("SEED-IV", root, subjects=1, seconds_per_trial=32, features=features)
    return open_dataset("SEED-IV", root)


def own_features(ds, feature, **options):
    parts = extract(ds, feature, method="psd", find_bad=False, **options)
    return concat_features(list(parts))


@pytest.mark.parametrize("feature", ["de_LDS", "de_movingAve"])
def test_the_same_recipe_gives_the_released_numbers(ds, feature):
    result = compare(own_features(ds, feature), ds.features(feature, eye=False))
    assert np.allclose(result.scale, 1, atol=1e-3)
    assert np.allclose(result.offset, 0, atol=0.02)
    assert (result.correlation > 0.9999).all()
    assert (result.lag == 0).all()


def test_features_of_another_trial_are_noticed_under_the_right_names(ds):
    "Labels and counts agree; only the numbers differ."
    own = own_features(ds, "de_LDS", sessions=[1])
    other = ds.features("de_LDS", sessions=[2], eye=False)
    swapped = own.copy(deep=True)
    for (_, _, trial), rows in trial_rows(own).items():
        swapped.eeg[rows] = other.eeg.values[trial_rows(other)[1, 2, trial]]
    right = compare(own, ds.features("de_LDS", sessions=[1], eye=False))
    assert float(compare(own, swapped).within.median()) < 0.3
    assert float(right.within.median()) > 0.99


def test_steps_on_a_download(ds):
    made = list(steps(ds, BANDS_MSMAE, subjects=[1]))
    names = [name for name, _, _ in made]
    assert len(names) == len(set(names)) == 13
    assert names[0] == "released de_LDS"
    assert {standardise for _, _, standardise in made} == {"train", "session", None}
    released, same, natural = (fs.eeg for _, fs, _ in made[:3])
    assert np.allclose(released, same, atol=0.02)
    assert np.allclose(natural, same * np.log(2) / 2, rtol=1e-5)

    table = step_table({name: score(fs, standardise) for name, fs, standardise in made[:2]})
    assert list(table.index) == names[:2]
    assert table.shape == (2, 3)
    assert table.iloc[0].tolist() == table.iloc[1].tolist()
