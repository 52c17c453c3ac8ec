"""Tables and studies from invented results: what may share a table, and what the page says."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from emo_lib.base.store import write_json
from emo_lib.cli.main import main
from emo_lib.report.examples import PAIRS, invented_result
from emo_lib.report.printed import STUDIES, PrintedTable, Study, read_rows
from emo_lib.report.rows import arrange
from emo_lib.report.tables import (
    comparison,
    study,
    summarise,
    to_csv,
    to_html,
    to_markdown,
    write_table,
)
from emo_lib.run.metrics import compare_paired
from emo_lib.run.results import CellResult, ResultError, load_results

SIX = range(1, 7)
ROWS = read_rows(
    """
    row   | title | SEED         | SEED-IV
    stnet | STNet | 75.62 ± 7.12 | 58.07 ± 11.89
    dgcnn | DGCNN | 78.02 ± 7.51 | 56.59 ± 12.86
    msmae | OURS  | 80.86 ± 6.21 | 59.33 ± 12.61
    """
)
VARIANTS = read_rows(
    """
    row     | title     | SEED
    vit_1x1 | ViT (1×1) | 70.10 ± 7.17
    mae_1x1 | MAE (1×1) | 71.73 ± 6.65
    msmae   | OURS      | 80.86 ± 6.21
    """,
    model="msmae",
    parameter="variant",
    rest="as printed",
)
ROWS["msmae"] = replace(ROWS["msmae"], hyper={"variant": "msmae"})
REQUIRED = {"protocol": "cross_session", "trials_per_class": None, "pretrain_on": None}
TABLE = PrintedTable(
    "toy.table2",
    "recognition on another day",
    number="Table II",
    source="Doe, Table II",
    rows=ROWS,
    reference="msmae",
    expected_subjects={"SEED": 15, "SEED-IV": 15},
    required=REQUIRED,
    other_models=True,
)
ABLATION = PrintedTable(
    "toy.table3",
    "ablation",
    number="Table III",
    source="Doe, Table III",
    rows=VARIANTS,
    reference="msmae",
    expected_subjects={"SEED": 15},
    required=REQUIRED,
    notes=(("SEED", "a remark on the printed numbers"),),
)


def adopt_study(name, **changes):
    "A study of the report room with the rows of both tables."
    rows = {key: row for key, row in ROWS.items() if key != "msmae"} | VARIANTS
    return replace(STUDIES[name], rows=rows, **changes)


TRANSFER = adopt_study("transfer", reference="msmae")


def subject_means(result):
    return result.subject_frame().groupby("subject")["accuracy"].mean().to_dict()


def noisy(level, seed=0):
    "Correct windows in % that differ between folds."
    rng = np.random.default_rng(seed)
    table = {}

    def right(*names):
        return table.setdefault(names, int(np.clip(rng.normal(level, 5), 0, 95)))

    return right


# Numbers


def test_numbers_are_over_subjects():
    results = [
        invented_result(model, noisy(level, i), subjects=range(1, 9))
        for i, (model, level) in enumerate((("msmae", 70), ("dgcnn", 68), ("svm", 60)))
    ]
    long = summarise(results, TABLE).set_index("model")
    for result in results:
        means = subject_means(result)
        row = long.loc[result.spec.model]
        assert np.isclose(row.accuracy_mean, np.mean(list(means.values())))
        assert np.isclose(row.accuracy_std, np.std(list(means.values()), ddof=1))
        assert row.n_subjects == 8
        assert row.n_folds == 48
        assert np.isclose(row.chance, 1 / 3)
        if result is not results[0]:
            reference = subject_means(results[0])
            test = compare_paired(means, reference)
            assert row.p == test["p"]
            assert row.p_smallest == test["smallest_p"]
            assert row.p_smallest == 2 / 2**8
            assert row.p_n == 8
            assert np.isclose(row.difference, test["mean_difference"])
    assert pd.isna(long.loc["msmae"].p)


def test_every_csv_has_scores_of_trials_beside_those_of_windows():
    results = [invented_result("svm", 60), invented_result("msmae", 70)]
    for table in (comparison(results, TABLE), comparison(results, adopt_study("seeds"))):
        rows = pd.read_csv(io.StringIO(to_csv(table)))
        for score in ("accuracy", "balanced_accuracy", "f1_macro"):
            assert np.allclose(rows[f"trial_{score}_mean"], rows[f"{score}_mean"] + 0.05)
            assert np.allclose(rows[f"trial_{score}_std"], rows[f"{score}_std"])


def test_shards_are_joined_and_a_subject_twice_is_refused():
    def right(subject, *_):
        return 60 + subject

    models = ("msmae", "svm")
    whole = [invented_result(m, right) for m in models]
    shards = [
        invented_result(m, right, subjects=part) for part in ((3,), (1, 4), (2,)) for m in models
    ]
    pd.testing.assert_frame_equal(summarise(whole, TABLE), summarise(shards, TABLE))
    with pytest.raises(ResultError) as error:
        comparison([*shards, invented_result("svm", 60, subjects=(2, 4))], TABLE)
    assert len(error.value.problems) == 2
    assert "subject 2 again" in str(error.value)
    assert "subject 4 again" in str(error.value)


def test_seeds_are_averaged_within_subjects():
    pair = [invented_result("svm", noisy(60, seed), seed=seed) for seed in (0, 1)]
    row = summarise(pair, TABLE).iloc[0]
    means = [subject_means(result) for result in pair]
    assert row.n_subjects == 4
    assert row.seeds == "0, 1"
    assert np.isclose(row.accuracy_mean, np.mean([m[s] for m in means for s in m]))


def test_p_values_of_few_subjects_are_printed_exactly():
    results = [invented_result("msmae", 70), invented_result("svm", noisy(60))]
    assert "(min 0.125)" in to_markdown(comparison(results, TABLE))


def test_unequal_subjects_are_not_tested():
    results = [invented_result("msmae", 70, subjects=(1, 2)), invented_result("svm", 60)]
    table = comparison(results, TABLE)
    row = table.long.set_index("model").loc["svm"]
    assert pd.isna(row.p)
    assert pd.isna(row.difference)
    assert row.p_note == "no test: OURS has other subjects, folds or seeds"
    assert f"linear SVM: {row.p_note}" in to_markdown(table)


def test_a_test_needs_one_reference_under_the_same_conditions():
    alone = summarise([invented_result("svm", 60)], TABLE).iloc[0]
    assert alone.p_note == "no test: no OURS row with the same protocol"
    scope = {"scope": "other_subjects"}
    other_scope = [invented_result("msmae", 70, options=scope), invented_result("svm", 60)]
    assert "no OURS row" in summarise(other_scope, TABLE).set_index("model").p_note["svm"]
    two_references = [invented_result("msmae", 70 - n, hyper={"layers": n}) for n in (1, 2)]
    note = (
        summarise([*two_references, invented_result("svm", 60)], TABLE)
        .set_index("model")
        .p_note["svm"]
    )
    assert note == "no test: more than one OURS row with the same protocol"


def emo(*arguments):
    "The command `emo` in this process."
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="emo")


def test_the_command_line_chooses_a_reference(tmp_path):
    for model in ("svm", "msmae"):
        content = invented_result(model, noisy(60)).model_dump(mode="json")
        write_json(tmp_path / f"{model}.json", content)
    command = ["tables", tmp_path, "--table", "msmae.table2", "--reference"]
    assert "p against linear SVM" in emo(*command, "linear SVM").stdout
    assert "p against" not in emo(*command, "none").stdout
    refused = emo(*command, "KNN", "--out", tmp_path / "tables")
    assert refused.exit_code == 1
    assert "(linear SVM, MSMAE) or none; found 'KNN'" in refused.stderr
    assert not (tmp_path / "tables").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["tables", "a.parquet"], "found a table (parquet)"),
        (["tables", "a.json", "--table", "msmae.table2", "--out", "a.json"], "found the file"),
        (["tables", "--job", "folder"], "expected the file runs/NAME/report.json"),
        (["plan", "no.yaml"], "found nothing of this name"),
        (["run", "folder"], "found a folder"),
        (
            ["cell", "--dataset", "SEED", "--features", "x", "--model", "svm", "--out", "x.json"],
            "found the folder",
        ),
        (["features", "--dataset", "SEED", "--root", "folder", "--out", "a.json"], "the file"),
    ],
)
def test_a_wrong_file_has_one_message(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.parquet", "a.json"):
        (tmp_path / name).write_text("{}")
    for name in ("folder", "x.json"):
        (tmp_path / name).mkdir()
    done = emo(*arguments)
    assert done.exit_code == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_prints_one_line_and_exits_with_130(monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("emo_lib.run.results.load_results", interrupted)
    done = emo("tables", tmp_path)
    assert done.exit_code == 130
    assert done.stderr == "interrupted; give the same command again to continue\n"


def test_a_twin_with_other_parameters_is_replaced_only_on_request(tmp_path):
    root = tmp_path / "SEED"
    command = ["twin", "--dataset", "SEED", "--root", root, "--subjects", 1]
    command += ["--seconds-per-trial", 1, "--no-signals", "--feature", "de_LDS"]
    assert emo(*command).exit_code == 0
    before = (root / "TWIN.json").read_bytes()
    again = emo(*command, "--emotion", 1.0)
    assert again.exit_code == 0
    assert "exists already" in again.stderr
    assert again.stdout.strip() == str(root / "TWIN.json")
    for changes in (["--seed", 1], ["--emotion", 0], ["--generation", "old"], ["--no-eye"]):
        refused = emo(*command, *changes)
        assert refused.exit_code == 1
        assert "give --replace" in refused.stderr
        assert (root / "TWIN.json").read_bytes() == before
    next(root.rglob("*.mat")).unlink()
    assert "exists already" not in emo(*command).stderr, "a damaged twin is written again"
    assert emo(*command, "--seed", 1, "--replace").exit_code == 0
    assert (root / "TWIN.json").read_bytes() != before


# What the page says


def test_printed_numbers_are_where_the_paper_has_them():
    results = [
        invented_result(model, 60, dataset)
        for dataset in ("SEED", "SEED-IV")
        for model in ("msmae", "dgcnn", "svm")
    ]
    text = to_markdown(comparison(results, TABLE))
    for number in ("80.86 ± 6.21", "78.02 ± 7.51", "59.33 ± 12.61", "56.59 ± 12.86"):
        assert text.count(number) == 1
    assert "75.62" not in text, "a model that the run lacks stays out"
    lines = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    assert [line[1].strip() for line in lines] == ["model", "---", "linear SVM", "DGCNN", "OURS"]
    assert [lines[2][i].strip() for i in (2, 7)] == ["-", "-"], "the paper has no SVM"


def test_synthetic_is_said_and_real_is_not_called_synthetic():
    twin = comparison([invented_result("svm", 60)], TABLE)
    for text in (to_markdown(twin), to_html(twin)):
        assert "paper, on real SEED" in text
        assert "SEED, SYNTHETIC twin: this run" in text
    assert twin.title == "Table II: recognition on another day, SYNTHETIC data"
    assert "SYNTHETIC" in to_html(twin).split("</h2>")[0]
    real = comparison([invented_result("svm", 60, data="real", subjects=range(1, 16))], TABLE)
    for text in (to_markdown(real), to_html(real)):
        assert "SYNTHETIC" not in text
    assert "SEED: paper |" in to_markdown(real)
    assert "the paper has 15" not in to_markdown(real)
    both = [invented_result("svm", 60, data="real"), invented_result("svm", 60, "SEED-IV")]
    mixed = to_markdown(comparison(both, TABLE))
    assert "partly SYNTHETIC" in mixed.splitlines()[0]
    assert "SEED, real recordings: this run" in mixed
    assert "4 subjects, the paper has 15" in mixed


def test_synthetic_weights_make_a_real_result_synthetic():
    result = invented_result("msmae", 60, data="real", source="FACED")
    text = to_markdown(comparison([result], TRANSFER))
    assert "SYNTHETIC" in text.splitlines()[0]
    assert "its weights come from FACED (SYNTHETIC twin)" in text
    source = result.provenance.pretrained_on.model_copy(update={"fingerprint": "d0"})
    provenance = result.provenance.model_copy(update={"pretrained_on": source})
    spec = result.spec.model_copy(update={"seed": 1})
    other_weights = result.model_copy(update={"provenance": provenance, "spec": spec})
    with pytest.raises(ResultError, match="of FACED for pre-training"):
        comparison([result, other_weights], TRANSFER)


@pytest.mark.parametrize("order", [1, -1])
def test_real_and_synthetic_lines_of_one_data_set(order):
    results = [
        invented_result("svm", 60, data="real"),
        invented_result("msmae", 60, data="real", source="FACED"),
    ][::order]
    table = comparison(results, replace(TABLE, required={"protocol": "cross_session"}))
    text = to_markdown(table)
    assert "partly SYNTHETIC" in table.title
    assert "SEED: paper, on real SEED |" in text
    assert "SEED, partly SYNTHETIC: this run" in text
    assert "SEED: partly SYNTHETIC, feature" in text
    assert "- SYNTHETIC data were used for: OURS (pretrain_on = FACED)\n" in text
    assert "with a known truth" not in text
    assert "real recordings" not in text
    (heading, _), *_ = comparison(results, Study("toy.rows", "Rows")).blocks
    assert heading.startswith("SEED, partly SYNTHETIC, in %")


def test_other_data_get_their_own_block():
    other_data = invented_result(
        "svm", 60, "BIDS", ["01"], n_classes=2, data="real", permutation=(0.0123, 999)
    )
    table = comparison([other_data, invented_result("svm", 60)], TABLE)
    headings = [heading for heading, _ in table.blocks]
    assert headings[0].startswith("SEED")
    assert headings[1] == "BIDS, real recordings, in %; the paper has no number for it"
    block = table.blocks[1][1]
    assert not any("paper" in column for column in block.columns)
    assert block["p of balanced accuracy against chance (permuted trials)"].tolist() == ["0.012"]
    assert block["p against OURS"].tolist() == ["-"]
    assert "±" not in block["balanced accuracy"][0]
    assert any("one subject" in caveat for caveat in dict(table.caveats)["BIDS"])
    without_paper = comparison([other_data], TABLE)
    assert without_paper.title == "Recognition on another day"
    for text in (to_markdown(without_paper), to_html(without_paper)):
        assert "Table II" not in text
        assert "80.86" not in text
        assert "SYNTHETIC" not in text


def test_the_test_against_chance_of_shards_is_not_shown():
    shards = [
        invented_result("svm", 60, subjects=part, permutation=(0.01, 99)) for part in ((1,), (2,))
    ]
    table = comparison(shards, TABLE)
    assert table.long["permutation_p"].isna().all()
    assert "each tested its own part" in to_markdown(table)


def test_caveats_name_the_rows_they_belong_to():
    results = [
        invented_result("svm", 60, caveats=["seen by all", "only here"]),
        invented_result("msmae", 60, caveats=["seen by all"]),
    ]
    caveats = dict(comparison(results, TABLE).caveats)["SEED"]
    assert "seen by all" in caveats
    assert "linear SVM: only here" in caveats
    few_labels = [
        invented_result("svm", 60, options={"trials_per_class": n}, caveats=[f"{n} trials"])
        for n in (1, 2)
    ]
    caveats = dict(comparison(few_labels, adopt_study("labels")).caveats)["SEED"]
    assert "labelled trials per class 1: 1 trials" in caveats


def test_a_small_network_is_not_taken_for_the_papers():
    results = [
        invented_result("msmae", 60, hyper={"variant": "vit_1x1", "layers": 1}),
        invented_result("msmae", 70, hyper={"layers": 1}),
    ]
    text = to_markdown(comparison(results, ABLATION))
    assert "ViT (1×1); OURS: run with layers 1; the rest as printed" in text


def test_notes_on_printed_numbers_are_below_their_data_set():
    text = to_markdown(comparison([invented_result("msmae", 60)], ABLATION))
    assert text.count("a remark on the printed numbers") == 1


def test_provenance_line():
    results = [
        invented_result("svm", 60, provenance={"git": "aaa"}),
        invented_result("msmae", 60, provenance={"git": "bbb+"}),
    ]
    (line,) = comparison(results, TABLE).provenance
    for words in (
        "commit aaa, bbb+",
        "feature de_LDS",
        "windows of 1 s",
        "fingerprint f0",
        "chance 33.3 %",
        "protocol cross_session",
        "2 s in total",
    ):
        assert words in line


def test_three_files_whole_and_equal_on_a_second_run(tmp_path):
    results = [
        invented_result(model, 60, dataset, n_classes=k)
        for dataset, k in (("SEED", 3), ("SEED-IV", 4))
        for model in ("msmae", "svm")
    ]
    paths = write_table(comparison(results, TABLE), tmp_path)
    first = {kind: path.read_bytes() for kind, path in paths.items()}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["toy.table2.csv", "toy.table2.html", "toy.table2.md"]
    again = write_table(comparison(results, TABLE), tmp_path)
    assert {kind: path.read_bytes() for kind, path in again.items()} == first
    rows = list(csv.DictReader(io.StringIO(first["csv"].decode())))
    lines = [(row["dataset"], row["model"]) for row in rows]
    assert lines == [(d, m) for d in ("SEED", "SEED-IV") for m in ("svm", "msmae")]
    assert {row["data"] for row in rows} == {"synthetic"}
    assert float(rows[1]["paper_mean"]) == 0.8086


def test_names_from_files_cannot_break_the_page():
    markup = '<img src=x onerror="alert(1)">|![a](http://x.org/a.png)\n# x'
    provenance = {"git": markup, "feature": markup}
    result = invented_result("svm", 60, markup, caveats=[markup], provenance=provenance)
    table = comparison([result], TABLE)
    page, text = to_html(table), to_markdown(table)
    for forbidden in ("<img", "<script", "src=x", "href", "<h1"):
        assert forbidden not in page.replace("&lt;img src=x", "")
    assert "<img" not in text
    assert "\n# x" not in text
    header = next(line for line in text.splitlines() if line.startswith("| model"))
    row = next(line for line in text.splitlines() if line.startswith("| linear SVM"))
    assert row.replace("\\|", "").count("|") == header.count("|")
    assert len(pd.read_csv(io.StringIO(to_csv(table)))) == 1
    assert page.count("<td>") == 10


def test_read_only_folder(tmp_path):
    target = tmp_path / "file"
    target.write_text("in the way")
    with pytest.raises(OSError, match="cannot write here"):
        write_table(comparison([invented_result("svm", 60)], TABLE), target)


# What may share a table


def test_settings_make_rows_of_their_own():
    results = [
        invented_result("msmae", right, options={"scope": scope})
        for scope, right in (("all", 70), ("other_subjects", 60))
    ]
    results.append(invented_result("svm", noisy(50), options={"scope": "all"}))
    long = summarise(results, TABLE).set_index("row")
    assert set(long.index) == {"OURS (scope = all)", "OURS (scope = other_subjects)", "linear SVM"}
    assert long.loc["linear SVM"].p_n == 4, "tested against the row with its own scope"
    apart = [
        invented_result("dgcnn", 60, "SEED", hyper={"epochs": 5}),
        invented_result("dgcnn", 60, "SEED-IV", hyper={"epochs": 9}),
    ]
    assert summarise(apart, TABLE)["row"].tolist() == ["DGCNN", "DGCNN"]


def test_a_default_that_is_stated_is_the_same_row():
    defaults = {"scope": "all", "trials_per_class": None}
    twice = [
        invented_result("msmae", 60),
        invented_result("msmae", 60, options=defaults, hyper={"variant": "msmae"}),
    ]
    with pytest.raises(ResultError, match="subject 1 again"):
        comparison(twice, TABLE)


def test_cells_of_studies_stay_out_of_a_printed_table():
    grid = [invented_result(model, 60) for model in ("svm", "dgcnn", "msmae")]
    studies = [
        invented_result("msmae", 60, hyper={"variant": "mae_1x1"}),
        invented_result("msmae", 60, source="FACED"),
        invented_result("msmae", 60, options={"scope": "other_subjects"}),
        invented_result("msmae", 60, options={"trials_per_class": 1}),
        invented_result("msmae", 60, seed=1),
    ]
    table = comparison(grid + studies, TABLE)
    pd.testing.assert_frame_equal(table.long, comparison(grid, TABLE).long)
    assert table.left_out == [
        "msmae on SEED, seed 0: variant = mae_1x1; the table has OURS: variant = msmae",
        "msmae on SEED, seed 0: pretrain_on = FACED; the table requires pretrain_on = own data",
        "msmae on SEED, seed 0: trials_per_class = 1; the table requires trials_per_class = all",
        "msmae on SEED, seed 0: scope = other_subjects; most rows of its data set have scope = all",
        "msmae on SEED, seed 1: seed = 1; most rows of its data set have seed = 0",
    ]
    assert all(line in to_markdown(table) for line in table.left_out)
    pairs = [invented_result(m, 60, seed=seed) for m in ("svm", "msmae") for seed in (0, 1)]
    seeds = comparison(pairs, TABLE).long["seeds"].tolist()
    assert seeds == ["0, 1", "0, 1"], "seeds that all methods have are averaged"


def in_file(name, *arguments, **more):
    "An invented result that names its file."
    return invented_result(*arguments, out=f"runs/toy/{name}.json", **more)


def test_every_result_is_shown_or_named_with_its_reason():
    results = [
        in_file("a", "svm", 60),
        in_file("b", "msmae", 70),
        in_file("c", "svm", 61, seed=1),
        in_file("d", "svm", 62, seed=1, subjects=(5,)),
        in_file("e", "msmae", 62, scaling={"by": "session", "fit_on": "train"}),
    ]
    text = to_markdown(comparison(results, TABLE))
    assert "- toy/c.json; toy/d.json: seed = 1; most rows" in text
    assert "- toy/e.json: scaling = session train; most rows of its data set have " in text
    assert "toy/a.json" not in text
    for order in (results, results[::-1]):
        selection = arrange(order, TABLE)
        left_out = [result for result, _ in selection.left_out]
        assert len(selection.shown) + len(left_out) == len(results)
        assert all(result in selection.shown or result in left_out for result in results)


def test_a_model_that_only_has_other_settings_keeps_a_row_of_its_own():
    scaling = {"by": "session", "fit_on": "train"}
    grid = [invented_result(m, 60) for m in ("msmae", "dgcnn")]
    table = comparison([*grid, invented_result("svm", 50, scaling=scaling)], TABLE)
    assert table.long["row"].tolist() == ["linear SVM (scaling = session train)", "DGCNN", "OURS"]
    assert table.long["p_note"][0] == "no test: no OURS row with the same protocol"
    assert table.left_out == []
    late = comparison([*grid, invented_result("svm", 50, seed=3)], TABLE)
    assert late.long["seeds"].tolist() == ["3", "0", "0"]
    assert "other subjects, folds or seeds" in late.long["p_note"][0]


def test_a_result_without_a_level_is_named():
    results = [in_file("a", "svm", 60, missing=((5, 2),)), in_file("b", "msmae", 60)]
    table = comparison(results, adopt_study("missing"))
    assert table.left_out == ["toy/b.json: none of its folds is at a level of this study"]


def test_results_under_another_protocol_get_neither_title_nor_printed_numbers():
    people = [invented_result(m, 60, protocol="loso") for m in ("svm", "msmae")]
    table = comparison(people, TABLE)
    text = to_markdown(table)
    assert table.title == "Results under leave-one-subject-out, SYNTHETIC data"
    assert "Table II:" not in text
    assert "recognition on another day" not in text
    assert "80.86" not in text
    assert not any("paper" in column for _, block in table.blocks for column in block.columns)
    assert "protocol = cross_session" in table.lead
    few_labels = [invented_result("svm", 60, options={"trials_per_class": 1})]
    title = comparison(few_labels, TABLE).title
    assert title.startswith("Results under within-subject cross-session (trials_per_class = 1)")


@pytest.mark.parametrize("order", [1, -1])
def test_two_protocols_never_share_a_block(order):
    results = [
        invented_result(model, 60, protocol=protocol)
        for protocol in ("cross_session", "loso")
        for model in ("svm", "msmae")
    ][::order]
    printed = comparison(results, TABLE)
    assert set(printed.long["protocol"]) == {"cross_session"}
    (line,) = printed.left_out
    assert "svm on SEED" in line
    assert "msmae on SEED" in line
    assert "protocol = loso; the table requires protocol = cross_session" in line
    free = comparison(results, Study("toy.free", "Free", rows=ROWS, reference="msmae"))
    for heading, block in free.blocks:
        own, other = "cross_session", "loso"
        if "leave-one-subject-out" in heading:
            own, other = other, own
        assert all(f"protocol = {own}" in label for label in block["model"])
        assert not any(f"protocol = {other}" in label for label in block["model"])
    assert len(free.blocks) == 2


def test_a_printed_table_states_its_protocol():
    with pytest.raises(ValueError, match="toy.table2: expected the protocol"):
        replace(TABLE, required={})
    assert "Their split: within-subject cross-session." in to_markdown(
        comparison([invented_result("svm", 60)], TABLE)
    )


# The reference


def test_any_row_can_be_the_reference():
    results = [invented_result(m, noisy(60, i)) for i, m in enumerate(("svm", "dgcnn", "msmae"))]
    for name in ("linear SVM", "svm", "LINEAR svm"):
        table = comparison(results, TABLE, reference=name)
        long = table.long.set_index("model")
        assert "SEED: p against linear SVM" in table.blocks[0][1].columns
        assert "of the accuracy against linear SVM" in table.lead
        assert pd.isna(long.p["svm"])
        expected = compare_paired(subject_means(results[1]), subject_means(results[0]))["p"]
        assert long.p["dgcnn"] == expected
        assert long.reference.tolist() == ["", "linear SVM", "linear SVM"]
    none = comparison(results, TABLE, reference=None)
    assert none.long["p"].isna().all()
    assert "p against" not in to_markdown(none)
    assert "Wilcoxon" not in to_markdown(none)
    assert "80.86 ± 6.21" in to_markdown(none)


def test_a_label_can_be_the_reference():
    results = [invented_result("dgcnn", 60 + n, hyper={"epochs": n}, subjects=SIX) for n in (5, 9)]
    table = comparison(results, TABLE, reference="DGCNN (epochs = 9)")
    assert table.long["reference"].tolist() == ["DGCNN (epochs = 9)", ""]


def test_a_level_can_be_the_reference():
    scopes = [
        invented_result("msmae", 60, options={"scope": s}) for s in ("all", "no_test_session")
    ]
    table = comparison(scopes, adopt_study("scopes"), reference="no_test_session")
    assert "p against no_test_session" in table.blocks[0][1].columns
    untested = comparison(scopes, adopt_study("scopes"), reference=None)
    assert "difference (points)" not in untested.blocks[0][1].columns
    assert not any("None" in column for column in study(scopes, "scope").blocks[0][1].columns)


@pytest.mark.parametrize("reference", ["KNN", "", "vit"])
def test_a_reference_that_is_no_row_is_refused(reference):
    with pytest.raises(ValueError, match=r"\(linear SVM, OURS\) or none; found") as error:
        comparison([invented_result(m, 60) for m in ("svm", "msmae")], TABLE, reference)
    assert repr(reference) in str(error.value)


def test_only_variants_are_in_an_ablation():
    results = [
        invented_result("svm", 60),
        invented_result("msmae", 70),
        invented_result("msmae", 60, hyper={"variant": "mae_1x1"}),
        invented_result("msmae", 60, hyper={"variant": "mae_3x3"}),
    ]
    table = comparison(results, ABLATION)
    assert table.long["model"].tolist() == ["mae_1x1", "msmae"]
    assert [line.partition(": ")[2] for line in table.left_out] == [
        "the table has no row for the model linear SVM",
        "variant = mae_3x3; the table has ViT (1×1): variant = vit_1x1; MAE (1×1): "
        "variant = mae_1x1; OURS: variant = msmae",
    ]
    with pytest.raises(ResultError, match="a result for toy.table3; found the table has no row"):
        comparison(results[:1], ABLATION)


@pytest.mark.parametrize(
    "other, line",
    [
        (dict(model="dgcnn", data="real"), "expected data 'synthetic'"),
        (dict(model="dgcnn", provenance={"fingerprint": "0000"}), "expected fingerprint"),
        (dict(model="dgcnn", n_classes=4), "expected classes"),
        (dict(model="svm", subjects=(3,)), "subject 3 again"),
    ],
)
def test_what_may_not_share_a_table(other, line, tmp_path):
    results = [invented_result("svm", 60), invented_result(right=60, **other)]
    for i, result in enumerate(results):
        write_json(tmp_path / f"{i}.json", result.model_dump(mode="json"))
    with pytest.raises(ResultError, match=line) as error:
        load_results(tmp_path)
    assert "1.json" in str(error.value)
    assert "0.json" in str(error.value)
    with pytest.raises(ResultError, match=line):
        comparison(results, TABLE)


# Ablation and studies


def variant(name, right, **more):
    return invented_result("msmae", right, hyper={"variant": name}, subjects=SIX, **more)


def test_an_ablation_by_hand():
    # Five of six subjects are better with OURS, by 1 to 5 points, the sixth is worse by 6: the
    # rank sum is 6, and 14 of the 2^6 sign patterns have a rank sum of at most 6.
    ours = variant("msmae", 70)
    partial = variant("mae_1x1", lambda subject, *_: 70 + (6 if subject == 6 else -subject))
    table = comparison([ours, partial, variant("vit_1x1", 40)], ABLATION)
    assert table.long["model"].tolist() == ["vit_1x1", "mae_1x1", "msmae"]
    row = table.long.set_index("model").loc["mae_1x1"]
    assert (row.paper_mean, row.paper_std) == (0.7173, 0.0665)
    assert row.p == 28 / 64
    assert row.p_smallest == 2 / 64
    assert np.isclose(row.accuracy_mean, (6 * 70 - 15 + 6) / 600)
    text = to_markdown(table)
    assert text.splitlines()[0] == "## Table III: ablation, SYNTHETIC data"
    assert "71.73 ± 6.65" in text


def test_directions_by_hand():
    result = invented_result(
        "msmae",
        lambda subject, a, b: 50 + 10 * subject + (5 - subject if a > b else 0),
        subjects=(1, 2, 3),
    )
    long = summarise([result], adopt_study("directions")).set_index("level")
    assert np.isclose(long.accuracy_mean["forward"], 0.70)
    assert np.isclose(long.accuracy_mean["backward"], 0.73)
    assert np.isclose(long.accuracy_std["forward"], 0.10)
    assert np.isclose(long.difference["forward"], -0.03)
    assert long.p["forward"] == 2 / 8
    assert pd.isna(long.p["backward"])
    assert np.isclose(long.accuracy_mean["3 → 1"], 0.73)
    without_last = [fold for fold in result.folds if fold.names["train_session"] != 3]
    part = result.model_copy(update={"folds": without_last})
    note = summarise([part], adopt_study("directions")).set_index("level").p_note["forward"]
    assert "other subjects, folds" in note, "a pair without its mirror image is not tested"


def test_levels_are_in_order_and_tested_against_their_reference():
    scopes = [
        invented_result("msmae", lambda s, *_, v=v: v + s, subjects=SIX, options={"scope": scope})
        for scope, v in (("other_subjects", 50), ("no_test_session", 60), ("all", 66))
    ]
    order = ("all", "no_test_session", "other_subjects")
    long = summarise(scopes, adopt_study("scopes", order=order))
    assert long["level"].tolist() == list(order)
    assert np.allclose(long["difference"][1:], [-0.06, -0.16])
    assert long["p"][1:].tolist() == [2 / 64, 2 / 64]
    assert pd.isna(long["p"][0])
    few_labels = [
        invented_result("svm", 50, options={"trials_per_class": n}) for n in (None, 10, 2)
    ]
    assert summarise(few_labels, adopt_study("labels"))["level"].tolist() == ["2", "10", "all"]


def test_levels_of_pretraining():
    results = [
        variant("msmae", 70, source="FACED"),
        variant("msmae", 71),
        variant("mae_1x1", 60),
        variant("vit_1x1", 50),
    ]
    long = summarise(results, TRANSFER)
    assert long["level"].tolist() == [
        "ViT (1×1), not pre-trained",
        "MAE (1×1), pre-trained on SEED",
        "OURS, pre-trained on SEED",
        "OURS, pre-trained on FACED",
    ]
    assert long["p"].notna().tolist() == [True, True, False, True]


def test_levels_of_missing_electrodes():
    damaged = invented_result("msmae", 80, subjects=SIX, missing=((20, 10), (5, 2)))
    long = summarise([damaged, invented_result("svm", 60, subjects=SIX)], adopt_study("missing"))
    assert long["level"].tolist() == ["none", "5", "20"]
    assert np.allclose(long["difference"][1:], [-0.02, -0.10])
    assert long["trial_accuracy_mean"].isna().tolist() == [False, True, True]


def test_missing_electrodes_without_a_name_for_none():
    damaged = invented_result("msmae", 80, subjects=SIX, missing=((20, 10), (5, 2)))
    long = study([damaged], "missing", reference="none").long
    assert long["level"].tolist() == ["none", "5", "20"]
    assert np.allclose(long["difference"][1:], [-0.02, -0.10])


def test_two_spreads_by_hand():
    def right(seed):
        return lambda subject, *_: 40 + 20 * (subject == 2) + 2 * seed

    seeds = [
        invented_result("msmae", right(seed), subjects=(1, 2), seed=seed) for seed in (0, 1, 2)
    ]
    row = summarise(seeds, adopt_study("seeds")).iloc[0]
    assert np.isclose(row.accuracy_std_seeds, 0.02)
    assert np.isclose(row.accuracy_std, 0.2 / 2**0.5)
    assert (row.n_seeds, row.n_subjects) == (3, 2)
    alone = summarise(seeds[:1], adopt_study("seeds")).iloc[0]
    assert pd.isna(alone.accuracy_std_seeds)
    uneven = [seeds[0], invented_result("msmae", 60, subjects=(1,), seed=1)]
    table = comparison(uneven, adopt_study("seeds"))
    assert pd.isna(table.long["accuracy_std_seeds"][0])
    assert "no spread over seeds: they have other subjects" in to_markdown(table)


def test_studies_with_little(tmp_path):
    def scope(name, **more):
        return invented_result("msmae", 60, options={"scope": name}, **more)

    scopes = adopt_study("scopes")
    one_subject = comparison([scope(s, subjects=[1]) for s in ("all", "other_subjects")], scopes)
    assert one_subject.long["accuracy_std"].isna().all()
    assert "(min" not in to_markdown(one_subject)
    without_reference = summarise([scope("other_subjects")], scopes)
    assert pd.isna(without_reference["p"][0])
    assert without_reference["p_note"][0] == "no test: there is no result for 'all'"
    fewer_subjects = summarise([scope("all"), scope("other_subjects", subjects=(1, 2))], scopes)
    assert pd.isna(fewer_subjects["p"][1])
    assert "other subjects" in fewer_subjects["p_note"][1]
    seeds = summarise(
        [
            invented_result("msmae", 60 + seed, options={"trials_per_class": n}, seed=seed)
            for n in (1, None)
            for seed in (0, 1)
        ],
        adopt_study("labels"),
    )
    assert seeds["n_folds"].tolist() == [48, 48]
    assert seeds["seeds"].tolist() == ["0, 1", "0, 1"]
    assert seeds["p_n"][0] == 4
    results = [scope(s) for s in ("all", "other_subjects")]
    results.append(invented_result("svm", 60, "BIDS", n_classes=2))
    paths = write_table(comparison(results, scopes), tmp_path)
    assert sorted(path.suffix for path in paths.values()) == [".csv", ".html", ".md"]
    text = paths["md"].read_text()
    assert "BIDS" in text
    assert "SYNTHETIC" in text.splitlines()[0]


def test_any_setting_can_be_studied():
    costs = [invented_result("svm", r, hyper={"C": c}) for c, r in ((10.0, 55), (1.0, 60))]
    long = study(costs, "C", reference="1.0").long
    assert long["level"].tolist() == ["1.0", "10.0"]
    assert np.isclose(long["difference"][1], -0.05)
    with pytest.raises(ValueError, match="found 'D'; known: C"):
        study(costs, "D")


def test_a_study_of_seeds_varies_the_seed_of_the_cell_and_not_that_of_the_draws():
    seeds = [invented_result("svm", 60 + 5 * seed, subjects=SIX, seed=seed) for seed in (0, 2, 1)]
    long = study(seeds, "seed", reference="0").long
    assert long["level"].tolist() == ["0", "1", "2"]
    assert np.allclose(long["difference"][1:], [0.05, 0.10])
    assert long["p"][1:].tolist() == [2 / 64, 2 / 64]
    draws = [invented_result("svm", 60, options={"seed": seed}) for seed in (0, 1)]
    rows = summarise(draws, Study("toy.rows", "Rows"))["row"].tolist()
    assert rows == ["linear SVM (protocol_seed = 0)", "linear SVM (protocol_seed = 1)"]


def test_the_lead_names_the_seeds_if_there_are_several():
    one = [invented_result(model, 60) for model in ("svm", "msmae")]
    assert "of each subject's mean over its folds." in comparison(one, TABLE).lead
    two = [invented_result(model, 60, seed=1) for model in ("svm", "msmae")]
    assert "of each subject's mean over its folds and seeds." in comparison(one + two, TABLE).lead


@pytest.mark.parametrize(
    "name, results, words",
    [
        ("scopes", [], "at least one result"),
        ("missing", [variant("msmae", 60)], "without any"),
        (
            "transfer",
            [
                variant("vit_1x1", 60),
                invented_result(
                    "msmae", 60, subjects=SIX, hyper={"variant": "vit_1x1", "layers": 1}
                ),
            ],
            "subject 1 again",
        ),
        (
            "labels",
            [invented_result("svm", 60, options={"trials_per_class": 1})] * 2,
            "subject 1 again",
        ),
        (
            "scopes",
            [invented_result("msmae", 60), invented_result("svm", 60, data="real")],
            "expected data",
        ),
    ],
)
def test_what_is_no_study(name, results, words):
    with pytest.raises(ResultError, match=words):
        comparison(results, adopt_study(name))


def test_the_report_room_knows_no_paper_and_no_model(repo):
    words = [
        "msmae",
        "vit",
        "fbccnn",
        "stnet",
        "dgcnn",
        "table2",
        "table3",
        "tablei",
        "seed-iv",
        "faced",
        "torcheeg",
    ]
    for path in sorted((repo / "emo_lib/report").glob("*.py")):
        text = path.read_text().lower().replace("table ii", "tablei")
        named = [word for word in words if word in text]
        assert named == [], f"{path.name} names {named}"


def test_tables_need_neither_torch_nor_mne():
    code = (
        "import sys, emo_lib.report.tables, emo_lib.report.figures, emo_lib.papers.registry; "
        "list(emo_lib.papers.registry.PAPERS); "
        "assert not {'torch', 'mne', 'plotly'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Files


def result_text(**changes):
    "The JSON text of a result after changes of its content."
    content = invented_result("svm", noisy(60), missing=((5, 1),)).model_dump(mode="json")
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = content
        for key in parents:
            place = place[int(key) if key.isdigit() else key]
        place[last] = value
    return json.dumps(content)


DAMAGED = {
    "cut": result_text()[:-200],
    "empty": "",
    "list": "[1, 2]",
    "null": "null",
    "manifest": '{"files": []}',
    "nan": result_text(mean=float("nan")),
    "no folds": result_text(folds=[]),
    "percent": result_text(folds__0__accuracy=61.0),
    "edited accuracy": result_text(folds__3__accuracy=0.123),
    "edited balanced accuracy": result_text(folds__0__balanced_accuracy=0.999),
    "edited subject": result_text(folds__0__subjects=[]),
    "edited mean": result_text(mean=0.123),
    "edited trial mean": result_text(trial_mean=0.123),
    "subjects": result_text(n_subjects=15),
    "confusion": result_text(folds__1__confusion=[[1, 2], [3, 4]]),
    "relabelled": result_text(provenance__dataset="SEED-IV"),
    "data kind": result_text(provenance__data="reel"),
    "seconds": result_text(provenance__seconds="abc"),
    "classes": result_text(classes=["a", "a", "b"]),
    "missing twice": result_text(
        folds__0__missing=[dict(k=5, accuracy=0.5, balanced_accuracy=0.5, f1_macro=0.5)] * 2
    ),
    "missing none": result_text(
        folds__0__missing=[dict(k=0, accuracy=0.01, balanced_accuracy=0.5, f1_macro=0.5)]
    ),
    "missing negative": result_text(
        folds__0__missing=[dict(k=-3, accuracy=0.5, balanced_accuracy=0.5, f1_macro=0.5)]
    ),
    "source": result_text(provenance__pretrained_on={"dataset": "FACED", "data": "reel"}),
    "source name": result_text(provenance__pretrained_on="FACED"),
}
BINARY = {"zeros": b"\0" * 500, "picture": b"\x89PNG\r\n\xff\xfe"}


def damage(path, how):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(BINARY[how] if how in BINARY else DAMAGED[how].encode())


def test_a_result_is_read_as_it_was_written(tmp_path):
    result = invented_result("svm", noisy(60), missing=((5, 1),))
    write_json(tmp_path / "svm.json", result.model_dump(mode="json"))
    assert load_results(tmp_path) == [result]
    assert CellResult.model_validate_json(result_text()).mean == result.mean
    assert len(result.folds) == 4 * len(PAIRS)


@pytest.mark.parametrize("how", [*DAMAGED, *BINARY])
def test_a_damaged_result_is_named(how, tmp_path):
    damage(tmp_path / "SEED_svm.json", how)
    with pytest.raises(ResultError) as error:
        load_results(tmp_path)
    text = str(error.value)
    assert len(error.value.problems) == 1
    assert "SEED_svm.json" in text
    assert "run the cell again" in text or "it belongs to another step" in text
    assert len(text.splitlines()) == 2
    assert "errors.pydantic" not in text


def test_all_faults_at_once_and_nothing_is_written(tmp_path):
    folder = tmp_path / "results"
    write_json(folder / "good.json", invented_result("msmae", 60).model_dump(mode="json"))
    for how in (*DAMAGED, *BINARY):
        damage(folder / f"{how}.json", how)
    (folder / "folder.json").mkdir()
    with pytest.raises(ResultError) as error:
        results = load_results([folder, tmp_path / "nowhere"])
        write_table(comparison(results, TABLE), tmp_path / "out")
    assert len(error.value.problems) == len(DAMAGED) + len(BINARY) + 2
    assert "good.json" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_folders_files_and_hidden_folders(tmp_path):
    write_json(tmp_path / "SEED/a.json", invented_result("svm", 60).model_dump(mode="json"))
    write_json(tmp_path / "b.json", invented_result("dgcnn", 60).model_dump(mode="json"))
    write_json(tmp_path / ".partial/x/fold.json", {"not": "a result"})
    (tmp_path / "notes.txt").write_text("no result")
    assert len(load_results(tmp_path)) == 2
    assert len(load_results([tmp_path, tmp_path / "b.json"])) == 2
    assert len(load_results(str(tmp_path / "b.json"))) == 1
    (tmp_path / "void").mkdir()
    with pytest.raises(ResultError, match="run the cells first"):
        load_results(tmp_path / "void")


def test_a_study_of_nothing_is_refused():
    with pytest.raises(ResultError, match="at least one result"):
        comparison([], Study("toy.rows", "Rows"))


def test_tests_are_corrected_over_the_whole_table():
    results = [
        invented_result(model, right, dataset, list(range(1, 11)))
        for dataset in ("SEED", "SEED-IV")
        for model, right in (
            ("msmae", lambda subject, *_: 60 + subject),
            ("dgcnn", lambda subject, *_: 58 + subject % 4),
            ("svm", lambda subject, *_: 61 + subject % 3),
        )
    ]
    long = comparison(results, TABLE).long
    tested = long[long["p"].notna()]
    assert len(tested) == 4
    in_order = tested.sort_values("p")
    by_hand = np.minimum(1, np.maximum.accumulate(in_order["p"] * [4, 3, 2, 1]))
    assert np.allclose(in_order["p_holm"], by_hand)
    assert (
        (tested["low"] <= tested["difference"]) & (tested["difference"] <= tested["high"])
    ).all()
    assert tested["effect"].between(-1, 1).all()
    text = to_markdown(comparison(results, TABLE))
    assert "SEED: p, Holm" in text
    assert "points at 5 % with 80 % probability" in text
