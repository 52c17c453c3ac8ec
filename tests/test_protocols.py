"""Splits: the promises of emo_lib.protocols.cross_session on tables that are odd in ways real data are odd."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from emo_lib.protocols.cross_session import (
    PROTOCOLS,
    Fold,
    make_protocol,
    repeated_clips,
    session_pairs,
    window_table,
)

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
    folds = [f for f in make_protocol("cross_session").split(table(subjects=(1,)), subjects=[1])]
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
    of = lambda seed: {
        tuple(f.names.values()): f.val.tolist()
        for f in make_protocol("cross_session", val_fraction=0.3, seed=seed).split(
            meta, subjects=[1]
        )
    }
    assert of(0)[1, 1, 2] == of(0)[1, 1, 3] and of(0) == of(0) and of(0) != of(1)


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_labelled_trials_are_nested_whole_and_leave_the_pool_alone(fraction):
    meta = table(feature="de_LDS")

    def of(n, seed=0):
        return list(
            make_protocol(
                "cross_session", trials_per_class=n, val_fraction=fraction, seed=seed
            ).split(meta)
        )

    def rows(f):
        return np.sort(np.concatenate([f.train, f.val])).tolist()

    full, before = of(None), None
    for n in (1, 2, 3, 4):
        few = of(n)
        for f, g in zip(few, full, strict=True):
            labelled = meta.loc[rows(f)].groupby("label").trial.nunique()
            assert (
                labelled.tolist() == [min(n, 3)] * 3 and len(rows(f)) == 3 * labelled.sum()
            )  # whole trials of 3 windows
            assert (
                np.array_equal(f.pool, g.pool)
                and np.array_equal(f.test, g.test)
                and f.pool_name == g.pool_name
            )
            assert (
                f"{min(n, 3) * 3} of 9 training trials are labelled (trials_per_class {n})"
                in f.caveats
            )
        assert before is None or all(set(rows(f)) <= set(rows(g)) for f, g in zip(before, few))
        before = few
    assert [rows(f) for f in of(3)] == [rows(f) for f in full] and not any(
        "labelled (" in c for f in full for c in f.caveats
    )
    one = {tuple(f.names.values()): rows(f) for f in of(1)}
    assert one[1, 1, 2] == one[1, 1, 3] and one != {
        tuple(f.names.values()): rows(f) for f in of(1, seed=1)
    }


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
            "label 2 is tested and has no training window",
        ),
    ],
)
def test_bad_tables_are_refused(change, line):
    with pytest.raises(ValueError, match=line):
        list(make_protocol("cross_session").split(change(table(subjects=(1,)))))


def test_a_lone_subject_has_no_other_subjects():
    with pytest.raises(ValueError, match="leaves no window for pre-training.*no_test_session"):
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
            "known: all, no_test_session, other_subjects",
        ),
        (lambda: make_protocol("cross_session", val_fraction=1), ValueError, "below 1, found 1"),
        (
            lambda: make_protocol("cross_session", val_fraction=float("nan")),
            ValueError,
            "found nan",
        ),
        (lambda: make_protocol("cross_session", val_fraction="0.2"), ValueError, "found '0.2'"),
        (
            lambda: make_protocol("cross_session", trials_per_class=0),
            ValueError,
            "at least 1, or None, found 0",
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


def rows(*parts):
    return [np.asarray(p, int) for p in parts]


@pytest.mark.parametrize(
    "train, val, test, line",
    [
        ([0, 1, 2], [], [2, 27], "1 windows are in train and in test"),
        ([0, 1], [2], [27], "trials have windows in train and in val"),
        (np.arange(27), [], np.arange(54, 81), "test has windows of session 3, named is 2"),
        (np.arange(27), [], np.arange(81, 108), "test has windows of subject 2, named is 1"),
        (np.arange(27), [], [], "test is empty"),
        (np.arange(3), [], np.arange(27, 54), "label 1, 2 is tested"),
    ],
)
def test_unfair_folds_are_refused(train, val, test, line):
    train, val, test = rows(train, val, test)
    fold = Fold({"subject": 1, "train_session": 1, "test_session": 2}, train, val, test, train)
    with pytest.raises(ValueError, match=line):
        fold.check(table())


def test_registry_and_table_leave_the_input_alone():
    meta = table()
    before = meta.copy()
    list(PROTOCOLS["cross_session"]().split(meta))
    window_table(meta)
    pd.testing.assert_frame_equal(meta, before)
