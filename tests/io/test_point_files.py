"""Landmarks in files of 3D Slicer and VTK, and the names that people give them."""

import base64
import itertools
import json
import struct
import warnings
import zlib

import numpy as np
import pytest

from cardiacreg import InvalidInputError, landmarks_from_labels
from cardiacreg.geometry import LANDMARK_NAMES
from cardiacreg.io.landmark_files import landmark_of, read_landmarks
from cardiacreg.phantoms.toy_heart import make_toy_heart

POINTS = landmarks_from_labels(make_toy_heart().labels).points_mm.round(4)
LPS = np.array([-1.0, -1.0, 1.0])
SHUFFLED = [4, 2, 0, 5, 3, 1]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path, **keywords):
    with pytest.raises(InvalidInputError) as caught:
        read_landmarks(path, **keywords)
    assert str(path) in str(caught.value)
    return caught.value.code, str(caught.value)


def check(found):
    assert found.names == LANDMARK_NAMES
    np.testing.assert_allclose(found.points_mm, POINTS, atol=1e-4)


# ---- names


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("RV insertion, anterior", 0),
        ("RVI_ant", 0),
        ("Anterior RV insertion point", 0),
        ("antRVIP", 0),
        ("rv anterior", 0),
        ("RV_lat", 1),
        ("RV lateral wall turning point", 1),
        ("rv free-wall", 1),
        ("RV INSERTION INFERIOR", 2),
        ("Posterior RV insertion", 2),
        ("LV-lat", 3),
        ("LV free wall", 3),
        ("Apex", 4),
        ("LV apical point", 4),
        ("MV", 5),
        ("Mitral Valve Center", 5),
        ("centre of the mitral valve", 5),
        ("aortic valve", None),
        ("RV apex", None),
        ("tricuspid", None),
        ("RV infundibulum", None),
        ("lateral mitral annulus", None),
        ("LV anterior wall", None),
        ("RV lateral anterior", None),
        ("F-1", None),
        ("", None),
    ],
)
def test_names_are_known_in_any_case_and_in_short(name, number):
    assert landmark_of(name) == number
    assert landmark_of(name.upper()) == number


@pytest.mark.parametrize(
    "names",
    [
        [n.upper() for n in LANDMARK_NAMES],
        [n.capitalize().replace(" ", "_") for n in LANDMARK_NAMES],
        ["RVI_ant", "RV_lat", "RVI_inf", "LV_lat", "Apex", "MV"],
    ],
)
def test_json_is_read_by_name_whatever_its_order(tmp_path, names):
    for order in (SHUFFLED, sorted(range(6), key=names.__getitem__)):
        points = {names[n]: POINTS[n].tolist() for n in order}
        text = json.dumps({"space": "RAS", "unit": "mm", "points": points})
        check(read_landmarks(write(tmp_path, "l.json", text)))


@pytest.mark.parametrize("strange", ["point 6", "LV apex"])
def test_six_names_of_which_some_are_strange_are_refused(tmp_path, strange):
    names = [*LANDMARK_NAMES[:5], strange]
    points = dict(zip(names, POINTS.tolist(), strict=True))
    code, text = refused(write(tmp_path, "l.json", json.dumps({"space": "RAS", "points": points})))
    assert code == "UNKNOWN_NAMES"
    assert strange in text
    assert "mitral valve centre" in text


def test_other_names_stay_as_they_are(tmp_path):
    points = {f"P{n}": POINTS[n].tolist() for n in range(6)}
    text = json.dumps({"space": "RAS", "points": points})
    assert read_landmarks(write(tmp_path, "l.json", text)).names == tuple(points)


# ---- 3D Slicer


def markups(system="LPS", order=SHUFFLED, **more):
    signs = LPS if str(system) in ("LPS", "1") else 1.0
    controls = [
        {"id": str(n), "label": LANDMARK_NAMES[n], "position": (POINTS[n] * signs).tolist()}
        for n in order
    ]
    each = {"type": "Fiducial", "coordinateUnits": "mm", "controlPoints": controls} | more
    if system is not None:
        each["coordinateSystem"] = system
    return {"@schema": "markups-schema-v1.0.3.json#", "markups": [each]}


@pytest.mark.parametrize("system", ["LPS", "RAS", 0, 1, "0", "1"])
@pytest.mark.parametrize("name", ["points.mrk.json", "Points.MRK.JSON", "points.json"])
def test_markups_are_read_in_the_space_that_they_state(tmp_path, system, name):
    check(read_landmarks(write(tmp_path, name, json.dumps(markups(system)))))


