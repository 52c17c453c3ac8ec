"""MSMAE where a notebook would be tedious: every option, refused files, keys, kills."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from stubs import DEVICE

import emo_lib.models.vit  # noqa: F401
import emo_lib.training.stages as module
from emo_lib.base.montage import CHANNELS
from emo_lib.models.msmae import MSMAE, VARIANTS, MSMAENet
from emo_lib.nets.masking import random_mask
from emo_lib.training.sources import code_digest
from emo_lib.training.weights import fit_into, read_weights, save_weights

TINY = dict(
    dim_channel=8,
    dim_spatial=16,
    layers=1,
    heads=2,
    mlp_ratio=1,
    pretrain_epochs=1,
    epochs=2,
    optimizer="adamw",
    device=DEVICE,
)


def tiny(**changes):
    return MSMAE(3, **TINY | changes)


def pretrain(model, pool, train=None):
    for stage in model.stages():
        model.pretrain(stage, pool, train)
    return model


def are_equal(a, b):
    "Whether two dicts of tensors are equal."
    return set(a) == set(b) and all(torch.equal(a[k].cpu(), b[k].cpu()) for k in a)


@pytest.fixture(scope="module")
def data():
    r = np.random.default_rng(0)
    return r.normal(20, 3, (48, 62, 5)).astype("float32"), np.arange(48) % 3


@pytest.fixture(scope="module")
def model(data):
    X, y = data
    return pretrain(tiny(), X, X[:16]).fit(X, y)


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
    ids=str,
)
@pytest.mark.parametrize("uneven", [False, True])
def test_every_option_trains_and_predicts(data, change, uneven):
    X, y = data
    valid = (
        np.random.default_rng(1).random(X.shape[:2]) > 0.4 if uneven else np.ones((48, 62), bool)
    )
    m = pretrain(tiny(**change), (X, valid), (X[:16], valid[:16])).fit(X, y, valid=valid)
    p = m.predict_proba(X, valid=valid)
    assert p.shape == (48, 3)
    assert np.allclose(p.sum(1), 1)
    assert np.isfinite(m.history_[-1]["loss"])


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_branch_is_untouched_and_the_other_is_not(data, freeze):
    X, y = data
    m = pretrain(tiny(freeze_spatial=freeze, weight_decay=0.1), X, X[:16]).fit(X, y, val=(X, y))
    before, now = m.pretrained_["spatial"].weights, m.net_.spatial.state_dict()
    assert are_equal(before, now) == freeze


def test_a_second_fit_starts_from_the_pretrained_weights(data, model):
    X, y = data
    before = model.predict_proba(X)
    assert np.array_equal(before, model.fit(X, y).predict_proba(X))


def test_order_of_the_stages_does_not_matter(data):
    X, _ = data
    forwards, backwards = tiny(), tiny()
    for name in ("channel", "spatial"):
        forwards.pretrain(name, X, X[:16])
    for name in ("spatial", "channel"):
        backwards.pretrain(name, X, X[:16])
    for name, trained in forwards.pretrained_.items():
        assert are_equal(trained.weights, backwards.pretrained_[name].weights)


def test_best_epoch_is_kept(data):
    X, y = data
    m = tiny(epochs=6, lr=0.01).fit(X, y, val=(X[::-1].copy(), y))
    best = [h["val"] for h in m.history_ if h["best"]]
    assert best == [max(h["val"] for h in m.history_)]


def key(stage, **changes):
    "The key of a stage."
    return tiny(**changes).find_stage(stage).key


def test_the_key_of_a_stage_follows_what_its_weights_depend_on():
    assert key("channel") == key("channel", epochs=9)
    assert key("channel") == key("channel", align="none", dim_spatial=32)
    assert key("spatial") == key("spatial", dim_channel=16)
    assert key("spatial") != key("spatial", align="none")
    channels = CHANNELS[:30]
    for change in (
        dict(seed=1),
        dict(pretrain_epochs=2),
        dict(layers=2),
        dict(mask_channel=0.5),
        dict(scale="band"),
        dict(channels=channels),
    ):
        assert key("channel") != key("channel", **change)


def test_the_stages_say_what_they_use():
    assert [(s.name, s.uses) for s in tiny().stages()] == [
        ("channel", ("pool",)),
        ("spatial", ("pool", "train")),
    ]
    assert [s.uses for s in tiny(variant="mae_1x1_3x3").stages()] == [("pool",), ("pool",)]
    assert tiny(variant="vit_1x1_3x3").stages() == []
    assert tiny(pretrain_epochs=7).stages()[0].epochs == 7


def test_plain_rows_share_their_branches():
    for stage, variant in (("channel", "mae_1x1"), ("spatial", "mae_3x3")):
        assert key(stage, variant=variant) == key(stage, variant="mae_1x1_3x3")
        assert key(stage, variant=variant) != key(stage), "MSMAE leaves padding out"


def test_plain_rows_do_not_depend_on_the_training_samples(data):
    X, _ = data
    a = tiny(variant="mae_3x3").pretrain("spatial", X, X[:16])
    b = tiny(variant="mae_3x3").pretrain("spatial", X)
    assert are_equal(a.pretrained_["spatial"].weights, b.pretrained_["spatial"].weights)


def test_saved_stages_give_the_same_model(data, model, tmp_path):
    X, y = data
    loaded = tiny()
    for stage in model.stages():
        model.save_stage(stage, tmp_path / f"{stage.name}.safetensors")
        loaded.load_stage(stage, tmp_path / f"{stage.name}.safetensors")
    assert np.array_equal(loaded.fit(X, y).predict_proba(X), model.predict_proba(X))
    assert loaded.pretrained_["spatial"].curves["attention"].keys() == {"before", "after"}


@pytest.mark.parametrize("training", ["channel", "align", "spatial"])
def test_killed_pretraining_resumes_to_the_same_weights(data, tmp_path, monkeypatch, training):
    X, _ = data
    checkpoint = tmp_path / "weights.part.safetensors"
    state = tmp_path / f"weights.part.{training}.safetensors"
    uninterrupted = pretrain(tiny(pretrain_epochs=4), X, X[:16])
    train = module.train

    def mortal_train(net, loss_fn, tensors, options, *, checkpoint):
        def loss(*args):
            if checkpoint == state and state.exists():
                raise KeyboardInterrupt
            return loss_fn(*args)

        return train(net, loss, tensors, options, checkpoint=checkpoint, checkpoint_s=0)

    def start():
        resumed = tiny(pretrain_epochs=4)
        for stage in resumed.stages():
            resumed.pretrain(stage, X, X[:16], checkpoint=checkpoint)
        return resumed

    with monkeypatch.context() as m:
        m.setattr(module, "train", mortal_train)
        with pytest.raises(KeyboardInterrupt):
            start()
    assert list(tmp_path.iterdir()) == [state]
    resumed = start()
    for name, trained in uninterrupted.pretrained_.items():
        assert are_equal(trained.weights, resumed.pretrained_[name].weights)
        assert trained.curves == resumed.pretrained_[name].curves
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_rows_of_table_iii(data, tmp_path, variant):
    X, y = data
    row = VARIANTS[variant]
    m = pretrain(tiny(variant=variant), X, X[:16]).fit(X, y)
    assert tuple(m.pretrained_) == (row.parts if row.pretrains else ())
    for part in ("channel", "spatial"):
        assert (getattr(m.net_, part) is not None) == (part in row.parts)
    for part, trained in m.pretrained_.items():
        is_frozen = are_equal(trained.weights, getattr(m.net_, part).state_dict())
        assert is_frozen == (variant == "msmae" and part == "spatial")
    m.save(tmp_path / "m.safetensors")
    loaded = tiny(variant=variant).load(tmp_path / "m.safetensors")
    assert np.array_equal(loaded.predict_proba(X), m.predict_proba(X))


@pytest.fixture
def channel_file(data, tmp_path):
    "The saved weights of a channel branch."
    file = tmp_path / "channel.safetensors"
    m = tiny().pretrain("channel", data[0])
    m.save_stage("channel", file, {"dataset": "SEED", "scope": "all"})
    return file


def test_what_weights_were_trained_on_stands_beside_them(channel_file):
    info = json.loads(channel_file.with_suffix(".json").read_text())
    assert info["trained_on"] == {"dataset": "SEED", "scope": "all"}
    assert info["parts"] == ["channel"]
    assert info["params"]["dim_channel"] == 8


def test_a_damaged_file_is_named(channel_file):
    channel_file.write_bytes(channel_file.read_bytes()[:100])
    with pytest.raises(ValueError, match=channel_file.name):
        tiny().load_stage("channel", channel_file)


@pytest.mark.parametrize(
    "change",
    [
        dict(parts=5),
        dict(parts=["other"]),
        dict(curves=[]),
        dict(curves={}),
        dict(n_bands=None),
    ],
    ids=str,
)
def test_a_damaged_description_is_named(channel_file, change):
    state, info = read_weights(channel_file)
    save_weights(channel_file, state, info | change)
    with pytest.raises(ValueError, match=f"{channel_file.name}.*damaged"):
        tiny().load_stage("channel", channel_file)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(parts=[]), "expected weights of stage 'channel', found \\[\\]"),
        (dict(params=None), "expected heads 2, found None"),
        ({"class": "SAE"}, "expected class MSMAE, found SAE"),
    ],
    ids=str,
)
def test_a_description_of_something_else_is_named(channel_file, change, words):
    state, info = read_weights(channel_file)
    save_weights(channel_file, state, info | change)
    with pytest.raises(ValueError, match=f"{channel_file.name}: {words}"):
        tiny().load_stage("channel", channel_file)


@pytest.mark.parametrize("change", [dict(heads=4), dict(scale="band")], ids=str)
def test_branches_of_other_parameters_are_refused(channel_file, change):
    with pytest.raises(ValueError, match="saved with"):
        tiny(**change).load_stage("channel", channel_file)


def test_another_branch_is_refused(data, channel_file):
    tiny().pretrain("spatial", data[0]).save_stage("spatial", channel_file)
    with pytest.raises(ValueError, match="expected weights of stage 'channel', found"):
        tiny().load_stage("channel", channel_file)


def test_a_variant_without_the_stage_refuses_it(data, channel_file):
    words = "no pre-training stage 'channel'; it has none"
    with pytest.raises(ValueError, match=words):
        tiny(variant="vit_1x1").load_stage("channel", channel_file)
    with pytest.raises(ValueError, match="no pre-training stage 'spatial'; it has channel"):
        tiny(variant="mae_1x1").pretrain("spatial", data[0])


def test_a_file_of_pretrained_weights_is_checked(data, tmp_path):
    X, y = data
    file = tmp_path / "w.safetensors"
    pretrain(tiny(), X, X[:16]).save_pretrained(file, {"dataset": "a toy"})
    assert read_weights(file)[1]["trained_on"] == {"dataset": "a toy"}
    with pytest.raises(ValueError, match="w.safetensors.*do not fit"):
        tiny(pretrained=file, dim_channel=16).fit(X, y)
    with pytest.raises(ValueError, match="w.safetensors: expected heads 1, found 2"):
        tiny(pretrained=file, heads=1).fit(X, y)
    with pytest.raises(ValueError, match="stages among .'channel'., found"):
        tiny(pretrained=file, variant="mae_1x1").fit(X, y)
    with pytest.raises(ValueError, match="pretrained: expected None.*no pre-training stage"):
        tiny(pretrained=file, variant="vit_1x1").fit(X, y)


def test_a_file_of_one_stage_is_enough_to_start_from(data, channel_file):
    X, y = data
    expected = tiny().load_stage("channel", channel_file).fit(X, y).predict_proba(X)
    from_file = tiny(pretrained=channel_file).fit(X, y)
    assert np.array_equal(from_file.predict_proba(X), expected)


def test_a_frozen_branch_of_a_file_is_untouched(data, tmp_path):
    X, y = data
    file = tmp_path / "w.safetensors"
    before = pretrain(tiny(), X, X[:16]).save_pretrained(file).pretrained_["spatial"].weights
    fitted = tiny(pretrained=file).fit(X, y)
    assert are_equal(before, fitted.net_.spatial.state_dict())


@pytest.mark.parametrize(
    "module_name, is_part",
    [
        ("emo_lib.models.msmae", True),
        ("emo_lib.nets.blocks", True),
        ("emo_lib.training.loop", True),
        ("emo_lib.signals.images", True),
        ("emo_lib.models.vit", False),
    ],
)
def test_the_key_of_a_stage_follows_the_source_code(tmp_path, monkeypatch, module_name, is_part):
    before = {s.name: s.key for s in tiny().stages()}
    changed = sys.modules[module_name]
    edited = tmp_path / "edited.py"
    edited.write_text(Path(changed.__file__).read_text() + "\nEDITED = True\n")
    monkeypatch.setattr(changed, "__file__", str(edited))
    code_digest.cache_clear()
    try:
        after = {s.name: s.key for s in tiny().stages()}
    finally:
        code_digest.cache_clear()
    assert all((after[name] != before[name]) == is_part for name in before)


def test_pretraining_on_another_cap(data, tmp_path):
    X, y = data
    m30 = pretrain(tiny(channels=CHANNELS[::2]), X[:, ::2], X[:16, ::2])
    m62 = tiny()
    for stage in m30.stages():
        m30.save_stage(stage, tmp_path / "w.safetensors")
        m62.load_stage(stage, tmp_path / "w.safetensors")
    assert list(m62.fit(X, y).pretrained_) == ["channel", "spatial"]


def test_saved_models(data, model, tmp_path):
    X, _ = data
    file = tmp_path / "all.safetensors"
    model.save(file)
    assert np.array_equal(tiny().load(file).predict_proba(X), model.predict_proba(X))
    assert read_weights(file)[1]["class"] == "MSMAE"
    with pytest.raises(ValueError, match="do not fit"):
        tiny(dim_channel=16).load(file)
    with pytest.raises(ValueError, match="channels"):
        tiny(channels=("FP1", "FP2")).load(file)
    with pytest.raises(FileNotFoundError):
        tiny().load(tmp_path / "nothing.safetensors")
    save_weights(tmp_path / "foreign.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(ValueError, match="do not fit"):
        fit_into(model.net_, read_weights(tmp_path / "foreign.safetensors")[0])
    with pytest.raises(ValueError, match="expected class MSMAE, found None"):
        tiny().load(tmp_path / "foreign.safetensors")


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
        ("decoder_spatial", 2),
        ("pretrain_batch_size", 1),
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
        model.fit(X, np.arange(48) % 4)
    with pytest.raises(TypeError, match="pretrain_epoch'"):
        MSMAE(3, pretrain_epoch=3)
    with pytest.raises(ValueError, match="unknown 'XX'"):
        tiny(channels=("XX", "FP2")).fit(X[:, :2], y)
    with pytest.raises(ValueError, match="5 bands as in training, found 4"):
        tiny().pretrain("spatial", X, X[..., :4])


def test_clone_keeps_parameters_and_drops_weights(data, model):
    with pytest.warns(UserWarning, match="no pre-trained weights"):
        copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not copy.pretrained_
    with pytest.raises(ValueError, match="not fitted"):
        copy.predict(data[0])


def test_mask_numbers_when_samples_differ():
    share = torch.linspace(0.05, 1, 200)[:, None]
    valid = torch.rand(200, 81, generator=torch.Generator().manual_seed(0)) < share
    valid[:, 0] = True
    visible, omega = random_mask(valid, 0.75, torch.Generator().manual_seed(1))
    expected = (valid.sum(1) * 0.25 + 1e-6).floor().long().clamp(min=1)
    assert torch.equal(visible.sum(1), expected)
    assert torch.equal(visible | omega, valid)


def test_table_1_size():
    net = MSMAE(3).make_net(5)
    assert isinstance(net, MSMAENet)
    assert sum(p.numel() for p in net.parameters()) == 17_182_216


def test_importing_the_model_needs_no_mne():
    program = "import sys, emo_lib.models.msmae; sys.exit('mne' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
