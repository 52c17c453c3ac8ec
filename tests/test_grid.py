"""The grid as a user meets it: run, killed, started twice, fed with wrong parameters and damage."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from emo_lib.data.datasets import open_dataset
from emo_lib.papers.configuration import as_numbers, changed_demo, complete, read_configuration
from emo_lib.papers.registry import PAPERS
from emo_lib.run import cells
from emo_lib.run.cells import FoldStore, check_writable, refuse_other_result, run_cell, run_cells
from emo_lib.run.grid import GridError, grid_jobs
from emo_lib.run.results import predictions_path
from emo_lib.run.spec import CellSpec
from emo_lib.run.views import ViewSpec
from emo_lib.samples.featuresets import write_features
from emo_lib.twins.twin import write_twin

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
DATA = {"SEED": {"twin": {"subjects": 2, "seconds_per_trial": 6}, "window_s": 1.0}}
SESSIONS = dict(paper="msmae", models={"svm": None})
TINY = dict(name="tiny", data=DATA, experiments={"msmae": SESSIONS}, reports=["msmae.table2"])
TABLE = "reports/tiny/msmae.table2.md"
RESULTS = "runs/tiny/results/msmae"


def with_experiment(**changes):
    "TINY with a changed experiment."
    return TINY | dict(experiments={"msmae": SESSIONS | changes})


def command(repo, folder, config=None, *arguments):
    "(command line, environment) of snakemake on `config` in `folder`."
    (folder / "config.yaml").write_text(yaml.safe_dump(config or TINY))
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    files = ["--snakefile", repo / "workflow/Snakefile", "--directory", folder]
    files += ["--configfile", folder / "config.yaml"]
    return [BIN / "snakemake", *files, *arguments], env


def start(repo, folder, config=None, *arguments, **popen):
    "Start snakemake; stdout and stderr come as one text."
    line, env = command(repo, folder, config, *arguments)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(line, cwd=folder, env=env, **pipes, **popen)


def snakemake(repo, folder, config=None, *arguments):
    "Run snakemake to its end -> (exit code, output)."
    process = start(repo, folder, config, *arguments)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def wait_for(condition, what, seconds=120):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def done(repo, tmp_path_factory):
    "A finished tiny grid."
    folder = tmp_path_factory.mktemp("grid")
    code, output = snakemake(repo, folder)
    assert code == 0, output[-4000:]
    return folder


def test_one_command_ends_with_a_table_that_says_synthetic(done):
    table = (done / TABLE).read_text()
    assert "SYNTHETIC" in table
    assert "svm" in table.lower()
    result = json.loads((done / RESULTS / "SEED__svm__seed0.json").read_text())
    assert len(result["folds"]) == 2 * 6
    assert result["provenance"]["data"] == "synthetic"
    assert (done / RESULTS / result["predictions"]).stat().st_size > 0
    for name in ("msmae.table2.csv", "msmae.table2.html", "report.ipynb"):
        assert (done / "reports/tiny" / name).stat().st_size > 0, name
    figures = list((done / "reports/tiny").glob("*fig*.html"))
    assert figures
    assert all("SYNTHETIC" in file.read_text() for file in figures)


SMALL = dict(
    model="msmae",
    dim_channel=8,
    dim_spatial=8,
    layers=1,
    heads=2,
    pretrain_epochs=1,
    pretrain_batch_size=64,
    epochs=1,
)
STUDIED = dict(
    name="studied",
    cells_per_job=3,
    data=DATA,
    sources={"FACED": {"twin": {"subjects": 1, "seconds_per_trial": 2}, "window_s": 1.0}},
    experiments={
        "msmae": dict(
            paper="msmae",
            missing=[0, 20],
            models={"small": SMALL},
            studies={
                "table3": {"vary": {"variant": ["vit_1x1", "msmae"]}, "models": ["small"]},
                "transfer": {"vary": {"pretrain_on": [None, "FACED"]}, "models": ["small"]},
                "labels": {"vary": {"trials_per_class": [1, None]}, "models": ["small"]},
            },
            views=["table3"],
        )
    },
    reports=[
        f"msmae.{name}"
        for name in ("table2", "table3", "transfer", "labels", "missing", "directions")
    ],
)

VIEWED = {"msmae": STUDIED["experiments"]["msmae"] | {"views": ["table3", "transfer", "labels"]}}


@pytest.fixture(scope="module")
def studied(repo, tmp_path_factory):
    "A finished tiny grid with studies, a source and batches of cells, and its dry run."
    folder = tmp_path_factory.mktemp("studied")
    code, plan = snakemake(repo, folder, STUDIED, "-n")
    assert code == 0, plan[-4000:]
    code, output = snakemake(repo, folder, STUDIED)
    assert code == 0, output[-4000:]
    return folder, plan


def test_a_dry_run_states_jobs_cells_and_hours(studied):
    plan = studied[1]
    jobs = int(next(line for line in plan.splitlines() if line.startswith("total ")).split()[1])
    assert f"studied: {jobs} jobs" in plan
    assert "4 cells on SEED, of them 1 main" in plan
    assert re.search(r"^  msmae +.*\d", plan, re.M)
    assert plan.count("ESTIMATE") == 1


def test_studies_and_views_end_in_tables_and_figures(studied):
    folder, _ = studied
    reports = folder / "reports/studied"
    for report in STUDIED["reports"]:
        assert "SYNTHETIC" in (reports / f"{report}.md").read_text(), report
    assert not list(reports.glob("*scopes*"))
    assert (folder / "runs/studied/views/msmae/SEED.json").exists()
    files = (folder / "runs/studied/results/msmae").glob("*.json")
    results = {file.stem: json.loads(file.read_text()) for file in files}
    changes = ("", "variant-vit_1x1__", "pretrain_on-FACED__", "trials_per_class-1__")
    assert set(results) == {f"SEED__small__{change}seed0" for change in changes}
    main, moved = results["SEED__small__seed0"], results["SEED__small__pretrain_on-FACED__seed0"]
    assert main["provenance"]["pretrained_on"] is None
    assert moved["provenance"]["pretrained_on"]["dataset"] == "FACED"
    assert [m["k"] for m in main["folds"][0]["missing"]] == [0, 20]
    assert moved["folds"][0]["missing"] == []
    assert len(main["folds"][0]["curve"]) == 1
    assert not list((folder / "runs/studied/results/msmae/.partial").iterdir())


def without_seconds(text):
    return [fold | {"seconds": 0} for fold in json.loads(text)["folds"]]


def test_a_deleted_result_is_made_again_and_no_other(repo, studied):
    folder, _ = studied
    results = folder / "runs/studied/results/msmae"
    before = {file: file.read_text() for file in results.glob("*.json")}
    deleted = results / "SEED__small__trials_per_class-1__seed0.json"  # of a batch of three
    deleted.unlink()
    code, output = snakemake(repo, folder, STUDIED, "--until", "cells_SEED_pre_trained_1")
    assert code == 0, output[-3000:]
    assert without_seconds(deleted.read_text()) == without_seconds(before.pop(deleted))
    assert all(file.read_text() == text for file, text in before.items())


def test_a_second_run_does_nothing(repo, done):
    code, output = snakemake(repo, done)
    assert code == 0
    assert "Nothing to be done" in output


@pytest.mark.parametrize(
    "config, words",
    [
        (TINY | dict(sede=1), "sede: unknown parameter"),
        (TINY | dict(seed="zero"), "seed"),
        (TINY | dict(seed=True), "seed"),
        (TINY | dict(name=".."), "name"),
        (TINY | dict(cells_per_job=0), "cells_per_job"),
        (TINY | dict(reports=["msmae.table9"]), "msmae.table9"),
        (TINY | dict(reports=[1]), "reports.0: expected text"),
        (with_experiment(paper=None), "expected an experiment with paper: msmae"),
        (with_experiment(paper=["msmae"]), "paper: expected text"),
        (with_experiment(protocol={"name": ["loso"]}), "protocol: name: expected one of"),
        (
            TINY | dict(experiments={"a": SESSIONS, "b": SESSIONS}),
            "experiments.b: expected cells that differ from those of a, found svm on SEED with "
            "equal settings; merge the two experiments",
        ),
        (with_experiment(models={"svm": None, "same": {"model": "svm"}}), "svm and same on SEED"),
        (with_experiment(models={"svm": {"C": 1}, "b": {"model": "svm"}}), "svm and b on SEED"),
        (
            TINY
            | dict(
                experiments={
                    "a": SESSIONS | {"scaling": {"by": "session", "fit_on": "all"}},
                    "b": SESSIONS | {"scaling": {"by": "subject", "fit_on": "all"}},
                }
            ),
            "experiments.b: expected cells that differ from those of a",
        ),
        (
            TINY
            | dict(
                experiments={
                    "a": SESSIONS | {"scaling": {"by": "band", "fit_on": "own"}},
                    "b": SESSIONS | {"scaling": {"by": "band"}},
                }
            ),
            "experiments.b: expected cells that differ from those of a",
        ),
        (
            TINY
            | dict(
                experiments={
                    "a": SESSIONS | {"samples": {"length": 1}},
                    "b": SESSIONS | {"samples": {"short": "pad"}},
                }
            ),
            "experiments.b: expected cells that differ from those of a",
        ),
        (
            with_experiment(models={"svm": None, "SVM": {"model": "svm", "C": 2.0}}),
            "found SEED__svm__seed0.json and SEED__SVM__seed0.json",
        ),
        (
            TINY | dict(experiments={"a": SESSIONS, "A": SESSIONS | {"models": {"dgcnn": None}}}),
            "experiments: expected names that differ in more than upper and lower case",
        ),
        (with_experiment(models={"svm": {"name": "svm"}}), "'name' is no hyper-parameter"),
        (with_experiment(scaling={}), "by: expected one of window, band, trial"),
        (with_experiment(scaling={"by": "sessions"}), "expected 'window', 'band', 'trial'"),
        (
            with_experiment(studies={"seeds": {"vary": {"seed": [True]}, "models": ["svm"]}}),
            "seed: expected a whole number, found True",
        ),
        (
            with_experiment(studies={"costs": {"vary": {"C": [True]}, "models": ["svm"]}}),
            "C: expected a number, found True",
        ),
        (
            with_experiment(
                studies={"labels": {"vary": {"trials_per_class": [True]}, "models": ["svm"]}}
            ),
            "trials_per_class: expected a whole number, found True",
        ),
        (with_experiment(models={"smv": None}), "smv"),
        (with_experiment(models={"svm": {"c": 1.0}}), "c"),
        (with_experiment(models={"svm": {"seed": 3}}), "seed"),
        (with_experiment(models={"msmae": {"epochs": -1}}), "epochs"),
        (with_experiment(models={"msmae": {"mask_channel": 1.5}}), "mask_channel"),
        (with_experiment(models={"other": {"model": "smv"}}), "smv"),
        (with_experiment(protocol={"name": "cross_session", "scope": "everything"}), "everything"),
        (with_experiment(protocol={"name": "cross_sesion"}), "cross_sesion"),
        (with_experiment(samples={"kind": "trial"}), "windows"),
        (with_experiment(paper="nobody"), "nobody"),
        (with_experiment(missing=[-1]), "missing"),
        (with_experiment(data=["SEED-V"]), "SEED-V"),
        (
            with_experiment(studies={"scopes": {"vary": {"scop": ["all"]}, "models": ["svm"]}}),
            "studies.scopes",
        ),
        (
            with_experiment(
                studies={"transfer": {"vary": {"pretrain_on": ["FACED"]}, "models": ["svm"]}}
            ),
            "there are none",
        ),
        (TINY | dict(data={"SEED": {"twin": {"subjects": 0}}}), "subjects"),
        (TINY | dict(data={"SEED": {"twin": {}, "feature": "de_LSD"}}), "de_LSD"),
        (TINY | dict(data={"SEED": {"root": "no/such/folder"}}), "no/such/folder"),
        (TINY | dict(data={"SEED": {"root": " "}}), "empty name"),
        (TINY | dict(data={"SEED": {"twin": {"subjects": 99}}}), "at most 15"),
        (
            TINY | dict(data={"SEED": {"twin": {"seconds_per_trial": 6}, "window_s": 7}}),
            "within a trial",
        ),
        (TINY | dict(data={"BIDS": {"twin": {}}}), "no twin of BIDS"),
        (TINY | dict(sources={"SEED": {"twin": {}}}), "listed in data too"),
    ],
)
def test_wrong_parameters_are_one_line(config, words):
    with pytest.raises(GridError) as caught:
        read_configuration(config)
    assert words in str(caught.value)
    assert "parameters: " not in str(caught.value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "config, words",
    [
        (TINY | dict(sede=1), "sede: unknown parameter"),
        (TINY | dict(data={"SEED": {"root": "no/such/folder"}}), "no/such/folder"),
        (with_experiment(studies={"labels": {"vary": {"scop": [1]}, "models": ["svm"]}}), "labels"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(repo, tmp_path, config, words):
    code, output = snakemake(repo, tmp_path, config)
    assert code == 1
    assert "Traceback" not in output
    assert words in output
    greeting = "Using workflow specific profile"
    own = [x for x in output.splitlines() if x.strip() and not x.startswith(greeting)]
    assert len(own) == 2, output
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "data").exists()


def test_papermill_alone_refuses_an_unknown_parameter_too(repo, done):
    job = dict(
        dataset="SEED", features="runs/tiny/features/SEED", model="svm", out="never.json", sede=1
    )
    line = [BIN / "papermill", "--no-progress-bar", repo / "nbs/jobs/cell.ipynb", "refused.ipynb"]
    run = subprocess.run([*line, "-y", json.dumps(job)], cwd=done, capture_output=True, text=True)
    assert run.returncode == 1
    assert "sede: unknown parameter" in run.stderr
    assert not (done / "never.json").exists()


def test_a_killed_grid_resumes_and_repeats_nothing(repo, tmp_path):
    process = start(repo, tmp_path, start_new_session=True)
    features = tmp_path / "runs/tiny/features/SEED/features.json"
    notebooks = "runs/tiny/notebooks/msmae/cell-*.ipynb"
    wait_for(lambda: list(tmp_path.glob(notebooks)), "the cell's start")  # features are finished
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / TABLE).exists()
    before = features.stat().st_mtime_ns
    code, output = snakemake(repo, tmp_path)
    assert code == 0, output[-4000:]
    assert features.stat().st_mtime_ns == before
    assert "rule twin:" not in output
    assert (tmp_path / TABLE).exists()


def test_kill_while_the_twin_is_written(repo, tmp_path):
    process = start(repo, tmp_path, start_new_session=True)
    wait_for(lambda: any((tmp_path / "data").rglob("*.mat")), "the first file of the twin")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    code, output = snakemake(repo, tmp_path, None, "--until", "features")
    assert code == 0, output[-4000:]
    assert (tmp_path / "runs/tiny/features/SEED/features.json").exists()
    assert not (tmp_path / TABLE).exists()
    code, output = snakemake(repo, tmp_path)
    assert code == 0, output[-4000:]
    assert (tmp_path / TABLE).exists()


def test_two_grids_in_one_folder(repo, tmp_path):
    first = start(repo, tmp_path, start_new_session=True)
    try:
        wait_for((tmp_path / "runs/tiny/.lock").exists, "the lock")
        code, output = snakemake(repo, tmp_path)
        assert code == 1
        assert "another grid is running" in output
    finally:
        output, _ = first.communicate(timeout=600)
    assert first.returncode == 0, output[-3000:]


def test_a_kernel_killed_inside_a_cell_fails_the_job_and_nothing_else(repo, tmp_path):
    import psutil

    config = with_experiment(models={"dgcnn": {"epochs": 200}, "svm": None}, views=None)
    process = start(repo, tmp_path, config)
    results = tmp_path / RESULTS

    def folds(cell):
        return list((results / ".partial").glob(f"{cell}*/*.json"))

    def kernel_of_the_network():
        try:
            children = psutil.Process(process.pid).children(recursive=True)
            for child in children:
                parent = " ".join(child.parent().cmdline())
                is_kernel = "ipykernel_launcher" in " ".join(child.cmdline())
                if is_kernel and "cell.ipynb" in parent and "dgcnn" in parent:
                    return child
        except psutil.Error:
            return None
        return None

    found = []

    def is_ready():
        kernel = kernel_of_the_network()
        if kernel and folds("SEED__dgcnn"):
            found.append(kernel)
        return bool(found)

    wait_for(is_ready, "a fold of the network's cell")
    found[0].kill()
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1, output[-3000:]
    assert not (results / "SEED__dgcnn__seed0.json").exists()
    assert (results / "SEED__svm__seed0.json").exists()
    assert not (tmp_path / TABLE).exists()
    kept = {file: file.stat().st_mtime_ns for file in folds("SEED__dgcnn")}
    svm = (results / "SEED__svm__seed0.json").stat().st_mtime_ns
    second = start(repo, tmp_path, config)
    wait_for(
        lambda: len(folds("SEED__dgcnn")) > len(kept) or second.poll() is not None, "the next fold"
    )
    assert kept
    for file, written in kept.items():
        assert not file.exists() or file.stat().st_mtime_ns == written, "a fold was repeated"
    output, _ = second.communicate(timeout=600)
    assert second.returncode == 0, output[-3000:]
    assert (tmp_path / TABLE).exists()
    assert (results / "SEED__svm__seed0.json").stat().st_mtime_ns == svm
    assert not folds("SEED__dgcnn")


def test_a_damaged_result_is_named_by_the_table(done, tmp_path):
    shutil.copytree(done / RESULTS, tmp_path / "results")
    victim = tmp_path / "results/SEED__svm__seed0.json"
    victim.write_text(victim.read_text()[:200])
    run = subprocess.run(
        [
            BIN / "emo",
            "tables",
            tmp_path / "results",
            "--table",
            "msmae.table2",
            "--out",
            tmp_path / "out",
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert victim.name in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_result_does_not_cost_the_last_good_table(repo, done, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(done, folder, ignore=shutil.ignore_patterns(".snakemake"))
    good = (folder / TABLE).read_text()
    victim = folder / RESULTS / "SEED__svm__seed0.json"
    victim.write_text(victim.read_text()[:200])
    code, output = snakemake(repo, folder)
    assert code == 1, output[-2000:]
    assert victim.name in output
    assert (folder / TABLE).read_text() == good
    victim.unlink()
    assert snakemake(repo, folder)[0] == 0
    assert "SYNTHETIC" in (folder / TABLE).read_text()


def test_the_papers_configuration_plans_every_cell(repo, tmp_path):
    "Jobs and an estimate of hours; networks are small here, because theirs take a minute to time."
    config = yaml.safe_load((repo / "workflow/config/msmae.yaml").read_text())
    written_out, _ = complete(config)
    models = written_out["experiments"]["msmae"]["models"]
    simple = {"svm", "svm_image", "lda"}
    assert set(models) == simple | {"vit", "simplevit", "fbccnn", "stnet", "dgcnn", "msmae"}
    assert not any(models.values()), "the defaults are the paper's values"
    thin = dict(dim=8, layers=1, heads=1, head_width=4, patch=3)
    config["experiments"]["msmae"]["models"] = models | {
        "vit": thin,
        "simplevit": thin,
        "fbccnn": {"width": 0.05},
        "stnet": {"width": 0.05},
        "msmae": dict(dim_channel=8, dim_spatial=8, layers=1, heads=1),
    }
    code, output = snakemake(repo, tmp_path, config, "-n")
    assert code == 0, output[-2000:]
    # models, variants, FACED, scopes, labels, scaling, steps, statistics, choices, seeds
    cells = 2 * 15 * (9 + 6 + 1 + 2 + 4 + 5 + 5 + 1 + 6 + 4)
    planned = [line.split() for line in output.splitlines() if line.startswith("cell ")]
    assert str(cells) in planned[0]
    jobs = next(line for line in output.splitlines() if line.startswith("total ")).split()[1]
    assert f"msmae: {jobs} jobs" in output
    assert f"{cells} cells" in output
    assert re.search(r"in all +[\d.,]+ h", output)


def test_real_recordings_by_configuration_alone(repo, tmp_path):
    root = Path(os.environ.get("EMO_BIDS_REAL") or repo.parent / "shared/data/muse-p300")
    if not root.exists():
        pytest.skip("no real BIDS folder here; set EMO_BIDS_REAL")
    config = yaml.safe_load((repo / "workflow/config/bids.yaml").read_text())
    config["data"]["BIDS"]["root"] = str(root)
    config["experiments"]["sessions"]["models"] = {"svm": None}
    code, output = snakemake(repo, tmp_path, config)
    assert code == 0, output[-4000:]
    table = (tmp_path / "reports/bids/msmae.table2.md").read_text()
    assert "SYNTHETIC" not in table
    for words in ("BIDS, real recordings", "permuted trials", "balanced accuracy"):
        assert words in table


def dry_demo(repo, folder, *config):
    "The dry run of the demo with --config."
    line = [BIN / "snakemake", "-n", "--snakefile", repo / "workflow/Snakefile"]
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(
        [*line, "--directory", folder, "--config", *config],
        env=env,
        capture_output=True,
        text=True,
    )


def test_own_data_replace_the_demos(repo, done, tmp_path):
    "A download on the command line: only it runs, as `mine`; a wrong folder is refused at once."
    root = done / "data/twins/tiny/SEED"
    plan = dry_demo(repo, tmp_path, f"data={{SEED: {{root: {root}}}}}")
    assert plan.returncode == 0, plan.stderr[-2000:]
    assert "reports/mine/msmae.table2.md" in plan.stdout + plan.stderr
    assert "SEED-IV" not in plan.stdout
    assert "rule twin" not in plan.stdout
    wrong = dry_demo(repo, tmp_path, f"data={{SEED: {{root: {tmp_path}/nothing}}}}")
    assert wrong.returncode == 1
    assert "nothing" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_numbers_on_the_command_line_are_numbers(repo, tmp_path):
    twin = "{twin: {subjects: 2, seconds_per_trial: 8.5}, window_s: 1}"
    experiment = "{msmae: {paper: msmae, models: {dgcnn: {epochs: 3, lr: 1e-3}}}}"
    plan = dry_demo(
        repo,
        tmp_path,
        f"data={{SEED: {twin}}}",
        f"experiments={experiment}",
        "reports=[msmae.table2]",
    )
    assert plan.returncode == 0, plan.stderr[-2000:]
    assert "1 cells on SEED" in plan.stderr


def test_a_changed_download_is_noticed(repo, done, tmp_path):
    shutil.copytree(done / "data/twins/tiny/SEED", tmp_path / "SEED")
    data = {"SEED": {"root": str(tmp_path / "SEED"), "window_s": 1.0}}
    config = TINY | dict(name="own", data=data)
    assert snakemake(repo, tmp_path, config)[0] == 0
    assert "Nothing to be done" in snakemake(repo, tmp_path, config)[1]
    os.utime(next((tmp_path / "SEED").rglob("1_*.mat")))
    assert "features" in snakemake(repo, tmp_path, config, "-n")[1]


def test_another_feature_set_does_not_enter_a_folder(done):
    line = [BIN / "emo", "features", "--dataset", "SEED", "--root", "data/twins/tiny/SEED"]
    run = subprocess.run(
        [*line, "--out", "runs/tiny/features/SEED", "--feature", "psd"],
        cwd=done,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "de_LDS" in run.stderr
    assert "--overwrite" in run.stderr


def test_a_cell_does_not_overwrite_another_ones_result(done, tmp_path):
    shutil.copytree(done / RESULTS, tmp_path / "results")
    out = tmp_path / "results/SEED__svm__seed0.json"
    before = out.read_text()
    line = [
        BIN / "emo",
        "cell",
        "--dataset",
        "SEED",
        "--features",
        done / "runs/tiny/features/SEED",
    ]
    line += ["--model", "svm", "--hyper", '{"C": 0.1}', "--out", out]
    run = subprocess.run(line, capture_output=True, text=True)
    assert run.returncode == 1
    assert "another cell" in run.stderr
    assert out.read_text() == before
    run = subprocess.run([*line, "--overwrite"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(out.read_text())["spec"]["hyper"] == {"C": 0.1}


@pytest.mark.parametrize("data", ["foo", [1], {"SEED": "foo"}, {"SEED": [1]}])
def test_data_that_are_no_mapping_are_refused(repo, data):
    demo = yaml.safe_load((repo / "workflow/config/papers.yaml").read_text())
    with pytest.raises(GridError, match="data"):
        read_configuration(changed_demo(demo, {"data": data}))


@pytest.mark.parametrize("reports", [[1], "x", ["nobody.table1"], None])
def test_reports_on_the_command_line_are_one_line(repo, reports):
    demo = yaml.safe_load((repo / "workflow/config/papers.yaml").read_text())
    changes = {"data": {"SEED": {"window_s": 1.0}}, "reports": reports}
    with pytest.raises(GridError, match="reports") as caught:
        read_configuration(changed_demo(demo, changes))
    assert len(caught.value.problems) == 1


def test_words_stay_words_beside_numbers():
    value = {"align": "none", "n": "10", "flag": "True", "empty": "~", "upper": "NULL"}
    expected = {"align": "none", "n": 10, "flag": True, "empty": None, "upper": "NULL"}
    assert as_numbers(value) == expected


def test_a_study_varies_the_scaling_and_is_tested_with_missing_electrodes():
    studies = {
        "scaling": {"vary": {"scaling": [None, "session-own"]}, "models": ["svm"]},
        "missing": {"vary": {"C": [2.0]}, "models": ["svm"], "missing": True},
        "plain": {"vary": {"C": [3.0]}, "models": ["svm"]},
    }
    config = with_experiment(studies=studies, missing=[0, 5])
    jobs = grid_jobs(read_configuration(config))
    main, scaled = (jobs.cells[out] for out in jobs.studies["msmae", "scaling"])
    assert main["scaling"] is None
    assert scaled["scaling"] == {"by": "session", "fit_on": "own"}
    (missing,), (plain,) = (jobs.studies["msmae", name] for name in ("missing", "plain"))
    assert jobs.cells[missing]["missing"] == main["missing"] == [0, 5]
    assert jobs.cells[plain]["missing"] == []
    studies = {"scaling": {"vary": {"scaling": ["sessions-own"]}, "models": ["svm"]}}
    with pytest.raises(GridError, match="by: expected 'window', 'band'"):
        read_configuration(with_experiment(studies=studies))


def test_the_order_of_varied_parameters_does_not_matter():
    "One combination written in two orders is one cell."
    studies = {
        "one": {"vary": {"C": [2.0], "trials_per_class": [1]}, "models": ["svm"]},
        "other": {"vary": {"trials_per_class": [1], "C": [2.0]}, "models": ["svm"]},
    }
    jobs = grid_jobs(read_configuration(with_experiment(studies=studies)))
    assert len(jobs.cells) == 2
    assert jobs.studies["msmae", "one"] == jobs.studies["msmae", "other"]


def test_files_of_a_large_shard_have_short_names():
    "A file's name has at most 255 characters; the 123 subjects of FACED would take more."
    data = {"FACED": {"twin": {"subjects": 123}, "subjects_per_job": 111}}
    models = {"svm": None, "small": {"model": "msmae", "layers": 1}}
    config = dict(name="large", data=data, experiments={"e": dict(models=models)})
    jobs = grid_jobs(read_configuration(config))
    files = [*jobs.cells, *jobs.weights, *jobs.batches]
    assert len(jobs.cells) == 4
    assert max(len(Path(file).name) for file in files) < 100
    assert any("sub-0-to-110-of-111-" in file for file in jobs.cells)
    assert any("sub-111-112-113-" in file for file in jobs.cells), "up to 12 are listed"


def test_a_view_keeps_the_cells_of_its_studies():
    jobs = grid_jobs(read_configuration(STUDIED | dict(experiments=VIEWED)))
    (view,) = jobs.views.values()
    spec = ViewSpec(**view)
    assert list(spec.cells) == ["small", "vit_1x1", "FACED", "1"]
    assert spec.cells["FACED"].pretrain_on.name == "FACED"
    assert spec.cells["1"].options["trials_per_class"] == 1


def test_a_paper_alone_is_an_experiment():
    grid = read_configuration(with_experiment() | dict(experiments={"msmae": {"paper": "msmae"}}))
    defined = PAPERS["msmae"].experiments
    assert list(grid.experiments["msmae"].models) == list(defined["models"])
    assert grid.experiments["msmae"].protocol == defined["protocol"]
    assert grid.experiments["msmae"].missing == defined["missing"]


@pytest.mark.parametrize("text", ["a: " + "[" * 3000, "t: 2020-13-45"])
def test_deep_and_impossible_yaml_names_its_file(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(GridError, match=r"bad\.yaml"):
        read_configuration(tmp_path / "bad.yaml")


@pytest.mark.parametrize("text", ["[]", "5", "{}", '{"names": {"subject": 1}}', "{", ""])
def test_a_stored_fold_of_another_kind_is_made_again(tmp_path, text):
    class Fold:
        names = {"subject": 1}

    store = FoldStore(tmp_path)
    store.path(Fold).write_text(text)
    assert store.load(Fold) is None


# Cells of a small twin


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    "Features of one subject of a SYNTHETIC twin."
    root = tmp_path_factory.mktemp("features")
    write_twin("SEED", root / "twin", subjects=1, seconds_per_trial=2, features=None)
    ds = open_dataset("SEED", root / "twin")
    write_features(ds, root / "de", feature="de_LDS", window_s=1.0, progress=False)
    return root / "de"


@pytest.fixture
def cell(features, tmp_path, monkeypatch):
    "A cell that computes in a second, in a repository without uncommitted changes."
    monkeypatch.setattr(cells, "_git_commit", lambda folder: "abc")
    monkeypatch.setattr(cells, "_uncommitted_changes", lambda folder: "")
    return CellSpec(dataset="SEED", features=features, model="svm", out=tmp_path / "r/svm.json")


def counted(monkeypatch, name):
    "Count the calls of a function of `run.cells`."
    real, calls = getattr(cells, name), []

    def call(*arguments):
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(cells, name, call)
    return calls


def test_a_finished_cell_is_only_read(cell, monkeypatch, capsys):
    first = run_cell(cell, progress=False)
    fits, loads = counted(monkeypatch, "fit_group"), counted(monkeypatch, "load_features")
    assert run_cell(cell, progress=False) == first
    refuse_other_result(cell)
    assert not fits
    assert not loads, "the list of files is enough"
    assert "svm.json: this cell is finished" in capsys.readouterr().err
    cell.out.unlink()
    run_cell(cell, progress=False)
    assert fits


@pytest.mark.parametrize("commit", ["def", "abc+"])
def test_a_cell_of_another_commit_is_computed_again(cell, monkeypatch, commit):
    run_cell(cell, progress=False)
    monkeypatch.setattr(cells, "_git_commit", lambda folder: commit)
    fits = counted(monkeypatch, "fit_group")
    assert run_cell(cell, progress=False).provenance.git == commit
    assert fits


def test_a_result_of_features_that_changed_is_not_finished(cell, features, tmp_path):
    shutil.copytree(features, tmp_path / "own")
    own = cell.model_copy(update={"features": tmp_path / "own"})
    run_cell(own, progress=False)
    assert cells.finished_cell(own)
    manifest = tmp_path / "own/features.json"
    content = json.loads(manifest.read_text())
    content["files"][0]["fingerprint"] = "0" * 16
    manifest.write_text(json.dumps(content))
    assert cells.finished_cell(own) is None
    with pytest.raises(ValueError, match="found that of other features"):
        refuse_other_result(own)


def test_predictions_of_another_run_make_a_cell_unfinished(cell):
    import pandas as pd

    run_cell(cell, progress=False)
    table = pd.read_parquet(predictions_path(cell.out))
    table.assign(p_0=0.5).to_parquet(predictions_path(cell.out), index=False)
    assert cells.finished_cell(cell) is None
    with pytest.raises(ValueError, match="damaged result"):
        refuse_other_result(cell)


def test_a_stored_fold_with_other_predictions_is_made_again(cell, monkeypatch):
    import pandas as pd

    folders = counted(monkeypatch, "_unfinished_folder")
    monkeypatch.setattr(FoldStore, "remove", lambda store: None)
    first = run_cell(cell, progress=False)
    folder = cells._unfinished_folder(*folders[0])
    victim = next(folder.glob("*.parquet"))
    table = pd.read_parquet(victim)
    table.assign(predicted=(table.predicted + 1) % 3).to_parquet(victim, index=False)
    cell.out.unlink()
    fits = counted(monkeypatch, "fit_group")
    again = run_cell(cell, progress=False)
    assert len(fits) == 1
    assert again.mean == first.mean


HOLD = """
import sys, time
from pathlib import Path
from emo_lib.run import cells

