"""Mechanisms of twins: closed forms hold in the signals, the record tells them, bad ones fail."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from emo_lib.base.facts import SPECS
from emo_lib.cli.main import main
from emo_lib.signals.features import differential_entropy
from emo_lib.twins.brain import TwinSettings, session_traits, twin_trial
from emo_lib.twins.mechanisms import Mechanisms, class_signs, grid_regions
from emo_lib.twins.truth import class_entropy, read_twin, true_effects
from emo_lib.twins.twin import write_twin

QUIET = dict(emotion=0.0, subject_effect=0.0, session_drift=0.0, seconds_per_trial=20)
LOUD = QUIET | dict(emotion=1.0)
ALL = dict(
    electrodes_db=2.0,
    coupling=0.5,
    interaction_db=2.0,
    part=0.5,
    eyes=2.0,
    shift_db=1.0,
    scale=2.0,
    cap_mm=5.0,
    anatomy_deg=10.0,
)


def mean_entropy(settings, trial, session=1):
    "Mean DE (channel, band) of a trial without artefacts, in nats."
    x = twin_trial(settings, 1, session, trial, artefacts=False)
    return differential_entropy(x, 200.0).mean(1)


def change_of(trial, session=1, **mechanisms):
    "What mechanisms change in the DE of a trial; the noise is the same."
    with_them = TwinSettings(mechanisms=mechanisms, **QUIET)
    return mean_entropy(with_them, trial, session) - mean_entropy(
        TwinSettings(**QUIET), trial, session
    )


@pytest.mark.parametrize("name", list(SPECS))
def test_off_by_default_and_on_in_every_data_set(name):
    options = dict(seconds_per_trial=8)
    subject = SPECS[name].subjects[0]
    plain = twin_trial(TwinSettings(name, **options), subject, 1, 1)
    off = TwinSettings(name, mechanisms=Mechanisms(), **options)
    assert np.array_equal(plain, twin_trial(off, subject, 1, 1))
    changed = twin_trial(TwinSettings(name, mechanisms=ALL, **options), subject, 1, 1)
    assert changed.shape == plain.shape
    assert np.isfinite(changed).all()
    assert not np.array_equal(plain, changed)


def test_shift_is_the_same_in_all_trials_of_a_session():
    expected = session_traits(TwinSettings(mechanisms={"shift_db": 2.0}, **QUIET), 1, 1).shift_db
    for trial in (1, 2):
        found = change_of(trial, shift_db=2.0)
        nats = np.log(10) / 20 * expected
        assert np.corrcoef(found.ravel(), nats.ravel())[0, 1] > 0.97  # narrow bands leak a little
        assert abs(found - nats)[:, 3:].mean() < 0.03
    assert not np.allclose(change_of(1, 2, shift_db=2.0), found, atol=0.1)


def test_the_effect_of_electrodes_cancels_in_each_region():
    settings = TwinSettings(mechanisms={"electrodes_db": 2.0}, **QUIET)
    entropy = class_entropy(settings, 1, 1)
    regions = grid_regions(settings.spec.channels)
    change = (entropy - class_entropy(TwinSettings(**QUIET), 1, 1))[..., 3]
    for region in range(9):
        assert np.allclose(change[:, regions == region].mean(1), 0, atol=1e-3)
    assert true_effects(settings, 1, 1).max() > 0.2


def test_interaction_has_two_states_and_no_mean():
    settings = TwinSettings(mechanisms={"interaction_db": 3.0}, **QUIET)
    up, down, mean = (class_entropy(settings, 1, 1, state) for state in (1, -1, 0))
    assert np.allclose(up + down, 2 * mean, atol=0.01)
    assert np.allclose(np.ptp(mean, axis=0), 0)
    assert np.ptp(up, axis=0).max() > 0.5
    labels = np.array(settings.spec.labels[1])
    twin = [change_of(trial, interaction_db=3.0) for trial in range(1, 16)]
    for label in range(3):
        changes = np.array([c for c, k in zip(twin, labels) if k == label])
        assert set(np.sign(np.round(changes[:, 23, 2], 1))) == {-1, 1}  # T7: up and down


def test_coupling_leaves_the_power_of_every_electrode_to_the_noise():
    quiet = TwinSettings(**QUIET)
    coupled = TwinSettings(mechanisms={"coupling": 0.8}, **QUIET)
    assert np.allclose(class_entropy(coupled, 1, 1), class_entropy(quiet, 1, 1))
    by_trial = np.array([change_of(trial, coupling=0.8) for trial in range(1, 16)])
    labels = np.array(quiet.spec.labels[1])
    by_class = np.array([by_trial[labels == k].mean(0) for k in range(3)])
    spread = by_trial.std(0) / np.sqrt(5)
    assert abs(by_class - by_class.mean(0)).mean() < 2 * spread.mean()


def test_the_record_tells_what_was_drawn(tmp_path):
    small = dict(seconds_per_trial=4, features=("de_LDS",), signals=False, subjects=1)
    file = write_twin("SEED", tmp_path / "twin", mechanisms=ALL, **small)
    record = json.loads(file.read_text())
    truth, session = record["truth"]["mechanisms"], record["truth"]["sessions"][0]
    assert set(truth) == {"electrodes", "coupling", "interaction", "eyes"}
    assert truth["coupling"]["leads_by_class"] == class_signs(3).tolist()
    gain_db = np.array(truth["electrodes"]["gain_db"])
    assert np.isclose(np.sqrt(np.mean(gain_db**2)), 2, atol=0.01)
    drawn = {"interaction_state", "active_part", "shift_db", "scale", "cap_turn_rad", "tilt_rad"}
    assert drawn <= set(session)
    assert set(session["interaction_state"]) == {-1, 1}
    assert all(np.isclose(end - start, 0.5, atol=1e-3) for start, end in session["active_part"])
    assert read_twin(tmp_path / "twin").mechanisms == Mechanisms(**ALL)

    del record["parameters"]["mechanisms"], record["parameters"]["recording"]
    file.write_text(json.dumps(record))  # as an older version wrote it
    assert read_twin(file).mechanisms == Mechanisms()


def test_command(tmp_path):
    base = ["twin", "--dataset", "SEED", "--root", str(tmp_path / "t"), "--subjects", "1"]
    base += ["--seconds-per-trial", "4", "--no-signals", "--feature", "de_LDS", "--no-eye"]

    def emo(mechanisms):
        return CliRunner().invoke(main, [*base, "--mechanisms", mechanisms], prog_name="emo")

    for wrong, words in (
        ("{electrodes_db: 3}", "--mechanisms"),
        ('{"electrode_db": 3}', "electrode_db: unknown parameter"),
        ('{"coupling": 1.5}', "expected at most 1, found 1.5"),
        ('{"part": 0}', "expected more than 0, found 0"),
    ):
        done = emo(wrong)
        assert done.exit_code == 1, wrong
        assert words in done.output, done.output
    assert not (tmp_path / "t").exists()
    assert emo('{"electrodes_db": 3}').exit_code == 0
    assert "exists already" in emo('{"electrodes_db": 3}').output
    done = emo('{"electrodes_db": 2}')
    assert done.exit_code == 1
    assert "--replace" in done.output


def test_classes_that_are_alike_in_one_modality():
    "Class 3 (neutral) has the EEG of class 2 (sad), and keeps its eyes; class 1 the other way."
    alike = dict(eeg_alike=("sad", "neutral"), eye_alike=("sad", "fear"))
    plain, settings = (TwinSettings("SEED-V", mechanisms=m, **LOUD) for m in ({}, alike))
    entropy, usual = class_entropy(settings, 1, 1), class_entropy(plain, 1, 1)
    assert np.array_equal(entropy[3], entropy[2])
    assert not np.allclose(usual[3], usual[2])
    assert np.array_equal(entropy[[0, 1, 2, 4]], usual[[0, 1, 2, 4]])
    assert settings.feelings == ["disgust", "sad", "sad", "neutral", "happy"]


def test_alike_classes_must_exist():
    with pytest.raises(ValueError, match="eeg_alike: expected two or more .* found joy"):
        TwinSettings("SEED-V", mechanisms=dict(eeg_alike=("joy", "sad")))
    with pytest.raises(ValueError, match="eye_alike: expected two or more"):
        TwinSettings("SEED-V", mechanisms=dict(eye_alike=("sad",)))
