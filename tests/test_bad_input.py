"""Bad downloads of SEED and SEED-IV: one pass finds every fault, with file and remedy."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from damage import contents
from damage import only_refusal as only
from damage import refusal as faults
from damage import write_mat as write

from emo_lib.base.facts import SPECS
from emo_lib.data.datasets import LayoutError, open_dataset, verify

SEED, IV = SPECS["SEED"], SPECS["SEED-IV"]
STEMS = {
    s: SEED.file_stems[s][1] for s in (1, 2, 3)
}  # subject 2: 2_20140404, 2_20140413, 2_20140419


def signals(n, rng, seconds=2):
    return {
        f"xy_eeg{t}": rng.normal(0, 20, (62, 200 * (seconds + t % 3) + 1)).astype("float32")
        for t in range(1, n + 1)
    }


def features(n, rng, seconds=2):
    return {
        f"{name}{t}": rng.normal(20, 1, (62, seconds + t % 3, 5))
        for name in ("de_LDS", "psd_LDS")
        for t in range(1, n + 1)
    }


def make_seed(root, subjects=(2,), stems=None):
    "SEED's old layout."
    rng = np.random.default_rng(0)
    for folder, make in (("Preprocessed_EEG", signals), ("ExtractedFeatures", features)):
        write(root / folder / "label.mat", {"label": np.array([SEED.labels[1]]) - 1})
        for subject in subjects:
            for s in (1, 2, 3):
                write(
                    root / folder / f"{(stems or SEED.file_stems)[s][subject - 1]}.mat",
                    make(15, rng),
                )
    return root


def make_seed_iv(root, subjects=(2,)):
    rng = np.random.default_rng(0)
    for s in (1, 2, 3):
        for subject in subjects:
            write(
                root / "eeg_raw_data" / str(s) / f"{IV.file_stems[s][subject - 1]}.mat",
                {
                    f"xy_eeg{t}": rng.normal(0, 20, (62, 801)).astype("float32")
                    for t in range(1, 25)
                },
            )
            write(
                root / "eeg_feature_smooth" / str(s) / f"{IV.file_stems[s][subject - 1]}.mat",
                {f"de_LDS{t}": rng.normal(20, 1, (62, 1, 5)) for t in range(1, 25)},
            )
    return root


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    d = tmp_path_factory.mktemp("downloads")
    return make_seed(d / "SEED"), make_seed_iv(d / "SEED_IV")


@pytest.fixture
def seed(pristine, tmp_path):
    return Path(shutil.copytree(pristine[0], tmp_path / "SEED"))


@pytest.fixture
def iv(pristine, tmp_path):
    return Path(shutil.copytree(pristine[1], tmp_path / "SEED_IV"))


def test_whole_downloads_open(seed, iv):
    assert open_dataset("SEED", seed).features("de_LDS").sizes["window"] == 3 * sum(
        2 + t % 3 for t in range(1, 16)
    )
    assert open_dataset("SEED-IV", iv).features("de_LDS").sizes["window"] == 72


# ---- files that cannot be read


@pytest.mark.parametrize(
    "spoil, found",
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-5000]), "truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[:100]), "no MATLAB 5 file"),
        (lambda p: p.write_bytes(b""), "empty file (0 bytes)"),
        (lambda p: p.write_text("<html>404 Not Found</html>"), "no MATLAB 5 file"),
        (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(500)), "no MATLAB 5 file"),
        (lambda p: p.write_bytes(b"MATLAB 7.3 MAT-file".ljust(600)), "MATLAB 7.3 file (HDF5)"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500)), "MATLAB 7.3 file (HDF5)"),
        (lambda p: p.write_bytes(p.read_bytes()[:128] + b"\xff" * 1000), "damaged"),
    ],
)
@pytest.mark.parametrize("folder", ["Preprocessed_EEG", "ExtractedFeatures"])
def test_unreadable_file(seed, folder, spoil, found):
    path = seed / folder / f"{STEMS[2]}.mat"
    spoil(path)
    p = only("SEED", seed)
    assert p.path == str(path)
    assert found in p.found
    assert "complete MATLAB 5 file" in p.expected


def test_damaged_compressed_data_are_reported_when_read(seed):
    path = seed / "ExtractedFeatures" / f"{STEMS[1]}.mat"
    scipy.io.savemat(path, contents(path), do_compression=True)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 400] = bytes(400)
    path.write_bytes(raw)
    _, problems = verify("SEED", seed)
    assert [p.path for p in problems] == [str(path)]
    assert "damaged" in problems[0].found


def test_a_flipped_type_code_does_not_end_the_process(seed):
    "scipy reads beyond its table of types there, which is a segmentation fault and no error."
    path, tag = seed / "Preprocessed_EEG" / f"{STEMS[1]}.mat", struct.Struct("<II")
    n = contents(path)["xy_eeg2"].nbytes
    path.write_bytes(path.read_bytes().replace(tag.pack(7, n), tag.pack(7 + 1024, n)))
    p = only("SEED", seed)
    assert p.path == str(path)
    assert "damaged" in p.found


def test_a_file_that_changes_while_it_is_used(seed):
    ds = open_dataset("SEED", seed)
    path = seed / "Preprocessed_EEG" / f"{STEMS[1]}.mat"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(LayoutError, match="truncated"):
        next(ds.trials())
    path.unlink()
    with pytest.raises(LayoutError, match="cannot be read"):
        next(ds.trials())


def test_seven_point_three_says_how_to_convert(seed):
    (seed / "Preprocessed_EEG" / f"{STEMS[1]}.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(600))
    assert "-v7" in only("SEED", seed).fix


# ---- contents


def change(path, **new):
    data = contents(path) | new
    write(path, {k: v for k, v in data.items() if v is not None})


def test_missing_trial_key(seed, iv):
    a, b = (
        seed / "Preprocessed_EEG" / f"{STEMS[1]}.mat",
        iv / "eeg_feature_smooth" / "3" / f"{IV.file_stems[3][1]}.mat",
    )
    change(a, xy_eeg7=None)
    change(b, de_LDS24=None)
    p = only("SEED", seed)
    assert p.path == str(a)
    assert "no *_eeg7" in p.found
    assert "15 trials" in p.expected
    p = only("SEED-IV", iv)
    assert p.path == str(b)
    assert "no de_LDS24" in p.found
    assert "24 trials" in p.expected


def test_surplus_and_double_trial_keys(seed):
    path = seed / "Preprocessed_EEG" / f"{STEMS[1]}.mat"
    x = np.zeros((62, 401), "float32")
    change(path, xy_eeg16=x, zz_eeg2=x)
    ps = faults("SEED", seed)
    assert {p.path for p in ps} == {str(path)}
    assert any("also *_eeg16" in p.found for p in ps)
    assert any("xy_eeg2, zz_eeg2" in p.found for p in ps)


@pytest.mark.parametrize(
    "folder, key, shape, found",
    [
        ("Preprocessed_EEG", "xy_eeg3", (61, 401), "(61, 401) in xy_eeg3"),
        ("Preprocessed_EEG", "xy_eeg3", (401, 62), "(401, 62) in xy_eeg3"),
        ("Preprocessed_EEG", "xy_eeg3", (62, 40, 10), "(62, 40, 10) in xy_eeg3"),
        ("ExtractedFeatures", "de_LDS3", (61, 2, 5), "(61, 2, 5) in de_LDS3"),
        ("ExtractedFeatures", "de_LDS3", (2, 62, 5), "(2, 62, 5) in de_LDS3"),
        ("ExtractedFeatures", "de_LDS3", (62, 2, 4), "(62, 2, 4) in de_LDS3"),
        ("ExtractedFeatures", "de_LDS3", (62, 10), "(62, 10) in de_LDS3"),
        ("ExtractedFeatures", "de_LDS3", (62, 5, 2), "different orders"),
    ],
)
def test_wrong_shape(seed, folder, key, shape, found):
    path = seed / folder / f"{STEMS[3]}.mat"
    change(path, **{key: np.ones(shape)})
    p = only("SEED", seed)
    assert p.path == str(path)
    assert found in p.found
    assert "62" in p.expected


def test_61_channels_everywhere(seed):
    path = seed / "Preprocessed_EEG" / f"{STEMS[1]}.mat"
    write(path, {k: v[:61] for k, v in contents(path).items()})
    p = only("SEED", seed)
    assert p.path == str(path)
    assert "(61, " in p.found
    assert "(62, time)" in p.expected


def test_features_among_signals_and_the_reverse(seed):
    a, b = (
        seed / "Preprocessed_EEG" / f"{STEMS[1]}.mat",
        seed / "ExtractedFeatures" / f"{STEMS[1]}.mat",
    )
    tmp = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(tmp)
    ps = {p.path: p for p in faults("SEED", seed)}
    assert "de_LDS1" in ps[str(a)].found
    assert "xy_eeg1" in ps[str(b)].found


def test_text_in_place_of_numbers(seed):
    path = seed / "Preprocessed_EEG" / f"{STEMS[1]}.mat"
    change(path, xy_eeg5="lost")
    assert "no *_eeg5" in only("SEED", seed).found


def test_one_feature_missing_in_one_file(seed):
    path = seed / "ExtractedFeatures" / f"{STEMS[2]}.mat"
    write(path, {k: v for k, v in contents(path).items() if k.startswith("de")})
    p = only("SEED", seed)
    assert p.path == str(path)
    assert "no psd_LDS" in p.found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(seed, value):
    a, b = (
        seed / "Preprocessed_EEG" / f"{STEMS[2]}.mat",
        seed / "ExtractedFeatures" / f"{STEMS[3]}.mat",
    )
    x, y = contents(a)["xy_eeg9"], contents(b)["de_LDS4"]
    x[5, 100] = y[1, 0, 2] = value
    change(a, xy_eeg9=x)
    change(b, de_LDS4=y)
    ds = open_dataset("SEED", seed)  # headers are in order
    assert {p.path for p in ds.problems(deep=True)} == {str(a), str(b)}
    assert {p.path for p in verify("SEED", seed)[1]} == {str(a), str(b)}
    with pytest.raises(LayoutError, match="1 NaN or infinite values in de_LDS, trial 4") as e:
        ds.features("de_LDS")
    assert e.value.problems[0].path == str(b)
    with pytest.raises(LayoutError, match="NaN or infinite values in trial 9") as e:
        list(ds.trials())
    assert e.value.problems[0].path == str(a)
    assert ds.features("psd_LDS").sizes["window"]
    assert len(list(ds.trials(sessions=[1, 3]))) == 30  # what is whole works


def test_windows_that_do_not_fit_the_signal(seed):
    path = seed / "ExtractedFeatures" / f"{STEMS[1]}.mat"
    write(path, features(15, np.random.default_rng(1), seconds=40))
    p = only("SEED", seed)
    assert p.path == str(path)
    assert "41" in p.found
    assert "Preprocessed_EEG" in p.expected


def test_features_that_do_not_fit_each_other(seed):
    path = seed / "ExtractedFeatures" / f"{STEMS[1]}.mat"
    change(path, psd_LDS2=np.ones((62, 9, 5)))
    assert "9 and 4 in trial 2" in only("SEED", seed).found


def test_bands_or_windows_cannot_be_told(tmp_path):
    "SEED's 4-second files: refused if all trials have five windows; one other trial decides."
    root, rng = tmp_path / "SEED_EEG", np.random.default_rng(0)
    write(root / "ExtractedFeatures_4s" / "label.mat", {"label": np.array([SEED.labels[1]]) - 1})
    paths = [root / "ExtractedFeatures_4s" / f"{STEMS[s]}.mat" for s in (1, 2, 3)]
    for p in paths:
        write(p, {f"de_LDS{t}": rng.normal(size=(62, 5, 5)) for t in range(1, 16)})
    ps = faults("SEED", tmp_path)
    assert [p.path for p in ps] == list(map(str, paths))
    assert all("two in all" in p.found for p in ps)
    for p in paths:
        change(p, de_LDS8=rng.normal(size=(62, 5, 7)))
    fs, raw = (
        open_dataset("SEED", root).features("de_LDS", window_s=4),
        contents(paths[0])["de_LDS1"],
    )
    assert np.allclose(fs.eeg[:5], raw.transpose(2, 0, 1))  # (channel, band, window)


@pytest.mark.parametrize("folder", ["Preprocessed_EEG", "ExtractedFeatures"])
def test_a_header_and_nothing_else(seed, folder):
    path = seed / folder / f"{STEMS[2]}.mat"
    path.write_bytes(path.read_bytes()[:128])
    p = only("SEED", seed)
    assert p.path == str(path)
    assert "no variables" in p.found
    assert "again" in p.fix


def test_one_recording_under_the_names_of_two_sessions(seed):
    for folder in ("Preprocessed_EEG", "ExtractedFeatures"):
        shutil.copy(seed / folder / f"{STEMS[1]}.mat", seed / folder / f"{STEMS[3]}.mat")
    ps = verify("SEED", seed)[1]
    assert {p.path for p in ps} == {
        str(seed / f / f"{STEMS[3]}.mat") for f in ("Preprocessed_EEG", "ExtractedFeatures")
    }
    assert len(ps) == 2
    assert all(p.found.startswith("same content as ") and f"{STEMS[1]}.mat" in p.found for p in ps)


# ---- label files


@pytest.mark.parametrize(
    "label, found",
    [
        (np.zeros((1, 14)), "14 values"),
        (np.zeros((1, 16)), "16 values"),
        (np.array([SEED.labels[1]]), "values 2"),
        (np.full((1, 15), np.nan), "values nan"),
        (1 - np.array([SEED.labels[1]]), "other labels than released at trial 1"),
        (None, "no key `label`"),
        (b"", "empty file"),
        ("gone", "no such file"),
    ],
)
def test_label_file(seed, label, found):
    path = seed / "ExtractedFeatures" / "label.mat"
    if isinstance(label, str):
        path.unlink()
    elif isinstance(label, bytes):
        path.write_bytes(label)
    else:
        write(path, {"x": 1.0} if label is None else {"label": label})
    p = only("SEED", seed)
    assert p.path == str(path)
    assert found in p.found
    assert "15 values" in p.expected


def test_labels_are_those_of_the_facts(seed):
    fs = open_dataset("SEED", seed, strict=False).features("de_LDS")
    per_trial = fs.label.groupby(fs.trial).first().values.tolist()
    assert per_trial == [
        v + 1 for v in scipy.io.loadmat(seed / "ExtractedFeatures" / "label.mat")["label"].ravel()
    ]


# ---- folders and names


def test_missing_session(seed, tmp_path):
    (seed / "ExtractedFeatures" / f"{STEMS[2]}.mat").unlink()
    p = only("SEED", seed)
    assert p.path == str(seed / "ExtractedFeatures")
    assert "no session 2" in p.found
    assert f"{STEMS[2]}.mat" in p.fix
    iv = make_seed_iv(tmp_path / "two", subjects=(2, 10))
    (iv / "eeg_raw_data" / "1" / f"{IV.file_stems[1][9]}.mat").unlink()
    shutil.rmtree(iv / "eeg_feature_smooth" / "3")
    a, b = sorted(faults("SEED-IV", iv), key=lambda p: p.path)
    assert a.path == str(iv / "eeg_feature_smooth" / "3")
    assert "no such folder" in a.found  # told once, not for each subject
    assert b.path == str(iv / "eeg_raw_data")
    assert "subject 10" in b.expected
    assert "no session 1" in b.found


def test_the_rest_opens_when_asked(seed):
    (seed / "ExtractedFeatures" / f"{STEMS[1]}.mat").unlink()
    ds = open_dataset("SEED", seed, strict=False)
    fs = ds.features("de_LDS")
    assert set(fs.session.values) == {2, 3}  # released dates: 2 and 3 stay 2 and 3
    with pytest.raises(ValueError, match="session 1; there are: 2, 3"):
        ds.features("de_LDS", sessions=1)


@pytest.mark.parametrize("name", ["SEED", "SEED-IV"])
def test_wrong_folder(name, tmp_path, seed, iv):
    assert "no such folder" in only(name, tmp_path / "nowhere").found
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").touch()
    assert only(name, tmp_path / "empty").found == "no folder"
    assert "a file" in only(name, tmp_path / "a file").found
    other, right = (iv, seed) if name == "SEED" else (seed, iv)
    assert "looks like" in only(name, other).fix
    assert "folder above" in only(name, next(right.iterdir())).fix
    with pytest.raises(LayoutError):
        open_dataset(name, tmp_path / "empty", strict=False)


def test_one_folder_too_high(tmp_path, pristine):
    (tmp_path / "x").mkdir()
    shutil.copytree(pristine[0], tmp_path / "x" / "SEED")
    assert str(tmp_path / "x" / "SEED") in only("SEED", tmp_path / "x").fix


def test_empty_data_folder(seed):
    for p in (seed / "Preprocessed_EEG").glob("2_*.mat"):
        p.unlink()
    p = only("SEED", seed)
    assert p.path == str(seed / "Preprocessed_EEG")
    assert p.found == "none"


def test_fourth_file_of_a_subject(seed):
    extra = seed / "Preprocessed_EEG" / "2_20150101.mat"
    shutil.copy(seed / "Preprocessed_EEG" / f"{STEMS[1]}.mat", extra)
    p = only("SEED", seed)
    assert p.path == str(extra)
    assert "20150101" in p.found
    assert "subject 2" in p.expected


def test_two_files_of_one_subject_in_a_session_folder(iv):
    first = iv / "eeg_raw_data" / "2" / f"{IV.file_stems[2][1]}.mat"
    extra = first.with_name("2_20150921.mat")
    shutil.copy(first, extra)
    p = only("SEED-IV", iv)
    assert p.path == str(first.parent)
    assert first.name in p.found
    assert extra.name in p.found
    assert "session 2" in p.expected
    assert (2, 2) not in [
        (t.subject, t.session) for t in open_dataset("SEED-IV", iv, strict=False).trials()
    ]


def test_one_recording_in_two_sessions(iv):
    first, second = (iv / "eeg_raw_data" / str(s) / f"{IV.file_stems[s][1]}.mat" for s in (1, 2))
    second.unlink()
    shutil.copy(first, second.parent / first.name)
    assert "one date in two sessions" in only("SEED-IV", iv).found


def test_second_download_of_a_file(seed):
    path = seed / "Preprocessed_EEG" / f"{STEMS[1]} (1).mat"
    shutil.copy(seed / "Preprocessed_EEG" / f"{STEMS[1]}.mat", path)
    assert only("SEED", seed).path == str(path)


def test_hidden_and_other_files_are_no_data(seed):
    for n in (f"._{STEMS[1]}.mat", ".DS_Store", "readme.txt", "channel-order.xlsx"):
        (seed / "Preprocessed_EEG" / n).write_bytes(b"x")
    assert open_dataset("SEED", seed).problems() == []


def test_two_generations_in_one_folder(seed, pristine):
    shutil.copytree(pristine[0] / "Preprocessed_EEG", seed / "SEED_EEG" / "Preprocessed_EEG")
    assert "also" in only("SEED", seed).found


# ---- numbers, dates, provenance


def test_subjects_in_numerical_order_and_sessions_by_date(tmp_path):
    dates = {s: [f"{i}_{20300100 + s}" for i in range(1, 12)] for s in (1, 2, 3)}
    make_seed(tmp_path, subjects=(10, 2, 9), stems=dates)
    ds = open_dataset("SEED", tmp_path)
    assert ds.subjects == [2, 9, 10]
    assert ds.sessions(10) == [1, 2, 3]
    fs = ds.features("de_LDS", subjects=[10, 2], sessions=[3, 1])
    assert list(dict.fromkeys(zip(fs.subject.values.tolist(), fs.session.values.tolist()))) == [
        (2, 1),
        (2, 3),
        (10, 1),
        (10, 3),
    ]
    raw = contents(tmp_path / "ExtractedFeatures" / "10_20300103.mat")["de_LDS15"]
    mine = fs.sel(window=(fs.subject == 10) & (fs.session == 3) & (fs.trial == 15))
    assert np.allclose(mine.eeg, raw.transpose(1, 0, 2))


def test_provenance(seed, tmp_path):
    assert open_dataset("SEED", seed).provenance == "synthetic"  # by the headers
    for p in seed.glob("*/*.mat"):
        scipy.io.savemat(p, contents(p))
    assert open_dataset("SEED", seed).provenance == "real"
    (seed / "TWIN.json").write_text("{}")
    assert open_dataset("SEED", seed).features("de_LDS").attrs["provenance"] == "synthetic"


def test_a_twin_whose_writing_was_interrupted(seed, tmp_path):
    mark = seed / "TWIN.json"
    for text, found in (
        ('{"complete": false}', "one whose writing was interrupted"),
        ("{", "no readable JSON object"),
    ):
        mark.write_text(text)
        p = only("SEED", seed)
        assert p.path == str(mark)
        assert "whole twin" in p.expected
        assert p.found == found
        assert "emo twin" in p.fix
        assert [q.path for q in verify("SEED", seed)[1]] == [str(mark)]
    mark.write_text('{"complete": true}')
    assert verify("SEED", seed)[1] == []
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "TWIN.json").write_text('{"complete": false}')
    assert ["interrupted" in p.found for p in faults("SEED", tmp_path / "begun")] == [
        True,
        False,
    ]  # and no folder of SEED yet


def test_numbers_as_text_are_numbers(seed):
    ds = open_dataset("SEED", seed)
    assert ds.features("de_LDS", subjects=["2"], sessions=["3"]).equals(
        ds.features("de_LDS", subjects=2, sessions=3)
    )
    with pytest.raises(ValueError, match="subject 7; there are: 2"):
        ds.features("de_LDS", subjects=["7"])


def test_compressed_files_and_a_fingerprint_that_knows_them(seed):
    before = open_dataset("SEED", seed).features("de_LDS").attrs["fingerprint"]
    for p in seed.glob("*/2_*.mat"):
        scipy.io.savemat(p, contents(p), do_compression=True)
    assert open_dataset("SEED", seed).features("de_LDS").attrs["fingerprint"] == before


def test_unknown_name_lists_the_known(seed):
    with pytest.raises(ValueError, match="SEED-IV"):
        open_dataset("seed4", seed)


# ---- all at once


def test_many_faults_in_one_pass(seed, iv):
    pre, ext = seed / "Preprocessed_EEG", seed / "ExtractedFeatures"
    (pre / f"{STEMS[1]}.mat").write_bytes(b"")
    change(pre / f"{STEMS[2]}.mat", xy_eeg2=None)
    change(pre / f"{STEMS[3]}.mat", xy_eeg4=np.zeros((61, 401)))
    (ext / f"{STEMS[1]}.mat").unlink()
    (ext / f"{STEMS[2]}.mat").write_text("no data")
    x = contents(ext / f"{STEMS[3]}.mat")["psd_LDS1"]
    x[0] = np.nan
    change(ext / f"{STEMS[3]}.mat", psd_LDS1=x)
    write(ext / "label.mat", {"label": np.zeros((1, 3))})
    planted = {
        (pre / f"{STEMS[1]}.mat", "empty"),
        (pre / f"{STEMS[2]}.mat", "no *_eeg2"),
        (pre / f"{STEMS[3]}.mat", "(61, 401)"),
        (ext, "no session 1"),
        (ext / f"{STEMS[2]}.mat", "no MATLAB 5 file"),
        (ext / "label.mat", "3 values"),
        (ext / f"{STEMS[3]}.mat", "NaN"),
    }
    table, problems = verify("SEED", seed)
    assert len(problems) == len(planted) == 7
    assert len(table) == 3
    for path, words in planted:
        assert any(p.path == str(path) and words in p.found for p in problems), (path, words)
    assert len(faults("SEED", seed)) == 6  # NaN need a look at the data
