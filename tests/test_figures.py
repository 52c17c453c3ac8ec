"""Figures from invented results and views."""

import copy
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from emo_lib.base.montage import CHANNELS
from emo_lib.papers.registry import find_report
from emo_lib.report.examples import invented_result
from emo_lib.report.figures import OKABE_ITO, colours, draw
from emo_lib.report.printed import Figure, Study
from emo_lib.report.view_figures import draw_attention, draw_features
from emo_lib.run.results import ResultError

SIX = range(1, 7)


def msmae(right, **more):
    return invented_result("msmae", right, **{"subjects": SIX} | more)


STUDIES = {
    "transfer": lambda **k: [
        msmae(60, source="FACED", **k),
        msmae(70, **k),
        msmae(50, hyper={"variant": "mae_1x1"}, **k),
    ],
    "scopes": lambda **k: [msmae(60, options={"scope": s}, **k) for s in ("other_subjects", "all")],
    "labels": lambda **k: [msmae(60, options={"trials_per_class": n}, **k) for n in (None, 1, 4)],
    "missing": lambda **k: [msmae(80, missing=((10, 10), (20, 20)), **k)],
    "directions": lambda **k: [msmae(lambda s, a, b: 60 + s + a, **k)],
}


@pytest.mark.parametrize("name", STUDIES)
def test_figures_of_studies(name):
    _, study = find_report(f"msmae.{name}")
    (figure,) = study.figures
    results = STUDIES[name]
    fig = draw(figure, study, results())
    below = fig.layout.title.subtitle.text
    assert fig.layout.title.text.startswith("SYNTHETIC: SEED, accuracy")
    assert "std over subjects" in below
    assert "n = 6" in below
    alone = draw(figure, study, results(subjects=[2]))
    assert "std" not in alone.layout.title.subtitle.text
    assert [trace for trace in alone.data if trace.type == "scatter" and trace.fill] == []
    several = draw(figure, study, results() + results(seed=1))
    if study.among is None:
        assert "n = 6" in several.layout.title.subtitle.text
    with pytest.raises(ValueError, match="expected one data set"):
        draw(figure, study, results() + [msmae(60, dataset="SEED-IV", missing=((5, 1),))])
    with pytest.raises(ResultError, match="again"):
        draw(figure, study, results() + copy.deepcopy(results()))
    with pytest.raises(ResultError):
        draw(figure, study, [])


@pytest.mark.parametrize("name", STUDIES)
def test_weights_from_a_twin_are_not_real(name):
    _, study = find_report(f"msmae.{name}")
    real = STUDIES[name](data="real")
    title = draw(study.figures[0], study, real).layout.title.text
    assert title.startswith("SYNTHETIC") == (name == "transfer")


def test_other_data_are_drawn_with_balanced_accuracy():
    _, study = find_report("msmae.directions")
    fig = draw(study.figures[0], study, [invented_result("svm", 60, "BIDS")])
    assert fig.layout.yaxis.title.text == "balanced accuracy (%)"


def test_figures_of_a_printed_table_leave_studies_out():
    _, table = find_report("msmae.table2")
    grid = [invented_result(model, 60) for model in ("svm", "msmae")]
    studies = [
        invented_result("msmae", 60, hyper={"variant": "mae_1x1"}),
        invented_result("msmae", 60, seed=1),
    ]
    assert [figure.name for figure in table.figures] == ["fig3", "fig4"]
    for figure in table.figures:
        assert draw(figure, table, grid + studies) == draw(figure, table, grid)


def test_a_model_has_the_same_colour_in_all_figures_of_a_table():
    _, table = find_report("msmae.table2")
    _, missing = find_report("msmae.missing")
    results = [
        invented_result(m, 60, missing=((5, 1),)) for m in ("svm", "dgcnn", "stnet", "msmae")
    ]
    pairs, subjects, electrodes = (
        draw(figure, study, results) for study in (table, missing) for figure in study.figures
    )
    bars = {bar.name: bar.marker.color for bar in pairs.data if bar.type == "bar"}
    assert bars == {bar.name: bar.marker.color for bar in subjects.data if bar.type == "bar"}
    lines = {t.name: t.line.color for t in electrodes.data if t.name in bars}
    assert lines == bars
    fewer = draw(table.figures[0], table, results[1:])
    assert {bar.name: bar.marker.color for bar in fewer.data if bar.type == "bar"}.items() <= (
        bars.items()
    )


