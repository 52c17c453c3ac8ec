"""Folds and protocols: what they promise on tables that are odd in the ways real data are odd."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from emo_lib.base.facts import make_features
from emo_lib.protocols.cross_session import session_pairs
from emo_lib.protocols.fold_figure import fold_figure, published_table, trial_parts
from emo_lib.protocols.folds import PRETRAINING_SEES, Fold, repeated_clips, sample_table
from emo_lib.protocols.published_splits import PublishedSplit
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


@pytest.mark.slow
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
        (lambda m: m[m.label == 1], "train has samples of label 1 only"),
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
        (np.arange(3), [], np.arange(27, 54), "train has samples of label 0 only"),
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
    with pytest.raises(KeyError, match="unknown protocol 'lozo'; known: cross_session"):
        PROTOCOLS["lozo"]


def test_the_input_is_left_alone():
    meta = table()
    before = meta.copy()
    list(PROTOCOLS["cross_session"]().split(meta))
    copy = sample_table(meta)
    copy["subject"] = 0
    pd.testing.assert_frame_equal(meta, before)


# Every registered protocol

LISTED = dict(train=[1, 2], val=[3], test=[4])
OPTIONS = {"subject_lists": LISTED}  # what a protocol cannot do without
ONCE = {"loso", "loto", "trial_blocks", "seedv-3fold"}  # every trial is tested once, by definition
SPLITS = {split.name: split for split in PublishedSplit.__subclasses__()}


def cases():
    "(protocol, data set) of every registered protocol and every data set it is made for."
    for name in PROTOCOLS:
        for dataset in SPLITS[name].made_of if name in SPLITS else ["SEED", "SEED-IV"]:
            yield name, dataset


CASES = list(cases())


def data_of(name, dataset):
    "The published table of a data set: all subjects for a published split, else four."
    return published_table(dataset, n_subjects=None if name in SPLITS else 4)


def protocol_of(name, **more):
    return make_protocol(name, **OPTIONS.get(name, {}), **more)


def folds_of(name, dataset, subjects=None, **more):
    return list(protocol_of(name, **more).split(data_of(name, dataset), subjects))


@pytest.mark.parametrize("name, dataset", CASES)
def test_whole_trials_are_on_one_side(name, dataset):
    meta = data_of(name, dataset)
    trial = meta.groupby(TRIAL).ngroup().to_numpy()
    for fold in folds_of(name, dataset):
        parts = [set(trial[rows].tolist()) for rows in (fold.train, fold.val, fold.test)]
        assert parts[0] and parts[2]
        assert len(set.union(*parts)) == sum(map(len, parts))
        assert not len(fold.adapt)


@pytest.mark.parametrize("name, dataset", CASES)
def test_new_subjects_are_new(name, dataset):
    meta = data_of(name, dataset)
    is_shared = [
        bool(set(meta.subject[np.append(f.train, f.val)]) & set(meta.subject[f.test]))
        for f in folds_of(name, dataset)
    ]
    assert any(is_shared) != PROTOCOLS[name].new_subjects
    assert all(is_shared) or not any(is_shared)


@pytest.mark.parametrize("name, dataset", CASES)
def test_how_often_a_trial_is_tested(name, dataset):
    meta = data_of(name, dataset)
    folds = folds_of(name, dataset)
    counts = np.bincount(np.concatenate([fold.test for fold in folds]), minlength=len(meta))
    if name in ONCE:
        assert (counts == 1).all()
    elif name == "cross_session":
        assert (counts == 2).all()
    else:
        assert counts.max() == 1


@pytest.mark.parametrize("name, dataset", CASES)
def test_names_of_folds_differ(name, dataset):
    names = [str(fold.names) for fold in folds_of(name, dataset)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name, dataset", CASES)
def test_folds_come_again_and_depend_on_no_order_of_rows(name, dataset):
    meta = data_of(name, dataset)
    shuffled = meta.sample(frac=1, random_state=0)
    first, again = (next(protocol_of(name).split(meta)) for _ in range(2))
    other = next(protocol_of(name).split(shuffled))
    assert same(first, again)
    for part in ("train", "val", "test"):
        assert sorted(shuffled.index[getattr(other, part)]) == getattr(first, part).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name, dataset", CASES)
def test_validation_is_drawn_from_training_trials(name, dataset):
    if any(len(fold.val) for fold in folds_of(name, dataset)) and name != "adabrain-cross":
        with pytest.raises(ValueError, match="val_fraction: expected 0, because"):
            folds_of(name, dataset, val_fraction=0.4)
        return
    for fold, plain in zip(
        folds_of(name, dataset, val_fraction=0.4), folds_of(name, dataset, val_fraction=0.0)
    ):
        assert np.array_equal(np.union1d(fold.train, fold.val), plain.train)
        assert np.array_equal(fold.test, plain.test)
        assert len(fold.train)


@pytest.mark.slow
@pytest.mark.parametrize("name, dataset", CASES)
def test_a_shard_has_the_training_side_of_the_whole_and_tests_its_subjects(name, dataset):
    meta = data_of(name, dataset)
    whole = {str(fold.names): fold for fold in folds_of(name, dataset)}
    tested = sorted({s for fold in whole.values() for s in meta.subject[fold.test]})
    one, rest = [int(tested[0])], [int(s) for s in tested[1:]]
    rows = {key: [] for key in whole}
    for subjects in filter(None, (one, rest)):
        for fold in folds_of(name, dataset, subjects):
            assert set(meta.subject[fold.test]) <= set(subjects)
            for part in ("train", "val", "pool"):
                assert np.array_equal(getattr(fold, part), getattr(whole[str(fold.names)], part))
            rows[str(fold.names)] += fold.test.tolist()
    assert all(sorted(rows[key]) == whole[key].test.tolist() for key in whole)


@pytest.mark.slow
@pytest.mark.parametrize("name, dataset", CASES)
def test_pools_hold_what_the_scope_says(name, dataset):
    meta = data_of(name, dataset)
    scopes = ("all", "no_test_session", "other_subjects")
    for scope in scopes if name == "cross_session" else ("all", "no_test", "train"):
        protocol = protocol_of(name, scope=scope)
        pools = {}
        for fold in protocol.split(meta):
            pools.setdefault(fold.pool_name, set()).add(fold.pool.tobytes())
            assert bool(np.isin(fold.test, fold.pool).any()) == (scope == "all")
            assert any(c.startswith(PRETRAINING_SEES) for c in fold.caveats) == (scope == "all")
            if scope == "train":
                assert np.array_equal(fold.pool, np.union1d(fold.train, fold.val))
            if scope == "no_test":
                assert len(fold.pool) == len(meta) - len(fold.test)
        assert all(len(pool) == 1 for pool in pools.values())
        assert protocol.common_pool == (scope == "all")
        if protocol.common_pool:
            assert set(pools) == {"all"}


def test_names_of_pools_tell_protocols_and_their_parameters_apart():
    words = [
        make_protocol(name, scope=scope, **options).pool_words
        for scope in ("train", "no_test")
        for name, options in (
            ("trial_order", {}),
            ("trial_order", dict(n_train=9)),
            ("loso", {}),
            ("seed-9-6", {}),
            ("subject_independent", dict(seed=1)),
            ("subject_independent", {}),
        )
    ]
    assert len(set(words)) == len(words)
    few = make_protocol("loso", samples_per_class=3)
    assert few.pool_words == make_protocol("loso").pool_words  # labels do not change a pool


@pytest.mark.slow
@pytest.mark.parametrize("name, dataset", CASES)
def test_keys_hold_for_equal_fits_only(name, dataset):
    keys = {}
    for fold in folds_of(name, dataset):
        rows = (fold.train.tobytes(), fold.val.tobytes())
        assert keys.setdefault(fold.key(Needs()), rows) == rows
    adapting = {fold.key(Needs(adapts=True)) for fold in folds_of(name, dataset)}
    assert len(adapting) == len(folds_of(name, dataset))


LIMITS = {
    "trials_per_class": 1,
    "first_trials_per_class": 1,
    "samples_per_trial": 1,
    "samples_per_class": 3,
}


@pytest.mark.slow
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", [n for n in PROTOCOLS if n not in SPLITS] + ["seed-9-6"])
def test_few_labels_are_a_part_of_training_and_change_nothing_else(name, limit):
    meta = data_of(name, "SEED")
    n = LIMITS[limit]
    for few, plain in zip(folds_of(name, "SEED", **{limit: n}), folds_of(name, "SEED")):
        assert set(few.train) < set(plain.train)
        assert np.array_equal(few.test, plain.test)
        assert np.array_equal(few.pool, plain.pool)
        assert any(f"labelled ({limit} {n})" in caveat for caveat in few.caveats)
        of_subject = meta.loc[few.train].groupby("subject")
        if limit == "samples_per_trial":
            assert (meta.loc[few.train].groupby(TRIAL).size() == 1).all()
            assert (meta.start_s[few.train] == 0).all()
        elif limit == "samples_per_class":
            assert all(rows.label.value_counts().max() <= 3 for _, rows in of_subject)
        else:
            trials = meta.loc[few.train].drop_duplicates(TRIAL).groupby(["subject", "label"])
            assert (trials.size() == 1).all()


def test_the_first_are_the_first_recorded():
    meta = data_of("trial_order", "SEED")
    fold = folds_of("trial_order", "SEED", first_trials_per_class=1)[0]
    assert sorted(set(meta.trial[fold.train])) == [1, 2, 3]  # labels 2, 1, 0, 0, 1, 2 ...
    fold = folds_of("trial_order", "SEED", samples_per_class=3)[0]
    found = meta.loc[fold.train].groupby("label").trial.agg(list).to_dict()
    assert found == {2: [1, 1, 6], 1: [2, 2, 5], 0: [3, 3, 4]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loso", "trial_order", "loto", "random_trials", "trial_blocks"])
def test_another_subject_changes_no_draw(name):
    options = dict(trials_per_class=1) if name == "random_trials" else dict(val_fraction=0.3)
    protocol = make_protocol(name, **options)
    few, more = (published_table("SEED", n_subjects=n) for n in (3, 4))
    drawn = {str(f.names): f for f in protocol.split(more)}
    for fold in protocol.split(few):
        kept = drawn[str(fold.names)]
        for part in ("train", "val", "test"):
            rows = getattr(kept, part)  # the fourth subject's rows are the last
            assert rows[rows < len(few)].tolist() == getattr(fold, part).tolist()


@pytest.mark.parametrize(
    "name, dataset, options, words",
    [
        ("loso", "SEED", {}, "new subject, clips seen: all test trials"),
        ("loso", "SEED", dict(test_clips=0.2), None),
        ("subject_independent", "FACED", {}, "new subject, clips seen: all test trials"),
        ("loto", "SEED", {}, None),
        ("loto", "SEED", dict(within="subject"), "same subject, clips seen: all test trials"),
        ("loto", "SEED-IV", dict(within="subject"), None),
        ("trial_order", "SEED", {}, None),
        ("trial_blocks", "SEED", dict(within="all"), None),
    ],
)
def test_seen_clips_are_a_caveat(name, dataset, options, words):
    fold = next(make_protocol(name, **options).split(published_table(dataset, n_subjects=6)))
    found = [caveat for caveat in fold.caveats if "clips seen" in caveat]
    assert len(found) == (words is not None)
    assert all(words in caveat for caveat in found)


# Classes


def test_class_counts_of_the_published_order_of_seed_iv():
    meta = published_table("SEED-IV", n_subjects=1)
    folds = list(make_protocol("seediv-16-8").split(meta))
    counts = [fold.class_counts(meta, "trial").loc["test"].tolist() for fold in folds]
    assert counts == [[2, 0, 2, 4], [2, 3, 1, 2], [4, 1, 2, 1]]
    assert folds[0].class_counts(meta, "trial").loc["train"].tolist() == [4, 6, 4, 2]
    assert folds[0].class_counts(meta).loc["test"].tolist() == [4, 0, 4, 8]
    assert "class sad has no test sample (session 1)" in folds[0].caveats
    with pytest.raises(ValueError, match="unit: expected 'sample' or 'trial', found 'clip'"):
        folds[0].class_counts(meta, "clip")


def test_a_class_that_is_not_trained_is_a_caveat_once():
    meta = table(subjects=(1,))
    meta = meta[~((meta.session == 1) & (meta.label == 2))].reset_index(drop=True)
    fold = next(make_protocol("cross_session").split(meta))
    words = "label 2 is tested and has no training sample (train session 1, test session 3)"
    assert fold.caveats.count(words) == 1
    assert fold.check(meta) is fold


def test_sessions_of_other_classes_pass():
    folds = folds_of("cross_session", "SEED-VII", subjects=[1])
    assert len(folds) == 12
    assert any("class neutral has no training and no test sample" in c for c in folds[3].caveats)


# Faults, one line each, before any work


def small(dataset="SEED", n=4, **attrs):
    meta = published_table(dataset, n_subjects=n)
    meta.attrs |= attrs
    return meta


@pytest.mark.parametrize(
    "name, options, meta, line",
    [
        ("loso", {}, small(n=1), "expected at least 2 subjects.*found 1: 1"),
        ("loso", dict(val_subjects=3), small(), "expected at least 5 subjects.*found 4"),
        ("subject_independent", {}, small(n=2), "expected subjects for train None.*found 2"),
        ("subject_independent", dict(test=9), small(), "found 4 subjects"),
        ("subject_lists", dict(train=[1], test=[7, 8]), small(), "subjects 7-8 are missing"),
        ("trial_order", dict(n_train=15), small(), "n_train: expected fewer than 15"),
        ("trial_order", dict(n_train=16), small("FACED"), "no tested class is trained.*random_tr"),
        ("trial_blocks", dict(n_blocks=16), small(), "n_blocks: expected at most 15"),
        ("trial_blocks", {}, small("FACED"), "no tested class is trained"),
        ("loso", dict(test_clips=0.2), small().drop(columns="clip"), "clip is known"),
        ("loso", dict(test_clips=0.2), small().assign(clip=0), "clip is known"),
        ("seed-9-6", {}, small("SEED-IV"), "seed-9-6 is a split of SEED; found SEED-IV"),
        ("seediv-16-8", {}, table(), "split of SEED-IV; found no name of a data set"),
        ("cbramod-faced", {}, small("FACED", 4), "subjects 4-122 are missing.*--subjects 123"),
        ("adabrain-cross", {}, small(), "subjects 5-15 are missing.*emo twin --subjects 15"),
        ("faced-new-clips", {}, small("FACED", 5), "subjects 5-122 are missing"),
    ],
)
def test_tables_that_do_not_fit_are_refused(name, options, meta, line):
    with pytest.raises(ValueError, match=line) as caught:
        list(make_protocol(name, **options).split(meta))
    assert "\n" not in str(caught.value)


def test_a_session_of_one_trial_is_left_out():
    meta = small(n=2)
    meta = meta[(meta.session > 1) | (meta.trial == 1)].reset_index(drop=True)
    with pytest.warns(UserWarning, match="session 1, test trial 1: no train sample"):
        folds = list(make_protocol("loto").split(meta))
    assert len(folds) == 2 * 2 * 15


@pytest.mark.parametrize("name", [n for n in PROTOCOLS if n != "cross_session"])
def test_a_subject_that_is_not_in_the_data_is_refused(name):
    dataset = next(iter(SPLITS[name].made_of)) if name in SPLITS else "SEED"
    with pytest.raises(ValueError, match="unknown subject 999; the data hold"):
        folds_of(name, dataset, [999])


def test_a_subject_that_trains_is_not_tested():
    with pytest.raises(ValueError, match="has no fold that tests subject 1; expected a subject"):
        folds_of("subject_lists", "SEED", [1])


@pytest.mark.parametrize(
    "name, options, line",
    [
        ("trial_order", dict(n_train=0), "n_train: expected a whole number from 1, or a share"),
        ("trial_order", dict(n_train=True), "found True"),
        ("trial_order", dict(n_train=float("nan")), "found nan"),
        ("trial_order", dict(within="subjects"), "within: expected 'session' or 'subject'"),
        ("trial_blocks", dict(n_blocks=1), "n_blocks: expected at least 2, found 1"),
        ("random_trials", dict(val=0.5, test=0.5), "leave trials for training"),
        ("random_trials", dict(test=0.0), "expected test above 0"),
        ("loso", dict(val_subjects=-1), "val_subjects: expected at least 0"),
        ("subject_independent", dict(test=None), "found it for both"),
        ("subject_independent", dict(train=0.9, val=0.2), "at most 1 in total, found 1.3"),
        ("subject_lists", {}, "found none in train"),
        ("subject_lists", dict(train=[1], test=[1]), "each subject once, found 1 again"),
        ("loso", dict(trials_per_class=1, first_trials_per_class=1), "found both"),
        ("loso", dict(scope="no_test_session"), "scope: expected 'train', 'no_test' or 'all'"),
    ],
)
def test_impossible_parameters_are_refused(name, options, line):
    with pytest.raises(ValueError, match=line):
        make_protocol(name, **options)


# Published splits


@pytest.mark.parametrize("split", SPLITS.values(), ids=list(SPLITS))
def test_a_published_split_states_where_it_comes_from(split):
    assert split.title and any(str(year) in split.source for year in range(2015, 2027))
    assert split.made_of and split.window_s
    assert set(split.notes) <= set(split.made_of)


@pytest.mark.parametrize(
    "name, dataset, sizes",
    [
        ("cbramod-faced", "FACED", (80, 20, 23)),
        ("libeer-cross", "FACED", (75, 24, 24)),
        ("libeer-cross", "SEED", (9, 3, 3)),
        ("adabrain-cross", "SEED", (12, 12, 3)),
        ("adabrain-cross", "SEED-IV", (13, 13, 2)),
        ("cbramod-seedv", "SEED-V", (16, 16, 16)),
    ],
)
def test_subjects_of_published_splits(name, dataset, sizes):
    meta = published_table(dataset, n_windows=1)
    (fold,) = make_protocol(name).split(meta)
    found = [meta.subject[rows].nunique() for rows in (fold.train, fold.val, fold.test)]
    assert tuple(found) == sizes


def test_the_test_subjects_of_adabrain_are_the_last_in_the_order_of_text():
    meta = published_table("SEED")
    (fold,) = make_protocol("adabrain-cross").split(meta)
    assert sorted(set(meta.subject[fold.test])) == sorted(sorted(range(1, 16), key=str)[-3:])
    assert any("sorts file names as text" in caveat for caveat in fold.caveats)


def test_reduced_data_other_windows_and_more_validation_are_caveats():
    meta = small("SEED-V", window_s=2.0)
    fold = next(make_protocol("seedv-9-6", val_fraction=0.2).split(meta))
    assert "seedv-9-6 on 4 of the 16 subjects of SEED-V" in fold.caveats
    assert "seedv-9-6 is published with windows of 1 or 4 s, here 2 s" in fold.caveats
    assert "val_fraction 0.2 is not part of seedv-9-6" in fold.caveats
    assert next(make_protocol("seed-9-6").split(published_table("SEED"))).caveats == ()


# Size and figure


def test_leave_one_subject_out_shares_its_pool_with_training_at_full_size():
    meta = published_table("SEED", n_windows=226)
    assert len(meta) > 152_000
    folds = list(make_protocol("loso").split(meta))
    assert all(fold.pool is fold.train for fold in folds)
    common = list(make_protocol("loso", scope="all").split(meta))
    assert all(fold.pool is common[0].pool for fold in common)


def test_the_figure_shows_the_part_of_each_trial():
    meta = data_of("loso", "SEED")
    folds = folds_of("loso", "SEED", val_subjects=1)
    parts = trial_parts(folds[0], meta)
    assert (parts.loc[1] == "test").all(axis=None)
    assert sorted(parts.groupby("subject").first()[1]) == ["test", "train", "train", "val"]
    fig = fold_figure(folds[:2], meta, "loso")
    assert sum(trace.type == "heatmap" for trace in fig.data) == 2
