"""Tables II and III and the studies from result files: what may stand together, what is refused, and what the three forms say. All results here are SYNTHETIC inventions."""

import copy
import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from emo_lib.base.store import derive_seed, write_json
from emo_lib.report.tables import (
    PAPER_TABLE_II,
    PAPER_TABLE_III,
    ResultError,
    load_results,
    make_study,
    make_table,
    summarise,
    summarise_study,
    to_csv,
    to_html,
    to_markdown,
    write_study,
    write_table,
)
from emo_lib.run.metrics import compare_paired

PAIRS = ((1, 3), (2, 1), (3, 2), (1, 2), (2, 3), (3, 1))


def result(
    dataset="SEED",
    model="svm",
    subjects=(1, 2, 3),
    level=0.6,
    seed=0,
    data="synthetic",
    k=3,
    options=None,
    hyper=None,
    permutation=None,
    caveats=(),
    **prov,
):
    folds, n = [], 100 * k
    for s in subjects:
        for a, b in PAIRS:
            draw = np.random.default_rng(derive_seed(seed, dataset, model, s, a, b)).normal
            right = np.clip(np.round(100 * (level + 0.05 * draw(size=k))), 0, 100).astype(int)
            C = np.diag(right)
            C[np.arange(k), (np.arange(k) + 1) % k] += 100 - right
            acc = float(right.sum() / n)
            folds.append(
                dict(
                    names=dict(subject=s, train_session=a, test_session=b),
                    seed=7,
                    n_train=n,
                    n_val=0,
                    n_test=n,
                    n_pool=0,
                    accuracy=acc,
                    balanced_accuracy=acc,
                    f1_macro=acc,
                    confusion=C.tolist(),
                    seconds=0.1,
                )
            )
    per = [np.mean([f["accuracy"] for f in folds if f["names"]["subject"] == s]) for s in subjects]
    return dict(
        spec=dict(
            dataset=dataset,
            model=model,
            hyper=hyper or {},
            protocol="cross_session",
            options=options or {},
            seed=seed,
            out=f"{model}.json",
        ),
        classes=[f"class {i}" for i in range(k)],
        folds=folds,
        mean=float(np.mean(per)),
        std=float(np.std(per, ddof=1)) if len(per) > 1 else None,
        n_subjects=len(per),
        permutation=permutation,
        caveats=list(caveats),
        provenance=dict(
            data=data,
            dataset=dataset,
            feature="de_LDS",
            window_s=1.0,
            fingerprint="f" * 16,
            seed=seed,
            git="0123456789ab",
            versions={},
            hardware="",
            seconds=1.0,
        )
        | prov,
    )


def of_subject(r):
    return (
        pd.DataFrame([{**f["names"], "a": f["accuracy"]} for f in r["folds"]])
        .groupby("subject")
        .a.mean()
        .to_dict()
    )


def test_numbers_are_over_subjects():
    results = [
        result(model=m, level=l, subjects=range(1, 9))
        for m, l in (("msmae", 0.7), ("dgcnn", 0.68), ("svm", 0.6))
    ]
    long = summarise(results).set_index("model")
    for r in results:
        per = of_subject(r)
        row = long.loc[r["spec"]["model"]]
        assert np.isclose(row.accuracy_mean, np.mean(list(per.values()))) and np.isclose(
            row.accuracy_std, np.std(list(per.values()), ddof=1)
        )
        assert row.n_subjects == 8 and row.n_folds == 48 and np.isclose(row.chance, 1 / 3)
        if r["spec"]["model"] != "msmae":
            t = compare_paired(per, of_subject(results[0]))
            assert (
                row.p == t["p"] and row.p_smallest == t["smallest_p"] == 2 / 2**8 and row.p_n == 8
            )
    assert pd.isna(long.loc["msmae"].p)


