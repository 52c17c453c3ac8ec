"""Numbers beside pictures, and views of one fold. All data here are SYNTHETIC."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from emo_lib.report.view_figures import draw_attention
from emo_lib.run.embedding import (
    degree_centrality,
    domain_distance,
    rank_correlation,
    scale01,
    silhouette,
    tsne,
)
from emo_lib.run.views import (
    ViewSpec,
    class_centrality,
    evenly,
    make_view,
    read_twin,
    run_view,
    true_effects,
)
from emo_lib.twins.brain import TwinSettings
from emo_lib.twins.twin import twin_set

SMALL = dict(
    dim_channel=16,
    dim_spatial=16,
    layers=1,
    heads=4,
    pretrain_epochs=1,
    pretrain_batch_size=64,
    epochs=2,
)
CFG = TwinSettings("SEED", seed=3, seconds_per_trial=4.0)
ASK = dict(
    dataset="SEED",
    features="features",
    subject=1,
    train_session=2,
    test_session=1,
    windows=20,
    models={v: {"model": "msmae", "hyper": SMALL | {"variant": v}} for v in ("vit_3x3", "msmae")},
)


@pytest.fixture(scope="module")
def features():
    return twin_set(CFG, "de_LDS", subjects=(1, 2), sessions=(1, 2), eye=False)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin")
    from emo_lib.twins.brain import effect_table

    p = dict(
        name="SEED",
        seed=3,
        seconds_per_trial=4.0,
        emotion=1.0,
        subject_effect=1.0,
        session_drift=1.0,
        subjects=2,
    )
    (folder / "TWIN.json").write_text(
        json.dumps(
            {"parameters": p, "truth": {"effect_db": effect_table(CFG.spec.classes).tolist()}}
        )
    )
    return folder


@pytest.fixture(scope="module")
def view(features, twin):
    return make_view(ViewSpec(**ASK, twin=twin), features)


def test_a_view_is_json_and_says_the_same_twice(features, twin, view):
    assert json.loads(json.dumps(view, allow_nan=False)) == view
    again = make_view(ViewSpec(**ASK, twin=twin), features)
    assert {k: v for k, v in again.items() if k != "provenance"} == {
        k: v for k, v in view.items() if k != "provenance"
    }
    assert (view["data"], view["subject"], view["train_session"], view["test_session"]) == (
        "synthetic",
        1,
        2,
        1,
    )
    for e in view["embeddings"].values():
        assert (
            np.shape(e["xy"]) == (40, 2)
            and e["session"].count("test") == 20
            and -1 <= e["silhouette"] <= 1
            and 0 <= e["domain_distance"] <= 2
        )


def test_centrality_and_truth_of_a_view(view):
    for c in view["classes"]:
        rho = stats.spearmanr(view["centrality"][c], view["truth"][c]).statistic
        assert (
            np.isclose(view["rank_correlation"][c]["rho"], rho, atol=1e-4)
            and 0 < view["rank_correlation"][c]["p"] <= 1
        )
    assert np.allclose(list(view["truth"].values()), true_effects(CFG, 1, 1), atol=1e-6)


def test_missing_electrodes_and_no_truth(features):
    fs = features.copy()
    fs["valid"] = ("window", "channel"), np.ones(fs.eeg.shape[:2], bool)
    fs.valid[:, 7] = False
    v = make_view(ViewSpec(**ASK | {"models": {"msmae": ASK["models"]["msmae"]}}), fs)
    assert v["truth"] is None is v["rank_correlation"] and all(
        row[7] is None and None not in row[:7] + row[8:] for row in v["centrality"].values()
    )
    heat_maps = [trace for trace in draw_attention(v).data if trace.type == "heatmap"]
    assert len(heat_maps) == 3
    assert (
        make_view(ViewSpec(**ASK | {"models": {"vit_3x3": ASK["models"]["vit_3x3"]}}), fs)[
            "centrality"
        ]
        is None
    )


@pytest.mark.parametrize(
    "wrong, said",
    [
        (dict(models={}), "at least 1 item"),
        (dict(models={"svm": {}}), "no features to show"),
        (dict(models={"x": {"hyper": {}}}), "unknown model 'x'"),
        (dict(models={"msmae": {"hyper": {"layer": 1}}}), "no hyper-parameter 'layer'"),
        (dict(protocol="loso"), "unknown protocol"),
        (dict(window=3), "window"),
        (dict(seed=-1), "seed"),
    ],
)
def test_wrong_views_are_refused_before_work(wrong, said):
    with pytest.raises(ValueError, match=said):
        run_view(ASK | wrong)


def test_views_that_the_data_cannot_give(features, twin, tmp_path):
    with pytest.raises(ValueError, match="found 1 → 2, 2 → 1"):
        make_view(ViewSpec(**ASK | dict(test_session=3)), features)
    with pytest.raises(ValueError, match="unknown subject 9"):
        make_view(ViewSpec(**ASK | dict(subject=9)), features)
    for text in ("", "{}", "[1]", '{"parameters": {"name": "SEED"}}'):
        (tmp_path / "TWIN.json").write_text(text)
        with pytest.raises(ValueError, match="record of a twin"):
            read_twin(tmp_path)
    record = json.loads((twin / "TWIN.json").read_text())
    record["truth"]["effect_db"][0][0][0] += 1
    (tmp_path / "TWIN.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="other effects"):
        read_twin(tmp_path)
    assert read_twin(twin) == CFG == read_twin(twin / "TWIN.json")


@pytest.mark.parametrize("name", ["SEED", "SEED-IV", "SEED-V", "SEED-VII", "FACED"])
def test_truth_of_every_twin(name):
    cfg = TwinSettings(name, seconds_per_trial=8.0)
    E = true_effects(cfg, cfg.spec.subjects[0], 1)
    assert (
        E.shape == (len(cfg.spec.classes), len(cfg.spec.channels))
        and np.isfinite(E).all()
        and (E >= 0).all()
        and E.max() > 0.1
    )
    assert np.allclose(
        true_effects(TwinSettings(name, emotion=0.0), cfg.spec.subjects[0], 1), 0, atol=1e-12
    )


def test_a_bad_electrode_holds_no_brain():
    from emo_lib.twins.brain import session_traits

    subject, session, bad = next(
        (i, s, t.bad[0])
        for i in range(1, 16)
        for s in (1, 2, 3)
        for t in [session_traits(CFG, i, s)]
        if t.bad
    )
    E = true_effects(CFG, subject, session)
    assert (E[:, bad] == 0).all() and (np.delete(E, bad, 1).max(0) > 0).all()


def test_numbers_by_hand():
    assert degree_centrality([[0.5, 0.5, 0], [0.2, 0.3, 0.5], [1, 0, 0]]).tolist() == pytest.approx(
        [1.7, 1.2, 1.5]
    )
    assert (
        np.isnan(silhouette(np.ones((4, 1)), [1, 1, 1, 1]))
        and domain_distance(np.ones((3, 2)), np.ones((5, 2))) == 0
    )
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1], ["FZ", "CZ", "PZ", "T7"], n=9)[
        "rho"
    ] == pytest.approx(-1)
    assert (
        np.isnan(scale01([np.nan, 1, 3])[0])
        and tsne(np.eye(4)).shape == (4, 2)
        and evenly(np.arange(5), 99).tolist() == [0, 1, 2, 3, 4]
    )
    A = np.tile(np.full((4, 4), 0.25), (6, 1, 1))
    assert np.allclose(class_centrality(A, np.array([0, 0, 0, 1, 1, 1]), 2), 1.5)


def test_views_import_no_torch():
    subprocess.run(
        [sys.executable, "-c", "import sys, emo_lib.run.views; assert 'torch' not in sys.modules"],
        check=True,
    )
