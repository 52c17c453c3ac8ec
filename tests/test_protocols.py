"""Folds and protocols: what they promise on tables that are odd in the ways real data are odd."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from emo_lib.base.facts import make_features
from emo_lib.protocols.cross_session import session_pairs
from emo_lib.protocols.folds import Fold, repeated_clips, sample_table
from emo_lib.protocols.registry import PROTOCOLS, make_protocol
from emo_lib.samples.needs import Needs
from emo_lib.samples.samples import TRIAL, make_samples

SCOPES = ("all", "no_test_session", "other_subjects")


def table(
    subjects=(1, 2, 3),
    sessions=(1, 2, 3),
    labels=(0, 1, 2, 0, 1, 2, 0, 1, 2),
    windows=3,
    clip=lambda session, trial: trial,
    feature="de",
):
    rows = [
        dict(subject=s, session=e, trial=t, clip=clip(e, t), label=k, start_s=float(w))
        for s in subjects
        for e in sessions
        for t, k in enumerate(labels, 1)
        for w in range(windows)
    ]
    meta = pd.DataFrame(rows)
    meta.attrs["feature"] = feature
    return meta


def same(f, g):
    return (
        f.names == g.names
        and f.caveats == g.caveats
        and all(
            np.array_equal(getattr(f, k), getattr(g, k)) for k in ("train", "val", "test", "pool")
        )
    )


def test_six_pairs_in_the_papers_order():
    folds = list(make_protocol("cross_session").split(table(subjects=(1,)), subjects=[1]))
    assert [(f.names["train_session"], f.names["test_session"]) for f in folds] == [
        (1, 3),
        (2, 1),
        (3, 2),
        (1, 2),
        (2, 3),
        (3, 1),
    ]


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_all_ordered_pairs_once(n):
    pairs = session_pairs(range(1, n + 1))
    assert len(pairs) == len(set(pairs)) == n * (n - 1) and all(a != b for a, b in pairs)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5])
def test_every_fold_is_fair(scope, fraction):
    meta = table()
    folds = list(make_protocol("cross_session", scope=scope, val_fraction=fraction).split(meta))
    assert len(folds) == 18
    for f in folds:
        parts = [f.train, f.val, f.test]
        assert all((np.diff(p) > 0).all() for p in [*parts, f.pool])
        assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))
        own = meta[(meta.subject == f.names["subject"])]
        assert set(f.train) | set(f.val) == set(own.index[own.session == f.names["train_session"]])
        assert set(f.test) == set(own.index[own.session == f.names["test_session"]])
        assert not set(meta.trial[f.train]) & set(meta.trial[f.val])
        assert set(meta.label[f.train]) == {0, 1, 2} and (fraction == 0) == (len(f.val) == 0)
        assert set(f.val) <= set(own.index)
        if fraction:
            assert set(meta.label[f.val]) == {0, 1, 2}
        leaked = set(f.pool) & set(f.test)
        assert bool(leaked) == (scope == "all") == any("pre-train" in c for c in f.caveats)
        if scope == "other_subjects":
            assert f.names["subject"] not in set(meta.subject[f.pool])


@pytest.mark.parametrize("scope", SCOPES)
def test_shards_give_the_same_folds(scope):
    meta, protocol = (
        table(feature="de_LDS"),
        make_protocol("cross_session", scope=scope, val_fraction=0.3, seed=4),
    )
    whole = list(protocol.split(meta))
    shards = [f for s in (3, 1, 2) for f in protocol.split(meta, subjects=[s])]
    assert all(
        same(f, g)
        for f, g in zip(sorted(shards, key=lambda f: f.names["subject"]), whole, strict=True)
    )


def test_validation_does_not_depend_on_the_test_session_but_on_the_seed():
    meta = table()

    def validation_rows(seed):
        protocol = make_protocol("cross_session", val_fraction=0.3, seed=seed)
        folds = protocol.split(meta, subjects=[1])
        return {tuple(f.names.values()): f.val.tolist() for f in folds}

    rows = validation_rows(0)
    assert rows[1, 1, 2] == rows[1, 1, 3]
    assert rows == validation_rows(0)
    assert rows != validation_rows(1)


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_labelled_trials_are_nested_whole_and_leave_the_pool_alone(fraction):
    meta = table(feature="de_LDS")

    def folds(n, seed=0):
        options = dict(trials_per_class=n, val_fraction=fraction, seed=seed)
        return list(make_protocol("cross_session", **options).split(meta))

    def labelled(fold):
        return np.sort(np.concatenate([fold.train, fold.val])).tolist()

    full, fewer = folds(None), None
    assert not any("labelled (" in caveat for fold in full for caveat in fold.caveats)
    for n in (1, 2, 3, 4):
        few = folds(n)
        for fold, whole in zip(few, full, strict=True):
            trials = meta.loc[labelled(fold)].groupby("label").trial.nunique()
            assert trials.tolist() == [min(n, 3)] * 3
            assert len(labelled(fold)) == 3 * trials.sum()  # whole trials of 3 windows
            assert np.array_equal(fold.pool, whole.pool)
            assert np.array_equal(fold.test, whole.test)
            assert fold.pool_name == whole.pool_name
            kept = f"{min(n, 3) * 3} of 9 training trials are labelled (trials_per_class {n})"
            assert kept in fold.caveats
        if fewer is not None:
            assert all(set(labelled(f)) <= set(labelled(g)) for f, g in zip(fewer, few))
        fewer = few
    assert [labelled(f) for f in folds(3)] == [labelled(f) for f in full]
    one = {tuple(f.names.values()): labelled(f) for f in folds(1)}
    assert one[1, 1, 2] == one[1, 1, 3]
    assert one != {tuple(f.names.values()): labelled(f) for f in folds(1, seed=1)}


def test_clips_of_unlabelled_trials_are_not_said_to_be_trained():
    few = next(make_protocol("cross_session", trials_per_class=1).split(table()))
    assert any("33% of the test session's trials show a clip" in c for c in few.caveats)


def test_equal_pool_names_mean_equal_pools():
    meta = table()
    for scope, n in (("all", 1), ("no_test_session", 9), ("other_subjects", 3)):
        pools = {}
        for f in make_protocol("cross_session", scope=scope).split(meta):
            pools.setdefault(f.pool_name, set()).add(f.pool.tobytes())
        assert len(pools) == n and all(len(p) == 1 for p in pools.values())


def test_order_of_rows_is_free():
    meta = table()
    shuffled = meta.sample(frac=1, random_state=0)
    a, b = (next(make_protocol("cross_session").split(m)) for m in (meta, shuffled))
    assert (
        sorted(shuffled.index[b.train]) == a.train.tolist()
        and sorted(shuffled.index[b.test]) == a.test.tolist()
    )


def test_xarray_feature_set_and_string_subjects():
    meta = table(subjects=("01", "02"))
    fs = xr.Dataset(
        {"eeg": (("window", "channel", "band"), np.zeros((len(meta), 4, 5), "float32"))},
        {
            **{
                c: ("window", meta[c].to_numpy(dtype=str if c == "subject" else None)) for c in meta
            },
            "channel": list("abcd"),
        },
        {"feature": "de_LDS"},
    )
    folds = list(make_protocol("cross_session").split(fs))
    assert (
        len(folds) == 12
        and folds[0].names["subject"] == "01"
        and any("both directions" in c for c in folds[0].caveats)
    )
    assert all(isinstance(f.names["train_session"], int) for f in folds)


@pytest.mark.parametrize(
    "feature, said",
    [
        ("de_LDS", True),
        ("de_movingAve", True),
        ("de_LDS_causal", False),
        ("de", False),
        (None, False),
    ],
)
def test_smoothing_caveat(feature, said):
    meta = table(feature=feature)
    assert (
        any(
            "both directions" in c for c in next(make_protocol("cross_session").split(meta)).caveats
        )
        == said
    )


def test_clip_caveat_counts():
    some = table(clip=lambda e, t: t if t <= 3 else 100 * e + t)
    assert any(
        "33% of the test session's trials" in c
        for c in next(make_protocol("cross_session").split(some)).caveats
    )
    for unknown in (
        lambda e, t: -1,
        lambda e, t: 0,
        lambda e, t: None,
        lambda e, t: "",
        lambda e, t: 24 * e + t,
    ):
        assert not any(
            "clip" in c
            for c in next(make_protocol("cross_session").split(table(clip=unknown))).caveats
        )
    assert repeated_clips(table(), np.arange(27), np.arange(27, 54)) == (9, 9)


def test_missing_sessions_are_said():
    meta = table()
    holes = meta[
        ~((meta.subject == 2) & (meta.session == 1)) & ~((meta.subject == 3) & (meta.session > 1))
    ]
    with pytest.warns(UserWarning) as w:
        folds = list(make_protocol("cross_session").split(holes))
    assert [f.names["subject"] for f in folds] == [1] * 6 + [2] * 2
    assert "subject 2 has no session 1: 2 of 6 pairs" in folds[-1].caveats and not any(
        "has no session" in c for c in folds[0].caveats
    )
    assert any("subject 3" in str(x.message) and "left out" in str(x.message) for x in w)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(make_protocol("cross_session").split(meta))) == 18


@pytest.mark.parametrize(
    "change, line",
    [
        (lambda m: m.drop(columns="session"), "no column session"),
        (lambda m: m.iloc[:0], "empty"),
        (lambda m: m.assign(label=np.arange(len(m))), "labels; a trial has one"),
        (lambda m: m.assign(subject=[None] + [1] * (len(m) - 1)), "without a subject: row 0"),
        (lambda m: m[m.session == 1], "no subject has two sessions"),
        (
            lambda m: m[~((m.session == 1) & (m.label == 2))],
            "label 2 is tested and has no training sample",
        ),
    ],
)
def test_bad_tables_are_refused(change, line):
    with pytest.raises(ValueError, match=line):
        list(make_protocol("cross_session").split(change(table(subjects=(1,)))))


def test_a_lone_subject_has_no_other_subjects():
    with pytest.raises(ValueError, match="leaves no sample for pre-training.*no_test_session"):
        list(make_protocol("cross_session", scope="other_subjects").split(table(subjects=(1,))))


@pytest.mark.parametrize(
    "call, error, line",
    [
        (lambda: make_protocol("cross_sesion"), ValueError, "known: cross_session"),
        (
            lambda: make_protocol("cross_session", scop="all"),
            TypeError,
            "known: scope, val_fraction, seed, trials_per_class",
        ),
        (
            lambda: make_protocol("cross_session", scope="none"),
            ValueError,
            "scope: expected 'all', 'no_test_session' or 'other_subjects', found 'none'",
        ),
        (
            lambda: make_protocol("cross_session", val_fraction=1),
            ValueError,
            "less than 1, found 1",
        ),
        (
            lambda: make_protocol("cross_session", val_fraction=float("nan")),
            ValueError,
            "found nan",
        ),
        (lambda: make_protocol("cross_session", val_fraction="0.2"), ValueError, "found '0.2'"),
        (
            lambda: make_protocol("cross_session", trials_per_class=0),
            ValueError,
            "trials_per_class: expected at least 1, found 0",
        ),
        (lambda: make_protocol("cross_session", trials_per_class=True), ValueError, "found True"),
        (lambda: make_protocol("cross_session", trials_per_class=1.0), ValueError, "found 1.0"),
        (
            lambda: list(make_protocol("cross_session").split(table(), subjects=[1, 99])),
            ValueError,
            "unknown subject 99; the data hold 1, 2, 3",
        ),
    ],
)
def test_bad_parameters_are_refused(call, error, line):
    with pytest.raises(error, match=line):
        call()


def fold_of(names, train, val, test, **more):
    "A Fold whose rows may be given as lists."
    train, val, test = (np.asarray(rows, int) for rows in (train, val, test))
    return Fold(names, train, val, test, **more)


@pytest.mark.parametrize(
    "train, val, test, line",
    [
        ([0, 1, 2], [], [2, 27], "1 samples are in train and in test"),
        ([0, 1], [2], [27], "trials have samples in train and in val"),
        (np.arange(27), [], np.arange(54, 81), "test has samples of session 3, named is 2"),
        (np.arange(27), [], np.arange(81, 108), "test has samples of subject 2, named is 1"),
        (np.arange(24), np.arange(81, 84), np.arange(27, 54), "train has samples of subject 2"),
        (np.arange(27), [], [], "test is empty"),
        ([], [], np.arange(27), "train is empty"),
        (np.arange(3), [], np.arange(27, 54), "label 1, 2 is tested and has no training sample"),
        ([0, 2, 1], [], [27], "train: expected ascending row numbers from 0 to 242, each once"),
        ([0, 0, 1], [], [27], "train: expected ascending row numbers"),
        ([-1, 0], [], [27], "train: expected ascending .* from -1 to 0"),
        ([0, 1], [], [27, 243], "test: expected ascending .* from 27 to 243"),
    ],
)
def test_unfair_folds_are_refused(train, val, test, line):
    fold = fold_of({"subject": 1, "train_session": 1, "test_session": 2}, train, val, test)
    with pytest.raises(ValueError, match=line):
        fold.check(table())


def test_every_broken_rule_is_listed():
    fold = fold_of({"train_session": 3}, [0, 1], [2], [2, 27])
    with pytest.raises(ValueError) as caught:
        fold.check(table())
    assert "trials have samples in train and in val" in str(caught.value)
    assert "1 samples are in val and in test" in str(caught.value)
    assert "train has samples of session 1, named is 3" in str(caught.value)


def test_the_test_session_is_not_the_training_session():
    fold = fold_of({"train_session": 1, "test_session": 1}, np.arange(9), [], np.arange(9, 18))
    with pytest.raises(ValueError, match="the test session is the training session"):
        fold.check(table())


MORE = np.arange(243)  # rows of `table()`: 81 per subject, 27 per session, 3 per trial


@pytest.mark.parametrize(
    "names", [{}, {"fold": 0}, {"test_subject": 3}, {"test_subject": 3, "fold": "last"}]
)
def test_a_fold_between_subjects_passes(names):
    fold = fold_of(names, MORE[:81], MORE[81:162], MORE[162:], adapt=MORE[162:])
    assert fold.check(table()) is fold


@pytest.mark.parametrize(
    "names, line",
    [
        ({"test_subject": 2}, "test has samples of subject 3, named is 2"),
        ({"subject": 3}, "train has samples of subject 1, 2, named is 3"),
        ({"train_subject": 1}, "train has samples of subject 2, named is 1"),
        ({"session": 1}, "test has samples of session 2, 3, named is 1"),
    ],
)
def test_names_must_be_true(names, line):
    with pytest.raises(ValueError, match=line):
        fold_of(names, MORE[:81], MORE[81:162], MORE[162:]).check(table())


@pytest.mark.parametrize(
    "adapt, line",
    [
        (MORE[78:], "adapt holds samples of 1 trials of train"),
        (MORE[160:], "adapt holds samples of 1 trials of val"),
        (MORE[80:84], r"of 1 trials of train, for example .* = \(1, 3, 9\); their labels would"),
        ([162, 243], "adapt: expected ascending row numbers"),
    ],
)
def test_adapt_must_not_carry_labels_into_fit(adapt, line):
    adapt = np.asarray(adapt)
    fold = fold_of({}, MORE[:81], MORE[81:162], MORE[162:], adapt=adapt)
    with pytest.raises(ValueError, match=line):
        fold.check(table())


def test_adapt_is_refused_for_another_sample_of_a_training_trial():
    meta = table()
    train, other_sample = np.array([0, 1, 9, 15]), np.array([2])
    fold = fold_of({}, train, [], MORE[162:171], adapt=other_sample)
    with pytest.raises(ValueError, match="their labels would be carried into fit"):
        fold.check(meta)


def test_folds_that_share_a_fit_have_one_key():
    adapting = Needs(adapts=True)
    folds = list(make_protocol("cross_session", scope="no_test_session").split(table()))
    pairs = {tuple(f.names.values()): f for f in folds}
    one, other, second = pairs[1, 1, 2], pairs[1, 1, 3], pairs[1, 2, 3]
    assert one.key(Needs()) == other.key(Needs())
    assert one.key(Needs()) != second.key(Needs())
    assert one.key(adapting) != other.key(adapting)
    assert one.key(Needs(), ("pool",)) != other.key(Needs(), ("pool",))
    assert one.key(Needs(), ("train",)) == one.key(Needs())
    assert one.fit_names(Needs()) == {"subject": 1, "train_session": 1}
    assert one.fit_names(adapting) == one.names


def test_an_adapting_fit_depends_on_what_it_adapts_to():
    adapting = Needs(adapts=True)
    parts = MORE[:81], [], MORE[162:]
    one, other = (fold_of({}, *parts, adapt=rows) for rows in (MORE[162:189], MORE[162:]))
    assert one.key(adapting) != other.key(adapting)
    assert one.key(Needs()) == other.key(Needs())


@pytest.mark.parametrize(
    "settings", [dict(kind="sequence", length=2), dict(kind="trial", short="pad")]
)
def test_sequences_and_trials_are_split_like_windows(settings):
    meta = table(subjects=(1, 2))
    features = make_features(
        np.zeros((len(meta), 1, 1)),
        meta,
        ["FP1"],
        ["alpha"],
        dataset="toy",
        feature="de_LDS",
        window_s=1.0,
        provenance="synthetic",
        classes=["a", "b", "c"],
    )
    protocol = make_protocol("cross_session", val_fraction=0.3)
    samples = make_samples(features, **settings)
    for fold, whole in zip(protocol.split(samples), protocol.split(meta), strict=True):
        assert fold.caveats[: len(whole.caveats)] == whole.caveats
        for part in ("train", "val", "test"):
            trials = samples.meta.loc[getattr(fold, part), TRIAL].drop_duplicates()
            assert np.array_equal(trials, meta.loc[getattr(whole, part), TRIAL].drop_duplicates())


def test_a_table_is_needed():
    with pytest.raises(TypeError, match="expected a DataFrame .* found ndarray"):
        sample_table(np.zeros((3, 4)))


def test_protocols_are_found_by_name():
    assert PROTOCOLS["cross_session"].name == "cross_session"
    assert PROTOCOLS["cross_session"].title
    with pytest.raises(KeyError, match="unknown protocol 'loso'; known: cross_session"):
        PROTOCOLS["loso"]


def test_the_input_is_left_alone():
    meta = table()
    before = meta.copy()
    list(PROTOCOLS["cross_session"]().split(meta))
    copy = sample_table(meta)
    copy["subject"] = 0
    pd.testing.assert_frame_equal(meta, before)