def test_more_models_than_colours_share_them_evenly():
    labels = dict.fromkeys(map(str, range(10))) | {"OURS": "msmae"}
    chosen = colours(labels, {"svm": None, "msmae": None})
    assert list(chosen) == list(labels)
    assert chosen["OURS"] == OKABE_ITO[0]
    counts = Counter(chosen.values())
    assert set(counts) == set(OKABE_ITO)
    assert max(counts.values()) == 2
    assert [counts[colour] for colour in OKABE_ITO] == [1, 1, 2, 2, 2, 1, 1, 1]


def test_levels_that_are_words_have_places_of_their_own():
    words = ("all", "other_subjects")
    study = Study("toy.scopes", "Scopes", level="scope", heading="scope")
    results = [msmae(r, options={"scope": s}) for s, r in zip(words, (60, 70))]
    fig = draw(Figure("scopes", "by scope", kind="curves"), study, results)
    (line,) = [trace for trace in fig.data if trace.name == "MSMAE"]
    assert line.x == (0, 1)
    assert fig.layout.xaxis.tickvals == (0, 1)
    assert fig.layout.xaxis.ticktext == words


def test_levels_that_are_numbers_are_at_their_values():
    _, missing = find_report("msmae.missing")
    fig = draw(missing.figures[0], missing, STUDIES["missing"]())
    assert fig.layout.xaxis.tickvals == (0, 10, 20)
    assert fig.layout.xaxis.ticktext is None


def view(**changes):
    rng = np.random.default_rng(0)
    cloud = {
        "xy": rng.standard_normal((8, 2)).round(2).tolist(),
        "label": [0, 1] * 4,
        "side": ["train"] * 4 + ["test"] * 4,
        "silhouette": None,
        "domain_distance": 0.5,
    }
    maps = {name: rng.random(62).tolist() for name in ("negative", "positive")}
    rho = {"negative": {"rho": 0.25, "p": 0.1}, "positive": {"rho": -0.5, "p": 0.2}}
    return {
        "data": "synthetic",
        "dataset": "SEED",
        "fold": {"subject": 1, "train_session": 2, "test_session": 1},
        "classes": ["negative", "positive"],
        "channels": list(CHANNELS),
        "embeddings": {"vit_3x3": cloud, "svm": cloud},
        "centrality": maps,
        "truth": maps,
        "rank_correlation": rho,
        "caveats": [],
        "provenance": {"feature": "de_LDS", "window_s": 1.0},
    } | changes


def test_figures_of_a_view():
    _, table = find_report("msmae.table3")
    features, attention = draw_features(view(), table.rows), draw_attention(view(), points=9)
    for fig in (features, attention):
        assert fig.layout.title.text.startswith("SYNTHETIC")
    panels = [annotation.text for annotation in features.layout.annotations]
    assert panels[0].startswith("ViT (3×3)")
    assert panels[1].startswith("linear SVM")
    assert "silhouette -, distance of sessions 0.50" in panels[0]
    assert "subject 1, train session 2, test session 1" in features.layout.title.subtitle.text
    real = draw_features(view(data="real"), table.rows)
    assert real.layout.title.text.startswith("SEED")
    captions = " ".join(annotation.text for annotation in attention.layout.annotations)
    assert "ρ = 0.25, p = 0.1" in captions
    assert "ρ = -0.50, p = 0.2" in captions


def test_missing_electrodes_and_no_truth():
    maps = view()["centrality"]
    gap = {name: [None, *values[1:]] for name, values in maps.items()}
    fig = draw_attention(view(centrality=gap, truth=None, rank_correlation=None), points=9)
    assert sum(trace.type == "heatmap" for trace in fig.data) == 2
    assert sum(getattr(t.marker, "symbol", None) == "x" for t in fig.data if t.type == "scatter")
    with pytest.raises(ValueError, match="found none"):
        draw_attention(view(centrality=None))


def test_figures_and_embedding_import_no_torch():
    code = (
        "import sys, emo_lib.report.figures, emo_lib.report.view_figures, emo_lib.run.embedding; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
