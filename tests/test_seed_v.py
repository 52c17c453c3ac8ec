"""SEED-V: every fault of a download is reported, and what is whole is read exactly."""

import os
import pickle
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from damage import complete, single

from emo_lib.base.errors import LayoutError
from emo_lib.base.facts import SPECS
from emo_lib.data.cnt import write_cnt
from emo_lib.data.seed_v import SeedVReader, as_read, decide_columns

V = SPECS["SEED-V"]
WIDTH = len(V.channels) * len(V.bands)
NAMES = (*V.channels, *V.raw_drop)


def de(n, rng, columns="band-channel", bands=(6, 3.5, 2, 1, 0)):
    "SYNTHETIC features."
    x = (
        rng.normal(18, 1, (n, len(V.channels), 1))
        + np.array(bands)
        + rng.normal(0, 1, (n, len(V.channels), len(V.bands)))
    )
    return (x if columns == "channel-band" else x.swapaxes(1, 2)).reshape(n, WIDTH)


def trials(make, lose=()):
    return {k: make(2 + k % 3) for k in range(45) if k not in lose}


def labels(data):
    return {k: np.full(len(x), V.labels[k // 15 + 1][k % 15]) for k, x in data.items()}


def write(path, data, label=None, dump=pickle.dumps):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, data=dump(data), label=dump(labels(data) if label is None else label))
    return data


def raw(path, seconds=3400, channels=NAMES, sfreq=20, **kw):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    x = np.cumsum(rng.normal(0, 5, (len(channels), seconds * sfreq)), 1)
    write_cnt(path, x - x.mean(1, keepdims=True), channels, sfreq, **kw)


def make(root, subjects=(2, 10)):
    rng = np.random.default_rng(0)
    for s in subjects:
        write(root / f"EEG_DE_features/{s}_123.npz", trials(lambda n: de(n, rng)))
        write(
            root / f"Eye_movement_features/{s}_123.npz", trials(lambda n: rng.normal(size=(n, 33)))
        )
    return root


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    return make(tmp_path_factory.mktemp("v") / "SEED-V")


@pytest.fixture
def root(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "SEED-V"))


def faults(root, **kw):
    return complete(SeedVReader(root, **kw).problems())


def only(root, **kw):
    return single(faults(root, **kw))


def load(path):
    with np.load(path) as z:
        return {k: pickle.loads(z[k].item()) for k in z.files}


# ---- whole


@pytest.mark.parametrize("columns", ["channel-band", "band-channel"])
@pytest.mark.parametrize(
    "dump",
    [
        pickle.dumps,
        lambda x: pickle.dumps(x, 0),
        lambda x: pickle.dumps(x, 2),
        lambda x: np.array(x, object),
    ],
)
def test_every_number_arrives(tmp_path, columns, dump):
    rng = np.random.default_rng(1)
    eeg = write(
        tmp_path / "EEG_DE_features/3_123.npz", trials(lambda n: de(n, rng, columns)), dump=dump
    )
    eye = write(
        tmp_path / "Eye_movement_features/3_123.npz",
        trials(lambda n: rng.normal(size=(n, 33)).astype("f4")),
        dump=dump,
    )
    ds = SeedVReader(tmp_path)
    assert not ds.problems(deep=True)
    fs = ds.features("de")
    for k, x in eeg.items():
        one = fs.sel(window=((fs.session == k // 15 + 1) & (fs.trial == k % 15 + 1)).values)
        want = (
            x.reshape(-1, 62, 5)
            if columns == "channel-band"
            else x.reshape(-1, 5, 62).swapaxes(1, 2)
        )
        assert np.array_equal(one.eeg, want.astype("f4"))
        assert np.array_equal(one.eye, eye[k])
        assert set(one.label.values) == {V.labels[k // 15 + 1][k % 15]}
        assert set(one["clip"].values) == {k + 1}
        assert one.start_s.values.tolist() == [4.0 * i for i in range(len(x))]
    assert fs.attrs["columns"].startswith(columns)
    assert "62 of 62" in fs.attrs["columns"]
    assert fs.provenance == "real"


def test_subjects_are_numbers(root):
    ds = SeedVReader(root)
    assert ds.subjects == [2, 10]
    assert ds.sessions(10) == [1, 2, 3]
    assert ds.window_lengths() == [4.0]
    assert ds.available_features() == ["de"]
    assert ds.features("de", subjects="10", sessions=2, eye=False).sizes["window"] == sum(
        2 + k % 3 for k in range(15, 30)
    )


# ---- files that cannot be read


@pytest.mark.parametrize(
    "spoil, found",
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-500]), "truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[: len(p.read_bytes()) // 2]), "truncated"),
        (lambda p: p.write_bytes(b""), "empty file (0 bytes)"),
        (lambda p: p.write_text("<html>404</html>"), "no .npz"),
        (lambda p: p.write_bytes(b"MATLAB 5.0 MAT-file".ljust(500)), "no .npz"),
        (lambda p: (p.unlink(), p.mkdir()), "cannot be read"),
        (lambda p: np.savez(p, label=pickle.dumps({})), "no entry data"),
        (lambda p: np.savez(p, x=1), "no entry data"),
        (lambda p: np.savez(p, data=np.zeros(3), label=np.zeros(3)), "data holds ndarray, no dict"),
        (lambda p: write(p, {"a": np.zeros((2, WIDTH))}, {}), "the keys 'a'"),
        (lambda p: write(p, {}), "none"),
        (lambda p: write(p, {0: [1, 2]}, {}), "no array of numbers"),
        (lambda p: write(p, {0: np.array(["x"])}, {}), "no array of numbers"),
        (lambda p: write(p, {True: np.zeros((2, WIDTH))}, {}), "the keys True"),
        (lambda p: np.savez(p, data=pickle.dumps(os.system), label=pickle.dumps({})), "system"),
        (
            lambda p: np.savez(
                p, data=b"\x80\x02]" + b"]" * 50 + b"a" * 50 + b".", label=pickle.dumps({})
            ),
            "bomb",
        ),
    ],
)
@pytest.mark.parametrize("where", ["EEG_DE_features", "Eye_movement_features"])
def test_unreadable(root, where, spoil, found):
    path = root / where / "10_123.npz"
    spoil(path)
    p = only(root)
    assert p.path == str(path)
    assert found in p.found
    ds = SeedVReader(root)
    assert len(ds.features("de").eeg)
    assert ds.subjects == ([2] if where.startswith("EEG") else [2, 10])


def test_labels_are_needed_with_eeg_only(root):
    for w in ("EEG_DE_features", "Eye_movement_features"):
        np.savez(root / w / "2_123.npz", data=pickle.dumps(load(root / w / "2_123.npz")["data"]))
    p = only(root)
    assert p.path.endswith("EEG_DE_features/2_123.npz")
    assert "no entry label" in p.found


def test_a_pickle_bomb_of_lists(root):
    x = []
    for _ in range(12):
        x = [x] * 10
    np.savez(root / "EEG_DE_features/2_123.npz", data=pickle.dumps({0: x}), label=pickle.dumps({}))
    assert "pickle bomb" in only(root).found


# ---- contents


@pytest.mark.parametrize(
    "change, found",
    [
        (lambda d, y: (d.pop(17), y.pop(17)), "no 17"),
        (lambda d, y: (d.update({45: d[0]}), y.update({45: y[0]})), "also 45"),
        (lambda d, y: y.pop(3), "differ in trial key 3"),
        (lambda d, y: d.update({3: d[3][:, :305]}), "305) in trial key 3"),
        (lambda d, y: d.update({3: d[3].T}), "(310, 2) in trial key 3"),
        (lambda d, y: d.update({3: d[3][:0]}), "(0, 310) in trial key 3"),
        (lambda d, y: d.update({3: d[3].reshape(-1, 62, 5)}), "62, 5) in trial key 3"),
        (lambda d, y: y.update({3: y[3][:1]}), "1 labels for 2 windows in trial key 3"),
        (lambda d, y: y.update({3: y[3] + 1}), "in trial key 3, where the release has 2 (sad)"),
        (lambda d, y: y.update({3: np.array([2.0, np.nan])}), "in trial key 3"),
        (lambda d, y: y.update({3: np.array([2, 1])}), "[1, 2] in trial key 3"),
    ],
)
def test_contents(root, change, found):
    path = root / "EEG_DE_features/2_123.npz"
    got = load(path)
    change(got["data"], got["label"])
    write(path, got["data"], got["label"])
    p = only(root)
    assert p.path == str(path)
    assert found in p.found


def test_61_channels_everywhere(root):
    for s in (2, 10):
        path = root / f"EEG_DE_features/{s}_123.npz"
        write(path, {k: x[:, :305] for k, x in load(path)["data"].items()})
    ps = faults(root)
    assert [p.path for p in ps] == [str(root / f"EEG_DE_features/{s}_123.npz") for s in (2, 10)]
    assert all("305" in p.found and "310" in p.expected for p in ps)


def test_eye_in_place_of_eeg(root):
    a, b = (root / w / "2_123.npz" for w in ("EEG_DE_features", "Eye_movement_features"))
    x = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(x)
    ps = {p.path: p for p in faults(root)}
    assert "33" in ps[str(a)].found
    assert "310" in ps[str(b)].found
    assert len(ps) == 2


def test_a_subject_without_session_2(root):
    for w in ("EEG_DE_features", "Eye_movement_features"):
        got = load(root / w / "10_123.npz")["data"]
        write(root / w / "10_123.npz", {k: x for k, x in got.items() if k // 15 != 1})
    ps = faults(root)
    assert len(ps) == 2
    assert all("subject 10" in p.expected and "no session 2" in p.found for p in ps)
    ds = SeedVReader(root)
    assert ds.sessions(10) == [1, 3]
    assert len(ds.features("de", subjects=10).eeg)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan(root, value):
    a, b = root / "EEG_DE_features/2_123.npz", root / "Eye_movement_features/10_123.npz"
    x, y = load(a)["data"], load(b)["data"]
    x[20][0, 7] = y[44][1, 0] = value
    write(a, x)
    write(b, y)
    ds = SeedVReader(root)
    assert ds.problems() == []
    ps = ds.problems(deep=True)
    assert {p.path for p in ps} == {str(a), str(b)}
    assert "session 2" in ps[0].found
    assert "trial 6" in ps[0].found
    with pytest.raises(LayoutError) as e:
        ds.features("de", subjects=2, sessions=2)
    assert e.value.problems[0].path == str(a)
    with pytest.raises(LayoutError) as e:
        ds.features("de", subjects=10, sessions=3)
    assert e.value.problems[0].path == str(b)
    assert len(ds.features("de", subjects=10, sessions=3, eye=False).eeg)


def test_windows_of_eye_and_eeg(root):
    path, whole = (
        root / "Eye_movement_features/2_123.npz",
        load(root / "Eye_movement_features/2_123.npz")["data"],
    )
    for more in (-1, 1):
        write(
            path,
            whole
            | {5: whole[5][:more] if more < 0 else np.concatenate([whole[5], whole[5][:1] + 1])},
        )
        ds = SeedVReader(root)
        fs = ds.features("de", subjects=2)
        assert not ds.problems()
        assert "trial 6" in fs.attrs["eye_cut"]
        assert fs.eye.shape == (fs.sizes["window"], 33)
        assert fs.sizes["window"] == sum(2 + k % 3 for k in range(45)) - (more < 0)
    write(path, whole | {5: np.concatenate([whole[5]] * 3)})
    p = only(root)
    assert p.path == str(path)
    assert "12 against 4 in session 1, trial 6" in p.found
    assert "eye" not in SeedVReader(root).features("de", subjects=2)


# ---- columns


def test_no_decision_refuses_and_can_be_overridden(tmp_path):
    rng = np.random.default_rng(0)
    for s in (1, 2):
        write(
            tmp_path / f"EEG_DE_features/{s}_123.npz", trials(lambda n: rng.normal(size=(n, WIDTH)))
        )
    ps = faults(tmp_path)
    assert len(ps) == 2
    assert all("no decision" in p.found and "columns='channel-band'" in p.fix for p in ps)
    for columns in ("channel-band", "band-channel"):
        ds = SeedVReader(tmp_path, columns=columns)
        assert not ds.problems()
        assert "given by the user" in ds.features("de").attrs["columns"]
    with pytest.raises(ValueError, match="expected 'channel-band' or 'band-channel'"):
        SeedVReader(tmp_path, columns="62x5")


def test_an_undecided_subject_follows_the_others_with_a_note(root):
    rng = np.random.default_rng(0)
    write(root / "EEG_DE_features/3_123.npz", trials(lambda n: rng.normal(size=(n, WIDTH))))
    ds = SeedVReader(root)
    assert not ds.problems()
    fs = ds.features("de", subjects=3, eye=False)
    assert fs.attrs["columns"].startswith("band-channel: taken from the 2 other files")


def test_files_that_contradict_each_other(root):
    rng = np.random.default_rng(0)
    write(root / "EEG_DE_features/3_123.npz", trials(lambda n: de(n, rng, "channel-band")))
    p = only(root)
    assert p.path.endswith("3_123.npz")
    assert "channel-band, where 2 files are band-channel" in p.found
    (root / "EEG_DE_features/10_123.npz").unlink()
    assert len(faults(root)) == 2  # one against one: nobody knows


def test_constant_columns_decide_nothing():
    assert decide_columns(np.zeros(WIDTH), 62, 5)[0] is None
    assert decide_columns(np.full(WIDTH, np.nan), 62, 5)[0] is None
    x = np.arange(WIDTH)[None]
    assert as_read(x, "channel-band", 62, 5)[0, 3, 2] == 17
    assert as_read(x, "band-channel", 62, 5)[0, 3, 2] == 127


# ---- copies


def test_copied_sessions(root):
    path = root / "EEG_DE_features/2_123.npz"
    got = load(path)["data"]
    write(
        path, got | {k + 15: got[k + 30] for k in range(15)}
    )  # session 3's numbers as session 2 too (and the labels are the same)
    p = only(root)
    assert p.path == str(path)
    assert "session 3 has the numbers of session 2" in p.found
    shutil.copy(root / "EEG_DE_features/10_123.npz", root / "EEG_DE_features/11_123.npz")
    p = [p for p in faults(root) if p.path.endswith("11_123.npz")]
    assert len(p) == 1
    assert "10_123.npz" in p[0].found


def test_names(root):
    (root / "EEG_DE_features/2_123 (1).npz").write_bytes(b"")
    (root / "EEG_DE_features/17_123.npz").write_bytes(b"")
    (root / "EEG_DE_features/._2_123.npz").write_bytes(b"")
    shutil.copy(root / "EEG_DE_features/2_123.npz", root / "EEG_DE_features/02_123.npz")
    found = [p.found for p in faults(root)]
    assert len(found) == 3
    assert "17_123.npz" in found
    assert "2_123 (1).npz" in found


def test_two_files_of_one_subject(root):
    rng = np.random.default_rng(5)
    write(root / "EEG_DE_features/02_123.npz", trials(lambda n: de(n, rng)))
    ps = faults(root)
    assert all("subject 2" in p.expected and "2 files" in p.found for p in ps)
    assert len(ps) == 3
    assert SeedVReader(root).subjects == [10]


@pytest.mark.parametrize(
    "where, fix",
    [("EEG_DE_features", "folder above"), ("..", "did you mean"), ("none", "give the folder")],
)
def test_wrong_folder(root, where, fix):
    p = SeedVReader((root / where).resolve()).problems()[0]
    assert fix in p.fix
    assert "SEED-V" in p.expected
    (root / "EEG_raw").mkdir()
    assert "none" in only(root).found


def test_a_file_that_changes_while_it_is_used(root):
    ds = SeedVReader(root)
    path = root / "EEG_DE_features/2_123.npz"
    whole = load(path)["data"]
    write(path, {k: x for k, x in whole.items() if k != 3})
    with pytest.raises(LayoutError, match="open the folder again"):
        ds.features("de", subjects=2)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(LayoutError, match="truncated"):
        ds.features("de", subjects=2)
    path.unlink()
    with pytest.raises(LayoutError, match="cannot be read"):
        ds.features("de", subjects=2)


# ---- recordings


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    for n in (1, 2, 3):
        raw(root / f"EEG_raw/{V.file_stems[n][4]}.cnt")
    return root


def test_sessions_by_name_never_by_date(recordings):
    assert [V.file_stems[n][4] for n in (1, 2, 3)] == [
        "5_1_20180719",
        "5_2_20180728",
        "5_3_20180723",
    ]  # session 2 was the last
    ds = SeedVReader(recordings)
    assert not ds.problems(deep=True)
    assert ds.subjects == [5]
    for r in ds.recordings():
        assert int(r.path.name.split("_")[1]) == r.session
        assert r.bounds == V.raw_bounds[r.session]
        assert r.labels == V.labels[r.session]
        assert r.clips == V.clips[r.session]
        assert r.drop == V.raw_drop
        assert r.eog == V.raw_eog
        assert r.evidence == "facts"
        assert r.provenance == "synthetic"  # the .cnt says so itself


@pytest.mark.parametrize(
    "spoil, found",
    [
        (
            lambda d: (d / "5_2_20180728.cnt").write_bytes(
                (d / "5_2_20180728.cnt").read_bytes()[:300_000]
            ),
            "truncated",
        ),
        (lambda d: (d / "5_2_20180728.cnt").write_bytes(b""), "empty"),
        (lambda d: (d / "5_2_20180728.cnt").write_text("<html>"), "no Neuroscan"),
        (lambda d: raw(d / "5_2_20180728.cnt", seconds=1000), "a last trial that ends at 2817 s"),
        (lambda d: raw(d / "5_2_20180728.cnt", channels=NAMES[1:]), "FP1"),
        (lambda d: (d / "5_2_20180728.cnt").rename(d / "5_4_20180728.cnt"), "5_4_20180728.cnt"),
        (lambda d: (d / "5_2_20180728.cnt").rename(d / "5_2_20180728 (1).cnt"), "(1)"),
    ],
)
def test_bad_recordings(recordings, tmp_path, spoil, found):
    d = Path(shutil.copytree(recordings, tmp_path / "x")) / "EEG_raw"
    spoil(d)
    ps = faults(d.parent)
    assert any(found in p.found for p in ps), list(map(str, ps))
    assert [r.session for r in SeedVReader(d.parent).recordings()] == [1, 3]


def test_renumbered_by_date(recordings, tmp_path):
    d = Path(shutil.copytree(recordings, tmp_path / "x")) / "EEG_raw"
    (d / "5_2_20180728.cnt").rename(d / "5_9.tmp")
    (d / "5_3_20180723.cnt").rename(d / "5_2_20180723.cnt")
    (d / "5_9.tmp").rename(d / "5_3_20180728.cnt")
    ps = faults(d.parent)
    assert {p.fix for p in ps} == {"rename it to 5_3_20180723.cnt", "rename it to 5_2_20180728.cnt"}


def test_repaired_is_preferred_and_noted(recordings, tmp_path):
    d = Path(shutil.copytree(recordings, tmp_path / "x")) / "EEG_raw"
    raw(d / "5_1_20180719_repaired.cnt")
    (d / "5_1_20180719.cnt").write_bytes(b"broken")
    ds = SeedVReader(d.parent)
    assert not ds.problems()
    assert next(ds.recordings(sessions=1)).path.name == "5_1_20180719_repaired.cnt"
    assert ds.find("raw", 5, 1)[0].notes["repaired"] == "read instead of 5_1_20180719.cnt"


def test_copied_recording(recordings, tmp_path):
    d = Path(shutil.copytree(recordings, tmp_path / "x")) / "EEG_raw"
    shutil.copy(d / "5_1_20180719.cnt", d / "5_2_20180728.cnt")
    ps = SeedVReader(d.parent).problems(deep=True)
    assert len(ps) == 1
    assert "same content as" in ps[0].found


def test_times(recordings, tmp_path):
    root = Path(shutil.copytree(recordings, tmp_path / "x"))
    path = root / "trial_start_end_timestamp.txt"
    text = "\n".join(
        f"Session {n}:\nstart_second: {[a for a, _ in b]}\nend_second: {[b for _, b in b]}"
        for n, b in V.raw_bounds.items()
    )
    path.write_text(text)
    assert next(SeedVReader(root).recordings()).evidence.endswith("the same as the facts")
    path.write_text(text.replace("[30, 132", "[31.5, 132"))
    r = next(SeedVReader(root).recordings())
    assert r.bounds[0] == (31.5, 102)
    assert "31.5 to 102 s instead of 30 to 102" in r.evidence
    for bad in (
        "",
        "x" * 1000,
        text.replace("[30, 132", "[132"),
        text.replace("[30, 132", "[200, 132"),
        text.replace("Session 3", "Part 3"),
    ):
        path.write_text(bad)
        assert only(root).path == str(path)


def test_all_faults_in_one_pass(root):
    rng = np.random.default_rng(0)
    (root / "EEG_DE_features/3_123.npz").write_bytes(b"")
    (root / "EEG_DE_features/x.npz").write_bytes(b"")
    write(root / "EEG_DE_features/4_123.npz", trials(lambda n: de(n, rng), lose=[7]))
    write(root / "EEG_DE_features/5_123.npz", trials(lambda n: de(n, rng)), label={})
    write(root / "EEG_DE_features/6_123.npz", trials(lambda n: de(n, rng), lose=range(15)))
    write(root / "Eye_movement_features/10_123.npz", trials(lambda n: rng.normal(size=(n, 31))))
    (root / "EEG_raw").mkdir()
    assert len(faults(root)) == 7
