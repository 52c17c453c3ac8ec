"""SEED's multimodal part and raw recordings, SEED-IV's eye features: faults and contents."""

import dataclasses
import io
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from damage import contents, write_mat
from damage import only_refusal as only
from damage import refusal as faults
from scipy.signal import lfilter

from emo_lib.base.facts import SPECS
from emo_lib.data.cnt import write_cnt
from emo_lib.data.datasets import LayoutError, open_dataset
from emo_lib.data.seed import SeedReader
from emo_lib.twins.twin import write_twin

SEED, IV = SPECS["SEED"], SPECS["SEED-IV"]
WINDOWS, PILES = SEED.windows(1, 4.0), {"train": slice(0, 9), "test": slice(9, 15)}


def write_eeg(path, eeg):
    np.savez(path, **{k: pickle.dumps(v, 2) if isinstance(v, dict) else v for k, v in eeg.items()})


def make_session(session, rng, windows=WINDOWS):
    "(EEG, eye) of one session, SYNTHETIC: the mean of a window is the number of its trial."
    eeg, eye = {}, {}
    for name, part in PILES.items():
        trial = np.repeat(np.arange(1, 16)[part], windows[part])
        eeg[f"{name}_data"] = {
            b: rng.normal(trial[:, None], 0.1, (len(trial), 62)) for b in SEED.bands
        }
        eeg[f"{name}_label"] = np.array(SEED.labels[session])[trial - 1]
        eye[f"{name}_data_eye"] = rng.normal(trial[:, None], 0.1, (len(trial), 33))
    return eeg, eye


def make_part(root, subjects=(2,), windows=WINDOWS):
    "SEED_Multimodal of some subjects."
    eegs, eyes = (
        root / "SEED_Multimodal" / "Chinese" / f
        for f in ("02-EEG-DE-feature/eeg_used_4s", "04-Eye-tracking-feature/eye_tracking_feature")
    )
    for f in (eegs, eyes):
        f.mkdir(parents=True)
    for subject in subjects:
        for s in (1, 2, 3):
            eeg, eye = make_session(s, np.random.default_rng([subject, s]), windows)
            write_eeg(eegs / f"{subject}_{s}.npz", eeg)
            (eyes / f"{subject}_{s}").write_bytes(pickle.dumps(eye, 2))
    return root


def make_dated(root, subject=2, n=WINDOWS, order=(0, 1, 2)):
    "ExtractedFeatures_4s of one subject."
    base, rng = root / "SEED_EEG" / "ExtractedFeatures_4s", np.random.default_rng(0)
    write_mat(base / "label.mat", {"label": np.array([SEED.labels[1]]) - 1})
    for s in (1, 2, 3):
        write_mat(
            base / f"{SEED.file_stems[s][subject - 1]}.mat",
            {
                f"de_LDS{t}": rng.normal(20, 1, (62, w, 5)).transpose(order)
                for t, w in enumerate(n, 1)
            },
        )
    return base


CHANNELS, STARTS = [*SEED.channels, *SEED.raw_drop], [1000 + 3000 * k for k in range(15)]


def times(starts=STARTS, length=2000):
    ends = [start + length for start in starts]
    return f"start_point_list = {list(starts)}  #1000Hz\nend_point_list = {ends}  #1000Hz\n"


def write_raw(path, seconds=47, channels=CHANNELS, sfreq=1000, seed=0):
    noise = np.random.default_rng(seed).standard_normal((len(channels), sfreq * seconds))
    write_cnt(path, 2 * lfilter([1], [1, -0.99], noise), channels, sfreq, n_bits=16)


def make_raw(root, subject=2):
    folder = root / "SEED_EEG" / "SEED_RAW_EEG"
    folder.mkdir(parents=True)
    (folder / "time.txt").write_text(times())
    for s in (1, 2, 3):
        write_raw(folder / f"{subject}_{s}.cnt", seed=s)
    return root


def make_iv(root, subject=13, n=lambda t: 2 + t % 3):
    rng = np.random.default_rng(0)
    for s in (1, 2, 3):
        name = f"{IV.file_stems[s][subject - 1]}.mat"
        write_mat(
            root / "eeg_feature_smooth" / str(s) / name,
            {f"de_LDS{t}": rng.normal(20, 1, (62, n(t), 5)) for t in range(1, 25)},
        )
        write_mat(
            root / "eye_feature_smooth" / str(s) / name,
            {f"eye_{t}": rng.normal(size=(31, n(t))) for t in range(1, 25)},
        )
    return root


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    d = tmp_path_factory.mktemp("downloads")
    return dict(part=make_part(d / "part"), raw=make_raw(d / "raw"), iv=make_iv(d / "iv"))


@pytest.fixture
def part(pristine, tmp_path):
    return Path(shutil.copytree(pristine["part"], tmp_path / "part"))


@pytest.fixture
def raw(pristine, tmp_path):
    return Path(shutil.copytree(pristine["raw"], tmp_path / "raw")) / "SEED_EEG" / "SEED_RAW_EEG"