def test_lists_of_one_point_each_are_joined(tmp_path):
    lists = [markups("LPS", [n])["markups"][0] for n in SHUFFLED]
    text = json.dumps({"markups": [*lists, markups("RAS", [])["markups"][0]]})
    check(read_landmarks(write(tmp_path, "p.mrk.json", text)))


def test_points_named_by_slicer_keep_their_order(tmp_path):
    content = markups("RAS", range(6))
    for n, control in enumerate(content["markups"][0]["controlPoints"]):
        control["label"] = f"F-{n + 1}"
    found = read_landmarks(write(tmp_path, "p.mrk.json", json.dumps(content)))
    np.testing.assert_allclose(found.points_mm, POINTS)
    assert found.names[0] == "F-1"


def test_an_order_that_makes_no_heart_is_told_where_names_do_not_tell_it(tmp_path):
    """All but one of the other orders: turned upside down without mirroring, a heart is a heart."""
    silent = []
    for order in itertools.permutations(range(6)):
        points = {f"P{n}": POINTS[k].tolist() for n, k in enumerate(order)}
        path = write(tmp_path, "l.json", json.dumps({"space": "RAS", "points": points}))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert read_landmarks(path).names == tuple(points)
        if not told:
            silent.append(order)
        else:
            assert "l.json" in str(told[0].message) and "order" in str(told[0].message)
    assert silent == [(0, 1, 2, 3, 4, 5), (2, 1, 0, 3, 5, 4)]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (markups("IJK"), "UNKNOWN_SPACE"),
        (markups(None), "UNKNOWN_SPACE"),
        (markups(coordinateUnits="m"), "UNKNOWN_UNIT"),
        (markups(order=[]), "BAD_LANDMARK_FILE"),
        (markups(controlPoints=None), "BAD_LANDMARK_FILE"),
        ({"markups": 3}, "BAD_LANDMARK_FILE"),
        ({"markups": []}, "BAD_LANDMARK_FILE"),
        (markups(controlPoints=[{"label": "apex", "position": [1, 2]}]), "BAD_LANDMARKS"),
        (markups(controlPoints=[{"label": "apex", "position": [1, 2, True]}]), "BAD_LANDMARKS"),
        (
            markups(controlPoints=[{"position": [1, 2, 3], "positionStatus": "undefined"}]),
            "BAD_LANDMARKS",
        ),
        (
            {"markups": markups("LPS", [0])["markups"] + markups("RAS", [1])["markups"]},
            "UNKNOWN_SPACE",
        ),
    ],
)
def test_markups_of_no_use_are_refused(tmp_path, content, code):
    assert refused(write(tmp_path, "p.mrk.json", json.dumps(content)))[0] == code


def fcsv(system, *, columns=True, quoted=True, order=SHUFFLED):
    signs = LPS if system in ("LPS", "1") else 1.0
    head = "# Markups fiducial file version = 4.11\n"
    head += f"# CoordinateSystem = {system}\n" if system else ""
    if columns:
        head += "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    quote = '"' if quoted else ""
    for n in order:
        x, y, z = POINTS[n] * signs
        head += f"vtkMRML_{n},{x},{y},{z},0,0,0,1,1,1,0,{quote}{LANDMARK_NAMES[n]}{quote},,\n"
    return head


@pytest.mark.parametrize("system", ["LPS", "RAS", "0", "1"])
@pytest.mark.parametrize(("columns", "quoted"), [(True, True), (False, False)])
def test_fcsv_is_read_in_the_space_that_it_states(tmp_path, system, columns, quoted):
    text = fcsv(system, columns=columns, quoted=quoted)
    check(read_landmarks(write(tmp_path, "p.fcsv", text)))
    check(read_landmarks(write(tmp_path, "q.FCSV", text.replace("\n", "\r\n"))))


def test_old_fcsv_has_other_columns_and_no_space(tmp_path):
    rows = "".join(
        f'"{name}",{x},{y},{z},1,1\n'
        for name, (x, y, z) in zip(LANDMARK_NAMES, POINTS.tolist(), strict=True)
    )
    path = write(tmp_path, "p.fcsv", "# columns = label,x,y,z,sel,visibility\n" + rows)
    assert refused(path)[0] == "UNKNOWN_SPACE"
    check(read_landmarks(path, space="RAS"))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (fcsv("IJK"), "UNKNOWN_SPACE"),
        (fcsv("2"), "UNKNOWN_SPACE"),
        (fcsv("LPS", order=[]), "BAD_LANDMARK_FILE"),
        (fcsv("LPS") + "a,b,c,d\n", "BAD_LANDMARK_FILE"),
        ("# columns = a,b\n1,2\n", "BAD_LANDMARK_FILE"),
        ("", "BAD_LANDMARK_FILE"),
    ],
)
def test_fcsv_of_no_use_is_refused(tmp_path, text, code):
    assert refused(write(tmp_path, "p.fcsv", text))[0] == code


