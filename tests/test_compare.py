"""Own against released features: matched by name, never by order; what does not fit is refused; splits and steps do what their names say."""

import json

import numpy as np
import pandas as pd
import pytest

from emo_lib.base.facts import SEED, concat_features, make_features
from emo_lib.data.datasets import open_dataset
from emo_lib.samples.compare import (
    align,
    band_table,
    by_lot,
    compare,
    folds,
    overlay,
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

WINDOWS = {t: 8 + t % 3 for t in range(1, 16)}


def feature_set(sessions=(1, 2), windows=WINDOWS, seed=0, **kw):
    "SYNTHETIC noise, 15 trials a session of one subject."
    rng = np.random.default_rng(seed)
    meta = pd.DataFrame(
        [
            dict(
                subject=3,
                session=s,
                trial=t,
                clip=SEED.clips[s][t - 1],
                label=SEED.labels[s][t - 1],
                start_s=float(i),
            )
            for s in sessions
            for t, n in windows.items()
            for i in range(n)
        ]
    )
    about = dict(
        dataset="SEED", feature="de_LDS", window_s=1.0, provenance="synthetic", classes=SEED.classes
    )
    return make_features(
        rng.normal(20, 2, (len(meta), 62, 5)), meta, SEED.channels, SEED.bands, **about | kw
    )


def with_eeg(fs, x):
    return fs.assign(eeg=(fs.eeg.dims, np.asarray(x, "f4")))


@pytest.fixture
def own():
    return feature_set()


@pytest.fixture
def released(own):
    "A line of `own`, another one for each channel and band, and some noise."
    rng = np.random.default_rng(1)
    a, b = rng.uniform(1, 3, (62, 5)), rng.uniform(-5, 5, (62, 5))
    out = with_eeg(own, a * own.eeg.values + b + rng.normal(0, 0.3, own.eeg.shape))
    out.attrs.update(feature="de_movingAve")
    return out


# ---- the line


def test_a_planted_line_is_found(own):
    a, b = np.linspace(0.5, 3, 310).reshape(62, 5), np.linspace(-9, 9, 310).reshape(62, 5)
    c = compare(own, with_eeg(own, a * own.eeg.values + b))
    assert (
        np.allclose(c.scale, a.T, atol=1e-4)
        and np.allclose(c.offset, b.T, atol=1e-2)
        and np.allclose(c.correlation, 1)
        and (c.residual < 1e-2).all()
        and (c.lag == 0).all()
    )
    assert (
        c.attrs["windows"] == own.sizes["window"]
        and c.attrs["trials"] == 30
        and json.loads(c.attrs["cut"]) == {}
    )


def test_it_agrees_with_numpy(own, released):
    c = compare(own, released)
    x, y = own.eeg.values.astype(float), released.eeg.values.astype(float)
    for k, j in ((0, 0), (17, 3), (61, 4)):
        assert np.allclose(
            [c.scale[j, k], c.offset[j, k]], np.polyfit(x[:, k, j], y[:, k, j], 1)
        ) and np.isclose(c.correlation[j, k], np.corrcoef(x[:, k, j], y[:, k, j])[0, 1])
        u, v = (
            pd.Series(z[:, k, j]).groupby([own.session.values, own.trial.values]) for z in (x, y)
        )
        assert np.isclose(
            c.within[j, k],
            np.corrcoef(x[:, k, j] - u.transform("mean"), y[:, k, j] - v.transform("mean"))[0, 1],
        )


def test_matched_by_name_and_never_by_order(own, released):
    want, rng = compare(own, released), np.random.default_rng(2)
    shuffled = released.isel(
        window=rng.permutation(released.sizes["window"]),
        channel=rng.permutation(62),
        band=[4, 2, 0, 1, 3],
    )
    got = compare(own, shuffled)
    assert all(np.allclose(want[k], got[k]) for k in want)
    assert all(
        np.allclose(want[k], compare(own.isel(window=slice(None, None, -1)), released)[k])
        for k in want
    )


def test_bad_channels_do_not_count(own, released):
    bad = released.assign(valid=(("window", "channel"), np.ones(released.eeg.shape[:2], bool)))
    bad.valid[:40, 5] = False
    bad.eeg[:40, 5] = 0
    c, rest = compare(own, bad), compare(own, released)
    x, y = own.eeg.values[40:, 5, 2].astype(float), released.eeg.values[40:, 5, 2].astype(float)
    assert np.allclose([c.scale[2, 5], c.offset[2, 5]], np.polyfit(x, y, 1)) and np.allclose(
        c.scale[:, 6:], rest.scale[:, 6:]
    )


def test_a_channel_that_never_changes_has_no_line(own, released):
    flat = own.copy(deep=True)
    flat.eeg[:, 9] = 7
    c = compare(flat, released)
    assert np.isnan(c.scale[:, 9]).all() and np.isfinite(c.scale[:, :9]).all()
    assert (band_table(c)["worst channel"] == SEED.channels[9]).all() and np.isfinite(
        band_table(c)["scale"]
    ).all()


@pytest.mark.parametrize("k", [-2, -1, 1, 3])
def test_a_shift_in_time_is_a_lag(own, k):
    late = own.copy(deep=True)
    for rows in trial_rows(own).values():
        late.eeg[rows] = np.roll(own.eeg.values[rows], k, axis=0)
    assert (compare(own, late).lag == k).all()


def test_one_real_and_one_synthetic_is_synthetic(own, released):
    real = own.assign_attrs(provenance="real")
    assert (
        compare(real, released).attrs["provenance"]
        == compare(released, real).attrs["provenance"]
        == "synthetic"
        and compare(real, real).attrs["provenance"] == "real"
    )
    assert (
        overlay(own, released).layout.title.text.startswith("SYNTHETIC")
        and "SYNTHETIC" not in overlay(real, real).layout.title.text
    )


# ---- what does not fit


def test_one_window_less_is_cut_and_counted(own, released):
    last = (released.trial == 4) & (released.session == 2) & (released.start_s == WINDOWS[4] - 1)
    c = compare(own, released.isel(window=~last.values))
    assert c.attrs["windows"] == own.sizes["window"] - 1 and json.loads(c.attrs["cut"]) == {
        "3/2/4": [WINDOWS[4], WINDOWS[4] - 1]
    }
    _, _, cut = align(released.isel(window=~last.values), own)
    assert cut == {(3, 2, 4): (WINDOWS[4] - 1, WINDOWS[4])}


@pytest.mark.parametrize(
    "spoil, told",
    [
        (
            lambda fs: fs.isel(window=~((fs.trial == 4) & (fs.start_s > 5)).values),
            "subject 3, session 1, trial 4 (2 trials differ)",
        ),
        (
            lambda fs: fs.isel(window=~((fs.trial == 4) & (fs.start_s == 0)).values),
            "begin together, found 0 s (own) and 1 s (released)",
        ),
        (
            lambda fs: fs.isel(window=(fs.session == 1).values),
            "15 in the own features only, the first subject 3, session 2, trial 1",
        ),
        (
            lambda fs: fs.assign_coords(subject=fs.subject + 1),
            "in the released features only, the first subject 4",
        ),
        (
            lambda fs: fs.assign_coords(label=2 - fs.label),
            "expected the same label of a trial, found 2 (own) and 0 (released) in subject 3, session 1, trial 1",
        ),
        (lambda fs: fs.assign_coords(clip=fs["clip"] + 1), "expected the same clip of a trial"),
        (lambda fs: fs.assign_coords(start_s=fs.start_s + 0.5), "begin together"),
        (
            lambda fs: fs.assign_attrs(window_s=4.0),
            "seconds a window, found 1.0 (own) and 4.0 (released)",
        ),
        (lambda fs: fs.assign_attrs(dataset="SEED-IV"), "the same data set"),
        (lambda fs: fs.isel(channel=slice(1, None)), "'FP1'"),
        (lambda fs: fs.isel(band=slice(1, None)), "the same bands"),
    ],
)
def test_refusals(own, released, spoil, told):
    with pytest.raises(ValueError) as e:
        compare(own, spoil(released))
    assert told in str(e.value)


def test_all_faults_are_listed(own, released):
    wrong = released.assign_attrs(window_s=4.0, dataset="X").isel(
        window=(released.session == 1).values, channel=slice(3, None)
    )
    with pytest.raises(ValueError) as e:
        compare(own, wrong)
    assert str(e.value).count("\n- ") == 4


# ---- splits, smoothing, lots


def meta_of(fs):
    return pd.DataFrame({c: fs[c].values for c in ("session", "trial", "label")})


@pytest.mark.parametrize("split, n", [("sessions", 2), ("trials", 10), ("windows", 10)])
def test_splits(own, split, n):
    meta, seen = meta_of(own), []
    for a, b in folds(meta, split):
        assert not set(a) & set(b) and set(meta.label[b]) <= set(meta.label[a])
        both = set(map(tuple, meta.loc[a, ["session", "trial"]].values)) & set(
            map(tuple, meta.loc[b, ["session", "trial"]].values)
        )
        assert bool(both) == (split == "windows")
        assert (len(set(meta.session[a]) & set(meta.session[b])) == 0) == (split == "sessions")
        seen += list(b)
    assert sorted(seen) == list(range(len(meta))) and len(list(folds(meta, split))) == n


def test_smoothing_stays_within_a_trial_and_names_itself(own):
    fs = own.assign_attrs(feature="de")
    after = smoothed(fs, "LDS")
    for rows in trial_rows(fs).values():
        assert np.array_equal(after.eeg.values[rows], lds(fs.eeg.values[rows]))
    assert (
        after.attrs["feature"] == "de_LDS"
        and after.attrs["fingerprint"] != fs.attrs["fingerprint"]
        and smoothed(fs, "").equals(fs)
    )
    changed = fs.copy(deep=True)
    changed.eeg[trial_rows(fs)[3, 1, 7]] += 5
    moved = np.abs(smoothed(changed, "LDS").eeg - after.eeg).max(("channel", "band")) > 0
    assert set(fs.trial.values[moved.values]) == {7} and set(fs.session.values[moved.values]) == {1}
    with pytest.raises(ValueError, match="movingAve"):
        smoothed(fs, "kalman")


def test_labels_by_lot_keep_trials_and_counts(own):
    lot = by_lot(own, seed=4)
    assert (lot.label.values != own.label.values).any() and np.array_equal(lot.eeg, own.eeg)
    for s in (1, 2):
        labels = [set(lot.label.values[r]) for k, r in trial_rows(lot).items() if k[1] == s]
        assert all(len(x) == 1 for x in labels) and sorted(x.pop() for x in labels) == sorted(
            SEED.labels[s]
        )
    assert by_lot(own, seed=4).equals(lot)


def test_smoothing_lets_a_split_between_windows_recognise_noise(own):
    noise = by_lot(own.assign_attrs(feature="de"), seed=1)
    before, after = (
        score(smoothed(noise, how), splits=("trials", "windows")).set_index("split").accuracy
        for how in ("", "LDS")
    )
    assert (
        after["windows"] > 0.9
        and before["windows"] < 0.5
        and before["trials"] < 0.5
        and after["trials"] < 0.55
    )  # 15 trials a session: chance 1/3, wide


def test_the_scale_of_a_feature_does_not_matter_once_standardised(own):
    easy = own.copy(deep=True)
    easy.eeg[:, :20, 4] += 2 * own.label
    line = with_eeg(easy, easy.eeg.values * 0.5 - 3)
    a, b = score(easy), score(line)
    assert (
        np.allclose(a.accuracy, b.accuracy, atol=0.02)
        and (a.accuracy > 0.6).all()
        and list(a.split) == ["sessions", "trials", "windows"]
    )


def test_each_session_by_itself_removes_a_shift_between_sessions(own):
    drift = own.copy(deep=True)
    drift.eeg[:, :20, 4] += 3 * own.label
    drift.eeg[(own.session == 2).values] *= 3
    by_train, by_session = (
        score(drift, how, splits=("sessions",)).accuracy[0] for how in ("train", "session")
    )
    assert by_session > 0.95 > by_train + 0.2


@pytest.mark.parametrize("scale", [True, False])
def test_the_svm_is_scikit_learn_s_linear_one(own, scale):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    x, y = (
        own.eeg.values.reshape(own.sizes["window"], -1).astype(float)
        + 0.5 * own.label.values[:, None],
        own.label.values,
    )
    a, b = np.arange(0, len(x), 2), np.arange(1, len(x), 2)
    other = (
        make_pipeline(StandardScaler(with_std=scale), SVC(kernel="linear"))
        .fit(x[a], y[a])
        .score(x[b], y[b])
    )
    assert 0.6 < svm_accuracy(x[a], y[a], x[b], y[b], scale) == other


def test_wrong_arguments(own):
    with pytest.raises(ValueError, match="'train', 'session' or None"):
        score(own, "test")
    with pytest.raises(ValueError, match="windows"):
        score(own, splits=("random",))


# ---- a whole download


@pytest.fixture(scope="module")
def ds(tmp_path_factory):
    root = tmp_path_factory.mktemp("iv")
    write_twin(
        "SEED-IV", root, subjects=1, seconds_per_trial=32, features=("de_LDS", "de_movingAve")
    )
    return open_dataset("SEED-IV", root)


@pytest.mark.parametrize("feature", ["de_LDS", "de_movingAve"])
def test_the_same_recipe_gives_the_released_numbers(ds, feature):
    c = compare(
        concat_features(list(extract(ds, feature, method="psd", find_bad=False))),
        ds.features(feature, eye=False),
    )
    assert (
        np.allclose(c.scale, 1, atol=1e-3)
        and np.allclose(c.offset, 0, atol=0.02)
        and (c.correlation > 0.9999).all()
        and (c.lag == 0).all()
    )


def test_features_of_the_wrong_trial_are_seen_even_under_the_right_names(ds):
    "Labels and counts agree: only the numbers tell."
    own = concat_features(list(extract(ds, "de_LDS", method="psd", find_bad=False, sessions=[1])))
    other = ds.features("de_LDS", sessions=[2], eye=False)
    rows = trial_rows(own)
    alien = own.copy(deep=True)
    for (_, _, t), r in rows.items():
        alien.eeg[r] = other.eeg.values[trial_rows(other)[1, 2, t]]
    c = compare(own, alien)
    assert (
        float(c.within.median())
        < 0.3
        < 0.99
        < float(compare(own, ds.features("de_LDS", sessions=[1], eye=False)).within.median())
    )


def test_steps_on_a_download(ds):
    made = list(steps(ds, BANDS_MSMAE, subjects=[1]))
    names = [n for n, *_ in made]
    assert (
        len(names) == len(set(names))
        and names[0] == "released de_LDS"
        and {s for *_, s in made} == {"train", "session", None}
    )
    (_, released, _), (_, same, _), (_, natural, _) = made[:3]
    assert np.allclose(released.eeg, same.eeg, atol=0.02) and np.allclose(
        natural.eeg, same.eeg * np.log(2) / 2, rtol=1e-5
    )
    table = step_table(
        {n: score(fs, how, splits=("sessions", "trials", "windows")) for n, fs, how in made[:2]}
    )
    assert (
        list(table.index) == names[:2]
        and table.shape == (2, 3)
        and table.iloc[0].tolist() == table.iloc[1].tolist()
    )