@pytest.fixture
def iv(pristine, tmp_path):
    return Path(shutil.copytree(pristine["iv"], tmp_path / "iv"))


def npz(root, name):
    return root / "SEED_Multimodal/Chinese/02-EEG-DE-feature/eeg_used_4s" / f"{name}.npz"


def eye(root, name):
    return root / "SEED_Multimodal/Chinese/04-Eye-tracking-feature/eye_tracking_feature" / name


def eye_mat(root, s):
    return root / "eye_feature_smooth" / str(s) / f"{IV.file_stems[s][12]}.mat"


def deep(name, root):
    "All problems of the reader, also those of the data; here the data are noise, not EEG."
    return open_dataset(name, root, strict=False).problems(deep=True)


def change_npz(path, **new):
    "Write the EEG file again with some entries replaced (None: left out)."
    with np.load(path) as z:
        data = {k: pickle.loads(z[k].item()) if z[k].dtype.kind == "S" else z[k] for k in z.files}
    write_eeg(path, {k: v for k, v in (data | new).items() if v is not None})


def load_eeg(path):
    with np.load(path) as z:
        return {k: pickle.loads(z[k].item()) if z[k].dtype.kind == "S" else z[k] for k in z.files}


def change_eye(path, **new):
    path.write_bytes(
        pickle.dumps(
            {k: v for k, v in (pickle.loads(path.read_bytes()) | new).items() if v is not None}, 2
        )
    )


# ---- the multimodal part


@pytest.mark.parametrize("below", ["", "SEED_Multimodal", "SEED_Multimodal/Chinese"])
def test_whole_part_from_three_roots(part, below):
    ds = open_dataset("SEED", part / below)
    assert ds.problems(deep=True) == []
    assert ds.subjects == [2]
    assert ds.sessions(2) == [1, 2, 3]
    assert ds.available_features() == ["de"]
    assert ds.window_lengths() == [4.0]
    fs = ds.features("de")
    assert fs.sizes["window"] == 3 * sum(WINDOWS)
    assert fs.attrs["window_s"] == 4
    assert tuple(fs.eye_feature.values) == SEED.eye
    for x in (fs.eeg.mean(("channel", "band")), fs.eye.mean("eye_feature")):
        assert (np.rint(x) == fs.trial).all()
    assert np.allclose(
        fs.eeg.sel(band="alpha")[:499], load_eeg(npz(part, "2_1"))["train_data"]["alpha"]
    )
    assert "499 and 343 windows" in fs.attrs["trial_cut"]
    assert "published" in fs.attrs["trial_cut"]
    assert "eye" not in ds.features("de", eye=False)


@pytest.mark.parametrize(
    "spoil, found",
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-3000]), "truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[:1000]), "truncated"),
        (lambda p: p.write_bytes(b""), "empty file (0 bytes)"),
        (lambda p: p.write_text("<html>404 Not Found</html>"), "no .npz"),
        (lambda p: p.write_bytes(b"\x93NUMPY" + bytes(200)), "no .npz"),
        (lambda p: change_npz(p, test_label=None), "no entry test_label"),
        (lambda p: change_npz(p, train_data=None), "no entry train_data"),
        (lambda p: change_npz(p, train_data=np.zeros((499, 310))), "ndarray in train_data"),
        (lambda p: change_npz(p, train_data={"delta": np.zeros((499, 62))}), "delta in train_data"),
        (
            lambda p: change_npz(p, train_data={b: np.zeros((499, 61)) for b in SEED.bands}),
            "(499, 61)",
        ),
        (
            lambda p: change_npz(
                p, train_data=load_eeg(p)["train_data"] | {"beta": np.zeros((400, 62))}
            ),
            "(400, 62), (499, 62)",
        ),
        (
            lambda p: change_npz(
                p, test_data={b: np.array([["x"] * 62] * 343) for b in SEED.bands}
            ),
            "instead of numbers",
        ),
        (
            lambda p: change_npz(p, train_label=load_eeg(p)["train_label"][:-1]),
            "498 labels of 499 windows",
        ),
        (lambda p: change_npz(p, train_label=load_eeg(p)["train_label"] + 5), "labels"),
        (lambda p: change_npz(p, train_label=np.full(499, np.nan)), "labels"),
        (
            lambda p: change_npz(p, test_label=load_eeg(p)["test_label"][::-1]),
            "negative in window 500, which is of trial 10 (positive)",
        ),
        (
            lambda p: change_npz(p, train_label=np.roll(load_eeg(p)["train_label"], 1)),
            "positive in window 59, which is of trial 2 (neutral)",
        ),
        (
            lambda p: change_npz(
                p,
                train_data={b: np.zeros((0, 62)) for b in SEED.bands},
                train_label=np.zeros(0, int),
                test_data={b: np.zeros((0, 62)) for b in SEED.bands},
                test_label=np.zeros(0, int),
            ),
            "0 windows",
        ),
    ],
)
def test_spoilt_eeg_file(part, spoil, found):
    path = npz(part, "2_2")
    spoil(path)
    p = only("SEED", part)
    assert p.path == str(path) and found in p.found, str(p)
    ds = open_dataset("SEED", part, strict=False)
    assert ds.features("de").sizes["window"] == 2 * sum(WINDOWS)
    assert ds.summary().faulty.sum() == 1


