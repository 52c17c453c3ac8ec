"""Numbers beside pictures, views of one fold, and the figures that are drawn from views and studies. All data here are SYNTHETIC."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from test_tables import cell, result

from emo_lib.report.figures import (
    fig3,
    fig5,
    fig6,
    fig7,
    fig_directions,
    fig_labels,
    fig_missing,
    fig_scopes,
)
from emo_lib.report.tables import ResultError
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
    assert (
        "×" not in fig6(v).layout.title.text
        and len([t for t in fig6(v).data if t.type == "heatmap"]) == 3
    )
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


def test_view_figures(view):
    for fig in (fig5(view), fig6(view)):
        assert fig.layout.title.text.startswith("SYNTHETIC")
    assert "ViT (3×3)" in fig5(view).layout.annotations[0].text and fig5(
        view | {"data": "real"}
    ).layout.title.text.startswith("SEED")
    under = " ".join(a.text for a in fig6(view).layout.annotations)
    for c in view["classes"]:
        assert f"ρ = {view['rank_correlation'][c]['rho']:.2f}" in under


@pytest.mark.parametrize(
    "draw, results",
    [
        (fig7, lambda **k: [cell(source="FACED", **k), cell(**k), cell("mae_1x1", **k)]),
        (fig_scopes, lambda **k: [cell(scope=s, **k) for s in ("other_subjects", "all")]),
        (fig_labels, lambda **k: [cell(trials_per_class=n, **k) for n in (None, 1, 4)]),
        (fig_missing, lambda **k: [cell(level=0.8, missing=((10, 0.1), (20, 0.2)), **k)]),
        (fig_directions, lambda **k: [cell(**k)]),
    ],
)
def test_study_figures(draw, results):
    fig = draw(results())
    assert (
        fig.layout.title.text.startswith("SYNTHETIC: SEED")
        and "std over subjects" in fig.layout.title.subtitle.text
        and "n = 6" in fig.layout.title.subtitle.text
    )
    alone = draw(results(subjects=(2,)))
    assert "std" not in alone.layout.title.subtitle.text and not [
        t for t in alone.data if t.type == "scatter" and t.fill
    ]
    real = results()
    for r in real:
        r["provenance"] |= (
            {"data": "real", "pretrained_on": None} if draw is not fig7 else {"data": "real"}
        )
    assert draw(real).layout.title.text.startswith("SYNTHETIC") == (draw is fig7), (
        "weights from a twin are not real"
    )
    several = draw(results() + results(seed=1))
    assert "n = 6" in several.layout.title.subtitle.text
    with pytest.raises(ValueError, match="expected one data set"):
        draw(results() + [result("SEED-IV", "msmae", k=4)])
    with pytest.raises(ResultError, match="again"):
        draw(results() + copy.deepcopy(results()))
    with pytest.raises(ResultError):
        draw([])


def test_other_data_are_drawn_with_balanced_accuracy():
    assert (
        fig_directions([result("BIDS", "svm")]).layout.yaxis.title.text == "balanced accuracy (%)"
    )


def test_fig7_has_a_bar_for_each_method_and_source():
    bars = {
        b.name: b.y[0]
        for b in fig7(
            [cell(source="FACED", level=0.6), cell(level=0.8), cell("mae_1x1", level=0.4)]
        ).data
        if b.type == "bar"
    }
    assert list(bars) == [
        "MAE (1×1), pre-trained on SEED",
        "MSMAE, pre-trained on SEED",
        "MSMAE, pre-trained on FACED",
    ] and sorted(bars.values()) == [bars[k] for k in (list(bars)[i] for i in (0, 2, 1))]


def test_fig3_leaves_studies_out():
    main = [result(model=m) for m in ("svm", "msmae")]
    assert len(fig3(main + [cell("mae_1x1", subjects=(1, 2, 3)), cell(seed=1)]).data) == len(
        fig3(main).data
    )


def test_figures_and_embedding_import_no_torch():
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, emo_lib.report.figures, emo_lib.run.embedding; assert 'torch' not in sys.modules",
        ],
        check=True,
    )
    subprocess.run(
        [sys.executable, "-c", "import sys, emo_lib.run.views; assert 'torch' not in sys.modules"],
        check=True,
    )
