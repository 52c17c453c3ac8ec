"""Views of one fold: JSON, the known truth of a twin, refusals. All data are SYNTHETIC."""

import json

import numpy as np
import pytest
from scipy import stats

from emo_lib.base.errors import LayoutError
from emo_lib.data.datasets import open_dataset
from emo_lib.run.maps import class_centrality
from emo_lib.run.views import (
    ViewSpec,
    agreement,
    evenly,
    make_view,
    read_view,
    run_view,
)
from emo_lib.samples.featuresets import write_features
from emo_lib.samples.samples import make_samples
from emo_lib.twins.brain import TwinSettings, effect_table
from emo_lib.twins.truth import true_effects
from emo_lib.twins.twin import twin_set, write_twin

SMALL = dict(
    dim_channel=16,
    dim_spatial=16,
    layers=1,
    heads=4,
    pretrain_epochs=1,
    pretrain_batch_size=64,
    epochs=2,
)
SETTINGS = TwinSettings("SEED", seed=3, seconds_per_trial=4.0)
CELL = dict(dataset="SEED", features="features", model="msmae")
CELLS = {v: CELL | {"hyper": SMALL | {"variant": v}} for v in ("vit_3x3", "msmae")}
ASKED = dict(
    cells=CELLS,
    fold=dict(subject=1, train_session=2, test_session=1),
    windows=20,
    attention="msmae",
)


@pytest.fixture(scope="module")
def features():
    return twin_set(SETTINGS, "de_LDS", subjects=(1, 2), sessions=(1, 2), eye=False)


@pytest.fixture(scope="module")
def samples(features):
    return make_samples(features)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin")
    strengths = dict(emotion=1.0, subject_effect=1.0, session_drift=1.0)
    parameters = dict(name="SEED", seed=3, seconds_per_trial=4.0, subjects=2) | strengths
    truth = {"effect_db": np.asarray(effect_table(SETTINGS.spec.classes)).tolist()}
    (folder / "TWIN.json").write_text(json.dumps({"parameters": parameters, "truth": truth}))
    return folder


def view_of(samples, **changes):
    classes = json.loads(samples.meta.attrs["classes"])
    return make_view(ViewSpec(**ASKED | changes), samples, classes)


@pytest.fixture(scope="module")
def view(samples, twin):
    return view_of(samples, twin=twin)


def test_a_view_is_json_and_the_same_twice(samples, twin, view):
    assert json.loads(json.dumps(view, allow_nan=False)) == view
    again = view_of(samples, twin=twin)
    assert again | {"provenance": None} == view | {"provenance": None}
    assert view["data"] == "synthetic"
    assert view["fold"] == ASKED["fold"]
    assert "pretrained_on" not in view["provenance"], "each model has its own"
    assert view["provenance"]["models"] == {
        label: {"model": "msmae", "hyper": cell["hyper"], "pretrain_on": None}
        for label, cell in CELLS.items()
    }
    for embedding in view["embeddings"].values():
        assert np.shape(embedding["xy"]) == (40, 2)
        assert embedding["side"].count("test") == 20
        assert -1 <= embedding["silhouette"] <= 1
        assert 0 <= embedding["domain_distance"] <= 2


def test_centrality_and_truth_of_a_view(view):
    for name in view["classes"]:
        found = view["rank_correlation"][name]
        rho = stats.spearmanr(view["centrality"][name], view["truth"][name]).statistic
        assert np.isclose(found["rho"], rho, atol=1e-4)
        assert 0 < found["p"] <= 1
    truth = list(view["truth"].values())
    assert np.allclose(truth, true_effects(SETTINGS, 1, 1), atol=1e-6)


def test_missing_electrodes_and_no_truth(features):
    bad = features.copy()
    bad["valid"] = ("window", "channel"), np.ones(features.eeg.shape[:2], bool)
    bad.valid[:, 7] = False
    samples = make_samples(bad)
    view = view_of(samples, cells={"msmae": CELLS["msmae"]})
    assert view["truth"] is None
    assert view["rank_correlation"] is None
    for row in view["centrality"].values():
        assert row[7] is None
        assert None not in row[:7] + row[8:]
    plain = view_of(samples, cells={"vit_3x3": CELLS["vit_3x3"]}, attention=None)
    assert plain["centrality"] is None