def test_a_space_that_contradicts_the_file_is_refused(tmp_path):
    path = write(tmp_path, "p.fcsv", fcsv("LPS"))
    assert refused(path, space="RAS")[0] == "UNKNOWN_SPACE"
    check(read_landmarks(path, space="LPS"))


# ---- VTK


def vtk(form, kind="float", title="vtk output", version="3.0", extra=b""):
    head = f"# vtk DataFile Version {version}\n{title}\n{form}\nDATASET POLYDATA\nPOINTS 6 {kind}\n"
    if form == "ASCII":
        return head.encode() + " ".join(map(str, POINTS.ravel())).encode() + b"\n" + extra
    dtype = {"float": ">f4", "double": ">f8"}.get(kind, ">i4")
    return head.encode() + POINTS.astype(dtype).tobytes() + b"\n" + extra


VERTICES = b"METADATA\nINFORMATION 0\n\nVERTICES 7 6\nOFFSETS vtktypeint64\n0 1 2\n"


@pytest.mark.parametrize(
    "content",
    [
        vtk("ASCII"),
        vtk("ASCII", version="5.1", extra=VERTICES),
        vtk("ASCII").replace(b"\n", b"\r\n"),
        vtk("BINARY"),
        vtk("BINARY", "double", extra=VERTICES),
    ],
)
def test_legacy_vtk_needs_a_space(tmp_path, content):
    path = write(tmp_path, "l.vtk", content)
    code, text = refused(path)
    assert code == "UNKNOWN_SPACE"
    assert "space=" in text
    check(read_landmarks(path, space="RAS"))
    np.testing.assert_allclose(read_landmarks(path, space="LPS").points_mm, POINTS * LPS, atol=1e-4)


def test_the_title_of_slicers_vtk_states_the_space(tmp_path):
    for space, signs in (("RAS", 1.0), ("LPS", LPS)):
        path = write(tmp_path, "l.vtk", vtk("ASCII", title=f"3D Slicer output. SPACE={space}"))
        np.testing.assert_allclose(read_landmarks(path).points_mm, POINTS * signs, atol=1e-4)


@pytest.mark.parametrize(
    "content",
    [
        vtk("BINARY")[:-30],
        vtk("ASCII")[:-60],
        vtk("BINARY", "int"),
        vtk("ASCII").replace(b"POINTS 6", b"POINTS 999999999"),
        vtk("BINARY").replace(b"POINTS 6", b"POINTS 999999999"),
        vtk("ASCII").replace(b"POINTS 6", b"POINTS 0"),
        b"# vtk DataFile Version 3.0\n",
    ],
)
def test_damaged_vtk_is_refused(tmp_path, content):
    assert refused(write(tmp_path, "l.vtk", content), space="RAS")[0] == "BAD_LANDMARK_FILE"


def encoded(data, header="<I", *, compressed=False):
    if not compressed:
        return base64.b64encode(struct.pack(header, len(data)) + data).decode()
    blocks = [zlib.compress(data[at : at + 40]) for at in range(0, len(data), 40)]
    sizes = [len(blocks), 40, len(data) % 40, *map(len, blocks)]
    head = struct.pack(f"{header[0]}{len(sizes)}{header[1]}", *sizes)
    return (base64.b64encode(head) + base64.b64encode(b"".join(blocks))).decode()


def vtp(data, form, *, kind="Float32", offset="", attributes="", tail="", comment=""):
    return (
        f'<?xml version="1.0"?>\n{comment}<VTKFile type="PolyData" version="1.0" '
        f'byte_order="LittleEndian" {attributes}>\n<PolyData>{tail[1:] if tail[:1] == "F" else ""}'
        f'<Piece NumberOfPoints="6"><Points>'
        f'<DataArray type="{kind}" Name="Points" NumberOfComponents="3" format="{form}" {offset}>'
        f"\n{data}\n</DataArray></Points></Piece></PolyData>{tail if tail[:1] == '<' else ''}</VTKFile>"
    )


