"""Samples: cut from twins and odd feature sets, and what each kind of sample promises."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from emo_lib.base.facts import META, SPECS, make_features
from emo_lib.data.datasets import open_dataset
from emo_lib.run.results import prediction_table
from emo_lib.samples.needs import Needs, check_needs, check_samples
from emo_lib.samples.samples import Samples, SampleSettings, from_arrays, make_samples
from emo_lib.twins.twin import write_twin

TRIAL = ["subject", "session", "trial"]
KINDS = [
    dict(kind="window"),
    dict(kind="sequence", length=3),
    dict(kind="sequence", length=3, stride=2),
    dict(kind="sequence", length=10, short="pad"),
    dict(kind="sequence", length=10, short="repeat"),
    dict(kind="sequence", length=3, edges="repeat"),
    dict(kind="sequence", length=10, stride=4, edges="repeat"),
    dict(kind="trial", short="pad"),
    dict(kind="trial", length=4, short="pad"),
    dict(kind="trial", length=50, short="repeat"),
    dict(kind="trial", length=4),
]


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    "Released DE and eye features of a SEED-V twin: one subject, trials of different lengths."
    root = tmp_path_factory.mktemp("seed-v")
    write_twin("SEED-V", root, subjects=1, seed=1)
    return open_dataset("SEED-V", root).features("de")


def cut(features, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_samples(features, **settings)


def marked(features):
    "The same windows, but each value is the number of its window in the table."
    number = np.arange(features.sizes["window"], dtype="float32")
    return features.assign(
        eeg=features.eeg.copy(
            data=np.broadcast_to(number[:, None, None], features.eeg.shape).copy()
        ),
        eye=features.eye.copy(data=np.broadcast_to(number[:, None], features.eye.shape).copy()),
    )


def origin(samples):
    "int (sample, step): which window of a marked feature set a step is; -1 for padding."
    return np.where(samples.steps, samples.eye[:, :, 0], -1).astype(int)


@pytest.mark.parametrize("settings", KINDS)
def test_no_sample_crosses_a_trial(twin, settings):
    samples = cut(marked(twin), modalities=("eeg", "eye"), **settings)
    rows = origin(samples)
    assert np.array_equal(np.where(samples.steps, samples.eeg[:, :, 0, 0], -1), rows)
    for column in META[:-1]:
        values = twin[column].values[rows]
        own = samples.meta[column].to_numpy()[:, None]
        assert ((values == own) | ~samples.steps).all(), column
    named = rows[:, -1] if settings.get("edges") == "repeat" else rows[:, 0]
    assert (samples.meta.start_s == twin.start_s.values[named]).all()
    assert not samples.meta.duplicated([*TRIAL, "start_s"]).any()


@pytest.mark.parametrize("settings", KINDS)
def test_steps_follow_one_another_in_time(twin, settings):
    samples = cut(marked(twin), modalities=("eye",), **settings)
    rows = origin(samples)
    real = samples.steps[:, 1:]
    gaps = np.diff(rows, axis=1)[real]
    allowed = {0, 1} if "repeat" in settings.values() else {1}
    assert set(gaps.tolist()) <= allowed


@pytest.mark.parametrize("settings", KINDS)
def test_every_kind_holds_its_contract(twin, settings):
    samples = cut(twin, modalities=("eeg", "eye"), **settings)
    n, n_steps = samples.steps.shape
    assert len(samples) == n
    assert samples.eeg.shape == (n, n_steps, 62, 5)
    assert samples.eye.shape == (n, n_steps, 33)
    assert samples.there.shape == (n, n_steps, 62)
    assert samples.eeg.dtype == samples.eye.dtype == np.float32
    assert samples.there.dtype == samples.steps.dtype == bool
    assert samples.label.dtype == np.int64
    assert samples.channels == SPECS["SEED-V"].channels
    assert list(samples.meta) == list(META)
    assert samples.meta.index.tolist() == list(range(n))
    assert samples.meta.attrs | {"caveats": []} == twin.attrs | {"caveats": []}
    assert samples.steps[:, 0].all()


def test_padding_is_padding_in_every_field(twin):
    samples = cut(twin, kind="trial", modalities=("eeg", "eye"), short="pad")
    padding = ~samples.steps
    assert padding.any()
    assert (samples.eeg[padding] == 0).all()
    assert (samples.eye[padding] == 0).all()
    assert not samples.there[padding].any()
    n_windows = pd.DataFrame({c: twin[c].values for c in TRIAL}).groupby(TRIAL).size()
    assert samples.steps.sum(axis=1).tolist() == n_windows.tolist()


def test_a_trial_is_cut_to_the_length(twin):
    whole = cut(twin, kind="trial", short="pad")
    shortest = int(whole.steps.sum(axis=1).min())
    samples = make_samples(twin, "trial", shortest)
    assert len(samples) == len(whole)
    assert samples.steps.all()
    assert np.array_equal(samples.eeg, whole.eeg[:, :shortest])


def test_short_trials_are_dropped_padded_or_repeated(twin):
    n_windows = cut(twin, kind="trial", short="pad").steps.sum(axis=1)
    length = int(np.sort(n_windows)[5]) + 1
    n_short = int((n_windows < length).sum())
    with pytest.warns(UserWarning, match=f"{n_short} of 45 trials are shorter than {length}"):
        dropped = make_samples(twin, "trial", length)
    assert len(dropped) == 45 - n_short
    padded = make_samples(twin, "trial", length, short="pad")
    repeated = make_samples(twin, "trial", length, short="repeat")
    assert len(padded) == len(repeated) == 45
    assert repeated.steps.all()
    for i in np.flatnonzero(n_windows < length):
        n = n_windows[i]
        assert np.array_equal(padded.eeg[i, :n], repeated.eeg[i, :n])
        assert (repeated.eeg[i, n:] == repeated.eeg[i, n - 1]).all()


def test_sequences_agree_with_a_loop(twin):
    table = pd.DataFrame({c: twin[c].values for c in TRIAL})
    expected = []
    for _, rows in table.groupby(TRIAL).indices.items():
        expected += [rows[start : start + 5] for start in range(0, len(rows) - 4, 3)]
    samples = cut(twin, kind="sequence", length=5, stride=3)
    assert np.array_equal(samples.eeg, twin.eeg.values[np.array(expected)])


def slow_edges(table, length, stride):
    "Row numbers of sequences: back from each last window, but not beyond the first of its part."
    sequences, first = [], 0
    for last in range(len(table)):
        same_trial = last and (table[TRIAL].iloc[last] == table[TRIAL].iloc[last - 1]).all()
        is_next = last and table.start_s[last] - table.start_s[last - 1] == 4
        if not (same_trial and is_next):
            first = last
        if (last - first) % stride == 0:
            sequences.append([max(first, last - back) for back in range(length)][::-1])
    return sequences


@pytest.mark.parametrize("length, stride", [(1, 1), (5, 1), (5, 3), (16, 2)])
@pytest.mark.parametrize("share", [1.0, 0.97])  # of windows that are kept
def test_repeated_edges_agree_with_a_loop(twin, length, stride, share):
    is_kept = np.random.default_rng(0).random(twin.sizes["window"]) < share
    features = twin.isel(window=np.flatnonzero(is_kept))
    table = pd.DataFrame({c: features[c].values for c in META})
    expected = np.array(slow_edges(table, length, stride))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is left out
        samples = make_samples(
            marked(features), "sequence", length, stride, ("eeg", "eye"), edges="repeat"
        )
    assert np.array_equal(origin(samples), expected)
    assert samples.steps.all()
    assert not any("left out" in caveat for caveat in samples.meta.attrs["caveats"])
    if stride == 1:
        assert origin(samples)[:, -1].tolist() == list(range(len(table)))


def windows_of_seed_v():
    "One channel of the windows of 4 s that the facts of SEED-V list, of one subject."
    rows = [
        dict(subject=1, session=session, trial=t, clip=t, label=0, start_s=4.0 * w)
        for session, seconds in SPECS["SEED-V"].trial_s.items()
        for t, length in enumerate(seconds, 1)
        for w in range(int(length // 4))
    ]
    named = dict(dataset="SEED-V", feature="de", window_s=4.0, provenance="real", classes=["a"])
    return make_features(np.zeros((len(rows), 1, 1)), pd.DataFrame(rows), ["FP1"], ["p"], **named)


@pytest.mark.parametrize("edges, counts", [("drop", [546, 406, 466]), ("repeat", [681, 541, 601])])
def test_sequences_of_ten_windows_of_seed_v(edges, counts):
    samples = make_samples(windows_of_seed_v(), "sequence", 10, edges=edges)
    assert samples.meta.session.value_counts(sort=False).tolist() == counts


def test_short_has_nothing_to_do_with_repeated_edges(twin):
    cuts = [
        make_samples(twin, "sequence", 16, short=short, edges="repeat")
        for short in ("drop", "pad", "repeat")
    ]
    for samples in cuts:
        assert len(samples) == twin.sizes["window"]
        assert np.array_equal(samples.eeg, cuts[0].eeg)


def test_a_table_of_predictions_takes_sequences_with_repeated_edges(twin):
    meta = make_samples(twin, "sequence", 5, edges="repeat").meta
    table = prediction_table(meta, np.full((len(meta), 5), 0.2), {"fold": "all"})
    assert table.start_s.tolist() == twin.start_s.values.tolist()
    assert not table.duplicated([*TRIAL, "start_s"]).any()


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_samples_are_float32_whatever_the_features_are(twin, dtype):
    other = twin.assign(eeg=twin.eeg.astype(dtype), eye=twin.eye.astype(dtype))
    samples = cut(other, kind="sequence", length=3, modalities=("eeg", "eye"))
    assert samples.eeg.dtype == samples.eye.dtype == np.float32


def test_windows_share_the_memory_of_the_feature_set(twin):
    assert np.shares_memory(make_samples(twin).eeg, twin.eeg.values)


def test_the_order_of_windows_in_the_file_is_free(twin):
    order = np.random.default_rng(0).permutation(twin.sizes["window"])
    straight = cut(twin, kind="trial", short="pad")
    mixed = cut(twin.isel(window=order), kind="trial", short="pad")
    key = mixed.meta.sort_values(TRIAL).index.to_numpy()
    assert np.array_equal(mixed.eeg[key], straight.eeg)


def small(n_windows=(4, 3), **more):
    rows = [
        dict(subject="A", session=1, trial=t, clip=t, label=t % 2, start_s=float(w))
        for t, n in enumerate(n_windows, 1)
        for w in range(n)
    ]
    named = dict(
        dataset="toy", feature="de", window_s=1.0, provenance="synthetic", classes=["a", "b"]
    )
    eeg = np.random.default_rng(0).normal(size=(len(rows), 3, 2))
    return make_features(eeg, pd.DataFrame(rows), ["x", "y", "z"], ["p", "q"], **(named | more))


def test_channels_without_a_grid_cell_are_left_out():
    features = small(cell=["FP1", None, "FP2"])
    samples = make_samples(features)
    assert samples.channels == ("FP1", "FP2")
    assert np.array_equal(samples.eeg[:, 0], features.eeg.values[:, [0, 2]])
    with pytest.raises(ValueError, match="expected channels with a place on the grid"):
        make_samples(small(cell=[None, None, None]))


def test_without_cells_the_channels_have_their_own_names():
    assert make_samples(small()).channels == ("x", "y", "z")


def test_eye_without_eeg():
    features = small(eye=np.ones((7, 2)), eye_names=["pupil", "blink"])
    samples = make_samples(features, "sequence", 3, modalities=("eye",))
    assert samples.eeg is None
    assert samples.there is None
    assert samples.channels == ()
    assert samples.eye.shape == (3, 3, 2)
    with pytest.raises(ValueError, match="expected samples with EEG, found eye movements only"):
        samples.as_windows()


def test_indexing():
    samples = make_samples(small())
    for rows in ([4, 1], np.array([4, 1]), (np.array([4, 1]), ...)):
        part = samples[rows]
        assert part.label.tolist() == [0, 1]
        assert part.meta.index.tolist() == [0, 1]
        assert np.array_equal(part.eeg, samples.eeg[[4, 1]])
    assert np.shares_memory(samples[2:4].eeg, samples.eeg)
    assert len(samples[samples.meta.label == 0]) == 3
    assert len(samples[[]]) == 0
    with pytest.raises(TypeError, match="row numbers, a mask or a slice, found 2"):
        samples[2]
    with pytest.raises(IndexError):
        samples[[99]]
    with pytest.raises(IndexError):
        samples[np.ones(3, bool)]


def test_samples_without_labels():
    samples = make_samples(small())
    bare = samples.without_labels()
    assert set(bare.label) == {-1}
    assert bare.meta.attrs == samples.meta.attrs
    assert samples.label.tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert bare.eeg is samples.eeg


def two_sessions():
    "Samples of two sessions with the same clips in the same order: 15 trials of 2 windows each."
    samples = make_samples(small((2,) * 15))
    twice = samples[np.tile(np.arange(30), 2)]
    return replace(twice, meta=twice.meta.assign(session=np.repeat([1, 2], 30)))


def lookup(train, column):
    "The label of each value of a column, as training samples show it."
    return train.meta.groupby(column).label.first().to_dict()


@pytest.mark.parametrize("column", ["clip", "trial"])
def test_neither_clip_nor_trial_tells_the_label_of_the_target(column):
    samples = two_sessions()
    train, target = (samples[samples.meta.session == session] for session in (1, 2))
    label_of = lookup(train, column)
    assert target.meta[column].map(label_of).tolist() == target.label.tolist()
    assert target.without_labels().meta[column].map(label_of).isna().all()
    of_pool = train.without_labels().meta[column]
    if column == "trial":
        assert not set(of_pool) & set(target.without_labels().meta[column])


def test_codes_of_trials_group_windows_and_hide_the_order():
    samples = two_sessions()
    hidden = samples.without_labels().meta
    pairs = pd.DataFrame({"code": hidden.trial, "trial": samples.meta.trial})
    for session in (1, 2):
        own = pairs[samples.meta.session == session].drop_duplicates()
        assert own.code.nunique() == own.trial.nunique() == len(own) == 15
        assert abs(own.code.corr(own.trial, method="spearman")) < 0.6
    assert (hidden.trial < 0).all()
    assert hidden[["subject", "session", "start_s"]].equals(
        samples.meta[["subject", "session", "start_s"]]
    )


def test_codes_of_trials_do_not_depend_on_the_other_rows():
    samples = two_sessions()
    hidden = samples.without_labels()
    rows = [50, 3, 4]
    assert samples[rows].without_labels().meta.equals(hidden[rows].meta)
    assert hidden.without_labels().meta.equals(hidden.meta)


def test_a_clip_of_words_becomes_an_empty_one():
    samples = make_samples(small().assign_coords(clip=("window", list("aaaabbb"))))
    assert set(samples.without_labels().meta["clip"]) == {""}


def test_plain_arrays_have_no_trial_to_hide():
    bare = from_arrays(np.zeros((2, 62, 5)), [0, 1]).without_labels()
    assert bare.meta.to_dict("list") == {"label": [-1, -1]}


def test_samples_are_frozen_and_consistent():
    samples = make_samples(small())
    with pytest.raises(AttributeError):
        samples.eeg = None
    with pytest.raises(ValueError, match="found neither") as caught:
        Samples(None, None, None, samples.steps, samples.meta[:3])
    assert "meta: expected 7 rows, found 3" in str(caught.value)
    with pytest.raises(ValueError, match=r"there: expected \(7, 1, 3\), found None"):
        Samples(samples.eeg, None, None, samples.steps, samples.meta, samples.channels)


def test_arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 62, 4))
    valid = rng.random((5, 62)) > 0.5
    samples = from_arrays(x, np.arange(5), valid)
    again, there = samples.as_windows()
    assert np.array_equal(again, x.astype("float32"))
    assert np.array_equal(there, valid)
    assert samples.label.tolist() == list(range(5))
    one = from_arrays(x[:, None, :3], valid=valid[0, :3], channels=("FP1", "FPZ", "FP2"))
    assert one.there[:, 0].tolist() == [valid[0, :3].tolist()] * 5
    for call, words in (
        (lambda: from_arrays(x[0]), "expected X of shape"),
        (lambda: from_arrays(x[:, :3]), "expected 62 channels, found 3"),
        (lambda: from_arrays(x, [1, 2]), "expected 5 labels, one per sample"),
        (lambda: from_arrays(x, valid=valid * 1), "expected valid to be bool"),
        (lambda: from_arrays(x, valid=valid[:2]), "expected valid of shape"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_repeated_edges_do_not_make_up_for_a_sequence_longer_than_every_trial():
    with pytest.raises(ValueError, match="length: expected at most 4 windows, the longest trial"):
        make_samples(small(), "sequence", 5, edges="repeat")


@pytest.mark.parametrize("short", ["drop", "pad", "repeat"])
def test_a_sequence_longer_than_every_trial_is_refused(short):
    with pytest.raises(ValueError, match="length: expected at most 4 windows, the longest trial"):
        make_samples(small(), "sequence", 5, short=short)
    with pytest.raises(ValueError, match="found 10"):
        make_samples(small(), "trial", 10)
    assert make_samples(small(), "trial", 10, short="pad").steps.sum() == 7


def test_a_modality_that_the_data_set_lacks_is_refused():
    with pytest.raises(ValueError, match="found eeg in the features of toy; leave eye out"):
        make_samples(small(), modalities=("eeg", "eye"))
    features = small(eye_note="left out: there is none for subject 2 session 1")
    with pytest.raises(ValueError, match="none for subject 2 session 1"):
        make_samples(features, modalities=("eye",))


@pytest.mark.parametrize("name", ["dataset", "feature", "window_s", "provenance", "classes"])
def test_features_must_say_what_they_are(name):
    features = small()
    del features.attrs[name]
    with pytest.raises(ValueError, match=f"expected features with the attributes {name}, found"):
        make_samples(features)


def test_features_without_coordinates_or_windows_are_refused():
    with pytest.raises(ValueError, match="found no trial, start_s"):
        make_samples(small().drop_vars(["trial", "start_s"]))
    with pytest.raises(ValueError, match="expected windows, found none"):
        make_samples(small().isel(window=slice(0)))


def test_doubles_and_two_labels_are_refused_where_time_counts():
    features = small()
    double = features.isel(window=[0, 1, 1, 2, 3, 4, 5, 6])
    overlapping = features.assign_coords(start_s=("window", [0, 1, 1.5, 2, 0, 1, 2]))
    labels = features.assign_coords(label=("window", [0, 0, 1, 1, 0, 0, 0]))
    place = "subject A, session 1, trial 1: "
    for changed, words in (
        (double, place + "expected a window every 1 s, found two whose starts differ by 0 s"),
        (overlapping, place + "expected a window every 1 s, found two whose starts differ by 0.5"),
        (labels, place + "expected one label, found 0, 1"),
    ):
        with pytest.raises(ValueError, match=words):
            make_samples(changed, "sequence", 2)
    for changed in (overlapping, labels):
        assert len(make_samples(changed)) == changed.sizes["window"]
    with pytest.raises(ValueError, match=place + "expected each window once, found 1 again"):
        make_samples(double)


GAPS = [dict(short="drop"), dict(short="pad"), dict(short="repeat"), dict(stride=2)]


@pytest.mark.parametrize("settings", GAPS)
@pytest.mark.parametrize("length", [2, 3])
def test_no_sequence_crosses_a_gap(twin, settings, length):
    is_kept = np.random.default_rng(0).random(twin.sizes["window"]) > 0.2
    features = marked(twin).isel(window=np.flatnonzero(is_kept))
    samples = cut(features, kind="sequence", length=length, modalities=("eye",), **settings)
    rows = origin(samples)
    differences = np.diff(rows, axis=1)[samples.steps[:, 1:]]
    assert set(differences.tolist()) <= ({0, 1} if settings.get("short") == "repeat" else {1})
    n_gaps = (np.diff(np.flatnonzero(is_kept)) > 1) & (np.diff(features.trial.values) == 0)
    caveat = f"windows are missing: {n_gaps.sum()} gaps within trials, which no sequence crosses"
    assert caveat in samples.meta.attrs["caveats"]


def test_sequences_around_gaps_are_those_of_the_whole_features(twin):
    is_kept = np.ones(twin.sizes["window"], bool)
    is_kept[[3, 20]] = False
    features = marked(twin)
    whole = origin(cut(features, kind="sequence", length=2, modalities=("eye",)))
    part = cut(features.isel(window=is_kept), kind="sequence", length=2, modalities=("eye",))
    assert origin(part).tolist() == whole[is_kept[whole].all(axis=1)].tolist()


def test_regular_windows_have_no_gap(twin):
    for settings in KINDS:
        caveats = cut(twin, **settings).meta.attrs["caveats"]
        assert not any("gap" in caveat for caveat in caveats)


def test_a_trial_that_lost_every_other_window_has_gaps():
    features = small((5, 6)).isel(window=[0, 2, 4, 5, 6, 7, 8, 9, 10])
    with pytest.warns(UserWarning, match="3 of 4 parts of trials are shorter than 2 windows"):
        samples = make_samples(features, "sequence", 2)
    assert set(samples.meta.trial) == {2}
    assert samples.meta.attrs["caveats"] == [
        "windows are missing: 2 gaps within trials, which no sequence crosses",
        "1 of 2 trials are too short for a sample and left out",
    ]


@pytest.mark.parametrize("short", ["drop", "pad", "repeat"])
def test_a_whole_trial_with_a_gap_is_refused(short):
    features = small().isel(window=[0, 1, 3, 4, 5, 6])
    words = "features of toy: subject A, session 1, trial 1: .* gap of 2 s after the window at 1 s"
    with pytest.raises(ValueError, match=words):
        make_samples(features, "trial", short=short)


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(kind="clip"), "kind: expected 'window', 'sequence' or 'trial', found 'clip'"),
        (dict(kind="sequence"), "length: expected the number of windows in a sequence, found None"),
        (dict(kind="sequence", length=0), "length: expected at least 1, found 0"),
        (dict(kind="sequence", length=True), "length: expected a whole number, found True"),
        (dict(kind="window", length=3), "length: expected 1 for kind 'window', found 3"),
        (dict(kind="trial", stride=2), "stride: expected 1 for kind 'trial', found 2"),
        (dict(modalities=()), "modalities: expected at least 1 entries"),
        (dict(modalities=("eeg", "eeg")), "modalities: expected each modality once"),
        (dict(modalities=("ecg",)), "expected 'eeg' or 'eye', found 'ecg'"),
        (dict(short="cut"), "short: expected 'drop', 'pad' or 'repeat', found 'cut'"),
        (dict(edges="pad"), "edges: expected 'drop' or 'repeat', found 'pad'"),
        (dict(edges="repeat"), "edges: expected 'drop' for kind 'window', found 'repeat'"),
        (dict(kind="trial", edges="repeat"), "edges: expected 'drop' for kind 'trial'"),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        make_samples(small(), **settings)
    with pytest.raises(ValidationError):
        SampleSettings(**settings)


def test_settings_come_from_a_configuration_and_go_back():
    settings = SampleSettings(
        **json.loads('{"kind": "sequence", "length": 3, "modalities": ["eeg"]}')
    )
    assert settings == SampleSettings(kind="sequence", length=3)
    samples = make_samples(small(), **settings.model_dump())
    assert samples.steps.shape == (3, 3)
    assert SampleSettings(**settings.model_dump(mode="json")) == settings
    assert len({settings, SampleSettings(kind="sequence", length=3)}) == 1


def test_settings_stored_before_edges_existed_can_be_read():
    settings = SampleSettings(kind="sequence", length=3)
    stored = settings.model_dump(mode="json")
    assert stored.pop("edges") == "drop"
    assert SampleSettings(**stored) == settings
    assert SampleSettings(kind="sequence", length=3, edges="repeat").model_dump()["edges"]


def test_held_eye_features_are_a_caveat_of_samples_with_eye():
    features = small(eye=np.ones((7, 2)), eye_names=["pupil", "blink"], eye_held="held")
    assert make_samples(features, modalities=("eeg", "eye")).meta.attrs["caveats"] == ["held"]
    assert make_samples(features).meta.attrs["caveats"] == []


BOTH = ("eeg", "eye")


@pytest.mark.parametrize(
    "needs, settings, words",
    [
        (Needs(), dict(kind="trial"), "svm takes windows, the samples are whole trials"),
        (Needs(kind="sequence"), dict(), "svm takes sequences of windows, the samples are windows"),
        (Needs(kind="trial"), dict(kind="sequence", length=3), "svm takes whole trials"),
        (Needs(BOTH), dict(), "svm takes EEG and eye movements, the samples have EEG; add eye"),
        (Needs(("eye",)), dict(), "svm takes eye movements, the samples have EEG"),
    ],
)
def test_a_model_refuses_other_samples(needs, settings, words):
    with pytest.raises(ValueError, match=words):
        check_needs(needs, SampleSettings(**settings), "svm")


def test_a_model_takes_what_it_needs():
    check_needs(Needs(), SampleSettings(modalities=BOTH))
    check_needs(Needs(BOTH, "trial"), SampleSettings(kind="trial", modalities=("eye", "eeg")))
    check_needs(Needs(), SampleSettings(kind="sequence", length=3))


def test_a_model_refuses_other_samples_in_fit():
    sequences = make_samples(small(), "sequence", 3)
    check_samples(Needs(kind="sequence"), sequences)
    check_samples(Needs(), make_samples(small()))
    with pytest.raises(ValueError, match="svm takes windows, the samples have 3 steps"):
        check_samples(Needs(), sequences, "svm")
    with pytest.raises(ValueError, match="svm takes eye movements, the samples have EEG"):
        check_samples(Needs(("eye",)), make_samples(small()), "svm")


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(kind="clip"), "kind: expected 'window', 'sequence' or 'trial', found 'clip'"),
        (dict(modalities=("ecg",)), "expected 'eeg' or 'eye', found 'ecg'"),
        (dict(adapts=1), "adapts: expected true or false, found 1"),
    ],
)
def test_impossible_needs_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        Needs(**given)


def test_trials_that_are_left_out_are_a_caveat():
    with pytest.warns(UserWarning, match="left out"):
        samples = make_samples(small(), kind="sequence", length=4)
    (caveat,) = samples.meta.attrs["caveats"]
    assert caveat == "1 of 2 trials are too short for a sample and left out"
    assert make_samples(small()).meta.attrs["caveats"] == []