def test_papers_numbers_stand_where_the_paper_has_them():
    text = to_markdown(
        make_table([result(d, m) for d in ("SEED", "SEED-IV") for m in ("msmae", "dgcnn", "svm")])
    )
    for number in ("80.86 ± 6.21", "78.02 ± 7.51", "59.33 ± 12.61", "56.59 ± 12.86"):
        assert text.count(number) == 1
    assert "75.62" not in text, "a model that the run lacks stays out"
    svm = next(line for line in text.splitlines() if line.startswith("| linear SVM"))
    assert [c.strip() for c in svm.split("|")][2] == "-" == [c.strip() for c in svm.split("|")][6]
    rows = [
        line.split("|")[1].strip()
        for line in text.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    assert rows == ["model", "linear SVM", "DGCNN", "MSMAE"]
    assert set(PAPER_TABLE_II) == {"vit", "simplevit", "fbccnn", "stnet", "dgcnn", "msmae"}


def test_synthetic_is_said_and_real_is_not_called_synthetic():
    twin, real = make_table([result()]), make_table([result(data="real", subjects=range(1, 16))])
    for text in (to_markdown(twin), to_html(twin)):
        assert "paper, on real SEED" in text and "SEED, SYNTHETIC twin: this run" in text
    assert "SYNTHETIC" in twin.title and "SYNTHETIC" in to_html(twin).split("</h1>")[0]
    assert (
        "SYNTHETIC" not in to_markdown(real)
        and "SYNTHETIC" not in to_html(real)
        and "SEED: paper |" in to_markdown(real)
    )
    mixed = make_table([result("SEED", data="real"), result("SEED-IV", k=4)])
    assert (
        "partly SYNTHETIC" in mixed.title
        and "SEED, real recordings: this run" in to_markdown(mixed)
        and "3 subjects, the paper has 15" in to_markdown(mixed)
    )


def test_other_data_get_their_own_block():
    r = result("BIDS", "svm", subjects=("01",), k=2, data="real", permutation=dict(p=0.0123, n=999))
    table = make_table([r, result("SEED", "svm")])
    assert [h for h, _ in table.blocks][0].startswith("SEED") and "BIDS" in table.blocks[1][0]
    block = table.blocks[1][1]
    assert not any("paper" in c for c in block.columns) and "0.012" in block.iloc[0].tolist()
    assert block.iloc[0]["p against MSMAE"] == "-" and "±" not in block.iloc[0]["balanced accuracy"]
    assert any("one subject" in c for d, lines in table.caveats if d == "BIDS" for c in lines)
    only = make_table([r])
    assert (
        len(only.blocks) == 1
        and "80.86" not in to_markdown(only)
        and "SYNTHETIC" not in to_markdown(only)
    )
    assert (
        to_markdown(only).startswith("## Within-subject cross-session recognition\n")
        and "Table II" not in to_html(only)
        and table.title.startswith("Table II")
    )
    assert not any(line.endswith(" ") for line in to_markdown(only).splitlines())


def test_p_values_of_few_subjects_are_printed_exactly():
    text = to_markdown(
        make_table([result(model=m, subjects=(1, 2, 3, 4)) for m in ("msmae", "svm")])
    )
    assert "(min 0.125)" in text


def test_shards_are_joined_and_a_subject_twice_is_refused():
    whole = [result(model=m, subjects=(1, 2, 3, 4)) for m in ("msmae", "svm")]
    shards = [result(model=m, subjects=s) for s in ((3,), (1, 4), (2,)) for m in ("svm", "msmae")]
    pd.testing.assert_frame_equal(summarise(whole), summarise(shards))
    with pytest.raises(ResultError) as e:
        summarise([*shards, result(model="svm", subjects=(2, 4))])
    assert (
        len(e.value.problems) == 2
        and "subject 2 again" in str(e.value)
        and "subject 4 again" in str(e.value)
    )


def test_seeds_are_averaged_within_subjects():
    both = summarise([result(seed=0), result(seed=1)]).iloc[0]
    a, b = of_subject(result(seed=0)), of_subject(result(seed=1))
    assert (
        both.n_subjects == 3
        and both.seeds == "0, 1"
        and np.isclose(both.accuracy_mean, np.mean([a[s] + b[s] for s in a]) / 2)
    )


def test_variants_are_rows_of_their_own():
    rs = [
        result(model="msmae", options={"scope": s}, level=l)
        for s, l in (("all", 0.7), ("other_subjects", 0.6))
    ] + [result(model="svm", options={"scope": "all"})]
    long = summarise(rs)
    assert sorted(long.row) == [
        "MSMAE (scope = all)",
        "MSMAE (scope = other_subjects)",
        "linear SVM",
    ]
    assert long.set_index("row").loc["linear SVM"].p_n == 3, (
        "tested against the variant with its own scope"
    )
    assert summarise(
        [
            result("SEED", "dgcnn", hyper={"epochs": 5}),
            result("SEED-IV", "dgcnn", hyper={"epochs": 9}, k=4),
        ]
    ).row.tolist() == ["DGCNN", "DGCNN"]


def test_unequal_subjects_are_not_tested():
    long = summarise([result(model="msmae", subjects=(1, 2)), result(model="svm")]).set_index(
        "model"
    )
    assert pd.isna(long.loc["svm"].p) and "other subjects" in long.loc["svm"].p_note
    assert "no test: MSMAE has other subjects" in to_markdown(
        make_table([result(model="msmae", subjects=(1, 2)), result(model="svm")])
    )


@pytest.mark.parametrize(
    "other, line",
    [
        (dict(model="dgcnn", data="real"), "expected data 'synthetic'"),
        (dict(model="dgcnn", fingerprint="0" * 16), "expected fingerprint"),
        (dict(model="dgcnn", k=4), "expected classes"),
        (dict(model="svm", subjects=(3,)), "subject 3 again"),
    ],
)
def test_what_may_not_stand_together(other, line, tmp_path):
    for i, r in enumerate((result(), result(**other))):
        write_json(tmp_path / f"{i}.json", r)
    with pytest.raises(ResultError, match=line) as e:
        load_results(tmp_path)
    assert "1.json" in str(e.value) and "0.json" in str(e.value)
    with pytest.raises(ResultError, match=line):
        make_table([result(), result(**other)])


def damage(path, how):
    r = result()
    text = json.dumps(r)
    if how == "cut":
        path.write_text(text[:-200])
    elif how == "empty":
        path.write_text("")
    elif how == "zeros":
        path.write_bytes(b"\0" * 500)
    elif how == "binary":
        path.write_bytes(os.urandom(0) + b"\x89PNG\r\n\xff\xfe")
    elif how == "list":
        path.write_text("[1, 2]")
    elif how == "null":
        path.write_text("null")
    elif how == "manifest":
        path.write_text('{"files": []}')
    elif how == "nan":
        path.write_text(text.replace(f'"mean": {r["mean"]}', '"mean": NaN'))
    elif how == "folder":
        path.mkdir()
    else:
        r = copy.deepcopy(r)
        if how == "no folds":
            r["folds"] = []
        if how == "percent":
            r["folds"][0]["accuracy"] = 61.0
        if how == "edited accuracy":
            r["folds"][3]["accuracy"] += 0.01
        if how == "edited mean":
            r["mean"] += 0.01
        if how == "fold deleted":
            del r["folds"][2]
            r["mean"] = 0.2
        if how == "subjects":
            r["n_subjects"] = 15
        if how == "confusion":
            r["folds"][1]["confusion"] = [[1, 2], [3, 4]]
        if how == "relabelled":
            r["provenance"]["dataset"] = "SEED-IV"
        if how == "data kind":
            r["provenance"]["data"] = "reel"
        path.write_text(json.dumps(r))


BAD = [
    "cut",
    "empty",
    "zeros",
    "binary",
    "list",
    "null",
    "manifest",
    "nan",
    "folder",
    "no folds",
    "percent",
    "edited accuracy",
    "edited mean",
    "fold deleted",
    "subjects",
    "confusion",
    "relabelled",
    "data kind",
]


@pytest.mark.parametrize("how", BAD)
def test_a_damaged_result_is_named(how, tmp_path):
    path = tmp_path / "SEED_svm.json"
    damage(path, how)
    with pytest.raises(ResultError) as e:
        load_results([path] if how == "folder" else tmp_path)
    assert len(e.value.problems) == 1 and "SEED_svm.json" in str(e.value)
    assert (
        "snakemake" in str(e.value)
        and len(str(e.value).splitlines()) == 2
        and "errors.pydantic" not in str(e.value)
    )


def test_all_faults_at_once_and_nothing_is_written(tmp_path):
    write_json(tmp_path / "r" / "good.json", result(model="msmae"))
    for how in BAD:
        if how != "folder":
            damage(tmp_path / "r" / f"{how}.json", how)
    with pytest.raises(ResultError) as e:
        write_table(load_results([tmp_path / "r", tmp_path / "nowhere"]), tmp_path / "out")
    assert (
        len(e.value.problems) == len(BAD) - 1 + 1
        and "good.json" not in str(e.value)
        and not (tmp_path / "out").exists()
    )


def test_folders_files_and_hidden_folders(tmp_path):
    write_json(tmp_path / "SEED" / "a.json", result())
    write_json(tmp_path / "b.json", result(model="dgcnn"))
    write_json(tmp_path / ".partial" / "x" / "fold.json", {"not": "a result"})
    (tmp_path / "notes.txt").write_text("no result")
    assert len(load_results(tmp_path)) == len(load_results([tmp_path, tmp_path / "b.json"])) == 2
    assert len(load_results(str(tmp_path / "b.json"))) == 1
    (tmp_path / "void").mkdir()
    with pytest.raises(ResultError, match="run snakemake first"):
        load_results(tmp_path / "void")
    with pytest.raises(ResultError):
        make_table([])


def test_three_files_whole_and_equal_on_a_second_run(tmp_path):
    results = [
        result(d, m, k=k) for d, k in (("SEED", 3), ("SEED-IV", 4)) for m in ("msmae", "svm")
    ]
    paths = write_table(results, tmp_path)
    first = {k: p.read_bytes() for k, p in paths.items()}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["table2.csv", "table2.html", "table2.md"]
    assert {k: p.read_bytes() for k, p in write_table(results, tmp_path).items()} == first
    rows = list(csv.DictReader(io.StringIO(first["csv"].decode())))
    assert [(r["dataset"], r["model"]) for r in rows] == [
        ("SEED", "svm"),
        ("SEED", "msmae"),
        ("SEED-IV", "svm"),
        ("SEED-IV", "msmae"),
    ]
    assert (
        all(0 < float(r["accuracy_mean"]) < 1 and r["data"] == "synthetic" for r in rows)
        and float(rows[1]["paper_mean"]) == 0.8086
    )


def test_provenance_line():
    text = to_markdown(
        make_table([result(git="aaa"), result(model="msmae", git="bbb+", window_s=1.0)])
    )
    for said in (
        "commit aaa, bbb+",
        "feature de_LDS",
        "windows of 1 s",
        "ffffffffffffffff",
        "chance 33.3 %",
    ):
        assert said in text


def test_names_from_files_cannot_break_the_page():
    evil = '<img src=x onerror="alert(1)">|\n# x'
    table = make_table([result(evil, model=evil, caveats=(evil,), feature=evil, git=evil)])
    page, text = to_html(table), to_markdown(table)
    assert "<img" not in page and "<script" not in page and "http" not in page
    assert "<img" not in text and "\n# x" not in text
    header = next(line for line in text.splitlines() if line.startswith("| model"))
    row = next(line for line in text.splitlines() if line.startswith("| &lt;img"))
    assert row.replace("\\|", "").count("|") == header.count("|")
    assert to_csv(table).count("\n") >= 2 and len(pd.read_csv(io.StringIO(to_csv(table)))) == 1


def test_read_only_folder(tmp_path):
    target = tmp_path / "file"
    target.write_text("in the way")
    with pytest.raises(OSError, match="cannot write here"):
        write_table([result()], target)


def test_a_result_of_the_real_cell_passes():
    cells = pytest.importorskip("emo_lib.run.cells")
    fields = set(cells.CellResult.model_fields)
    assert set(result()) == fields
    assert (
        cells.CellResult.model_validate(
            result() | {"spec": {**result()["spec"], "features": "features/SEED"}}
        ).mean
        == result()["mean"]
    )


def test_tables_need_neither_torch_nor_mne():
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, emo_lib.report.tables, emo_lib.protocols.cross_session, emo_lib.run.metrics; assert not {'torch', 'mne'} & set(sys.modules)",
        ],
        check=True,
    )


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda r: r["folds"][0].update(balanced_accuracy=0.999), "balanced accuracy"),
        (lambda r: r.update(classes=["a", "a", "b"]), "not distinct"),
        (lambda r: r["provenance"].update(seconds="abc"), "seconds"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(change, said, tmp_path):
    r = result()
    change(r)
    write_json(tmp_path / "SEED_svm.json", r)
    with pytest.raises(ResultError, match=said):
        load_results(tmp_path)


def test_a_small_network_is_not_taken_for_the_papers():
    text = to_markdown(make_table([result(model="msmae", hyper={"dim_channel": 32})]))
    assert "MSMAE was run with dim_channel 32" in text


# Table III and the studies

SIX = range(1, 7)


def cell(variant=None, source=None, level=0.6, subjects=SIX, seed=0, missing=(), **options):
    r = result(
        model="msmae",
        subjects=subjects,
        level=level,
        seed=seed,
        options=options,
        hyper={"variant": variant} if variant else {},
    )
    if source:
        r["provenance"]["pretrained_on"] = {
            "dataset": source,
            "fingerprint": "e" * 16,
            "data": "synthetic",
        }
    for f in r["folds"]:
        if missing:
            f["missing"] = [
                {
                    "k": k,
                    **dict.fromkeys(
                        ("accuracy", "balanced_accuracy", "f1_macro"), f["accuracy"] - drop
                    ),
                }
                for k, drop in missing
            ]
    return r


def set_accuracy(r, of):
    """Every fold's accuracy, in hundredths, from of(subject, train session, test session)."""
    for f in r["folds"]:
        a = int(of(*f["names"].values()))
        f |= dict(
            accuracy=a / 100,
            balanced_accuracy=a / 100,
            f1_macro=a / 100,
            confusion=[[a, 100 - a, 0], [0, a, 100 - a], [100 - a, 0, a]],
        )
    r["mean"] = float(np.mean(list(of_subject(r).values())))
    return r


def test_table_three_by_hand():
    # five of six subjects are better with MSMAE, by 1 to 5 points, the sixth is worse by 6: W = 6, and 14 of the 2^6 sign patterns have a rank sum <= 6
    ours = set_accuracy(cell(), lambda s, a, b: 70)
    theirs = set_accuracy(cell("mae_1x1"), lambda s, a, b: 70 + (6 if s == 6 else -s))
    table = make_table(
        [ours, theirs, cell("vit_3x3", level=0.4), result(model="svm", subjects=SIX)], "table3"
    )
    row = table.long.set_index("model").loc["mae_1x1"]
    assert table.long.model.tolist() == ["vit_3x3", "mae_1x1", "msmae"] and (
        row.paper_mean,
        row.paper_std,
    ) == (0.7173, 0.0665)
    assert (
        row.p == 28 / 64
        and row.p_smallest == 2 / 64
        and np.isclose(row.accuracy_mean, (6 * 70 - 15 + 6) / 600)
    )
    text = to_markdown(table)
    assert (
        text.splitlines()[0] == "## Table III: ablation of MSMAE, SYNTHETIC data"
        and "71.73 ± 6.65" in text
        and "same standard deviations" in text
    )
    assert "1 other results" in text and "MAE (1×1)" in text


def test_papers_table_three_is_in_step_with_table_two():
    assert (
        PAPER_TABLE_III["msmae"] == PAPER_TABLE_II["msmae"]
        and PAPER_TABLE_III["vit_1x1"] == PAPER_TABLE_II["vit"]
        and len(PAPER_TABLE_III) == 7
    )


def test_cells_of_studies_stay_out_of_table_two():
    main = [result(model=m, subjects=SIX) for m in ("svm", "dgcnn", "msmae")]
    more = [
        cell("mae_1x1"),
        cell(source="FACED"),
        cell(scope="other_subjects"),
        cell(trials_per_class=1),
        cell(seed=1),
    ]
    pd.testing.assert_frame_equal(make_table(main + more).long, make_table(main).long)
    assert make_table(main + [cell("vit_1x1")]).long.row.tolist() == [
        "linear SVM",
        "DGCNN",
        "MSMAE",
    ]
    both = [result(model=m, subjects=SIX, seed=s) for m in ("svm", "msmae") for s in (0, 1)]
    assert make_table(both).long.seeds.tolist() == ["0, 1", "0, 1"], (
        "seeds that all methods have are averaged as before"
    )
    with pytest.raises(ResultError, match="of other studies"):
        make_table([cell(trials_per_class=1)])


def test_a_default_that_is_said_is_the_same_row():
    with pytest.raises(ResultError, match="subject 1 again"):
        make_table([cell(), cell("msmae", scope="all", trials_per_class=None)])


def test_directions_by_hand():
    one = set_accuracy(
        cell(subjects=(1, 2, 3)), lambda s, a, b: 50 + 10 * s + (5 - s if a > b else 0)
    )
    long = summarise_study("directions", [one]).set_index("level")
    assert (
        np.isclose(long.accuracy_mean["forward"], 0.70)
        and np.isclose(long.accuracy_mean["backward"], 0.73)
        and np.isclose(long.accuracy_std["forward"], 0.10)
    )
    assert (
        np.isclose(long.difference["forward"], -0.03)
        and long.p["forward"] == 2 / 8
        and pd.isna(long.p["backward"])
        and np.isclose(long.accuracy_mean["3 → 1"], 0.73)
    )
    part = cell(subjects=(1, 2))
    part["folds"] = [f for f in part["folds"] if tuple(f["names"].values())[1:] != (3, 1)]
    part["mean"] = float(np.mean(list(of_subject(part).values())))
    assert (
        "other subjects, pairs"
        in summarise_study("directions", [part]).set_index("level").p_note["forward"]
    ), "a pair without its mirror is not tested"


def test_levels_are_in_order_and_tested_against_their_reference():
    scopes = [
        set_accuracy(cell(scope=s), lambda i, a, b, v=v: v + i)
        for s, v in (("other_subjects", 50), ("no_test_session", 60), ("all", 66))
    ]
    long = summarise_study("scopes", scopes)
    assert (
        long.level.tolist() == ["all", "no_test_session", "other_subjects"]
        and np.allclose(long.difference[1:], [-0.06, -0.16])
        and long.p[1:].tolist() == [2 / 64, 2 / 64]
        and pd.isna(long.p[0])
    )
    labels = summarise_study("labels", [cell(trials_per_class=n) for n in (None, 10, 2)])
    assert labels.level.tolist() == ["2", "10", "all"]
    moved = summarise_study(
        "transfer", [cell(source="FACED"), cell(), cell("mae_1x1"), cell("vit_1x1")]
    )
    assert moved.level.tolist() == [
        "ViT (1×1), not pre-trained",
        "MAE (1×1), pre-trained on SEED",
        "MSMAE, pre-trained on SEED",
        "MSMAE, pre-trained on FACED",
    ]
    assert moved.p.notna().tolist() == [True, True, False, True]
    gone = summarise_study(
        "missing",
        [cell(level=0.8, missing=((20, 0.1), (5, 0.02))), result(model="svm", subjects=SIX)],
    )
    assert gone.level.tolist() == ["none", "5", "20"] and np.allclose(
        gone.difference[1:], [-0.02, -0.1]
    )


def test_two_spreads_by_hand():
    seeds = [
        set_accuracy(cell(subjects=(1, 2), seed=s), lambda i, a, b, s=s: 40 + 20 * (i == 2) + 2 * s)
        for s in (0, 1, 2)
    ]
    row = summarise_study("seeds", seeds).iloc[0]
    assert (
        np.isclose(row.accuracy_std_seeds, 0.02)
        and np.isclose(row.accuracy_std, 0.2 / 2**0.5)
        and (row.n_seeds, row.n_subjects) == (3, 2)
    )
    alone = summarise_study("seeds", seeds[:1]).iloc[0]
    assert pd.isna(alone.accuracy_std_seeds) and alone.n_seeds == 1
    odd = summarise_study("seeds", [seeds[0], cell(subjects=(1,), seed=1)]).iloc[0]
    assert pd.isna(odd.accuracy_std_seeds) and "other subjects" in odd.p_note


def test_studies_with_little(tmp_path):
    one = summarise_study(
        "scopes", [cell(subjects=(1,), scope=s) for s in ("all", "other_subjects")]
    )
    assert one.accuracy_std.isna().all() and "(min" not in to_markdown(
        make_study("scopes", [cell(subjects=(1,), scope=s) for s in ("all", "other_subjects")])
    )
    lone = summarise_study("scopes", [cell(scope="other_subjects")])
    assert pd.isna(lone.p[0]) and "no result for 'all'" in lone.p_note[0]
    short = summarise_study("scopes", [cell(), cell(scope="other_subjects", subjects=(1, 2))])
    assert pd.isna(short.p[1]) and "other subjects" in short.p_note[1]
    several = summarise_study(
        "labels", [cell(trials_per_class=n, seed=s) for n in (1, None) for s in (0, 1)]
    )
    assert (
        several.n_folds.tolist() == [72, 72]
        and several.seeds.tolist() == ["0, 1", "0, 1"]
        and several.p_n[0] == 6
    )
    paths = write_study(
        "scopes",
        [cell(scope=s) for s in ("all", "other_subjects")] + [result("BIDS", "svm", k=2)],
        tmp_path,
    )
    assert (
        sorted(p.name for p in paths.values()) == ["scopes.csv", "scopes.html", "scopes.md"]
        and "BIDS" in paths["md"].read_text()
        and "SYNTHETIC" in paths["md"].read_text().splitlines()[0]
    )


@pytest.mark.parametrize(
    "kind, results, said",
    [
        ("what", [cell()], "expected one of scopes"),
        ("scopes", [], "at least one result"),
        ("missing", [cell()], "without any"),
        (
            "transfer",
            [
                cell("vit_1x1"),
                {
                    **cell("vit_1x1"),
                    "spec": {
                        **cell("vit_1x1")["spec"],
                        "hyper": {"variant": "vit_1x1", "layers": 1},
                    },
                },
            ],
            "subject 1 again",
        ),
        ("labels", [cell(trials_per_class=1), cell(trials_per_class=1)], "subject 1 again"),
        ("scopes", [cell(), result("SEED", "svm", data="real")], "expected data"),
    ],
)
def test_what_is_no_study(kind, results, said):
    with pytest.raises(ValueError, match=said):
        make_study(kind, results)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["folds"][0].update(
            missing=[{"k": 3, "accuracy": 1.2, "balanced_accuracy": 0.5, "f1_macro": 0.5}]
        ),
        lambda r: r["folds"][0].update(
            missing=[{"k": -3, "accuracy": 0.2, "balanced_accuracy": 0.5, "f1_macro": 0.5}]
        ),
        lambda r: r["folds"][0]["missing"].append(r["folds"][0]["missing"][0]),
        lambda r: r["folds"][0]["missing"].append(
            {"k": 0, "accuracy": 0.01, "balanced_accuracy": 0.5, "f1_macro": 0.5}
        ),
        lambda r: r["provenance"].update(pretrained_on={"dataset": "FACED", "data": "reel"}),
        lambda r: r["provenance"].update(pretrained_on="FACED"),
    ],
)
def test_damage_in_what_studies_use_is_named(change, tmp_path):
    r = cell(missing=((5, 0.01),))
    write_json(tmp_path / "whole.json", r)
    assert load_results(tmp_path)
    change(r)
    write_json(tmp_path / "whole.json", r)
    with pytest.raises(ResultError, match="whole.json"):
        load_results(tmp_path)


def test_synthetic_weights_make_a_real_result_synthetic():
    r = cell(source="FACED")
    r["provenance"]["data"] = "real"
    text = to_markdown(make_study("transfer", [r]))
    assert "SYNTHETIC" in text.splitlines()[0] and "pre-trained on FACED (SYNTHETIC twin)" in text
    other = copy.deepcopy(r)
    other["spec"]["seed"] = 1
    other["provenance"]["pretrained_on"]["fingerprint"] = "d" * 16
    with pytest.raises(ResultError, match="of FACED for pre-training"):
        make_study("transfer", [r, other])
