"""MSMAE where a notebook would be tedious: every option runs, files are refused cleanly, caches are keyed by all that they depend on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone

from emo_lib.models.msmae import MSMAE, VARIANTS, MSMAENet, pretraining_key
from emo_lib.nets.masking import random_mask
from emo_lib.training.training import load_weights, read_weights, save_weights

TINY = dict(
    dim_channel=8,
    dim_spatial=16,
    layers=1,
    heads=2,
    mlp_ratio=1,
    pretrain_epochs=1,
    epochs=2,
    optimizer="adamw",
    device="cpu",
)


@pytest.fixture(scope="module")
def data():
    r = np.random.default_rng(0)
    X, y = r.normal(20, 3, (48, 62, 5)).astype("float32"), np.arange(48) % 3
    return X, y


@pytest.fixture(scope="module")
def model(data):
    return MSMAE(3, **TINY).pretrain(data[0], X_target=data[0][:16]).fit(*data)


@pytest.mark.parametrize(
    "change",
    [
        dict(align="joint"),
        dict(align="none"),
        dict(kernel="linear"),
        dict(region_norm=False),
        dict(spatial_target="image"),
        dict(mask_count="all"),
        dict(scale="band"),
        dict(pool="max"),
        dict(freeze_spatial=False),
        dict(optimizer="sgd", clip=1.0),
        dict(decoder_channel=12, decoder_spatial=8),
        dict(pretrain_batch_size=7),
        dict(mask_channel=0.0, mask_spatial=0.0),
    ],
)
@pytest.mark.parametrize("uneven", [False, True])
def test_every_option_trains_and_predicts(data, change, uneven):
    X, y = data
    valid = np.random.default_rng(1).random(X.shape[:2]) > 0.4 if uneven else None
    m = (
        MSMAE(3, **TINY | change)
        .pretrain(
            X, valid=valid, X_target=X[:16], valid_target=None if valid is None else valid[:16]
        )
        .fit(X, y, valid=valid)
    )
    p = m.predict_proba(X, valid=valid)
    assert p.shape == (48, 3) and np.allclose(p.sum(1), 1) and np.isfinite(m.history_[-1]["loss"])


def test_frozen_branch_is_untouched_and_the_other_is_not(data):
    X, y = data
    for freeze in (True, False):
        m = (
            MSMAE(3, **TINY, freeze_spatial=freeze, weight_decay=0.1)
            .pretrain(X, X_target=X[:16])
            .fit(X, y, val=(X, y, None))
        )
        before, now = m.pretrained_weights_["spatial"], m.net_.spatial.state_dict()
        assert all(torch.equal(before[k], now[k]) for k in before) == freeze


def test_a_second_fit_starts_from_the_pretrained_weights(data, model):
    X, y = data
    before = model.predict_proba(X)
    model.fit(X, y)
    assert np.array_equal(before, model.predict_proba(X))


def test_order_of_the_stages_does_not_matter(data):
    X, _ = data
    a, b = MSMAE(3, **TINY), MSMAE(3, **TINY)
    a.pretrain_channel(X)
    a.pretrain_spatial(X, X[:16])
    b.pretrain_spatial(X, X[:16])
    b.pretrain_channel(X)
    for part in ("channel", "spatial"):
        assert all(
            torch.equal(v, b.pretrained_weights_[part][k])
            for k, v in a.pretrained_weights_[part].items()
        )


def test_best_epoch_is_kept(data):
    X, y = data
    m = MSMAE(3, **TINY | dict(epochs=6, lr=0.01)).fit(X, y, val=(X[::-1].copy(), y, None))
    assert sum(h["best"] for h in m.history_) == 1 and max(h["val"] for h in m.history_) == next(
        h["val"] for h in m.history_ if h["best"]
    )


def test_cache_key_knows_what_the_weights_depend_on(data):
    X, valid = data[0], np.ones(data[0].shape[:2], bool)
    key = lambda part, X=X, **change: pretraining_key(MSMAE(3, **TINY | change), part, (X, valid))
    assert (
        key("channel")
        == key("channel", epochs=9)
        == key("channel", align="none", dim_spatial=32)
        != key("channel", seed=1)
    )
    assert key("spatial") == key("spatial", dim_channel=16) != key("spatial", align="none")
    for change in (
        dict(pretrain_epochs=2),
        dict(layers=2),
        dict(mask_channel=0.5),
        dict(scale="band"),
        dict(X=X[:-1]),
    ):
        assert key("channel") != key("channel", **change)


def test_cache_gives_the_same_model_and_is_used(data, tmp_path):
    X, y = data
    first = MSMAE(3, **TINY).pretrain(X, X_target=X[:16], cache=tmp_path).fit(X, y)
    files = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    second = MSMAE(3, **TINY).pretrain(X, X_target=X[:16], cache=tmp_path).fit(X, y)
    assert sorted(n.partition("-")[0] + Path(n).suffix for n in files) == [
        "channel.json",
        "channel.safetensors",
        "spatial.json",
        "spatial.safetensors",
    ] and files == {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert np.array_equal(
        first.predict_proba(X), second.predict_proba(X)
    ) and second.align_summary_.keys() == {"before", "after"}
    MSMAE(3, **TINY).pretrain(X, X_target=X[16:32], cache=tmp_path)
    assert sorted(p.name.split("-")[0] for p in tmp_path.glob("*.safetensors")) == [
        "channel",
        "spatial",
        "spatial",
    ]


@pytest.mark.parametrize("stage", ["channel", "align", "spatial"])
def test_killed_pretraining_goes_on_to_the_same_weights(data, tmp_path, monkeypatch, stage):
    """The run dies in the second epoch of a stage; the next one ends with the weights of a run that nobody killed, and leaves no state behind."""
    import emo_lib.models.msmae as module

    X, hyper = data[0], TINY | dict(pretrain_epochs=4)
    whole = MSMAE(3, **hyper).pretrain(X, X_target=X[:16], cache=tmp_path / "whole")
    train, seen = module.train, []

    def mortal(net, loss_fn, tensors, **options):
        def loss(*args):
            seen.append(1)
            if (
                f".{stage}." in str(options["checkpoint"])
                and len(seen) > 2
                and options["checkpoint"].exists()
            ):
                raise KeyboardInterrupt
            return loss_fn(*args)

        return train(net, loss, tensors, **options | dict(checkpoint_s=0))

    monkeypatch.setattr(module, "train", mortal)
    with pytest.raises(KeyboardInterrupt):
        MSMAE(3, **hyper).pretrain(X, X_target=X[:16], cache=tmp_path / "killed")
    assert [p for p in (tmp_path / "killed").iterdir() if ".part" in p.name]
    monkeypatch.setattr(module, "train", train)
    again = MSMAE(3, **hyper).pretrain(X, X_target=X[:16], cache=tmp_path / "killed")
    for part in ("channel", "spatial"):
        for k, v in whole.pretrained_weights_[part].items():
            assert torch.equal(v, again.pretrained_weights_[part][k]), (part, k)
    assert whole.pretrain_history_ == again.pretrain_history_ and not [
        p for p in (tmp_path / "killed").iterdir() if ".part" in p.name
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_rows_of_table_iii(data, tmp_path, variant):
    X, y = data
    row, model = VARIANTS[variant], MSMAE(3, **TINY, variant=variant)
    model.pretrain(X, X_target=X[:16], cache=tmp_path).fit(X, y)
    assert model.stages == (row.parts if row.pretrains else ()) and {
        p.name.partition("-")[0] for p in tmp_path.iterdir()
    } == set(model.stages)
    assert [getattr(model.net_, part) is not None for part in ("channel", "spatial")] == [
        part in row.parts for part in ("channel", "spatial")
    ]
    moved = {
        part: not all(torch.equal(v, model.net_.state_dict()[f"{part}.{k}"]) for k, v in w.items())
        for part, w in getattr(model, "pretrained_weights_", {}).items()
    }
    assert moved == {part: row.plain or part == "channel" for part in model.stages}, (
        "only MSMAE freezes its spatial branch"
    )
    model.save(tmp_path / "m.safetensors")
    assert np.array_equal(
        MSMAE(3, **TINY, variant=variant).load(tmp_path / "m.safetensors").predict_proba(X),
        model.predict_proba(X),
    )


def test_plain_rows_share_branches_and_know_no_target(data, tmp_path):
    X, _ = data
    for variant in ("mae_1x1", "mae_3x3", "mae_1x1_3x3"):
        for target in (X[:16], X[16:32], None):
            MSMAE(3, **TINY, variant=variant).pretrain(X, X_target=target, cache=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    MSMAE(3, **TINY).pretrain(X, X_target=X[:16], cache=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4, (
        "MSMAE leaves padding out, so its weights are others"
    )


def test_what_weights_were_trained_on_stands_beside_them(data, tmp_path):
    file, _ = MSMAE(3, **TINY).pretrain_channel(
        data[0], cache=tmp_path, note={"dataset": "SEED", "scope": "all"}
    )
    said = json.loads(file.with_suffix(".json").read_text())
    assert (
        said["trained_on"]["scope"] == "all"
        and said["trained_on"]["windows"] == len(data[0])
        and len(said["trained_on"]["fingerprint"]) == 16
    )


def test_a_damaged_cache_file_is_named(data, tmp_path):
    file, _ = MSMAE(3, **TINY).pretrain_channel(data[0], cache=tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=file.name):
        MSMAE(3, **TINY).pretrain_channel(data[0], cache=tmp_path)


def test_pretraining_on_another_cap(data):
    X, y = data
    from emo_lib.base.montage import CHANNELS

    m30 = MSMAE(3, channels=CHANNELS[::2], **TINY).pretrain(X[:, ::2], X_target=X[:16, ::2])
    m62 = MSMAE(3, **TINY)
    m62.pretrained_weights_ = m30.pretrained_weights_
    assert m62.fit(X, y).pretrained_


def test_saved_files(data, model, tmp_path):
    X, _ = data
    model.save(tmp_path / "all.safetensors")
    model.save(tmp_path / "pre.safetensors", "pretrained")
    assert np.array_equal(
        MSMAE(3, **TINY).load(tmp_path / "all.safetensors").predict_proba(X), model.predict_proba(X)
    )
    assert set(MSMAE(3, **TINY).load(tmp_path / "pre.safetensors").pretrained_weights_) == {
        "channel",
        "spatial",
    }
    with pytest.raises(ValueError, match="do not fit"):
        MSMAE(3, **TINY | dict(dim_channel=16)).load(tmp_path / "all.safetensors")
    with pytest.raises(ValueError, match="channels"):
        MSMAE(3, channels=("FP1", "FP2"), **TINY).load(tmp_path / "all.safetensors")
    with pytest.raises(FileNotFoundError):
        MSMAE(3, **TINY).load(tmp_path / "nothing.safetensors")
    save_weights(tmp_path / "foreign.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(ValueError):
        load_weights(tmp_path / "foreign.safetensors", model.net_)
    assert read_weights(tmp_path / "all.safetensors")[1]["class"] == "MSMAE"


@pytest.mark.parametrize(
    "name, value",
    [
        ("epochs", -1),
        ("epochs", 2.5),
        ("heads", 0),
        ("mask_channel", 1.5),
        ("lr", 0),
        ("lr", float("nan")),
        ("align", "mmd2"),
        ("dim_channel", 30),
        ("optimizer", "adam"),
        ("n_classes", 1),
        ("clip", 0),
        ("seed", -1),
        ("region_norm", 1),
        ("batch_size", "32"),
    ],
)
def test_impossible_values_are_refused_in_one_line(name, value):
    with pytest.raises(ValueError, match=name) as e:
        MSMAE(**{"n_classes": 3, name: value}).check_params()
    assert "\n" not in str(e.value)


def test_bad_input(data, model):
    X, y = data
    with pytest.raises(ValueError, match="62 channels, found 61"):
        model.predict(X[:, :61])
    with pytest.raises(ValueError, match="5 bands"):
        model.predict(X[..., :4])
    with pytest.raises(ValueError, match="infinite"):
        model.predict(np.where(X > 25, np.inf, X))
    with pytest.raises(ValueError, match="no valid channel"):
        model.predict(X, valid=np.zeros(62, bool))
    with pytest.raises(ValueError, match="labels"):
        model.fit(X, y + 1)
    with pytest.raises(TypeError, match="pretrain_epoch'"):
        MSMAE(3, pretrain_epoch=3)
    with pytest.raises(ValueError, match="one of|among|CHANNELS|cells|unknown|XX"):
        MSMAE(3, channels=("XX", "FP2"), **TINY).fit(X[:, :2], y)


def test_clone_keeps_parameters_and_drops_weights(model):
    c = clone(model)
    assert (
        c.get_params() == model.get_params()
        and not hasattr(c, "pretrained_weights_")
        and not hasattr(c, "net_")
    )


def test_mask_numbers_when_samples_differ():
    valid = (
        torch.rand(200, 81, generator=torch.Generator().manual_seed(0))
        < torch.linspace(0.05, 1, 200)[:, None]
    )
    valid[:, 0] = True
    visible, omega = random_mask(valid, 0.75, torch.Generator().manual_seed(1))
    p = valid.sum(1)
    assert torch.equal(
        visible.sum(1), (p * 0.25 + 1e-6).floor().long().clamp(min=1)
    ) and torch.equal(visible | omega, valid)


def test_table_1_size():
    m = MSMAE(3)
    m.n_bands_ = 5
    assert sum(p.numel() for p in m._build().parameters()) == 17182216 and isinstance(
        m._build(), MSMAENet
    )


def test_importing_the_model_needs_no_mne():
    subprocess.run(
        [sys.executable, "-c", "import sys, emo_lib.models.msmae; sys.exit('mne' in sys.modules)"],
        check=True,
    )


@pytest.mark.parametrize(
    "change",
    [
        dict(parts=5),
        dict(parts=[]),
        dict(parts=["other"]),
        dict(curves=[]),
        dict(curves={}),
        dict(params=None),
        dict(n_bands=None),
    ],
)
def test_a_damaged_description_of_branches_is_named(data, tmp_path, change):
    file, _ = MSMAE(3, **TINY).pretrain_channel(data[0], cache=tmp_path)
    state, info = read_weights(file)
    save_weights(file, state, info | change)
    with pytest.raises(ValueError, match=f"{file.name}.*damaged"):
        MSMAE(3, **TINY).pretrain_channel(data[0], cache=tmp_path)


def test_pretrained_branches_of_other_parameters_and_other_branches_are_refused(data, tmp_path):
    file, _ = MSMAE(3, **TINY).pretrain_channel(data[0], cache=tmp_path)
    for change in (dict(heads=4), dict(scale="band")):
        with pytest.raises(ValueError, match="saved with"):
            MSMAE(3, **TINY | change).load(file)
    other, _ = MSMAE(3, **TINY).pretrain_spatial(data[0], cache=tmp_path)
    file.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="channel branch, found others"):
        MSMAE(3, **TINY).pretrain_channel(data[0], cache=tmp_path)
