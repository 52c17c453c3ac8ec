"""FACED: every fault of a download is reported; the data decide the unit, or the reader refuses."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import complete, single

from emo_lib.base.errors import LayoutError
from emo_lib.base.facts import SPECS
from emo_lib.data.faced import (
    FacedReader,
    amplitude,
    plausible_units,
    read_table,
    scale_caveat,
    take_probes,
)
from emo_lib.data.layout import FileFault
from emo_lib.data.unpickle import dump_python2

F = SPECS["FACED"]
UNITS = {0: "uV", 2: "uV", 10: "V"}
SECONDS = 2


def noise(rng, n=250 * SECONDS, sd=12.0, dtype="f8"):
    return (np.cumsum(rng.normal(size=(28, 32, n)), 2) * rng.lognormal(0, 0.2, (28, 32, 1))).astype(
        dtype
    ) * (sd / 5 / np.sqrt(n / 50)).astype(dtype)


def put(path, x, dump=dump_python2):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump(x))
    return x


def table(units, extra=""):
    return (
        "sub,Gender,Age,Cohort ,Sample_rate,Unit\n"
        + "".join(f"sub{i:03d},F,20,1,{250 if u == 'V' else 1000},{u}\n" for i, u in units.items())
        + extra
    )


def make(root, units=UNITS):
    rng = np.random.default_rng(0)
    for i, u in units.items():
        put(root / f"Processed_data/sub{i:03d}.pkl", noise(rng) * (1e-6 if u == "V" else 1))
        for f in ("DE", "PSD"):
            put(root / f"EEG_Features/{f}/sub{i:03d}.pkl.pkl", rng.random((28, 32, SECONDS, 5)) + 1)
    (root / "Recording_info.csv").write_text(table(units))
    (root / "TWIN.json").write_text(
        json.dumps({"complete": True, "parameters": {"seconds_per_trial": SECONDS}})
    )
    return root


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    return make(tmp_path_factory.mktemp("f") / "FACED")


@pytest.fixture
def root(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "FACED"))


def faults(root, **kw):
    return complete(FacedReader(root, **kw).problems())


def only(root, **kw):
    return single(faults(root, **kw))


def load(path):
    return pickle.loads(path.read_bytes(), encoding="latin1")


# ---- whole


def test_every_number_arrives(root):
    ds = FacedReader(root)
    assert not ds.problems(deep=True)
    assert ds.subjects == [0, 2, 10]
    assert ds.sessions(0) == [1]
    assert ds.provenance == "synthetic"
    for t in ds.trials():
        x = load(root / f"Processed_data/sub{t.subject:03d}.pkl")
        assert np.array_equal(t.signal, x[t.trial - 1, :30] * (1e6 if t.subject == 10 else 1))
        assert t.clip == t.trial
        assert t.label == F.labels[1][t.trial - 1]
        assert t.sfreq == 250
        assert list(t.signal.channel.values) == list(F.channels)
        assert t.signal.attrs["unit_in_file"].startswith(UNITS[t.subject])
    for name in ("de", "psd"):
        fs = ds.features(name)
        for i in UNITS:
            x = load(root / f"EEG_Features/{name.upper()}/sub{i:03d}.pkl.pkl")
            assert np.array_equal(
                fs.eeg.values[fs.subject.values == i].reshape(28, SECONDS, 30, 5),
                x[:, :30].swapaxes(1, 2).astype("f4"),
            )


@pytest.mark.parametrize(
    "dump",
    [
        dump_python2,
        *(lambda x, p=p: pickle.dumps(x, p) for p in range(6)),
        lambda x: pickle.dumps(np.asfortranarray(x)),
    ],
)
def test_every_kind_of_pickle(root, dump):
    x = put(root / "Processed_data/sub002.pkl", load(root / "Processed_data/sub002.pkl"), dump)
    y = put(
        root / "EEG_Features/DE/sub002.pkl.pkl",
        load(root / "EEG_Features/DE/sub002.pkl.pkl").astype("f4"),
        dump,
    )
    ds = FacedReader(root)
    assert not ds.problems(deep=True)
    assert all(np.array_equal(t.signal, x[t.trial - 1, :30]) for t in ds.trials(subjects=2))
    assert np.array_equal(ds.features("de", subjects=2).eeg[:SECONDS], y[0, :30].swapaxes(0, 1))


def test_the_release_as_it_is_has_7500_samples(tmp_path):
    x = put(
        tmp_path / "Processed_data/sub122.pkl", noise(np.random.default_rng(0), 7500, dtype="f4")
    )
    ds = FacedReader(tmp_path)
    assert not ds.problems()
    assert ds.provenance == "real"
    assert ds.subjects == [122]
    t = next(ds.trials())
    assert t.signal.shape == (30, 7500)
    assert t.sfreq == 250
    assert np.array_equal(t.signal, x[0, :30])
    assert ds.summary().seconds.tolist() == [840.0]
    assert "Recording_info.csv says nothing" in t.signal.attrs["unit_in_file"]


# ---- units


@pytest.mark.parametrize(
    "sd, unit",
    [
        (2.5, "uV"),
        (12, "uV"),
        (250, "uV"),
        (3e-6, "V"),
        (12e-6, "V"),
        (2.5e-4, "V"),
        (1, None),
        (0, None),
        (np.nan, None),
        (np.inf, None),
        (1e4, None),
        (12e-3, None),
        (12e-9, None),
    ],
)
def test_units_by_amplitude(sd, unit):
    assert plausible_units(sd) == ([unit] if unit else [])


@pytest.mark.parametrize(
    "change, said, found",
    [
        (lambda x: x * 1e-6, "uV", "a contradiction"),
        (lambda x: x, "V", "a contradiction"),
        (lambda x: x / x.std(), "uV", "no decision"),
        (lambda x: x * 0, "V", "no decision"),
        (lambda x: x * 1e-3, "uV", "no decision"),
        (lambda x: x * np.nan, "uV", "no decision"),
    ],
)
def test_undecided_and_contradicted_units_are_refused_and_overridden(root, change, said, found):
    path = root / "Processed_data/sub002.pkl"
    x = put(path, change(load(path)))
    (root / "Recording_info.csv").write_text(table(UNITS | {2: said}))
    p = only(root)
    assert p.path == str(path)
    assert found in p.found
    assert f"Recording_info.csv says {said}" in p.found
    assert "unit={2: 'uV'}" in p.fix
    assert FacedReader(root).subjects == [0, 2, 10]
    assert 2 not in {
        t.subject for t in FacedReader(root).trials()
    }  # the features of subject 2 are whole
    for unit in ({2: "V"}, {"2": "V"}, {2: "V", 10: "V"}):
        ds = FacedReader(root, unit=unit)
        assert not ds.problems()
        assert "given by the user" in ds.find("signals", 2, 1)[0].notes["unit_in_file"]
        if np.isfinite(x).all():
            assert np.array_equal(next(ds.trials(subjects=2)).signal, x[0, :30] * 1e6)


def test_one_unit_for_all(root):
    ds = FacedReader(root, unit="uV")
    assert not ds.problems()
    assert float(next(ds.trials(subjects=10)).signal.std()) < 1e-3


@pytest.mark.parametrize(
    "kw",
    [
        {"unit": "mV"},
        {"unit": {123: "V"}},
        {"unit": {"x": "V"}},
        {"unit": {0: 1}},
        {"sfreq": -1},
        {"sfreq": {0: "fast"}},
    ],
)
def test_options_are_checked(root, kw):
    with pytest.raises(ValueError, match=next(iter(kw))):
        FacedReader(root, **kw)


def test_probes_see_scalp_channels_only_and_survive_nan():
    x = np.ones((28, 32, 100))
    x[:, 30:] = np.nan
    assert np.isfinite(take_probes(x, 30)).all()
    y = np.random.default_rng(0).normal(0, 10, (8, 500))
    y[3, 0] = np.nan
    assert 9 < amplitude(y) < 11


# ---- the table


def test_tables(tmp_path):
    path = tmp_path / "Recording_info.csv"
    for text, want in (
        ("sub,Sample_rate,Unit\nsub000,250,uV\n", "uV"),
        ("\ufeff sub , Sample_rate , Unit \r\n 000, 250 , \u03bcV \r\n", "uV"),
        ('"Sub","UNIT","sample_rate","Age"\n"sub000","volt","250","3,5"\n', "V"),
    ):
        path.write_text(text, encoding="utf8")
        assert read_table(path, F) == ({0: {"unit": want, "sfreq": 250.0}}, [])
    for text in ("", "a,b\n1,2\n", "<html>", "sub,Unit\nsub000,V\n"):
        path.write_text(text)
        with pytest.raises(FileFault, match="no column"):
            read_table(path, F)
    path.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(FileFault):
        read_table(path, F)


@pytest.mark.parametrize(
    "row, found",
    [
        ("sub123,F,2,1,250,V\n", "no subject"),
        ("sub003,F,2,1,250,mV\n", "unit 'mV'"),
        ("sub003,F,2,1,250\n", "unit ''"),
        ("sub003,F,2,1,nan,V\n", "sample rate 'nan'"),
        ("sub002,F,2,1,250,uV\n", "sub002 has two rows"),
    ],
)
def test_bad_rows(root, row, found):
    (root / "Recording_info.csv").write_text(table(UNITS, row))
    p = only(root)
    assert p.path == str(root / "Recording_info.csv")
    assert found in p.found


def test_a_file_that_is_no_table_and_no_file(root):
    (root / "Recording_info.csv").write_text("<html>")
    assert "no column" in only(root).found
    (root / "Recording_info.csv").unlink()
    assert not faults(root)


# ---- files that cannot be read


@pytest.mark.parametrize(
    "spoil, found",
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[:60]), "truncated"),
        (lambda p: p.write_bytes(b""), "empty file (0 bytes)"),
        (lambda p: p.write_text("<html>404</html>"), "no pickle"),
        (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(500)), "no pickle"),
        (lambda p: p.write_bytes(pickle.dumps({"data": 1})), "a dict, no array"),
        (lambda p: p.write_bytes(pickle.dumps([1.5])), "a list, no array"),
        (lambda p: p.write_bytes(pickle.dumps(np.array(["a"]))), "no numbers"),
        (lambda p: p.write_bytes(pickle.dumps(np.float64(3))), "shape ()"),
        (lambda p: p.write_bytes(pickle.dumps(os.system)), "system"),
        (lambda p: p.write_bytes(pickle.dumps(np.zeros((28, 32)))), "shape (28, 32)"),
        (lambda p: p.write_bytes(b"]" * 400 + b"a" * 399 + b"."), "bomb"),
        (lambda p: (p.unlink(), p.mkdir()), "cannot be read"),
        (lambda p: p.write_bytes(dump_python2(np.zeros((28, 31, 500)))), "(28, 31, 500)"),
        (lambda p: p.write_bytes(dump_python2(np.zeros((27, 32, 500)))), "(27, 32, 500)"),
        (lambda p: p.write_bytes(dump_python2(np.zeros((28, 32, 0)))), "(28, 32, 0)"),
    ],
)
@pytest.mark.parametrize(
    "where",
    [
        "Processed_data/sub002.pkl",
        "EEG_Features/DE/sub002.pkl.pkl",
        "EEG_Features/PSD/sub002.pkl.pkl",
    ],
)
def test_unreadable(root, where, spoil, found):
    spoil(root / where)
    p = only(root)
    assert p.path == str(root / where)
    assert found in p.found
    ds = FacedReader(root)
    assert len(list(ds.trials(subjects=10))) == 28
    for name in ("de", "psd"):  # the other files are used
        assert set(ds.features(name).subject.values) == (
            {0, 10} if f"/{name.upper()}/" in where else {0, 2, 10}
        )
        if f"/{name.upper()}/" in where:
            with pytest.raises(ValueError, match="of subject 2"):
                ds.features(name, subjects=[0, 2])


@pytest.mark.parametrize(
    "where, shape",
    [
        ("Processed_data/sub002.pkl", (0, 2, 1)),
        ("EEG_Features/DE/sub002.pkl.pkl", (0, 1, 3, 2)),
        ("EEG_Features/PSD/sub002.pkl.pkl", (0, 2, 1, 3)),
    ],
)
def test_turned_axes(root, where, shape):
    put(root / where, np.ascontiguousarray(load(root / where).transpose(shape)))
    assert "bring the axes into this order" in only(root).fix


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan(root, value):
    paths = [
        root / "Processed_data/sub002.pkl",
        root / "EEG_Features/DE/sub010.pkl.pkl",
        root / "EEG_Features/PSD/sub010.pkl.pkl",
    ]
    for p in paths:
        x = load(p)
        x[5, 7, 1] = value
        put(p, x)
    ds = FacedReader(root)
    assert ds.problems() == []
    assert {p.path for p in ds.problems(deep=True)} == set(map(str, paths))
    assert all("trial 6" in p.found for p in ds.problems(deep=True))
    for name, path in (("de", paths[1]), ("psd", paths[2])):
        with pytest.raises(LayoutError) as e:
            ds.features(name)
        assert e.value.problems[0].path == str(path)
    with pytest.raises(LayoutError) as e:
        list(ds.trials())
    assert e.value.problems[0].path == str(paths[0])


def test_nan_in_mastoids_is_no_fault(root):
    x = load(root / "EEG_Features/DE/sub002.pkl.pkl")
    x[:, 30:] = np.nan
    put(root / "EEG_Features/DE/sub002.pkl.pkl", x)
    assert not FacedReader(root).problems(deep=True)


# ---- rates and lengths


def test_rates(root):
    path, rng = root / "Processed_data/sub002.pkl", np.random.default_rng(0)
    put(path, noise(rng, 400))
    p = only(root)
    assert "200 Hz" in p.found
    assert "says 1000 Hz" in p.found
    assert "sfreq={2: Hz}" in p.fix
    assert next(FacedReader(root, sfreq={2: 200}).trials(subjects=2)).sfreq == 200
    assert not FacedReader(root, sfreq={2: 200}).problems()
    put(path, noise(rng, 2000))  # the csv's rate: somebody's own export
    assert next(FacedReader(root).trials(subjects=2)).sfreq == 1000
    assert not faults(root)
    put(path, noise(rng, 501))
    assert next(FacedReader(root).trials(subjects=2)).sfreq == 250
    assert not faults(root)


def test_windows_that_do_not_fit_the_signals(root):
    put(root / "EEG_Features/PSD/sub002.pkl.pkl", np.ones((28, 32, 30, 5)))
    p = only(root)
    assert p.path.endswith("PSD/sub002.pkl.pkl")
    assert "about 2 windows" in p.expected
    assert "30" in p.found


# ---- who is there


def test_names_duplicates_and_missing_features(root):
    (root / "Processed_data/sub002 (1).pkl").write_bytes(b"")
    (root / "Processed_data/sub123.pkl").write_bytes(b"")
    (root / "Processed_data/sub5.pkl").write_bytes(b"")
    (root / "Processed_data/._sub002.pkl").write_bytes(b"")
    shutil.copy(root / "Processed_data/sub010.pkl", root / "Processed_data/sub011.pkl")
    shutil.copy(root / "EEG_Features/DE/sub010.pkl.pkl", root / "EEG_Features/DE/sub011.pkl.pkl")
    (root / "EEG_Features/PSD/sub000.pkl.pkl").unlink()
    ps = faults(root)
    assert len(ps) == 6
    assert {Path(p.path).name for p in ps} == {
        "sub002 (1).pkl",
        "sub123.pkl",
        "sub5.pkl",
        "sub011.pkl",
        "sub011.pkl.pkl",
        "EEG_Features",
    }
    assert all("sub010" in p.found for p in ps if "sub011" in p.path)
    assert "PSD/sub000.pkl.pkl" in next(p.fix for p in ps if p.path.endswith("EEG_Features"))
    ds = FacedReader(root)
    assert set(ds.features("de").subject.values) == {0, 2, 10}
    assert set(ds.features("psd").subject.values) == {2, 10}


def test_two_files_of_one_subject(root):
    put(root / "Processed_data/sub002.pkl.pkl", noise(np.random.default_rng(9)))
    p = only(root)
    assert "2 files" in p.found
    assert "subject 2" in p.expected


def test_parts_of_a_download(root):
    shutil.rmtree(root / "EEG_Features/PSD")
    assert not faults(root)
    assert FacedReader(root).available_features() == ["de"]
    shutil.rmtree(root / "Processed_data")
    assert not faults(root)
    assert FacedReader(root).subjects == [0, 2, 10]
    with pytest.raises(ValueError, match="holds no signals"):
        FacedReader(root).trials()
    (root / "Processed_data").mkdir()
    assert "none" in only(root).found


@pytest.mark.parametrize(
    "where, fix",
    [
        ("Processed_data", "give the folder above as root: {}"),
        ("EEG_Features", "give the folder above as root: {}"),
        ("EEG_Features/DE", "give the folder above as root: {}"),
        ("..", "did you mean {}?"),
        ("none", "give the folder that contains Processed_data or EEG_Features"),
    ],
)
def test_wrong_folder(root, where, fix):
    p = FacedReader((root / where).resolve()).problems()[0]
    assert p.fix == fix.format(root)
    assert "FACED" in p.expected


def test_a_file_that_changes_while_it_is_used(root):
    ds = FacedReader(root)
    a, b = root / "Processed_data/sub002.pkl", root / "EEG_Features/DE/sub002.pkl.pkl"
    put(a, load(a)[:, :, :100])
    put(b, load(b)[:, :31])
    for ask in (lambda: ds.features("de"), lambda: list(ds.trials())):
        with pytest.raises(LayoutError, match="open the folder again"):
            ask()
    for p in (a, b):
        p.write_bytes(p.read_bytes()[:500])
    assert {p.path for p in ds.problems(deep=True)} == {str(a), str(b)}
    for p in (a, b):
        p.unlink()
    for ask in (lambda: ds.features("de"), lambda: list(ds.trials())):
        with pytest.raises(LayoutError, match="cannot be read"):
            ask()


def test_scale_caveat(root):
    for f, change in (("DE", lambda x: x - 13.8), ("PSD", lambda x: x * 1e-12)):
        put(
            root / f"EEG_Features/{f}/sub010.pkl.pkl",
            change(load(root / f"EEG_Features/{f}/sub010.pkl.pkl")),
        )
    ds = FacedReader(root)
    for name in ("de", "psd"):
        assert "subjects 10;" in ds.features(name).attrs["scale_caveat"]
        assert scale_caveat(ds.features(name, subjects=[0, 2])) is None
        assert scale_caveat(ds.features(name, subjects=10)) is None


def test_all_files_are_named_for_fingerprints(root):
    ds = FacedReader(root)
    assert [str(p.relative_to(root)) for p in ds.files(2, 1)] == [
        "EEG_Features/DE/sub002.pkl.pkl",
        "EEG_Features/PSD/sub002.pkl.pkl",
        "Processed_data/sub002.pkl",
    ]
    assert len(ds.files(2, 1, ("signals",))) == 1
