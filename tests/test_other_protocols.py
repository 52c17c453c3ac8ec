"""Data without a second session end in a table: FACED, and a BIDS folder of one session."""

import numpy as np
import pandas as pd
import pytest
from bids_writer import write_recording
from click.testing import CliRunner

import emo_lib as emo
from emo_lib.cli.main import main

CHANNELS = ["F3", "F4", "Cz", "O1", "O2"]
RATE = 128


def run(*arguments):
    """The output of a command that must succeed."""
    done = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="emo")
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def faced(tmp_path_factory):
    """The features of a small twin of FACED."""
    folder = tmp_path_factory.mktemp("faced")
    emo.write_twin("FACED", folder / "FACED", subjects=4, seconds_per_trial=6)
    chosen = ["--dataset", "FACED", "--root", folder / "FACED"]
    run("features", *chosen, "--from", "released", "--feature", "de", "--out", folder / "features")
    return folder / "features"


@pytest.fixture(scope="module")
def one_session(tmp_path_factory):
    """SYNTHETIC: the features of a BIDS study with three subjects and one session."""
    folder = tmp_path_factory.mktemp("bids")
    onsets = 2.0 + 5.0 * np.arange(8)
    events = pd.DataFrame(
        dict(onset=onsets, duration=4.0, trial_type=["happy", "sad", "sad", "happy"] * 2)
    )
    rng = np.random.default_rng(0)
    for subject in ("01", "02", "03"):
        signal = 10 * rng.standard_normal((len(CHANNELS), 44 * RATE))
        for onset, kind in zip(onsets, events.trial_type):
            start = int(onset * RATE)
            signal[:, start : start + 4 * RATE] *= 1.5 if kind == "happy" else 1.0
        write_recording(folder / "bids", subject, "1", "01", signal, CHANNELS, RATE, events)
    chosen = ["--dataset", "BIDS", "--root", folder / "bids", "--window-s", 1]
    run("features", *chosen, "--out", folder / "features")
    return folder / "features"


def table_of(features, dataset, protocol, folder):
    """The page of a table with one model under one protocol."""
    out = folder / "results/svm.json"
    cell = ["--dataset", dataset, "--features", features, "--model", "svm", "--protocol", protocol]
    run("cell", *cell, "--out", out)
    return run("tables", folder / "results", "--table", "msmae.table2", "--reference", "none")


@pytest.mark.parametrize("protocol", ["loso", "subject_independent"])
def test_faced_ends_in_a_table(faced, protocol, tmp_path):
    page = table_of(faced, "FACED", protocol, tmp_path)
    assert "SYNTHETIC" in page
    assert emo.PROTOCOLS[protocol].title in page
    assert "paper, on real" not in page
    assert "Table II" not in page.splitlines()[0]


@pytest.mark.parametrize("protocol", ["trial_order", "loso", "loto"])
def test_a_bids_study_of_one_session_ends_in_a_table(one_session, protocol, tmp_path):
    page = table_of(one_session, "BIDS", protocol, tmp_path)
    assert "BIDS" in page
    assert emo.PROTOCOLS[protocol].title in page
    result = emo.load_results([tmp_path / "results"])[0]
    assert result.n_subjects == 3
    assert result.mean > 0.7  # the planted difference of power is plain


def test_cross_session_says_what_is_missing(one_session, tmp_path):
    cell = ["cell", "--dataset", "BIDS", "--features", one_session, "--model", "svm"]
    done = CliRunner().invoke(main, [str(a) for a in cell] + ["--out", str(tmp_path / "x.json")])
    assert done.exit_code == 1
    assert "no subject has two sessions" in done.output