with cells.sole_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_processes_do_not_compute_one_result(repo, cell):
    line = [sys.executable, "-c", HOLD, cell.out]
    holder = subprocess.Popen(line, cwd=repo, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match="another process is computing") as caught:
            run_cell(cell, progress=False)
        assert str(cell.out) in str(caught.value)
        with pytest.raises(BlockingIOError):
            run_cells([cell], progress=False)
        other = cell.model_copy(update={"out": cell.out.with_name("other.json")})
        run_cell(other, progress=False)
    finally:
        holder.kill()
        holder.communicate()
    assert list((cell.out.parent / ".partial").glob("*.lock")), "a kill leaves the file"
    run_cell(cell, progress=False)
    assert not list((cell.out.parent / ".partial").iterdir())


def test_cells_whose_files_differ_in_case_only_are_refused(cell):
    upper = cell.model_copy(update={"out": cell.out.with_name("SVM.json"), "seed": 1})
    with pytest.raises(ValueError, match="SVM.json, .*svm.json more than once"):
        run_cells([cell, upper], progress=False)


@pytest.mark.parametrize("place", ["svm.json", "svm.predictions.parquet", ".partial", "models"])
def test_what_cannot_be_written_is_refused_before_the_data_are_read(cell, monkeypatch, place):
    "A folder in the place of a file, and a file in the place of a folder."
    wrong = cell.out.parent / place
    wrong.parent.mkdir()
    if place in (".partial", "models"):
        wrong.write_text("")
    else:
        wrong.mkdir()
    network = dict(model="dgcnn", hyper={"epochs": 1}, keep_models=cell.out.parent / "models")
    reads = counted(monkeypatch, "read_samples")
    with pytest.raises(OSError, match=place):
        run_cell(cell.model_copy(update=network), progress=False)
    assert not reads


def test_a_folder_is_no_file_for_a_result(cell, tmp_path):
    with pytest.raises(ValueError, match="found .*; add a file name"):
        CellSpec(**cell.model_dump() | {"out": tmp_path})
    with pytest.raises(IsADirectoryError, match="add a file name"):
        check_writable(tmp_path)


def test_absent_features_are_named(cell, tmp_path):
    absent = cell.model_copy(update={"features": tmp_path / "nothing"})
    with pytest.raises(FileNotFoundError, match="expected the folder of features.*nothing"):
        run_cell(absent, progress=False)


def test_a_name_among_the_hyper_parameters_is_one_line(features, tmp_path):
    line = [BIN / "emo", "cell", "--dataset", "SEED", "--features", features, "--model", "svm"]
    line += ["--out", tmp_path / "svm.json", "--hyper", '{"name": "dgcnn"}']
    run = subprocess.run(line, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: hyper: 'name' is no hyper-parameter")
    assert len(run.stderr.splitlines()) == 1