@pytest.mark.parametrize(
    "spoil, found",
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-10]), "truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[:100]), "truncated"),
        (lambda p: p.write_bytes(b""), "empty file (0 bytes)"),
        (lambda p: p.write_text("<html>404 Not Found</html>"), "no pickle"),
        (lambda p: p.write_bytes(pickle.dumps([1, 2])), "no dict but a list"),
        (lambda p: change_eye(p, test_data_eye=None), "no entry test_data_eye"),
        (lambda p: change_eye(p, train_data_eye=np.zeros((499, 31))), "(499, 31)"),
        (lambda p: change_eye(p, train_data_eye=np.zeros((33, 499))), "(33, 499)"),
        (lambda p: change_eye(p, train_data_eye=np.zeros(499)), "(499,)"),
    ],
)
def test_spoilt_eye_file(part, spoil, found):
    path = eye(part, "2_2")
    spoil(path)
    p = only("SEED", part)
    assert p.path == str(path) and found in p.found, str(p)
    ds = open_dataset("SEED", part, strict=False)
    assert "eye" in ds.features("de", sessions=[1, 3])
    assert "eye" not in ds.features("de", sessions=2)
    assert "subject 2 session 2" in ds.features("de").attrs["eye_note"]


@pytest.mark.parametrize("less", [1, 40])
def test_piles_of_other_sizes_are_refused_with_both_numbers(part, less):
    "One cannot tell which trial lost a window."
    change_eye(eye(part, "2_1"), test_data_eye=np.zeros((343 - less, 33)))
    p = only("SEED", part)
    assert p.path == str(eye(part, "2_1"))
    assert "499 windows of trials 1 to 9 and 343 windows of trials 10 to 15" in p.expected
    assert f"{343 - less} windows of trials 10 to 15" in p.found
    eye(part, "2_1").write_bytes(eye(part, "2_2").read_bytes())
    data = load_eeg(npz(part, "2_3"))
    change_npz(
        npz(part, "2_3"),
        train_data={b: x[:-less] for b, x in data["train_data"].items()},
        train_label=data["train_label"][:-less],
    )
    (p,) = (p for p in faults("SEED", part) if p.path.endswith("npz"))
    assert p.path == str(npz(part, "2_3"))
    assert "499 windows" in p.expected
    assert f"{499 - less} windows" in p.found


