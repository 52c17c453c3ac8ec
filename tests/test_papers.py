"""Papers as data: what every paper must state, and what its tables make of invented results."""

import re

import numpy as np
import pytest

from emo_lib.models.registry import MODELS, make_model
from emo_lib.papers.configuration import read_configuration, read_references
from emo_lib.papers.registry import PAPERS, find_report, report_ids
from emo_lib.protocols.registry import make_protocol
from emo_lib.report.examples import invented_result
from emo_lib.report.figures import draw
from emo_lib.report.printed import STUDIES, Paper, PrintedTable, read_rows
from emo_lib.report.tables import comparison, to_markdown
from emo_lib.run.grid import GridError
from emo_lib.samples.hiding import Hiding

REPORTS = [find_report(id)[1] for id in report_ids()]


def by_id(report):
    return report.id


# Every paper


@pytest.mark.parametrize("paper", PAPERS.values(), ids=list(PAPERS))
def test_a_paper_states_its_experiments(paper):
    experiments = paper.experiments
    assert make_protocol(**experiments["protocol"])
    for label, hyper in experiments["models"].items():
        hyper = dict(hyper)
        assert make_model(hyper.pop("model", label), n_classes=2, **hyper)
    for name, study in experiments["studies"].items():
        assert f"{paper.name}.{name}" in paper.reports, "a study has a table"
        assert set(study["models"]) <= set(experiments["models"])


@pytest.mark.parametrize("report", REPORTS, ids=by_id)
def test_rows_are_models_that_exist(report):
    for row in report.rows.values():
        assert row.model in MODELS
        stated = dict(row.hyper)
        if hidden := stated.pop("hidden", None):
            assert Hiding.model_validate(hidden).word == hidden
        assert stated.items() <= make_model(row.model, n_classes=2, **stated).get_params().items()
    assert report.reference is None or report.level is not None or report.reference in report.rows


@pytest.mark.parametrize("report", REPORTS, ids=by_id)
def test_printed_numbers_are_plausible(report):
    numbers = [n for row in report.rows.values() for n in row.numbers.values()]
    for mean, std in numbers:
        assert 0 < mean <= 100
        assert std is None or 0 <= std < 50
    assert report.is_printed == bool(getattr(report, "source", ""))


@pytest.mark.parametrize("report", REPORTS, ids=by_id)
def test_figures_of_one_report_have_different_names(report):
    names = [figure.name for figure in report.figures]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("id", ["msmae.table9", "mssae.table2", "table2", "msmae", ""])
def test_an_unknown_id_lists_the_known_ones(id):
    with pytest.raises(ValueError, match="msmae.table2, msmae.table3") as error:
        find_report(id)
    assert str(error.value).startswith(f"{id}: unknown table or study")


def test_ids_begin_with_the_paper_and_are_used_once():
    table = PrintedTable("toy.table1", "t")
    assert list(Paper("toy", "", tables=(table,)).reports) == ["toy.table1"]
    with pytest.raises(ValueError, match="used twice"):
        Paper("toy", "", tables=(table, table))
    with pytest.raises(ValueError, match="expected an id other.NAME"):
        Paper("other", "", tables=(table,))


@pytest.mark.parametrize("text", ["r | t | A\nx | X | 1 | 2", "r | t | A\nx | X | 1,0 ± 2"])
def test_a_malformed_row_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        read_rows(text)


# MSMAE

VARIANTS = ["vit_1x1", "vit_3x3", "mae_1x1", "mae_3x3", "vit_1x1_3x3", "mae_1x1_3x3", "msmae"]


def test_table_two_of_msmae():
    _, table = find_report("msmae.table2")
    models = ("vit", "simplevit", "fbccnn", "stnet", "dgcnn", "msmae")
    assert tuple(table.rows) == models
    results = [invented_result(model, 60 + i) for i, model in enumerate(("svm", *models))]
    results.append(invented_result("msmae", 40, hyper={"variant": "vit_1x1"}))
    report = comparison(results, table)
    assert report.long["model"].tolist() == ["svm", *models]
    assert np.isclose(report.long["accuracy_mean"].iloc[-1], 0.66)
    assert report.title.startswith("Table II: within-subject cross-session recognition")
    text = to_markdown(report)
    assert "80.86 ± 6.21" in text
    assert "min 0.125" in text
    assert "msmae on SEED, seed 0: variant = vit_1x1" in text
    assert "Their split: within-subject cross-session." in text


def test_table_three_of_msmae():
    _, table = find_report("msmae.table3")
    assert list(table.rows) == VARIANTS
    variants = [invented_result("msmae", 60, hyper={"variant": name}) for name in VARIANTS]
    report = comparison([*variants, invented_result("svm", 60)], table)
    assert report.long["model"].tolist() == VARIANTS
    assert report.long["paper_mean"].tolist()[:3] == [0.701, 0.7182, 0.7173]
    text = to_markdown(report)
    assert "same standard deviations" in text
    assert "MAE (1×1&3×3)" in text


