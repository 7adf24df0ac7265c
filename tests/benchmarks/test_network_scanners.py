"""The benchmark of painted scanners: what its trainings differ in, its effects, and its tables."""

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.harness.cases import Heart  # noqa: E402
from benchmarks.network import network_scanners as scanners  # noqa: E402
from cardiacreg import Subject  # noqa: E402
from cardiacreg.phantoms import mr_image  # noqa: E402
from cardiacreg.phantoms.toy_heart import make_toy_heart  # noqa: E402

OPTIONS = {option for option, _ in scanners.SCANNER.values()}


def differences(first, second):
    """Names of the parts of two configurations that differ, and of the options among them."""
    parts = {name for name in first if first[name] != second[name]}
    augmentation = {
        name
        for name, value in first["augmentation"].items()
        if value != second["augmentation"][name]
    }
    return parts, augmentation


def test_trainings_differ_in_nothing_but_what_is_asked():
    effects, painted, drawn = (
        scanners.config_of(method, scanners._FULL).to_dict() for method in scanners.METHODS[:3]
    )
    assert differences(effects, painted) == ({"augmentation"}, OPTIONS)
    assert differences(painted, drawn) == ({"augmentation"}, {"repaint"})
    assert all(effects["augmentation"][option] > 0 for option in OPTIONS)
    assert not any(painted["augmentation"][option] for option in OPTIONS)


@pytest.mark.parametrize("name", scanners.SCANNER)
def test_an_effect_changes_the_image_and_stays_within_it(name):
    heart = make_toy_heart()
    labels = heart.labels.array
    image = heart.image.array + np.linspace(0, 90, labels.shape[0])[:, None, None]
    option, value = scanners.SCANNER[name]
    plain = scanners.with_effect(image, labels, "noise", 0.0, 1)
    found = scanners.with_effect(image, labels, option, value, 1)
    assert found.shape == image.shape and 0 <= found.min() < found.max() <= 1
    assert np.abs(found - plain).mean() > 0.003
    assert np.array_equal(found, scanners.with_effect(image, labels, option, value, 1))


def test_a_small_field_of_view_spares_the_heart():
    heart = make_toy_heart()
    image, labels = heart.image.array, np.zeros(heart.labels.shape, dtype=np.uint8)
    size = labels.shape[0]
    labels[size // 2 - 3 : size // 2 + 3, size // 2 - 3 : size // 2 + 3] = 1
    plain = scanners.with_effect(image, labels, "noise", 0.0, 2)
    found = scanners.with_effect(image, labels, "crop", 0.15, 2)
    assert np.abs(found - plain)[labels > 0].max() < 1e-3
    assert not found[0].any() and not found[:, -1].any()


def test_tissues_are_drawn_at_other_levels_and_then_no_more(monkeypatch):
    heart, drawn = make_toy_heart(), []

    def wide_stack(_):
        drawn.append((mr_image.FAT, mr_image.MUSCLE))
        return Subject(heart.labels, image=heart.image)

    monkeypatch.setattr(scanners, "wide_stack", wide_stack)
    scanners._seen.cache_clear()
    fat, muscle = mr_image.FAT, mr_image.MUSCLE
    for name in (scanners.AS_IS, "dark fat", "bright muscle"):
        image, truth = scanners._seen(Heart(1), name, 16)
        assert image.shape == truth.shape and image.shape[:2] == (16, 16)
    scanners._seen.cache_clear()
    assert drawn == [(fat, muscle), (51.25, muscle), (fat, pytest.approx(112.75))]
    assert (mr_image.FAT, mr_image.MUSCLE) == (fat, muscle)


def test_a_window_keeps_world_positions():
    heart = make_toy_heart()
    image, truth = scanners._window(heart, 24)
    assert image.shape[:2] == (24, 24) and (truth.array > 0).sum() > 0
    inside = np.argwhere(truth.array == 1).mean(axis=0)
    whole = np.argwhere(heart.labels.array == 1).mean(axis=0)
    places = [
        matrix @ [*middle, 1.0]
        for matrix, middle in (
            (truth.voxel_to_world, inside),
            (heart.labels.voxel_to_world, whole),
        )
    ]
    assert np.allclose(*places)


def record(case, method, **dice):
    return {"case": case, "method": method, "dice": dice}


def test_tables_hold_what_was_measured():
    records = []
    for number in range(6):
        shade = number / 1000
        for step, method in enumerate(scanners.METHODS):
            dice = {scanners.AS_IS: [0.9 - step / 10 + shade] * 3, "noise": [0.8, 0.7, 0.6]}
            frame = {"AutoFD, ED": [0.5 - step / 10 + shade] * 3}
            records += [record(f"heart{number}", method, **dice)]
            records += [record(f"frame{number}", method, **frame)]
    records[1]["dice"]["AutoFD, ED"] = None  # no heart was found
    records.append({"case": "broken", "method": scanners.PAINTED, "error": "ValueError()"})
    training = [
        {"method": scanners.EFFECTS, "steps": 7, "parameters": 1234, "cpu_seconds": 90.0,
         "last_loss": 0.5},
    ]  # fmt: skip
    found = scanners.tables({"training": training, "records": records})
    assert f"| {scanners.EFFECTS} | 7 | 1,234 | 1.5 | 0.500 |" in found["network-scanners-training"]
    patients = found["network-scanners-patients"]
    assert f"| AutoFD, ED | {scanners.EFFECTS} | 6 | 0.419 ±" in patients and "| 1 |\n" in patients
    assert f"| AutoFD, ED | {scanners.PAINTED} | 6 | 0.403 ±" in patients
    gains = found["network-scanners-patients-gain"]
    assert f"| AutoFD, ED | {scanners.PAINTED} minus {scanners.DRAWN} | 6 | +0.100 (p = " in gains
    assert "| as they are | 0.903 ± 0.002 | 0.803 ± 0.002 |" in found["network-scanners-hearts"]
    assert "| noise | 0.700 ± 0.000 |" in found["network-scanners-hearts"]
    assert (
        f"| noise | {scanners.EFFECTS} minus {scanners.PAINTED} | 6 | +0.000 (p = 1.000) |"
        in found["network-scanners-hearts-effects"]
    )
    assert "ACDC" not in "".join(found.values())