def test_the_other_coding_of_labels(part):
    for s in (1, 2, 3):
        data = load_eeg(npz(part, f"2_{s}"))
        change_npz(npz(part, f"2_{s}"), **{k: data[k] - 1.0 for k in ("train_label", "test_label")})
    fs = open_dataset("SEED", part).features("de")
    assert fs.attrs["label_coding"] == "-1 to 1"
    assert fs.label.groupby(fs.trial).first().values.tolist() == list(SEED.labels[1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_the_part(part, value):
    data, eyes = (
        load_eeg(npz(part, "2_1"))["train_data"],
        pickle.loads(eye(part, "2_3").read_bytes())["test_data_eye"],
    )
    data["gamma"][60, 3] = eyes[-1, 5] = value
    change_npz(npz(part, "2_1"), train_data=data)
    change_eye(eye(part, "2_3"), test_data_eye=eyes)
    ds = open_dataset("SEED", part)
    problems = {p.path: p for p in ds.problems(deep=True)}
    assert (
        set(problems)
        == {str(npz(part, "2_1")), str(eye(part, "2_3"))}
        == {p.path for p in deep("SEED", part)}
    )
    assert "trial 2" in problems[str(npz(part, "2_1"))].found
    assert "trial 15" in problems[str(eye(part, "2_3"))].found
    with pytest.raises(LayoutError, match="1 NaN or infinite values in de, trial 2"):
        ds.features("de", sessions=1)
    with pytest.raises(LayoutError, match="NaN") as e:
        ds.features("de", sessions=3)
    assert e.value.problems[0].path == str(eye(part, "2_3"))
    assert ds.features("de", sessions=3, eye=False).sizes["window"] == sum(WINDOWS)


class Evil:
    def __init__(self, where):
        self.where = where

    def __reduce__(self):
        return os.system, (f"touch '{self.where}'",)


def test_a_malicious_pickle_does_nothing(part, tmp_path):
    "In the eyes, in the pickled entry of an npz, and as an object array in it."
    mark = tmp_path / "it_ran"
    change_eye(eye(part, "2_1"), train_data_eye=Evil(mark))
    change_npz(npz(part, "2_2"), train_data={"delta": Evil(mark)})
    change_npz(npz(part, "2_3"), test_data=np.array([Evil(mark)], dtype=object))
    ps = faults("SEED", part)
    assert {p.path for p in ps} == {
        str(eye(part, "2_1")),
        str(npz(part, "2_2")),
        str(npz(part, "2_3")),
    }
    assert all("system" in p.found for p in ps)
    deep("SEED", part)
    assert not mark.exists()


def test_bombs(part):
    "Nested lists, and a gigabyte of zeros in a zip of some megabytes: refused before unpacking."
    bomb = []
    for _ in range(40):
        bomb = [bomb] * 10
    eye(part, "2_1").write_bytes(pickle.dumps(bomb))
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, dict(descr="|S1140850688", fortran_order=False, shape=())
    )
    with (
        zipfile.ZipFile(npz(part, "2_2"), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z,
        z.open("train_data.npy", "w", force_zip64=True) as f,
    ):
        f.write(head.getvalue())
        for _ in range(68):
            f.write(bytes(2**24))
    ps = {p.path: p.found for p in faults("SEED", part)}
    assert len(ps) == 2
    assert "bomb" in ps[str(eye(part, "2_1"))]
    assert "bomb" in ps[str(npz(part, "2_2"))]


def test_a_part_that_changes_while_it_is_used(part):
    ds = open_dataset("SEED", part)
    npz(part, "2_1").write_bytes(b"PK")
    eye(part, "2_2").unlink()
    shutil.copy(npz(part, "2_2"), npz(part, "2_3"))
    with pytest.raises(LayoutError, match="no .npz") as e:
        ds.features("de", sessions=1)
    assert e.value.problems[0].path == str(npz(part, "2_1"))
    with pytest.raises(LayoutError, match="cannot be read") as e:
        ds.features("de", sessions=2)
    assert e.value.problems[0].path == str(eye(part, "2_2"))


def test_missing_and_duplicated_sessions_of_the_part(part):
    npz(part, "2_3").unlink()
    p = only("SEED", part)
    assert p.path == str(npz(part, "2_3").parent)
    assert "no session 3" in p.found
    assert "2_3.npz" in p.fix
    shutil.copy(npz(part, "2_1"), npz(part, "2_3"))
    shutil.copy(eye(part, "2_1"), eye(part, "2_2"))
    assert (
        open_dataset("SEED", part).problems() == []
    )  # the films and their order are the same in all sessions
    ps = deep("SEED", part)
    assert {p.path for p in ps} == {str(npz(part, "2_3")), str(eye(part, "2_2"))}
    assert all("same content as" in p.found for p in ps)
    eye(part, "2_1").unlink()
    p = only("SEED", part)
    assert "no session 1" in p.found
    assert "released as 2_1)" in p.fix


def test_names_of_the_part(part):
    for name in ("16_1", "2_4", "2_1 (1)"):
        shutil.copy(npz(part, "2_1"), npz(part, name))
        shutil.copy(eye(part, "2_1"), eye(part, name))
    for name in (".DS_Store", "._2_1", "reading_eye_feature.py", "readme.txt"):
        eye(part, name).write_text("x")
        (npz(part, "x").parent / name).write_text("x")
    ps = faults("SEED", part)
    assert len(ps) == 6
    assert all("{subject}_{session}" in p.expected for p in ps)
    assert {Path(p.path).name for p in ps} == {
        f"{n}{s}" for n in ("16_1", "2_4", "2_1 (1)") for s in ("", ".npz")
    }


def test_eye_features_alone_are_reported(part):
    shutil.rmtree(npz(part, "x").parent.parent)
    p = only("SEED", part)
    assert p.found == "eye features only"
    assert p.path == str(part)


def test_all_faults_of_the_part_in_one_pass(part):
    npz(part, "2_1").write_bytes(b"")
    change_npz(npz(part, "2_2"), train_label=None)
    change_eye(eye(part, "2_1"), train_data_eye=np.zeros((499, 32)))
    eye(part, "2_2").unlink()
    shutil.copy(eye(part, "2_3"), eye(part, "7_9"))
    planted = {
        (npz(part, "2_1"), "empty"),
        (npz(part, "2_2"), "no entry"),
        (eye(part, "2_1"), "(499, 32)"),
        (eye(part, "x").parent, "no session 2"),
        (eye(part, "7_9"), "7_9"),
    }
    ps = faults("SEED", part)
    assert len(ps) == 5 and all(
        any(p.path == str(path) and words in p.found for p in ps) for path, words in planted
    ), list(map(str, ps))


# ---- its eyes beside the dated 4-s features


@pytest.mark.parametrize(
    "order, said",
    [
        ((0, 1, 2), "channel, window, band: only the third axis"),
        ((0, 2, 1), "channel, band, window: only the second axis"),
    ],
)
def test_the_order_of_axes_is_found_and_noted(part, order, said):
    base = make_dated(part, order=order)
    ds = open_dataset("SEED", part)
    assert ds.available_features() == ["de", "de_LDS"]
    assert ds.window_lengths() == [4.0]
    fs = ds.features("de_LDS")
    raw = contents(base / f"{SEED.file_stems[2][1]}.mat")["de_LDS7"]
    one = fs.sel(window=(fs.session == 2) & (fs.trial == 7))
    assert fs.attrs["axis_order"].startswith(said)
    assert np.allclose(one.eeg, np.moveaxis(raw, 1 if order[1] == 1 else 2, 0))
    assert (np.rint(fs.eye.mean("eye_feature")) == fs.trial).all()
    assert len(ds.files(2, 1)) == 3
    assert len(ds.files(2, 1, kinds=("eye",))) == 1
    assert (ds.features("de").eye == fs.eye).all()


def test_one_window_more_is_cut_and_noted_many_are_refused(part):
    make_dated(part, n=tuple(w + (t == 3) for t, w in enumerate(WINDOWS, 1)))
    ds = open_dataset("SEED", part)
    fs = ds.features("de_LDS", sessions=2)
    assert fs.sizes["window"] == sum(WINDOWS)
    assert (
        fs.attrs["eye_cut"]
        == f"trial 3: {WINDOWS[2] + 1} windows of EEG, {WINDOWS[2]} of the eye, cut to {WINDOWS[2]}"
    )
    assert (np.rint(fs.eye.mean("eye_feature")) == fs.trial).all()
    shutil.rmtree(part / "SEED_EEG")
    make_dated(part, n=tuple(w + 9 * (t == 3) for t, w in enumerate(WINDOWS, 1)))
    ps = faults("SEED", part)
    assert [p.path for p in ps] == [str(eye(part, f"2_{s}")) for s in (1, 2, 3)]
    assert all(f"{WINDOWS[2]} against {WINDOWS[2] + 9}" in p.found for p in ps)
    ds = open_dataset("SEED", part, strict=False)
    assert "eye" not in ds.features("de_LDS")
    assert "eye" in ds.features("de")  # the part's own windows still fit


def test_sessions_that_changed_places(part):
    "The films are the same each day: only the windows tell that a file is of another day."
    base = make_dated(part)
    for s in (1, 2, 3):
        data, noise = load_eeg(npz(part, f"2_{s}")), np.random.default_rng(s)
        x = np.concatenate(
            [np.stack([data[f"{k}_data"][b] for b in SEED.bands], -1) for k in PILES]
        )
        smooth = np.split(
            (x + noise.normal(0, 0.1, x.shape)).transpose(1, 0, 2), np.cumsum(WINDOWS)[:-1], 1
        )
        write_mat(
            base / f"{SEED.file_stems[s][1]}.mat",
            {f"de_LDS{t}": y for t, y in enumerate(smooth, 1)},
        )
    for s in (1, 2, 3):  # what all days share must not hide it
        data = load_eeg(npz(part, f"2_{s}"))
        trial = {k: np.repeat(np.arange(1, 16)[p], WINDOWS[p])[:, None] for k, p in PILES.items()}
        change_npz(
            npz(part, f"2_{s}"),
            **{
                f"{k}_data": {b: x - trial[k] * 0.99 for b, x in data[f"{k}_data"].items()}
                for k in PILES
            },
        )
        path = base / f"{SEED.file_stems[s][1]}.mat"
        write_mat(path, {k: x - 0.99 * int(k[6:]) for k, x in contents(path).items()})
    assert deep("SEED", part) == []
    a, b = npz(part, "2_1"), npz(part, "2_3")
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)
    ps = deep("SEED", part)
    assert [p.path for p in ps] == [str(a), str(b)]
    assert "follow session 3" in ps[0].found
    assert "follow session 1" in ps[1].found


def test_short_trials_are_cut_by_the_lengths_of_other_files(tmp_path):
    "A twin's trials are short; the piles are explained by the session's own features or refused."
    n = tuple(2 + t % 4 for t in range(15))
    make_part(tmp_path, windows=n)
    make_dated(tmp_path, n=n)
    ds = open_dataset("SEED", tmp_path)
    fs = ds.features("de")
    assert "by the lengths of the trials in ExtractedFeatures_4s" in fs.attrs["trial_cut"]
    assert (np.rint(fs.eeg.mean(("channel", "band"))) == fs.trial).all()
    assert fs.sizes["window"] == 3 * sum(n)
    shutil.rmtree(tmp_path / "SEED_EEG")
    make_dated(tmp_path, n=n[::-1])
    ps = faults("SEED", tmp_path)
    assert {p.path for p in ps} == {
        str(f(tmp_path, f"2_{s}")) for f in (npz, eye) for s in (1, 2, 3)
    }
    assert all(
        "published lengths" in p.expected and "ExtractedFeatures_4s" in p.expected for p in ps
    )


def test_subjects_without_eyes_are_no_fault(part):
    make_dated(part)
    make_dated(part, subject=6)
    ds = open_dataset("SEED", part)
    assert ds.subjects == [2, 6]
    assert set(ds.features("de").subject.values) == {2}
    fs = ds.features("de_LDS")
    assert set(fs.subject.values) == {2, 6}
    assert "eye" not in fs
    assert "subject 6" in fs.attrs["eye_note"]
    with pytest.raises(ValueError, match="subject 6; there are: 2"):
        ds.features("de", subjects=6)


# ---- raw recordings


def test_whole_recordings(raw):
    ds = open_dataset("SEED", raw.parent.parent)
    assert ds.problems(deep=True) == []
    assert ds.subjects == [2]
    assert ds.sessions(2) == [1, 2, 3]
    assert ds.provenance == "synthetic"
    r = list(ds.recordings())[1]
    assert r.path == raw / "2_2.cnt"
    assert (r.subject, r.session, r.dataset) == (2, 2, "SEED")
    assert r.labels == SEED.labels[2]
    assert r.clips == SEED.clips[2]
    assert r.bounds == tuple((s / 1000, s / 1000 + 2) for s in STARTS)
    assert r.drop == SEED.raw_drop
    assert "differs from the published bounds" in r.evidence
    assert ds.summary()["raw"].sum() == 3
    assert open_dataset("SEED", raw.parent).subjects == [2]


@pytest.mark.parametrize(
    "text, found",
    [
        (None, "no such file"),
        ("", "0 numbers"),
        ("<html>404 Not Found</html>", "1 numbers"),
        (times(STARTS[:-1]), "28 numbers"),
        (times() * 2, "60 numbers"),
        (times(STARTS, -500), "no trials one after the other"),
        (times(STARTS[::-1]), "no trials one after the other"),
        (times([s // 1000 for s in STARTS], 2), "not seconds"),
        ("\0\xff" * 50, "0 numbers"),
    ],
)
def test_time_file(raw, text, found):
    path = raw / "time.txt"
    path.unlink() if text is None else path.write_bytes(text.encode("latin1"))
    ps = {p.path: p for p in faults("SEED", raw.parent)}
    assert found in (ps[str(path)].found + ps[str(path)].fix)
    assert "15 starts" in ps[str(path)].expected
    assert all(
        "ends" in ps[str(raw / f"2_{s}.cnt")].expected for s in (1, 2, 3)
    )  # the published bounds reach beyond these short recordings


def test_published_bounds_stand_in_for_a_missing_time_file(raw):
    short = dataclasses.replace(
        SEED,
        raw_bounds={s: tuple((3 * k + 1.0, 3 * k + 3.0) for k in range(15)) for s in (1, 2, 3)},
    )
    assert (
        "agrees with the published bounds"
        in next(SeedReader(raw.parent, short).recordings()).evidence
    )
    (raw / "time.txt").unlink()
    ds = SeedReader(raw.parent, short)
    assert [p.path for p in ds.problems()] == [str(raw / "time.txt")]
    r = next(ds.recordings())
    assert r.bounds == short.raw_bounds[1]
    assert r.evidence == "the published bounds; time.txt could not be used (no such file)"


@pytest.mark.parametrize(
    "text",
    [
        "start\n{a}\nend\n{b}\n",
        "{a}\n{b}",
        "{pairs}",
        "Start (samples) End (samples)\n{pairs}",
        "BEGIN: {a} // 1000 Hz\nSTOP: {b}",
    ],
)
def test_other_forms_of_the_time_file(raw, text):
    a, b = STARTS, [s + 2000 for s in STARTS]
    (raw / "time.txt").write_text(
        text.format(
            a=", ".join(map(str, a)),
            b=" ".join(map(str, b)),
            pairs="\n".join(f"{x}\t{y}" for x, y in zip(a, b)),
        )
    )
    assert next(open_dataset("SEED", raw.parent).recordings()).bounds == tuple(
        (x / 1000, y / 1000) for x, y in zip(a, b)
    )


def put(path, at, form, value):
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, at, value)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil, found",
    [
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "truncated"),
        (lambda p: p.write_bytes(b""), "empty file (0 bytes)"),
        (lambda p: p.write_bytes(b"RIFF" + bytes(2000)), "version 3"),
        (lambda p: p.write_text("<html>404 Not Found</html>" * 100), "no Neuroscan recording"),
        (lambda p: put(p, 864, "<i", 0), "sample count 0"),
        (lambda p: put(p, 864, "<i", 999), "sample count 999"),
        (lambda p: write_raw(p, channels=CHANNELS[1:]), "without FP1"),
        (lambda p: write_raw(p, channels=["XX"] + CHANNELS[1:]), "without FP1"),
        (lambda p: write_raw(p, channels=["FPZ"] + CHANNELS), "twice: FPZ"),
        (lambda p: write_raw(p, sfreq=500), "500 Hz"),
        (lambda p: write_raw(p, seconds=30), "30 s"),
    ],
)
def test_spoilt_recording(raw, spoil, found):
    spoil(raw / "2_2.cnt")
    p = only("SEED", raw.parent)
    assert p.path == str(raw / "2_2.cnt") and found in p.found, str(p)
    ds = open_dataset("SEED", raw.parent, strict=False)
    assert [r.session for r in ds.recordings()] == [1, 3]
    with pytest.raises(ValueError, match="raw recordings of session 2; there are: 1, 3"):
        ds.recordings(sessions=2)


def test_channels_in_another_order_and_case(raw):
    write_raw(
        raw / "2_1.cnt", channels=[c.lower() if k % 2 else c for k, c in enumerate(CHANNELS[::-1])]
    )
    assert open_dataset("SEED", raw.parent).problems() == []


def test_sessions_and_names_of_recordings(raw):
    shutil.copy(raw / "2_1.cnt", raw / "2_3.cnt")
    (p,) = deep("SEED", raw.parent)
    assert p.path == str(raw / "2_3.cnt")
    assert p.found == f"same content as {raw / '2_1.cnt'}"
    (raw / "2_3.cnt").rename(raw / "2_4.cnt")
    (raw / "._2_1.cnt").write_text("x")
    a, b = faults("SEED", raw.parent)
    assert a.path == str(raw / "2_4.cnt")
    assert "{subject}_{session}.cnt" in a.expected
    assert "no session 3" in b.found
    assert "2_3.cnt" in b.fix


def test_recordings_of_the_part_are_used_when_there_are_no_others(raw, tmp_path):
    folder = tmp_path / "SEED_Multimodal" / "Chinese" / "01-EEG-raw"
    (tmp_path / "SEED_Multimodal" / "Chinese" / "02-EEG-DE-feature").mkdir(parents=True)
    shutil.copytree(raw, folder)
    assert {r.path.parent for r in open_dataset("SEED", tmp_path).recordings()} == {folder}
    shutil.copytree(raw, tmp_path / "SEED_EEG" / "SEED_RAW_EEG")
    assert {r.path.parent.name for r in open_dataset("SEED", tmp_path).recordings()} == {
        "SEED_RAW_EEG"
    }


def test_trials_as_long_as_the_preprocessed_ones(raw):
    base, rng = raw.parent / "Preprocessed_EEG", np.random.default_rng(0)
    write_mat(base / "label.mat", {"label": np.array([SEED.labels[1]]) - 1})
    for s in (1, 2, 3):
        write_mat(
            base / f"{SEED.file_stems[s][1]}.mat",
            {
                f"x_eeg{t}": rng.normal(0, 20, (62, 401 + 800 * ((s, t) == (2, 5))))
                for t in range(1, 16)
            },
        )
    p = only("SEED", raw.parent)
    assert p.path == str(raw / "2_2.cnt")
    assert "2 s against 6.005 s in trial 5" in p.found
    assert "Preprocessed_EEG" in p.expected


# ---- SEED-IV's eyes


def test_whole_eyes(iv):
    ds = open_dataset("SEED-IV", iv)
    assert ds.problems(deep=True) == []
    fs = ds.features("de_LDS")
    assert tuple(fs.eye_feature.values) == IV.eye
    assert len(IV.eye) == 31
    assert "eye_axes" not in fs.attrs
    assert ds.summary()["eye windows 4 s"].tolist() == [sum(2 + t % 3 for t in range(1, 25))] * 3
    one = fs.sel(window=(fs.session == 3) & (fs.trial == 20))
    assert np.allclose(one.eye, contents(eye_mat(iv, 3))["eye_20"].T)


def turned(path, keys=None):
    data = contents(path)
    write_mat(path, {k: x.T if keys is None or k in keys else x for k, x in data.items()})


def test_eyes_saved_windows_first(iv):
    before = open_dataset("SEED-IV", iv).features("de_LDS")
    turned(eye_mat(iv, 2))
    ds = open_dataset("SEED-IV", iv)
    fs = ds.features("de_LDS")
    assert (fs.eye == before.eye).all()
    assert '"13/2"' in fs.attrs["eye_axes"]
    assert "31 entries" in fs.attrs["eye_axes"]
    turned(eye_mat(iv, 1), {"eye_4"})
    p = only("SEED-IV", iv)
    assert p.path == str(eye_mat(iv, 1))
    assert "different orders" in p.found


def change_mat(path, **new):
    write_mat(path, {k: v for k, v in (contents(path) | new).items() if v is not None})


@pytest.mark.parametrize(
    "spoil, found",
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-1000]), "truncated"),
        (lambda p: p.write_bytes(b""), "empty file"),
        (lambda p: p.write_text("<html>404 Not Found</html>"), "no MATLAB 5 file"),
        (lambda p: p.write_bytes(b"MATLAB 7.3 MAT-file".ljust(600)), "HDF5"),
        (lambda p: p.write_bytes(p.read_bytes()[:128]), "no variables"),
        (lambda p: change_mat(p, eye_7=None), "no eye_7"),
        (lambda p: change_mat(p, eye_25=np.zeros((31, 3))), "also eye_25"),
        (lambda p: change_mat(p, eye_7="lost"), "no eye_7"),
        (lambda p: change_mat(p, eye_7=np.zeros((33, 3))), "(33, 3) in eye_7"),
        (lambda p: change_mat(p, eye_7=np.zeros((31, 3, 2))), "(31, 3, 2)"),
        (
            lambda p: shutil.copy(p.parent.parent.parent / "eeg_feature_smooth" / "2" / p.name, p),
            "no such key, but de_LDS1",
        ),
        (lambda p: change_mat(p, eye_7=np.zeros((31, 9))), "9 against 3 in session 2, trial 7"),
    ],
)
def test_spoilt_eyes(iv, spoil, found):
    spoil(eye_mat(iv, 2))
    p = only("SEED-IV", iv)
    assert p.path == str(eye_mat(iv, 2)) and found in p.found, str(p)
    ds = open_dataset("SEED-IV", iv, strict=False)
    assert "eye" not in ds.features("de_LDS", sessions=2)
    assert "eye" in ds.features("de_LDS", sessions=[1, 3])


