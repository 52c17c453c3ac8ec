"""Checks of whole downloads: faults are planted in a twin and must be the only ones reported.

The checks are explained in nbs/data/77_value_checks, 78_identity_checks and 80_checks.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
from bids_writer import write_recording

from emo_lib.base.facts import SPECS, Recording
from emo_lib.base.store import same_content
from emo_lib.data.checks import _check_labels, check
from emo_lib.data.cnt import write_cnt
from emo_lib.data.datasets import examine, make_reader, verify
from emo_lib.data.identity_checks import _describe_renumbering, _text_orders, check_duplicates
from emo_lib.data.value_checks import _looks_at_source, _raw_signals, look, signal_faults
from emo_lib.twins.twin import write_twin

pytestmark = pytest.mark.slow  # writes or reads whole twins

STEMS = SPECS["SEED"].file_stems
rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    "SEED with 12 subjects and trials of 4 s: enough subjects for a text order."
    root = tmp_path_factory.mktemp("many") / "SEED"
    write_twin(
        "SEED",
        root,
        subjects=12,
        seconds_per_trial=4,
        generation="old",
        features=("de_LDS",),
        eye=False,
    )
    return root


@pytest.fixture(scope="module")
def faced(tmp_path_factory):
    "FACED with 12 subjects, 0 to 11, and trials of 4 s."
    root = tmp_path_factory.mktemp("faced") / "FACED"
    write_twin("FACED", root, subjects=12, seconds_per_trial=4, features=("de",))
    return root


def linked(root, tmp_path):
    "A copy of a twin that costs no space: files are links, so replace them, never write in them."
    return Path(shutil.copytree(root, tmp_path / root.name, copy_function=os.link))


@pytest.fixture
def seed(many, tmp_path):
    return linked(many, tmp_path)


def signals(root, subject, session):
    return root / "Preprocessed_EEG" / f"{STEMS[session][subject - 1]}.mat"


def features(root, subject, session):
    return root / "ExtractedFeatures" / f"{STEMS[session][subject - 1]}.mat"


def change(path, f):
    "Replace each variable x of a .mat file by f(x); the header goes on saying SYNTHETIC."
    data = {k: f(x) for k, x in scipy.io.loadmat(path).items() if not k.startswith("__")}
    path.unlink()
    scipy.io.savemat(path, data)
    with open(path, "r+b") as g:
        g.write(b"MATLAB 5.0 MAT-file, SYNTHETIC".ljust(116))


def rename(folder, names):
    "Rename files of a folder all at once: names is {old: new}."
    for old in names:
        (folder / old).rename(folder / f"moving {old}")
    for old, new in names.items():
        (folder / f"moving {old}").rename(folder / new)


# ---- sound data


@pytest.mark.parametrize(
    "name, kw",
    [
        ("SEED", {}),
        ("SEED-IV", {}),
        ("SEED-V", {}),
        ("SEED-VII", {}),
        ("FACED", {}),
        ("SEED", dict(emotion=0, subject_effect=0, session_drift=0)),
        ("SEED-IV", dict(subject_effect=0, session_drift=0)),
    ],
)
def test_a_sound_twin_passes(name, kw, tmp_path):
    "Also one whose subjects are all alike, where no session can be distinguished."
    write_twin(name, tmp_path / name, subjects=2, seconds_per_trial=12, seed=3, **kw)
    table, problems, report = examine(name, tmp_path / name)
    looked = {r["check"]: r["looked_at"] for r in report}
    assert problems == [] and len(table) and all(r["faults"] == 0 for r in report)
    assert (
        looked["duplicates"]
        and looked["labels"]
        and looked["lengths"]
        and looked["released values"]
        and (looked["signals"] and looked["folders fit"] or name == "SEED-V")
    )


def test_many_subjects_pass(many, faced):
    assert verify("SEED", many)[1] == [] and verify("FACED", faced)[1] == []


@pytest.mark.skipif(
    not os.environ.get("EMO_BIDS_REAL"), reason="EMO_BIDS_REAL names no folder of real recordings"
)
def test_real_eeg_passes():
    table, problems, report = examine("BIDS", os.environ["EMO_BIDS_REAL"])
    assert problems == [] and {r["check"]: r["looked_at"] for r in report}["signals"] == len(table)


# ---- subjects sorted as text


def test_text_orders():
    assert list(_text_orders(range(1, 16))["names like 1_2013.mat"].values()) == [
        *range(10, 16),
        *range(1, 10),
    ]
    assert list(_text_orders(range(1, 16))["names like 1.mat"].values()) == [
        1,
        *range(10, 16),
        *range(2, 10),
    ]
    assert [
        f"{s}_x.mat" for s in _text_orders(range(1, 16))["names like 1_2013.mat"].values()
    ] == sorted(f"{s}_x.mat" for s in range(1, 16))
    assert [f"{s}.mat" for s in _text_orders(range(123))["names like 1.mat"].values()] == sorted(
        f"{s}.mat" for s in range(123)
    )
    assert (
        "exactly" not in _describe_renumbering({1: 2, 2: 1}, [range(1, 16)])
        and _describe_renumbering({1: 2, 2: 1}, [range(1, 16)]) == "1 holds 2, 2 holds 1"
    )


def renumber(root, order, folders=("Preprocessed_EEG", "ExtractedFeatures")):
    "Give subject `new` the files of subject `old`, dates included; order is {new: old}."
    for f in folders:
        rename(
            root / f,
            {
                f"{STEMS[s][old - 1]}.mat": STEMS[s][old - 1].replace(f"{old}_", f"{new}_", 1)
                + ".mat"
                for new, old in order.items()
                for s in STEMS
            },
        )


@pytest.mark.parametrize("sign, name", [("_", "names like 1_2013.mat"), (".", "names like 1.mat")])
def test_a_download_renumbered_in_the_order_of_text(sign, name, seed):
    order = dict(zip(range(1, 13), sorted(range(1, 13), key=lambda s: f"{s}{sign}")))
    renumber(seed, order)
    assert make_reader("SEED", seed).problems() == []  # to a reader it looks right
    problems = verify("SEED", seed)[1]
    assert {Path(p.path).parent.name for p in problems} == {
        "Preprocessed_EEG",
        "ExtractedFeatures",
    } and len(problems) == 2
    for p in problems:
        assert (
            "dates of other subjects" in p.found
            and f"exactly the order of sorting {name} as text" in p.found
            and "released numbers" in p.fix
        )
    assert f"2 holds {order[2]}" in problems[0].found


def test_two_exchanged_subjects_are_no_text_order(seed):
    renumber(seed, {2: 3, 3: 2})
    problems = verify("SEED", seed)[1]
    assert len(problems) == 2 and all(
        "2 holds 3, 3 holds 2" in p.found and "text" not in p.found for p in problems
    )


def test_unknown_dates_are_no_fault(seed):
    for f in ("Preprocessed_EEG", "ExtractedFeatures"):
        rename(seed / f, {f"{STEMS[s][4]}.mat": f"5_2099010{s}.mat" for s in STEMS})
    assert verify("SEED", seed)[1] == []


@pytest.mark.parametrize("guilty", ["EEG_Features", "Processed_data"])
def test_one_folder_renumbered_in_the_order_of_text(guilty, faced, tmp_path):
    "These names have no dates: the data must show it, and in which folder."
    root = linked(faced, tmp_path)
    order = dict(zip(range(12), sorted(range(12), key=str)))
    suffix = ".pkl.pkl" if guilty == "EEG_Features" else ".pkl"
    rename(
        root / "EEG_Features" / "DE" if guilty == "EEG_Features" else root / guilty,
        {f"sub{old:03d}{suffix}": f"sub{new:03d}{suffix}" for new, old in order.items()},
    )
    (p,) = verify("FACED", root)[1]
    assert (
        guilty in p.path
        and "2 holds 10, 3 holds 11, 4 holds 2" in p.found
        and "exactly the order of sorting names like 1.mat as text" in p.found
    )


def exchange(a, b):
    rename(a.parent, {a.name: b.name, b.name: a.name})


def test_features_of_another_subject(seed):
    for s in STEMS:
        exchange(features(seed, 2, s), features(seed, 3, s))
    (p,) = verify("SEED", seed)[1]
    assert (
        "other subjects fit better: 2 holds 3, 3 holds 2" in p.found
        and "text" not in p.found
        and "Preprocessed_EEG" in p.fix
        and "ExtractedFeatures" in p.fix
    )


def test_features_of_another_session(seed):
    exchange(features(seed, 4, 1), features(seed, 4, 2))
    (p,) = verify("SEED", seed)[1]
    assert "subject 4 session 1 is subject 4 session 2" in p.found


# ---- copies


def test_a_copy_under_another_subjects_name(seed):
    path = signals(seed, 5, 2)
    path.unlink()
    shutil.copy(signals(seed, 3, 1), path)
    problems = verify("SEED", seed)[1]
    copies = [p for p in problems if "same content" in p.found]
    assert len(copies) == 1 and {
        copies[0].path,
        copies[0].found.removeprefix("same content as "),
    } == {str(path), str(signals(seed, 3, 1))}
    assert all(
        "subject 5 session 2 is subject 3 session 1" in p.found for p in problems if p not in copies
    )  # the features say so too


@pytest.mark.parametrize("who, session", [(1, 2), (5, 1)])
def test_a_copy_that_was_saved_again_is_still_a_copy(seed, who, session):
    "The header of a MATLAB file has the time of writing: the bytes differ, the numbers do not."
    data = {
        k: v for k, v in scipy.io.loadmat(signals(seed, 1, 1)).items() if not k.startswith("__")
    }
    for path in (signals(seed, 1, 1), signals(seed, who, session)):
        path.unlink()
    scipy.io.savemat(signals(seed, 1, 1), data)
    scipy.io.savemat(signals(seed, who, session), data)
    with open(signals(seed, who, session), "r+b") as f:
        f.write(b"MATLAB 5.0 MAT-file, saved another day".ljust(116))
    assert signals(seed, 1, 1).read_bytes() != signals(seed, who, session).read_bytes()
    assert [
        p
        for p in verify("SEED", seed)[1]
        if "same content" in p.found
        and {p.path, p.found.split()[-1]}
        == {str(signals(seed, 1, 1)), str(signals(seed, who, session))}
    ]


def test_a_copy_under_another_sessions_name_is_reported_once(seed):
    for f in (signals, features):
        f(seed, 3, 2).unlink()
        shutil.copy(f(seed, 3, 1), f(seed, 3, 2))
    found = [(p.path, p.found) for p in verify("SEED", seed)[1]]
    assert sorted(found) == sorted(
        (str(f(seed, 3, 2)), f"same content as {f(seed, 3, 1)}") for f in (signals, features)
    )


def test_same_content_by_stages(tmp_path):
    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    a, b = (
        write("a", b"x" * 200_000),
        write("b", b"x" * 100_000 + b"y" + b"x" * 99_999),
    )  # equal size, head and tail
    c, d, e = write("c", b"x" * 200_000), write("d", b""), write("e", b"")
    assert same_content([a, b, c, d, e, tmp_path / "gone"]) == [[a, c], [d, e]]
    assert [p.path for p in check_duplicates([a, b, c])] == [str(c)]


# ---- signals that cannot be EEG


def tone(x):
    return 0.05 * x + 100 * np.sin(2 * np.pi * 50 * np.arange(x.shape[1]) / 200)


def noise(x):
    return rng.normal(0, 10, x.shape)


@pytest.mark.parametrize(
    "f, expected, found",
    [
        (lambda x: x * 1e-6, "microvolts", "these are volts"),
        (lambda x: x * 1e-3, "microvolts", "these are millivolts"),
        (lambda x: x * 1e6, "microvolts", "microvolts"),
        (noise, "falls with frequency", "a flat one"),
        (
            lambda x: np.diff(noise(x), axis=1, append=0),
            "falls with frequency",
            "rises with frequency",
        ),
        (tone, "besides the mains", "% of the power"),
        (lambda x: x.clip(*np.quantile(x, [0.1, 0.9])), "highest and lowest", "clipped"),
        (lambda x: 0 * x + 7, "channels that change", "constant"),
        (
            lambda x: np.where(np.arange(62)[:, None] < 40, 0, x),
            "channels that change",
            "more than half",
        ),
    ],
)
def test_signals_that_cannot_be_eeg(f, expected, found, seed):
    change(signals(seed, 7, 2), f)
    problems = verify("SEED", seed)[1]
    assert {p.path for p in problems} == {str(signals(seed, 7, 2))}
    assert any(expected in p.expected and found in p.found for p in problems), problems


def test_one_loose_electrode_is_no_fault(seed):
    change(
        signals(seed, 7, 2),
        lambda x: (
            np.where(np.arange(62)[:, None] < 3, 0, x)
            + np.where(np.arange(62)[:, None] == 9, tone(x) * 5, 0)
        ),
    )
    assert verify("SEED", seed)[1] == []


def test_a_clipped_recording(tmp_path):
    "The raw recordings of a session are looked at too, at the trials' places."
    names, n = [f"E{k}" for k in range(8)] + ["VEO"], 40_000
    shape = np.maximum(np.fft.rfftfreq(n, 1e-3), 0.5) ** -0.75

    def written(name, limit):
        x = np.fft.irfft(
            (rng.normal(size=(9, n // 2 + 1)) + 1j * rng.normal(size=(9, n // 2 + 1))) * shape, n
        )
        write_cnt(
            tmp_path / name, (20 * x / x.std(1, keepdims=True)).clip(-limit, limit), names, 1000.0
        )
        return Recording(
            path=tmp_path / name,
            subject=1,
            session=1,
            bounds=((2.0, 12.0), (15.0, 30.0)),
            labels=(0, 1),
            clips=(1, 2),
            drop=("VEO",),
            eog=("VEO",),
            provenance="synthetic",
            dataset="SEED",
            evidence="test",
        )

    def faults(r):
        return list(
            signal_faults([look(t, x, s, SPECS["SEED"].bands) for t, x, s in _raw_signals(r)])
        )

    assert [x.shape for _, x, _ in _raw_signals(written("eeg.cnt", 1000))] == [
        (8, 10_000),
        (8, 15_000),
    ]
    assert (
        faults(written("eeg.cnt", 1000)) == [] and "clipped" in faults(written("cut.cnt", 25))[0][1]
    )


def test_a_file_that_cannot_be_read_gives_no_look(seed):
    ds = make_reader("SEED", seed)
    source = next(s for s in ds.sources if s.kind == "signals")
    whole = source.path.read_bytes()
    source.path.unlink()
    source.path.write_bytes(whole[: len(whole) // 2])
    assert _looks_at_source(ds, source, source.sessions[0]) == []


# ---- released values, lengths, classes


def test_features_in_nats(seed):
    change(features(seed, 6, 3), lambda x: x * np.log(2) / 2 - 4)
    (p,) = verify("SEED", seed)[1]
    assert p.path == str(features(seed, 6, 3)) and "10 to 28" in p.expected and "nats" in p.fix


def test_constant_eye_features(tmp_path):
    write_twin("SEED-IV", tmp_path / "IV", subjects=1, seconds_per_trial=8, features=("de_LDS",))
    path = sorted((tmp_path / "IV" / "eye_feature_smooth" / "2").glob("*.mat"))[0]
    change(path, lambda x: 0 * x + 3)
    (p,) = verify("SEED-IV", tmp_path / "IV")[1]
    assert p.path == str(path) and "eye features that change" in p.expected


def test_trials_of_another_length_than_published(seed):
    "Signals and features agree with each other, but not with the published lengths."
    change(signals(seed, 8, 1), lambda x: np.concatenate([x, x[:, :400]], 1))
    change(features(seed, 8, 1), lambda x: np.concatenate([x, x[:, :2]], 1))
    problems = verify("SEED", seed)[1]
    assert {p.path for p in problems} == {
        str(signals(seed, 8, 1)),
        str(features(seed, 8, 1)),
    } and all("as published" in p.expected and "(15 trials differ)" in p.found for p in problems)


def test_lengths_of_a_real_download_are_those_of_the_facts(seed):
    "Without its marks a twin with trials of 4 s is a real download with wrong lengths."
    (seed / "TWIN.json").unlink()
    for p in seed.rglob("*_*.mat"):
        data = scipy.io.loadmat(p)
        p.unlink()
        scipy.io.savemat(p, {k: x for k, x in data.items() if not k.startswith("__")})
    ds = make_reader("SEED", seed)
    problems, report = check(ds, deep=False)
    assert (
        ds.provenance == "real"
        and len(problems) == 72
        and "235 seconds in trial 1, as published" in {p.expected for p in problems}
        and {"lengths": 72}.items() <= {r["check"]: r["faults"] for r in report}.items()
    )


def test_a_session_without_a_class(tmp_path):
    events = pd.DataFrame(
        dict(
            onset=[1.0, 8.0],
            duration=6.0,
            trial_type=["sad", "happy"],
            stim_file=["a.mp4", "b.mp4"],
        )
    )
    for s, e in (("1", events), ("2", events.assign(trial_type="sad"))):
        write_recording(
            tmp_path,
            "01",
            s,
            "01",
            rng.normal(0, 15, (4, 16 * 128)),
            ["F3", "F4", "O1", "AF7"],
            128,
            e,
        )
    (p,) = _check_labels(make_reader("BIDS", tmp_path))
    assert "ses-2" in p.path and p.path.endswith("_eeg.vhdr") and p.found == "none of happy"


def test_synthetic_data_that_are_no_twin_may_be_noise(seed):
    change(signals(seed, 7, 2), noise)
    record = json.loads((seed / "TWIN.json").read_text())
    (seed / "TWIN.json").unlink()
    (seed / "TWIN.json").write_text(json.dumps(record | {"generator": "my own"}))
    assert verify("SEED", seed)[1] == []


# ---- the command


def emo(*args):
    return subprocess.run(
        [Path(sys.executable).parent / "emo", *map(str, args)], capture_output=True, text=True
    )


def test_the_command_lists_every_planted_fault(seed):
    change(signals(seed, 7, 2), noise)
    change(features(seed, 6, 3), lambda x: x * 0.3)
    signals(seed, 5, 2).unlink()
    shutil.copy(signals(seed, 3, 1), signals(seed, 5, 2))
    run = emo("verify", "--dataset", "SEED", "--root", seed, "--json")
    said = json.loads(run.stdout)
    assert (
        run.returncode == 1
        and "Traceback" not in run.stderr
        and len(said["problems"]) == len(said["faults"])
    )
    assert {Path(p["path"]).name for p in said["faults"]} >= {
        signals(seed, 7, 2).name,
        features(seed, 6, 3).name,
        signals(seed, 5, 2).name,
    }
    assert all(set(p) == {"path", "expected", "found", "fix"} for p in said["faults"]) and {
        "duplicates",
        "signals",
        "lengths",
        "labels",
        "dates in names",
        "folders fit",
        "released values",
    } <= {r["check"] for r in said["checks"]}
    assert (
        sum(r["faults"] for r in said["checks"]) >= len(said["problems"])
        and len(said["summary"]) == 36
    )


def test_the_command_on_a_sound_twin(many):
    run = emo("verify", "--dataset", "SEED", "--root", many)
    assert run.returncode == 0 and "no faults" in run.stdout and "folders fit" in run.stdout
