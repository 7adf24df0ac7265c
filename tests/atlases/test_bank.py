"""Banks on disk: exact contents, lazy opening, appending, what is refused."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cardiacreg import InvalidInputError, LabelMap, Landmarks, Subject, Volume
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.atlases import bank_building, bank_files
from cardiacreg.atlases.bank import AtlasBank, label_hash
from cardiacreg.atlases.bank_building import append_to_atlas_bank, build_atlas_bank
from cardiacreg.atlases.bank_verification import verify_atlas_bank
from cardiacreg.atlases.checks import check_atlases
from cardiacreg.atlases.ranking import with_metadata
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, HeartSpecification, sample_heart
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement.target import gather_atlases

FEW = (
    HeartSpecification(FIRST_EVALUATION_SEED),
    HeartSpecification(FIRST_EVALUATION_SEED, "pulmonary_hypertension", "ES"),
    HeartSpecification(FIRST_EVALUATION_SEED + 1, "hypertrophic"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("banks") / "few"
    build_atlas_bank(place, FEW, threads=2)
    return place


def test_a_bank_returns_what_was_put_in(folder):
    bank = AtlasBank(folder)
    assert len(bank) == len(FEW)
    assert bank.names == tuple(item.name for item in FEW)
    for item, kept in zip(FEW, bank, strict=True):
        made = sample_heart(item.seed, group=item.group, phase=item.phase)
        assert np.array_equal(kept.labels.array, made.labels.array)
        assert np.allclose(kept.labels.voxel_to_world, made.labels.voxel_to_world)
        assert np.allclose(kept.landmarks.points_mm, made.landmarks.points_mm)
        assert kept.metadata == made.metadata
        inside = made.image.array < np.percentile(made.image.array, 99.5)
        assert np.abs(kept.image.array - made.image.array)[inside].max() < 1.0


def test_the_number_of_threads_changes_nothing(folder, tmp_path):
    build_atlas_bank(tmp_path / "one", FEW, threads=1)
    for name in ("labels.npy", "images.npy", "entries.jsonl", "ends.npy", "index.json"):
        assert (tmp_path / "one" / name).read_bytes() == (folder / name).read_bytes()


def test_a_bank_is_a_sequence(folder):
    bank = AtlasBank(folder)
    assert bank[-1].name == bank[2].name == FEW[2].name
    assert [heart.name for heart in bank[1:]] == list(bank.names[1:])
    with pytest.raises(IndexError):
        bank[3]


def test_labels_are_mapped_not_read(folder):
    bank = AtlasBank(folder)
    array = bank[1].labels.array
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_subjects_without_image_or_landmarks_are_kept(tmp_path):
    heart = sample_heart(FIRST_EVALUATION_SEED, with_image=False)
    (kept,) = build_atlas_bank(tmp_path / "plain", [Subject(heart.labels, name="plain")])
    assert kept.image is None
    assert kept.landmarks is None
    assert kept.name == "plain"


def test_nothing_is_left_beside_a_bank_even_after_a_failure(tmp_path):
    with pytest.raises(InvalidInputError):
        build_atlas_bank(tmp_path / "bad", [HeartSpecification(-1)], threads=1)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_bank_is_refused(tmp_path):
    with pytest.raises(InvalidInputError):
        build_atlas_bank(tmp_path / "empty", [])


def tiny_hearts(*sizes):
    return [
        Subject(
            (heart := make_toy_heart(size=size)).labels,
            image=heart.image,
            landmarks=landmarks_from_labels(heart.labels),
            name=f"tiny {size}",
            metadata={"phase": "ED" if size < 1 else "ES", "age": round(100 * size)},
        )
        for size in sizes
    ]


@pytest.fixture
def tiny_place(tmp_path):
    build_atlas_bank(tmp_path / "tiny", tiny_hearts(0.9, 1.0))
    return tmp_path / "tiny"


class TestAppending:
    def test_gives_the_atlases_of_both(self, tiny_place):
        opened = AtlasBank(tiny_place)
        hearts = tiny_hearts(1.1, 1.2)
        bank = append_to_atlas_bank(tiny_place, hearts, threads=1)
        assert bank.names == ("tiny 0.9", "tiny 1.0", "tiny 1.1", "tiny 1.2")
        assert len(opened) == 2 and opened[1].name == "tiny 1.0"
        for number, heart in zip((2, 3), hearts, strict=True):
            np.testing.assert_array_equal(bank[number].labels.array, heart.labels.array)
            np.testing.assert_allclose(bank[number].image.array, heart.image.array, atol=1.0)
        assert verify_atlas_bank(tiny_place) == ()

    def test_leaves_out_what_is_there(self, tiny_place):
        bank = append_to_atlas_bank(tiny_place, tiny_hearts(0.9, 1.1))
        assert bank.names == ("tiny 0.9", "tiny 1.0", "tiny 1.1")
        assert len(append_to_atlas_bank(tiny_place, tiny_hearts(1.1))) == 3

    def test_that_crashes_leaves_the_old_bank(self, tiny_place, monkeypatch):
        def crash(*_):
            raise OSError("disk full")

        monkeypatch.setattr(bank_files, "write_index", crash)
        with pytest.raises(OSError, match="disk full"):
            append_to_atlas_bank(tiny_place, tiny_hearts(1.1))
        monkeypatch.undo()
        assert AtlasBank(tiny_place).names == ("tiny 0.9", "tiny 1.0")
        assert len(append_to_atlas_bank(tiny_place, tiny_hearts(1.2))) == 3
        assert verify_atlas_bank(tiny_place) == ()

    def test_is_for_one_process_at_a_time(self, tiny_place):
        (tiny_place / "append.lock").touch()
        with pytest.raises(InvalidInputError) as caught:
            append_to_atlas_bank(tiny_place, tiny_hearts(1.1))
        assert caught.value.code == "BANK_IS_LOCKED"


def test_a_killed_build_leaves_nothing_that_opens(tmp_path):
    """The process dies while it writes; the place stays empty and a later build succeeds."""
    code = f"""