def test_without_a_name_the_first_fold_is_shown(samples):
    view = view_of(samples, fold=None, cells={"vit_3x3": CELLS["vit_3x3"]}, attention=None)
    assert view["fold"] == dict(subject=1, train_session=1, test_session=2)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(cells={}), "at least 1"),
        (dict(cells={"svm": CELL | dict(model="svm")}, attention=None), "no features to show"),
        (dict(cells={"x": CELL | dict(model="x")}), "unknown model 'x'"),
        (dict(cells={"msmae": CELL | dict(hyper={"layer": 1})}), "no hyper-parameter 'layer'"),
        (dict(attention="vit_1x1"), "attention"),
        (dict(cells={"msmae": CELL | dict(protocol="lozo")}), "unknown protocol"),
        (dict(window=3), "window"),
        (dict(cells={"msmae": CELL | dict(seed=-1)}), "seed"),
        (
            dict(cells=CELLS | {"b": CELL | dict(dataset="SEED-IV")}),
            "cells.b.dataset: expected SEED",
        ),
        (dict(cells=CELLS | {"b": CELL | dict(features="other")}), "cells.b.features: expected"),
        (
            dict(cells=CELLS | {"b": CELL | dict(samples=dict(modalities=["eeg", "eye"]))}),
            "cells.b.samples: expected",
        ),
    ],
)
def test_wrong_views_are_refused_before_work(wrong, words):
    with pytest.raises(ValueError, match=words):
        run_view(ASKED | wrong)


def test_each_model_keeps_its_own_cell(samples):
    "Other options, seed, samples of training and scaling, shown side by side."
    few = CELLS["msmae"] | dict(options={"trials_per_class": 1}, seed=3)
    scaled = CELLS["msmae"] | dict(scaling=dict(by="session", fit_on="own"))
    view = view_of(samples, cells={"few": few, "msmae": CELLS["msmae"], "scaled": scaled})
    assert view["embeddings"]["few"]["xy"] != view["embeddings"]["msmae"]["xy"]
    assert any("z-scored" in caveat for caveat in view["caveats"])


def test_pre_training_elsewhere_is_a_caveat(samples, tmp_path):
    write_twin("FACED", tmp_path / "twin", subjects=1, seconds_per_trial=2, features=None)
    faced = open_dataset("FACED", tmp_path / "twin")
    write_features(faced, tmp_path / "features", feature="de_LDS", window_s=1.0, progress=False)
    moved = CELLS["msmae"] | dict(pretrain_on=tmp_path / "features")
    view = view_of(samples, cells={"moved": moved, "msmae": CELLS["msmae"]})
    assert any("FACED (synthetic)" in caveat for caveat in view["caveats"])
    models = view["provenance"]["models"]
    assert models["moved"]["pretrain_on"] == str(tmp_path / "features")
    assert models["msmae"]["pretrain_on"] is None
    assert view["embeddings"]["moved"]["xy"] != view["embeddings"]["msmae"]["xy"]


def test_a_damaged_view_names_its_file(tmp_path):
    file = tmp_path / "SEED.json"
    for text in ("", "[1]", '{"data": "real"}'):
        file.write_text(text)
        with pytest.raises(LayoutError, match="SEED.json: expected a view"):
            read_view(file)
    with pytest.raises(LayoutError, match="nothing.json: expected a view"):
        read_view(tmp_path / "nothing.json")


def test_folds_that_the_data_do_not_have(samples):
    with pytest.raises(ValueError, match="train_session-2_test_session-1"):
        view_of(samples, fold=ASKED["fold"] | {"test_session": 3})
    with pytest.raises(ValueError, match="expected the fold subject-9"):
        view_of(samples, fold=ASKED["fold"] | {"subject": 9})


def test_the_twin_of_another_data_set_is_refused(samples, twin, tmp_path):
    record = json.loads((twin / "TWIN.json").read_text())
    record["parameters"]["name"] = "SEED-IV"
    settings = TwinSettings("SEED-IV")
    record["truth"]["effect_db"] = np.asarray(effect_table(settings.spec.classes)).tolist()
    (tmp_path / "TWIN.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="expected the twin of SEED"):
        view_of(samples, twin=tmp_path)


def test_rows_are_spread_evenly():
    assert evenly(np.arange(5), 99).tolist() == [0, 1, 2, 3, 4]


def test_equal_attention_has_equal_centrality():
    attention = np.full((6, 4, 4), 0.25)
    label = np.array([0, 0, 0, 1, 1, 1])
    assert np.allclose(class_centrality(attention, label, 2), 1.5)


def test_maps_are_compared_where_both_have_a_value():
    channels, nan = ["FP1", "FPZ", "FP2", "AF3", "AF4"], np.nan
    centrality = np.array([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]], float)
    effects = np.array([[1, 2, 3, nan, nan], [1, 2, 3, 4, nan]])
    found = agreement(centrality, effects, ["three", "four"], channels, seed=0)
    assert list(found) == ["four"]
    assert agreement(centrality[:1], effects[:1], ["three"], channels, seed=0) is None