NUMBERS = POINTS.astype("<f4").tobytes()
ZLIB = 'compressor="vtkZLibDataCompressor"'
WIDE = 'header_type="UInt64"'
APPENDED = '<AppendedData encoding="base64">_{}</AppendedData>'
VTP = {
    "ascii": vtp(" ".join(map(str, POINTS.ravel())), "ascii"),
    "binary": vtp(encoded(NUMBERS), "binary"),
    "double": vtp(encoded(POINTS.tobytes(), "<Q"), "binary", kind="Float64", attributes=WIDE),
    "zlib": vtp(encoded(NUMBERS, compressed=True), "binary", attributes=ZLIB),
    "wide zlib": vtp(
        encoded(NUMBERS, "<Q", compressed=True), "binary", attributes=f"{ZLIB} {WIDE}"
    ),
    "appended": vtp(
        "", "appended", offset='offset="8"', tail=APPENDED.format("AAAAAAAA" + encoded(NUMBERS))
    ),
    "appended zlib": vtp(
        "",
        "appended",
        offset='offset="0"',
        attributes=ZLIB,
        tail=APPENDED.format(encoded(NUMBERS, compressed=True)),
    ),
}


@pytest.mark.parametrize("form", VTP)
def test_vtp_is_read_in_every_form_of_text(tmp_path, form):
    path = write(tmp_path, "l.vtp", VTP[form])
    assert refused(path)[0] == "UNKNOWN_SPACE"
    check(read_landmarks(path, space="RAS"))


def test_slicers_vtp_states_its_space(tmp_path):
    data = " ".join(map(str, POINTS.ravel()))
    letters = " ".join(str(ord(letter)) for letter in "LPS") + " 0"
    field = f'F<FieldData><Array type="String" Name="SPACE">{letters}</Array></FieldData>'
    for text in (
        vtp(data, "ascii", tail=field),
        vtp(data, "ascii", comment="<!-- 3D Slicer output. SPACE=LPS -->"),
    ):
        found = read_landmarks(write(tmp_path, "l.vtp", text))
        np.testing.assert_allclose(found.points_mm, POINTS * LPS, atol=1e-4)


@pytest.mark.parametrize(
    "content",
    [
        '<VTKFile type="PolyData"></VTKFile>',
        "no XML",
        '<!DOCTYPE a [<!ENTITY b "c">]>' + VTP["ascii"],
        vtp("1 2 x", "ascii"),
        vtp("1 2", "ascii"),
        vtp("", "ascii"),
        vtp("????", "binary"),
        vtp(encoded(NUMBERS)[:40], "binary"),
        vtp(encoded(NUMBERS), "raw"),
        vtp(encoded(NUMBERS), "binary", kind="Int32"),
        vtp(encoded(NUMBERS), "binary", attributes='compressor="vtkLZ4DataCompressor"'),
        vtp(encoded(NUMBERS), "binary", attributes=ZLIB),
        vtp(base64.b64encode(b"\xff" * 48).decode(), "binary", attributes=ZLIB),
    ],
)
def test_vtp_of_no_use_is_refused(tmp_path, content):
    assert refused(write(tmp_path, "l.vtp", content), space="RAS")[0] == "BAD_LANDMARK_FILE"


# ---- the rest


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ants.csv", "x,y,z,t,label\n1,2,3,0,1\n"),
        ("points.csv", "name,x,y,z\napex,1,2,3\n"),
        ("points.txt", "1 2 3\n4 5 6\n"),
        ("points.tsv", "1\t2\t3\n"),
    ],
)
def test_tables_and_text_are_refused_with_the_form_shown(tmp_path, name, text):
    code, message = refused(write(tmp_path, name, text), space="RAS")
    assert code == "BAD_LANDMARK_FILE"
    assert '"space": "RAS"' in message
    assert "mitral valve centre" in message


@pytest.mark.filterwarnings("ignore:.*hardly make a heart:cardiacreg.InputWarning")
def test_no_changed_byte_is_a_crash(tmp_path):
    rng = np.random.default_rng(0)
    files = {"p.fcsv": fcsv("LPS"), "p.mrk.json": json.dumps(markups()), "l.vtk": vtk("BINARY")}
    files |= {f"{n}.vtp": text for n, text in enumerate(VTP.values())}
    for (name, content), _ in itertools.product(files.items(), range(20)):
        changed = bytearray(content if isinstance(content, bytes) else content.encode())
        for place in rng.integers(0, len(changed), 2):
            changed[place] = rng.integers(256)
        try:
            read_landmarks(write(tmp_path, name, bytes(changed)), space="RAS")
        except InvalidInputError:
            continue