import os
from cardiacreg.atlases import bank_building, bank_files
from cardiacreg.phantoms.toy_heart import make_toy_heart
bank_files.write_index = lambda *_: os._exit(9)
bank_building.build_atlas_bank({str(tmp_path / "bank")!r}, [make_toy_heart()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    for place in [tmp_path / "bank", *tmp_path.iterdir()]:
        with pytest.raises(InvalidInputError):
            AtlasBank(place)
    assert len(build_atlas_bank(tmp_path / "bank", tiny_hearts(1.0))) == 1


def test_several_processes_read_one_bank_at_once(tiny_place):
    """Three fresh processes wait for each other, then read every atlas while the bank is open here."""
    code = """
import json, sys
from cardiacreg.atlases.bank import AtlasBank, label_hash
bank = AtlasBank(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
hashes = [label_hash(heart.labels) for heart in bank]
levels = [bank.stored_image_hash(number) for number in range(len(bank))]
print(json.dumps([hashes, levels]))
"""
    bank = AtlasBank(tiny_place)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tiny_place)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    assert [reader.stdout.readline() for reader in readers] == ["ready\n"] * 3
    for reader in readers:
        reader.stdin.write("go\n")
        reader.stdin.flush()
    found = [json.loads(reader.communicate(timeout=60)[0]) for reader in readers]
    assert found == [[list(bank.label_hashes), list(bank.image_hashes)]] * 3
    assert [label_hash(heart.labels) for heart in bank] == list(bank.label_hashes)


class TestLeavingOut:
    def test_by_hash_keeps_an_input_out_of_its_own_bank(self, tiny_place):
        bank = AtlasBank(tiny_place)
        assert bank.excluding([bank[0]]).names == ("tiny 1.0",)
        assert bank.excluding([tiny_hearts(1.0)[0].labels]).names == ("tiny 0.9",)
        assert bank.excluding([tiny_hearts(1.3)[0]]).names == bank.names
        with pytest.raises(InvalidInputError, match="nothing"):
            bank.excluding([bank[0], bank[1]])

    def test_by_metadata(self, tiny_place):
        bank = AtlasBank(tiny_place)
        chosen = bank.subset(with_metadata(bank, phase="ES"))
        assert chosen.names == ("tiny 1.0",)
        assert chosen.subset([0])[0].metadata["age"] == 100
        assert with_metadata([bank[0], bank[1]], age=(90, 100)) == (0, 1)
        assert with_metadata(bank, age="100") == (1,)
        with pytest.raises(
            InvalidInputError, match=r"none of 2.* there is phase ED, ES\."
        ) as error:
            with_metadata(bank, phase="systole")
        assert error.value.code == "EMPTY_BANK"
        with pytest.raises(InvalidInputError, match=r"there is no scanner, but age, phase"):
            with_metadata(bank, scanner="A")
        with pytest.raises(InvalidInputError, match="no metadata at all"):
            with_metadata([Subject(bank[0].labels)], phase="ED")

    def test_another_process_gets_the_place_and_not_the_voxels(self, tiny_place):
        part = AtlasBank(tiny_place).subset([1])
        sent = pickle.dumps(part)
        assert len(sent) < 1000
        assert pickle.loads(sent).names == ("tiny 1.0",)

    def test_a_process_that_works_elsewhere_finds_the_place(
        self, tiny_place, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tiny_place.parent)
        bank = AtlasBank(tiny_place.name)
        monkeypatch.chdir(tmp_path)
        assert len(pickle.loads(pickle.dumps(bank))) == len(bank)


def entries_of(bank):
    """What a bank says of its atlases."""
    return [json.loads(line) for line in (bank / "entries.jsonl").read_text().splitlines()]


def rewrite(bank, entries):
    lines = [json.dumps(entry) + "\n" for entry in entries]
    (bank / "entries.jsonl").write_text("".join(lines))
    np.save(bank / "ends.npy", np.cumsum([len(line) for line in lines]))


def test_opening_reads_nothing_of_single_atlases(tiny_place, monkeypatch):
    """So that tens of thousands open as quickly as two."""
    read = []
    kept = bank_files.Part.entry
    monkeypatch.setattr(bank_files.Part, "entry", lambda part, n: read.append(n) or kept(part, n))
    bank = AtlasBank(tiny_place).subset([1])
    assert len(bank) == 1 and read == []
    assert bank[0].name == "tiny 1.0" and read == [1]
    assert (tiny_place / "index.json").stat().st_size < 200


def test_a_bank_can_be_read_by_whom_its_folder_lets(tiny_place):
    (tiny_place.parent / "beside").mkdir()
    assert tiny_place.stat().st_mode == (tiny_place.parent / "beside").stat().st_mode


class TestAnatomy:
    """An atlas in other labels, or mirrored, is found when a bank is built, verified and used."""

    def in_acdc_labels(self):
        (heart,) = tiny_hearts(1.0)
        table = np.array([0, 3, 2, 0, 1], dtype=np.uint8)
        return replace(
            heart, labels=LabelMap(table[heart.labels.array], heart.labels.voxel_to_world)
        )

    def test_other_labels_are_refused_by_build_and_use(self, tmp_path):
        odd = self.in_acdc_labels()
        with pytest.raises(InvalidInputError, match="preset='acdc'") as error:
            build_atlas_bank(tmp_path / "odd", [odd])
        assert error.value.code == "WRONG_PRESET" and not (tmp_path / "odd").exists()
        with pytest.raises(InvalidInputError, match="atlas 1.*preset='acdc'"):
            check_atlases([*tiny_hearts(1.0), odd], None, 1)

    def test_other_labels_are_found_in_a_bank(self, tmp_path, unchecked_build):
        build_atlas_bank(tmp_path / "odd", [self.in_acdc_labels()])
        found = [problem.what for problem in verify_atlas_bank(tmp_path / "odd")]
        assert any("preset='acdc'" in what for what in found)
        with pytest.raises(InvalidInputError, match="preset='acdc'"):
            gather_atlases(tmp_path / "odd", tiny_hearts(0.9)[0], 1)

    def test_landmarks_of_a_mirrored_heart_are_refused(self, tmp_path):
        (heart,) = tiny_hearts(1.0)
        points = heart.landmarks.points_mm[[2, 1, 0, 3, 4, 5]]
        mirrored = replace(heart, landmarks=Landmarks(points))
        with pytest.raises(InvalidInputError, match="mirrored") as error:
            build_atlas_bank(tmp_path / "odd", [mirrored])
        assert error.value.code == "MIRRORED_ATLAS"

    @pytest.mark.parametrize(("order", "code"), [((4, 1, 2, 3, 0, 5), "BAD_LANDMARKS"),
                                                 ((3, 0, 1, 2, 4, 5), "BAD_LANDMARKS")])  # fmt: skip
    def test_landmarks_in_another_order_are_refused(self, tmp_path, order, code):
        (heart,) = tiny_hearts(1.0)
        odd = replace(heart, landmarks=Landmarks(heart.landmarks.points_mm[list(order)]))
        with pytest.raises(
            InvalidInputError, match=r"atlas tiny 1\.0: landmarks: in the order"
        ) as e:
            build_atlas_bank(tmp_path / "odd", [odd])
        assert e.value.code == code and not (tmp_path / "odd").exists()
        with pytest.raises(InvalidInputError, match="atlas 1") as e:
            check_atlases([*tiny_hearts(0.9), odd], None, 1)
        assert e.value.code == code

    def test_landmarks_in_lps_are_refused(self, tmp_path):
        (heart,) = tiny_hearts(1.0)
        matrix = heart.labels.voxel_to_world.copy()
        matrix[:3, 3] += (90, -70, 0)
        points = heart.landmarks.points_mm + [90, -70, 0]
        odd = Subject(
            LabelMap(heart.labels.array, matrix), landmarks=Landmarks(points * [-1, -1, 1])
        )
        with pytest.raises(InvalidInputError, match="seem to be LPS") as error:
            build_atlas_bank(tmp_path / "odd", [odd])
        assert error.value.code == "LANDMARK_SPACE"


class TestImages:
    """A bank holds one matrix per atlas: an image is brought onto the lattice of its labels."""

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_an_image_stored_flipped_is_placed_by_its_matrix(self, tmp_path, axis):
        (heart,) = tiny_hearts(1.0)
        matrix = heart.image.voxel_to_world.copy()
        matrix[:3, 3] += matrix[:3, axis] * (heart.image.shape[axis] - 1)
        matrix[:3, axis] *= -1
        flipped = replace(heart, image=Volume(np.flip(heart.image.array, axis), matrix))
        one, other = (
            build_atlas_bank(tmp_path / name, [each])[0].image
            for name, each in (("straight", heart), ("flipped", flipped))
        )
        np.testing.assert_allclose(other.array, one.array, atol=1e-3 * one.array.max())

    def test_an_image_beside_its_labels_is_refused(self, tmp_path):
        (heart,) = tiny_hearts(1.0)
        matrix = heart.image.voxel_to_world.copy()
        matrix[0, 3] += 300
        odd = replace(heart, image=Volume(heart.image.array, matrix))
        with pytest.raises(InvalidInputError, match="does not cover its labels") as error:
            build_atlas_bank(tmp_path / "odd", [odd])
        assert error.value.code == "GRID_MISMATCH"


@pytest.fixture
def unchecked_build(monkeypatch):
    """Banks as older versions built them: nothing was asked of an atlas."""
    for name in ("check_atlas_anatomy", "check_label_set"):
        monkeypatch.setattr(bank_building, name, lambda *_: None)


@pytest.mark.usefixtures("unchecked_build")
class TestVerification:
    def test_passes_a_whole_bank(self, folder):
        assert verify_atlas_bank(folder) == ()

    def test_finds_one_changed_voxel(self, tiny_place):
        for name, what in (("labels.npy", "labels"), ("images.npy", "image")):
            array = np.load(tiny_place / name, mmap_mode="r+")
            array[len(array) // 4] ^= 1
            array.flush()
            found = [p.what for p in verify_atlas_bank(tiny_place) if p.atlas == "tiny 0.9"]
            assert any(what in each for each in found)

    def test_finds_landmarks_that_cannot_be(self, tmp_path):
        (heart,) = tiny_hearts(1.0)
        points = heart.landmarks.points_mm.copy()
        points[0] += 500
        points[2] = points[1]
        odd = replace(heart, landmarks=Landmarks(points))
        build_atlas_bank(tmp_path / "odd", [odd])
        found = " ".join(problem.what for problem in verify_atlas_bank(tmp_path / "odd"))
        assert "beyond its heart" in found and "on each other" in found

    @pytest.mark.parametrize(
        ("order", "what"),
        [
            ((2, 1, 0, 3, 4, 5), "mirrored"),
            ((0, 1, 2, 3, 5, 4), "mirrored"),
            ((0, 3, 2, 1, 4, 5), "other side"),
            ((4, 1, 2, 3, 0, 5), "not between"),
        ],
    )
    def test_finds_landmarks_in_the_wrong_order(self, tmp_path, order, what):
        (heart,) = tiny_hearts(1.0)
        points = heart.landmarks.points_mm[list(order)]
        build_atlas_bank(tmp_path / "odd", [replace(heart, landmarks=Landmarks(points))])
        assert what in " ".join(problem.what for problem in verify_atlas_bank(tmp_path / "odd"))

    def test_finds_insertions_in_one_place_and_walls_beyond_the_apex(self, tmp_path):
        (heart,) = tiny_hearts(1.0)
        points = heart.landmarks.points_mm.copy()
        points[2] = points[0] + 2.0
        points[3] -= 0.7 * (points[5] - points[4])
        build_atlas_bank(tmp_path / "odd", [replace(heart, landmarks=Landmarks(points))])
        found = " ".join(problem.what for problem in verify_atlas_bank(tmp_path / "odd"))
        assert "insertions" in found and "not between" in found

    def test_finds_an_apex_at_the_base(self, tmp_path):
        (heart,) = tiny_hearts(1.0)
        points = heart.landmarks.points_mm.copy()
        points[4] = points[5] + 0.2 * (points[4] - points[5])
        build_atlas_bank(tmp_path / "odd", [replace(heart, landmarks=Landmarks(points))])
        found = " ".join(problem.what for problem in verify_atlas_bank(tmp_path / "odd"))
        assert "apex and mitral centre are" in found

    def test_finds_labels_that_were_not_translated(self, tmp_path):
        (heart,) = tiny_hearts(1.0)
        array = heart.labels.array.copy()
        array[array == 4] = 50
        odd = replace(heart, labels=LabelMap(array, heart.labels.voxel_to_world))
        build_atlas_bank(tmp_path / "odd", [odd])
        found = [problem.what for problem in verify_atlas_bank(tmp_path / "odd")]
        assert any("needs 0 to 4" in what for what in found)

    @pytest.mark.parametrize(
        ("matrix", "what"),
        [
            (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
            (np.diag([1.0, 1.0, 90.0, 1.0]), "mm wide"),
            (
                np.array([[2, 0.5, 0, 0], [0, 2, 0, 0], [0, 0, 8, 0], [0, 0, 0, 1.0]]),
                "right angles",
            ),
            (None, "other side"),
        ],
    )
    def test_finds_matrices_that_cannot_be(self, tiny_place, matrix, what):
        """The last one mirrors the lattice across its middle."""
        entries = entries_of(tiny_place)
        entry = entries[1]
        if matrix is None:
            flip = np.diag([-1.0, 1, 1, 1])
            flip[0, 3] = entry["shape"][0] - 1
            matrix = np.array(entry["voxel_to_world"]) @ flip
        entry["voxel_to_world"] = matrix.tolist()
        rewrite(tiny_place, entries)
        found = [p.what for p in verify_atlas_bank(tiny_place) if p.atlas == "tiny 1.0"]
        assert "its entry in the index was changed" in found
        assert any(what in each for each in found)
        assert {problem.atlas for problem in verify_atlas_bank(tiny_place)} == {"tiny 1.0"}

    def test_accepts_banks_without_hashes_of_entries(self, tiny_place):
        entries = entries_of(tiny_place)
        for entry in entries:
            del entry["entry_hash"]
        rewrite(tiny_place, entries)
        assert verify_atlas_bank(tiny_place) == ()

    def test_finds_copies_and_missing_ventricles(self, tmp_path):
        (heart,) = tiny_hearts(1.0)
        empty = Subject(LabelMap(np.full((4, 4, 4), 4), np.eye(4)), name="rv only")
        build_atlas_bank(tmp_path / "odd", [heart, heart, empty])
        found = {problem.atlas: problem.what for problem in verify_atlas_bank(tmp_path / "odd")}
        assert "more than once" in found["tiny 1.0"]
        assert "left ventricle" in found["rv only"]


@pytest.mark.skipif(
    sys.platform != "linux", reason="needs a memory limit that leaves out mapped files"
)
def test_a_bank_larger_than_memory_is_opened_selected_from_and_fused(tmp_path):
    """A fresh process that may take a third of the bank's bytes finds its atlas and fuses."""
    build_atlas_bank(tmp_path / "large", [_padded_heart(n) for n in range(48)], threads=1)
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from cardiacreg import Affine, FusionOptions, LabelMap, Volume, fuse_labels, rank_atlases
from cardiacreg.atlases.bank import AtlasBank
from cardiacreg.phantoms.toy_heart import make_toy_heart

def find_and_fuse(bank):
    affines = [Affine.identity()] * len(bank)
    best = [found.index for found in rank_atlases(target.labels, bank, affines, threads=1)[:3]]
    cut = tuple(map(slice, target.labels.shape))
    warped = []
    for atlas in (bank[n] for n in best):
        labels, matrix = atlas.labels, atlas.labels.voxel_to_world
        image = Volume(atlas.image.array[cut], matrix)
        warped.append((image, LabelMap(labels.array[cut], matrix)))
    options = FusionOptions(search=(3, 3, 1), patch=(3, 3, 1), bandwidth=200.0)
    return best, fuse_labels(warped[0][0], warped, options=options, threads=1)

target = make_toy_heart()
find_and_fuse(AtlasBank(sys.argv[1]).subset([0, 1, 2]))  # kernels are loaded before the limit
status = Path("/proc/self/status").read_text()
used = 1024 * int(status.split("VmData:")[1].split()[0])
size = sum(path.stat().st_size for path in Path(sys.argv[1]).glob("*.npy"))
resource.setrlimit(resource.RLIMIT_DATA, (used + size // 3, used + size // 3))
try:
    np.zeros(size // 2, dtype=np.uint8)
except MemoryError:
    best, fused = find_and_fuse(AtlasBank(sys.argv[1]))
    print(best[0], np.mean(fused.labels.array == target.labels.array))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "large")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    best, agreement = done.stdout.split()
    assert best == "40"
    assert float(agreement) > 0.97


def _padded_heart(number):
    """A tiny heart in a large grid, moved along i by a voxel for each step away from number 40."""
    heart = make_toy_heart()
    margin = [(0, whole - n) for whole, n in zip((128, 128, 64), heart.labels.shape, strict=True)]
    matrix = heart.labels.voxel_to_world

    def moved(array):
        return np.roll(np.pad(array, margin), (number - 40) % 48, axis=0)

    return Subject(
        LabelMap(moved(heart.labels.array), matrix), Volume(moved(heart.image.array), matrix),
        name=f"heart {number}", metadata={"number": number},
    )  # fmt: skip