def test_both_tables_print_the_same_numbers_for_the_same_model():
    second, third = (find_report(f"msmae.table{n}")[1].rows for n in (2, 3))
    assert second["msmae"] is third["msmae"]
    assert second["vit"].numbers == third["vit_1x1"].numbers


@pytest.mark.parametrize(
    "changes",
    [
        dict(options={"trials_per_class": 1}),
        dict(source="FACED"),
        dict(scaling={"by": "session", "fit_on": "train"}),
    ],
)
def test_results_under_other_conditions_are_not_beside_printed_numbers(changes):
    _, table = find_report("msmae.table2")
    grid = [invented_result("svm", 60), invented_result("msmae", 60)]
    report = comparison([*grid, invented_result("msmae", 80, **changes)], table)
    assert report.long["accuracy_mean"].tolist() == [0.6, 0.6]


def test_other_protocols_get_neither_title_nor_numbers_of_msmae():
    _, table = find_report("msmae.table2")
    people = [invented_result(m, 60, protocol="loso") for m in ("svm", "msmae")]
    report = comparison(people, table)
    assert report.title == "Results under leave-one-subject-out, SYNTHETIC data"
    assert report.long["paper_mean"].isna().all()
    assert not any("paper" in column for _, block in report.blocks for column in block.columns)
    for figure in table.figures:
        drawn = draw(figure, table, people)
        assert drawn.layout.title.subtitle.text.endswith("; leave-one-subject-out")
    mixed = comparison([*people, invented_result("svm", 50)], table)
    assert mixed.long["accuracy_mean"].tolist() == [0.5]
    assert "protocol = loso" in mixed.left_out[0]
    _, transfer = find_report("msmae.transfer")
    assert "Fig. 7" not in comparison(people, transfer).title


def test_transfer_of_msmae_is_figure_seven():
    _, study = find_report("msmae.transfer")
    results = [
        invented_result("msmae", 60, source="FACED"),
        invented_result("msmae", 80),
        invented_result("msmae", 40, hyper={"variant": "mae_1x1"}),
    ]
    assert "Fig. 7" in comparison(results, study).title
    (figure,) = study.figures
    bars = {bar.name: bar.y[0] for bar in draw(figure, study, results).data if bar.type == "bar"}
    assert figure.name == "fig7"
    assert bars == {
        "MAE (1×1), pre-trained on SEED": 40,
        "MSMAE, pre-trained on SEED": 80,
        "MSMAE, pre-trained on FACED": 60,
    }


@pytest.mark.parametrize("name", list(STUDIES))
def test_studies_of_msmae_know_its_variants(name):
    _, study = find_report(f"msmae.{name}")
    assert set(VARIANTS) <= set(study.rows)
    assert study.expected_subjects == {"SEED": 15, "SEED-IV": 15}


# References that a configuration chooses

CONFIG = {
    "name": "toy",
    "data": {"SEED": {"twin": {"subjects": 2, "seconds_per_trial": 6}, "window_s": 1.0}},
    "experiments": {
        "msmae": {
            "paper": "msmae",
            "models": {"svm": {}, "dgcnn": {}, "msmae": {}},
            "studies": {"scopes": None},
        }
    },
    "reports": ["msmae.table2", "msmae.scopes", "msmae.missing", "msmae.directions"],
}


@pytest.mark.parametrize(
    "report, name",
    [
        ("msmae.table2", "linear SVM"),
        ("msmae.table2", "DGCNN"),
        ("msmae.table2", "dgcnn"),
        ("msmae.table2", None),
        ("msmae.scopes", "no_test_session"),
        ("msmae.missing", 20),
        ("msmae.directions", "forward"),
    ],
)
def test_a_configuration_chooses_references(report, name):
    chosen = CONFIG | {"references": {report: name}}
    assert read_configuration(chosen) == read_configuration(CONFIG), "the cells stay the same"
    assert read_references(chosen) == {report: name}


@pytest.mark.parametrize(
    "references, words",
    [
        ({"msmae.table2": "STNet"}, "expected one of DGCNN, MSMAE, linear SVM"),
        ({"msmae.scopes": "linear SVM"}, "all, no_test_session, other_subjects, or none"),
        ({"msmae.missing": 7}, "none, 5, 10, 20, 30, 40, or none; found 7"),
        ({"msmae.table3": "MSMAE"}, "expected one of the reports"),
        ("linear SVM", "expected a mapping"),
    ],
)
def test_a_reference_that_cannot_occur_is_refused_before_the_grid(references, words):
    with pytest.raises(GridError, match=re.escape(words)):
        read_configuration(CONFIG | {"references": references})