def test_eyes_one_window_longer_or_shorter_are_cut_and_noted(iv):
    x = contents(eye_mat(iv, 1))
    change_mat(eye_mat(iv, 1), eye_7=np.c_[x["eye_7"], np.ones(31)], eye_8=x["eye_8"][:, :-1])
    fs = open_dataset("SEED-IV", iv).features("de_LDS", sessions=1)
    n = {7: 2 + 7 % 3, 8: 2 + 8 % 3 - 1}
    assert all(int((fs.trial == t).sum()) == k for t, k in n.items())
    assert (
        fs.attrs["eye_cut"] == "trial 7: 3 windows of EEG, 4 of the eye, cut to 3; "
        "trial 8: 4 windows of EEG, 3 of the eye, cut to 3"
    )
    assert np.allclose(fs.eye[(fs.trial == 7).values], x["eye_7"].T)
    assert (
        open_dataset("SEED-IV", iv).features("de_LDS", sessions=1, eye=False).sizes["window"]
        == fs.sizes["window"] + 1
    )


def test_nan_in_eyes(iv):
    x = contents(eye_mat(iv, 3))["eye_2"]
    x[30, 1] = np.nan
    change_mat(eye_mat(iv, 3), eye_2=x)
    ds = open_dataset("SEED-IV", iv)
    assert [p.path for p in ds.problems(deep=True)] == [str(eye_mat(iv, 3))]
    with pytest.raises(LayoutError, match="1 NaN or infinite values in trial 2"):
        ds.features("de_LDS")
    assert "eye" not in ds.features("de_LDS", eye=False)


