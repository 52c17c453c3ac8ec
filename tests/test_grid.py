"""The grid as a user meets it: run, killed, started twice, fed with wrong parameters and damaged results."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from emo_lib.run.grid import GridError, changed_demo, read_grid

BIN = Path(sys.executable).parent
TINY = dict(
    name="tiny",
    data={"SEED": {"twin": {"subjects": 2, "seconds_per_trial": 6}, "window_s": 1.0}},
    models={"svm": None},
)


def start(repo, folder, config=None, *args, **popen):
    "Start snakemake on `config` in `folder`; stdout and stderr come as one text."
    (folder / "config.yaml").write_text(yaml.safe_dump(config or TINY))
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    cmd = [
        BIN / "snakemake",
        "--snakefile",
        repo / "workflow/Snakefile",
        "--directory",
        folder,
        "--configfile",
        folder / "config.yaml",
        *args,
    ]
    return subprocess.Popen(
        cmd,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **popen,
    )


def snakemake(repo, folder, config=None, *args):
    "Run snakemake to its end -> (exit code, output)."
    p = start(repo, folder, config, *args)
    out, _ = p.communicate(timeout=600)
    return p.returncode, out


def wait_for(condition, what, seconds=120):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def done(repo, tmp_path_factory):
    "A finished tiny grid."
    folder = tmp_path_factory.mktemp("grid")
    code, out = snakemake(repo, folder)
    assert code == 0, out[-4000:]
    return folder


def test_one_command_ends_with_a_table_that_says_synthetic(done):
    table = (done / "reports/tiny/table2.md").read_text()
    assert "SYNTHETIC" in table and "svm" in table.lower()
    result = json.loads((done / "runs/tiny/results/SEED__svm__seed0.json").read_text())
    assert len(result["folds"]) == 2 * 6 and result["provenance"]["data"] == "synthetic"
    for name in ("table2.csv", "table2.html", "fig3_SEED.html", "fig4_SEED.html", "table.ipynb"):
        assert (done / "reports/tiny" / name).stat().st_size > 0, name
    assert "SYNTHETIC" in (done / "reports/tiny/fig3_SEED.html").read_text()


STUDIED = TINY | dict(
    name="studied",
    cells_per_job=3,
    missing=[0, 20],
    sources={"FACED": {"twin": {"subjects": 1, "seconds_per_trial": 2}, "window_s": 1.0}},
    models={
        "small": dict(
            model="msmae",
            dim_channel=8,
            dim_spatial=8,
            layers=1,
            heads=2,
            pretrain_epochs=1,
            pretrain_batch_size=64,
            epochs=1,
        )
    },
    studies={
        "table3": {"vary": {"variant": ["vit_1x1", "msmae"]}, "models": ["small"]},
        "transfer": {"vary": {"pretrain_on": [None, "FACED"]}, "models": ["small"]},
        "labels": {"vary": {"trials_per_class": [1, None]}, "models": ["small"]},
    },
)


@pytest.fixture(scope="module")
def studied(repo, tmp_path_factory):
    "A finished tiny grid with studies, a source and batches of cells, and what its dry run said before."
    folder = tmp_path_factory.mktemp("studied")
    code, plan = snakemake(repo, folder, STUDIED, "-n")
    assert code == 0, plan[-4000:]
    code, out = snakemake(repo, folder, STUDIED)
    assert code == 0, out[-4000:]
    return folder, plan


def test_a_dry_run_tells_jobs_cells_and_hours(studied):
    plan = studied[1]
    jobs = int(next(l for l in plan.splitlines() if l.startswith("total ")).split()[1])
    assert (
        f"studied: {jobs} jobs" in plan
        and "4 cells on SEED, of them 1 main" in plan
        and "ESTIMATE" in plan
        and "SEED, msmae:" in plan
    )
    assert plan.count("ESTIMATE") == 1


def test_studies_and_views_end_in_tables_and_figures(studied):
    folder, _ = studied
    reports = folder / "reports/studied"
    for name in (
        "table2.md",
        "table3.md",
        "transfer.md",
        "labels.md",
        "missing.md",
        "directions.md",
        "fig5_SEED.html",
        "fig6_SEED.html",
        "fig7_SEED.html",
        "fig_missing_SEED.html",
        "fig_labels_SEED.html",
    ):
        assert "SYNTHETIC" in (reports / name).read_text(), name
    assert not list(reports.glob("*scopes*"))
    results = {
        f.stem: json.loads(f.read_text()) for f in (folder / "runs/studied/results").glob("*.json")
    }
    assert set(results) == {
        f"SEED__{c}"
        for c in (
            "small__seed0",
            "small__variant-vit_1x1__seed0",
            "small__pretrain_on-FACED__seed0",
            "small__trials_per_class-1__seed0",
        )
    }
    main, moved = results["SEED__small__seed0"], results["SEED__small__pretrain_on-FACED__seed0"]
    assert (
        main["provenance"]["pretrained_on"] is None
        and moved["provenance"]["pretrained_on"]["dataset"] == "FACED"
    )
    assert (
        [m["k"] for m in main["folds"][0]["missing"]] == [0, 20]
        and "missing" not in moved["folds"][0]
        and len(main["folds"][0]["curve"]) == 1
    )
    assert not list((folder / "runs/studied/results/.partial").iterdir())


def test_a_result_that_is_gone_is_made_again_and_no_other(repo, studied):
    folder, _ = studied
    results = folder / "runs/studied/results"
    before = {f: f.read_text() for f in results.glob("*.json")}
    gone = results / "SEED__small__trials_per_class-1__seed0.json"  # of a batch of three
    gone.unlink()
    code, out = snakemake(repo, folder, STUDIED, "--until", "cells_SEED_pre_trained_1")
    assert code == 0, out[-3000:]

    def folds(text):
        return [
            {k: v for k, v in fold.items() if k != "seconds"} for fold in json.loads(text)["folds"]
        ]

    assert folds(gone.read_text()) == folds(before[gone]) and all(
        f.read_text() == text for f, text in before.items() if f != gone
    )


def test_a_second_run_does_nothing(repo, done):
    code, out = snakemake(repo, done)
    assert code == 0 and "Nothing to be done" in out


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(sede=1), "sede: unknown parameter"),
        (dict(seed="zero"), "seed"),
        (dict(models={"smv": None}), "smv"),
        (dict(models={"svm": {"c": 1.0}}), "c"),
        (dict(models={"msmae": {"epochs": -1}}), "epochs"),
        (dict(models={"msmae": {"mask_channel": 1.5}}), "mask_channel"),
        (dict(options={"scope": "everything"}), "everything"),
        (dict(data={"SEED": {"twin": {"subjects": 0}}}), "subjects"),
        (dict(data={"SEED": {"twin": {"subjects": 1}, "feature": "de_LSD"}}), "de_LSD"),
        (dict(data={"SEED": {"root": "no/such/folder"}}), "no/such/folder"),
        (dict(data={"SEED": {"root": " "}}), "empty name"),
        (dict(data={"SEED": {"twin": {"subjects": 99}}}), "at most 15"),
        (dict(data={"SEED": {"twin": {"seconds_per_trial": 6}, "window_s": 7}}), "within a trial"),
        (dict(data={"BIDS": {"twin": {}}}), "no twin of BIDS"),
        (dict(models={"svm": {"seed": 3}}), "seed"),
        (dict(name=".."), "name"),
        (dict(seed=True), "seed"),
        (dict(missing=[-1]), "missing"),
        (dict(cells_per_job=0), "cells_per_job"),
        (dict(models={"other": {"model": "smv"}}), "smv"),
        (
            dict(studies={"scopes": {"vary": {"scop": ["all"]}, "models": ["svm"]}}),
            "studies.scopes",
        ),
        (
            dict(studies={"transfer": {"vary": {"pretrain_on": ["FACED"]}, "models": ["svm"]}}),
            "there are none",
        ),
        (dict(sources={"SEED": {"twin": {}}}), "stand in data too"),
    ],
)
def test_wrong_parameters_are_one_line(change, said):
    with pytest.raises(GridError) as e:
        read_grid(TINY | change)
    assert said in str(e.value) and len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(sede=1), "sede: unknown parameter"),
        (dict(data={"SEED": {"root": "no/such/folder"}}), "no/such/folder"),
        (
            dict(studies={"scopes": {"vary": {"scop": ["all"]}, "models": ["svm"]}}),
            "studies.scopes",
        ),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(repo, tmp_path, change, said):
    code, out = snakemake(repo, tmp_path, TINY | change)
    assert code == 1 and "Traceback" not in out and said in out
    ours = [
        l
        for l in out.splitlines()
        if l.strip() and not l.startswith("Using workflow specific profile")
    ]  # Snakemake's own greeting
    assert len(ours) == 1, out
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()


def test_papermill_alone_refuses_an_unknown_parameter_too(repo, done):
    job = dict(
        dataset="SEED", features="runs/tiny/features/SEED", model="svm", out="never.json", sede=1
    )
    run = subprocess.run(
        [
            BIN / "papermill",
            "--no-progress-bar",
            repo / "nbs/jobs/cell.ipynb",
            "refused.ipynb",
            "-y",
            json.dumps(job),
        ],
        cwd=done,
        capture_output=True,
        text=True,
    )
    assert (
        run.returncode == 1
        and "sede: unknown parameter" in run.stderr
        and not (done / "never.json").exists()
    )


def test_killed_grid_goes_on_and_repeats_nothing(repo, tmp_path):
    p = start(repo, tmp_path, start_new_session=True)
    features = tmp_path / "runs/tiny/features/SEED/features.json"
    wait_for(
        lambda: list(tmp_path.glob("runs/tiny/notebooks/cell-*.ipynb")), "the cell's start"
    )  # so the features are finished
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    assert not (tmp_path / "reports/tiny/table2.md").exists()
    before = features.stat().st_mtime_ns
    code, out = snakemake(repo, tmp_path)
    assert code == 0, out[-4000:]
    assert (
        features.stat().st_mtime_ns == before
        and "rule twin:" not in out
        and (tmp_path / "reports/tiny/table2.md").exists()
    )


def test_kill_while_the_twin_is_written(repo, tmp_path):
    p = start(repo, tmp_path, start_new_session=True)
    wait_for(lambda: any((tmp_path / "data").rglob("*.mat")), "the first file of the twin")
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    code, out = snakemake(repo, tmp_path)
    assert code == 0, out[-4000:]


def test_two_grids_in_one_folder(repo, tmp_path):
    first = start(repo, tmp_path, start_new_session=True)
    try:
        wait_for((tmp_path / "runs/tiny/.lock").exists, "the lock")
        code, out = snakemake(repo, tmp_path)
        assert code == 1 and "another grid is running" in out
    finally:
        out, _ = first.communicate(timeout=600)
    assert first.returncode == 0, out[-3000:]


def test_a_kernel_killed_inside_a_cell_fails_the_job_and_nothing_else(repo, tmp_path, done):
    import psutil

    config = TINY | dict(models={"dgcnn": {"epochs": 200}, "svm": None}, views=False)
    p = start(repo, tmp_path, config)

    def kernels():
        try:
            return [
                c
                for c in psutil.Process(p.pid).children(recursive=True)
                if "ipykernel_launcher" in " ".join(c.cmdline())
            ]
        except psutil.Error:
            return []

    def victim():
        for c in kernels():
            try:
                parent = " ".join(c.parent().cmdline())
                if "cell.ipynb" in parent and "dgcnn" in parent and folds("SEED__dgcnn"):
                    return c
            except psutil.Error:
                continue

    def folds(cell):
        return list((tmp_path / "runs/tiny/results/.partial").glob(f"{cell}*/*.json"))

    found = []
    wait_for(lambda: found.append(victim()) or found[-1], "a fold of the network's cell")
    found[-1].kill()
    out, _ = p.communicate(timeout=600)
    results = tmp_path / "runs/tiny/results"
    assert (
        p.returncode == 1
        and not (results / "SEED__dgcnn__seed0.json").exists()
        and (results / "SEED__svm__seed0.json").exists()
    ), out[-3000:]
    assert not (tmp_path / "reports/tiny/table2.md").exists()
    kept = {f: f.stat().st_mtime_ns for f in folds("SEED__dgcnn")}
    svm = (results / "SEED__svm__seed0.json").stat().st_mtime_ns
    second = start(repo, tmp_path, config)
    wait_for(
        lambda: len(folds("SEED__dgcnn")) > len(kept) or second.poll() is not None, "the next fold"
    )
    assert kept and all(f.stat().st_mtime_ns == t for f, t in kept.items() if f.exists()), (
        "finished folds are not repeated"
    )
    out, _ = second.communicate(timeout=600)
    assert second.returncode == 0 and (tmp_path / "reports/tiny/table2.md").exists(), out[-3000:]
    assert (results / "SEED__svm__seed0.json").stat().st_mtime_ns == svm and not folds(
        "SEED__dgcnn"
    )


def test_a_damaged_result_is_named_by_the_table(repo, done, tmp_path):
    import shutil

    shutil.copytree(done / "runs/tiny/results", tmp_path / "results")
    victim = tmp_path / "results/SEED__svm__seed0.json"
    victim.write_text(victim.read_text()[:200])
    run = subprocess.run(
        [BIN / "emo", "tables", tmp_path / "results", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and victim.name in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_result_does_not_cost_the_last_good_table(repo, done, tmp_path):
    import shutil

    shutil.copytree(done, tmp_path / "copy", ignore=shutil.ignore_patterns(".snakemake"))
    folder = tmp_path / "copy"
    good = (folder / "reports/tiny/table2.md").read_text()
    victim = folder / "runs/tiny/results/SEED__svm__seed0.json"
    victim.write_text(victim.read_text()[:200])
    code, out = snakemake(repo, folder)
    assert (
        code == 1 and victim.name in out and (folder / "reports/tiny/table2.md").read_text() == good
    ), out[-2000:]
    victim.unlink()
    assert (
        snakemake(repo, folder)[0] == 0
        and "SYNTHETIC" in (folder / "reports/tiny/table2.md").read_text()
    )


def test_the_paper_configuration_plans_every_cell(repo, tmp_path):
    "The number of jobs and an estimate of hours; networks are made small here, because theirs take a minute to time."
    config = yaml.safe_load((repo / "workflow/config/paper.yaml").read_text())
    assert set(config["models"]) == {
        "svm",
        "vit",
        "simplevit",
        "fbccnn",
        "stnet",
        "dgcnn",
        "msmae",
    } and not any(config["models"].values())
    thin = dict(dim=8, layers=1, heads=1, head_width=4, patch=3)
    config["models"] |= {
        "vit": thin,
        "simplevit": thin,
        "fbccnn": {"width": 0.05},
        "stnet": {"width": 0.05},
        "msmae": dict(dim_channel=8, dim_spatial=8, layers=1, heads=2),
    }
    code, out = snakemake(repo, tmp_path, config, "-n")
    cells = (
        2 * 15 * (7 + 6 + 1 + 2 + 4 + 2)
    )  # data sets x subjects x (main, variants, FACED, scopes, labels, seeds)
    assert code == 0 and str(cells) in [
        w for l in out.splitlines() if l.startswith("cell ") for w in l.split()
    ], out[-2000:]
    jobs = next(l for l in out.splitlines() if l.startswith("total ")).split()[1]
    assert (
        f"paper: {jobs} jobs" in out
        and f"{cells} cells" in out
        and "ESTIMATE" in out
        and " h of one core" in out
    )


def real_bids(repo):
    return Path(os.environ.get("EMO_BIDS_REAL") or repo.parent / "shared/data/muse-p300")


def test_real_recordings_by_configuration_alone(repo, tmp_path):
    root = real_bids(repo)
    if not root.exists():
        pytest.skip("no real BIDS folder here; set EMO_BIDS_REAL")
    config = yaml.safe_load((repo / "workflow/config/bids.yaml").read_text())
    config["data"]["BIDS"]["root"] = str(root)
    config["models"] = {"svm": None}
    code, out = snakemake(repo, tmp_path, config)
    assert code == 0, out[-4000:]
    table = (tmp_path / "reports/bids/table2.md").read_text()
    assert (
        "SYNTHETIC" not in table
        and "BIDS, real recordings" in table
        and "permuted trials" in table
        and "balanced accuracy" in table
    )


def test_own_data_take_the_demos_place(repo, done, tmp_path):
    "A download given on the command line: only it runs, as `mine`, and a folder that is not there is refused before anything runs."
    root = done / "data/twins/tiny/SEED"
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def dry(where):
        return subprocess.run(
            [
                BIN / "snakemake",
                "-n",
                "--snakefile",
                repo / "workflow/Snakefile",
                "--directory",
                tmp_path,
                "--config",
                f"data={{SEED: {{root: {where}}}}}",
            ],
            env=env,
            capture_output=True,
            text=True,
        )

    plan = dry(root)
    assert (
        plan.returncode == 0
        and "reports/mine/table2.md" in plan.stdout + plan.stderr
        and "SEED-IV" not in plan.stdout
        and "rule twin" not in plan.stdout
    ), plan.stderr[-2000:]
    gone = dry(tmp_path / "nothing")
    assert gone.returncode == 1 and "nothing" in gone.stderr and "Traceback" not in gone.stderr


def test_a_changed_download_is_noticed(repo, done, tmp_path):
    import shutil

    shutil.copytree(done / "data/twins/tiny/SEED", tmp_path / "SEED")
    config = TINY | dict(
        name="own", data={"SEED": {"root": str(tmp_path / "SEED"), "window_s": 1.0}}
    )
    assert (
        snakemake(repo, tmp_path, config)[0] == 0
        and "Nothing to be done" in snakemake(repo, tmp_path, config)[1]
    )
    os.utime(next((tmp_path / "SEED").rglob("1_*.mat")))
    assert "features" in snakemake(repo, tmp_path, config, "-n")[1]


def test_another_feature_set_does_not_slip_into_a_folder(done):
    run = subprocess.run(
        [
            BIN / "emo",
            "features",
            "--dataset",
            "SEED",
            "--root",
            "data/twins/tiny/SEED",
            "--out",
            "runs/tiny/features/SEED",
            "--feature",
            "psd",
        ],
        cwd=done,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and "de_LDS" in run.stderr and "--overwrite" in run.stderr


@pytest.mark.parametrize("data", ["foo", [1], {"SEED": "foo"}, {"SEED": [1]}])
def test_data_that_are_no_mapping_are_refused(data):
    with pytest.raises(GridError, match="data"):
        read_grid(
            changed_demo(
                yaml.safe_load(
                    (Path(__file__).parents[1] / "workflow/config/demo.yaml").read_text()
                ),
                {"data": data},
            )
        )


def test_deep_and_impossible_yaml_names_its_file(tmp_path):
    for text in ("a: " + "[" * 3000, "t: 2020-13-45"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(GridError, match="bad.yaml"):
            read_grid(tmp_path / "bad.yaml")


@pytest.mark.parametrize("text", ["[]", "5", "{}", '{"names": {"subject": 1}}', "{", ""])
def test_a_kept_fold_of_another_kind_is_made_again(tmp_path, text):
    from emo_lib.run.cells import kept_fold

    (tmp_path / "f.json").write_text(text)
    assert kept_fold(tmp_path / "f.json") is None