def test_missing_and_doubled_eyes(iv):
    eye_mat(iv, 2).rename(eye_mat(iv, 1).with_name("13_20151125.mat"))
    ps = faults("SEED-IV", iv)  # two files in folder 1, none in folder 2
    assert {Path(p.path).name for p in ps} == {"1", "2"}
    assert any("2 files" in p.found for p in ps)
    (eye_mat(iv, 1).with_name("13_20151125.mat")).unlink()
    shutil.rmtree(iv / "eye_feature_smooth" / "2")
    p = only("SEED-IV", iv)
    assert p.path == str(iv / "eye_feature_smooth" / "2")
    assert p.found == "no such folder"
    shutil.rmtree(iv / "eye_feature_smooth")
    assert open_dataset("SEED-IV", iv).problems() == []  # no eyes at all is a smaller download


def test_copies_of_eyes(iv):
    shutil.copy(eye_mat(iv, 1), eye_mat(iv, 3))
    (p,) = deep("SEED-IV", iv)
    assert p.path == str(eye_mat(iv, 3))
    assert "same content as" in p.found


def test_only_eyes(iv):
    shutil.rmtree(iv / "eeg_feature_smooth")
    assert only("SEED-IV", iv).found == "eye features only"


def test_where_five_windows_meet_five_bands_the_user_says_which_axis_is_which(tmp_path):
    "Trials of 20 s give five windows of 4 s: refused with the remedy, then read as the user says."
    write_twin("SEED", tmp_path, subjects=1, seconds_per_trial=20, signals=False, eye=False)
    one_s, four = (
        tmp_path / "SEED_EEG/ExtractedFeatures_1s",
        tmp_path / "SEED_EEG/ExtractedFeatures_4s",
    )
    four.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    x = rng.normal(20, 2, (15, 62, 5, 5))
    for p in [p for p in one_s.glob("*.mat") if p.name != "label.mat"]:
        scipy.io.savemat(four / p.name, {f"de_LDS{t}": x[t - 1] for t in range(1, 16)})
    shutil.copy(one_s / "label.mat", four)
    assert all("bands_axis=1" in p.fix for p in faults("SEED", tmp_path))
    for axis, order in ((1, (2, 0, 1)), (2, (1, 0, 2))):
        fs = open_dataset("SEED", tmp_path, bands_axis=axis).features(
            "de_LDS", window_s=4, sessions=1
        )
        assert np.array_equal(fs.eeg.values[:5], x[0].transpose(order).astype("f4"))
        assert "it was said" in fs.attrs["axis_order"]
    with pytest.raises(ValueError, match="bands_axis: expected 1"):
        open_dataset("SEED", tmp_path, bands_axis=3)
