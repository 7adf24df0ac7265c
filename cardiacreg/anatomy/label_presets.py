"""Labels by their convention (`preset_tables`), and the anatomical check that tells conventions apart.

A wrong convention gives a plausible file and a wrong heart: `check_anatomy` asks the map itself
whether it can be a heart under the one that is said (`plausibility`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from cardiacreg.anatomy.plausibility import (
    Roles,
    Sight,
    can_check,
    contradiction,
    doubt,
    holes_per_slice,
    is_certain,
)
from cardiacreg.anatomy.preset_tables import PRESETS, Preset, preset_mapping
from cardiacreg.errors import InvalidInputError, check_argument, warn
from cardiacreg.geometry import (
    LV_WALL,
    STRUCTURES,
    LabelMap,
)


def canonical_labels(
    labels: LabelMap, preset: Preset = None, *, values: Mapping[int, int] | None = None
) -> LabelMap:
    """Translate labels to canonical ones (1 LV cavity, 2 LV wall, 3 RV wall, 4 RV cavity).

    Parameters
    ----------
    labels : LabelMap
        Labels as stored in the file.
    preset : str, mapping or None
        The convention of `labels`: a name of `PRESETS` or `ALIASES`, a mapping
        {their label: canonical label}, or None for canonical labels with the RV wall optional.
    values : mapping, optional
        Number in `labels` to the value in the file, where these differ: values above 255 are coded.

    Returns
    -------
    LabelMap
        Canonical labels on the same lattice; the same object where nothing changes.

    Raises
    ------
    InvalidInputError
        If a value occurs that the preset does not define (UNEXPECTED_LABEL), or the preset itself
        is not valid (UNKNOWN_PRESET, BAD_PRESET).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import LabelMap
    >>> from cardiacreg.anatomy.label_presets import canonical_labels
    >>> theirs = LabelMap(np.array([[[0, 1, 2, 3]]]), np.eye(4))
    >>> canonical_labels(theirs, "acdc").array.tolist()
    [[[0, 4, 2, 1]]]
    """
    check_argument(labels, LabelMap, "canonical_labels: labels")
    sight = Sight.of(labels)
    roles = _roles(sight, preset, _stored(sight, values))
    if roles == sight.numbers:
        return labels
    table = np.zeros(256, dtype=np.uint8)
    table[list(sight.numbers)] = roles
    return LabelMap(table[labels.array], labels.voxel_to_world)


def _stored(sight: Sight, values: Mapping[int, int] | None) -> tuple[int, ...]:
    """Return the value in the file of each number present."""
    return tuple((values or {}).get(number, number) for number in sight.numbers)


def _roles(sight: Sight, preset: Preset, stored: tuple[int, ...]) -> Roles:
    mapping = preset_mapping(preset)
    unexpected = [value for value in stored if value not in mapping]
    if unexpected:
        raise _unexpected(sight, preset, stored, unexpected)
    return tuple(mapping[value] for value in stored)


def _unexpected(
    sight: Sight, preset: Preset, stored: tuple[int, ...], unexpected: list[int]
) -> InvalidInputError:
    fitting = _fitting_names(sight, stored)
    advice = []
    if isinstance(preset, Mapping):
        zeros = ", ".join(f"{value}: 0" for value in unexpected[:12])
        advice.append(f"complete the mapping, with {{{zeros}}} where they are to be ignored")
    if fitting:
        others = f" (also {', '.join(map(repr, fitting[1:]))})" if len(fitting) > 1 else ""
        advice.append(f"with these values and this anatomy fits preset={fitting[0]!r}{others}")
    if not advice:
        advice.append(
            "no preset fits these values; pass a mapping {their label: canonical label}, with 0 for "
            "labels to ignore"
        )
    held = (
        list(stored)
        if len(stored) <= 24
        else f"{len(stored)} values from {stored[0]} to {stored[-1]}"
    )
    shown = (
        unexpected if len(unexpected) <= 24 else f"{unexpected[:5]} and {len(unexpected) - 5} more"
    )
    return InvalidInputError(
        f"labels: values {shown} are not part of {_spoken(preset)}, which defines "
        f"{_defined(preset)}; the map holds {held}; {'; '.join(advice)}.",
        code="UNEXPECTED_LABEL",
    )


def _defined(preset: Preset) -> str:
    """Return the values that a preset takes for structures, and how many it ignores."""
    mapping = preset_mapping(preset)
    ignored = [theirs for theirs, ours in mapping.items() if ours == 0]
    if len(ignored) < 12:
        return str(sorted(mapping))
    return f"{sorted(set(mapping) - set(ignored))} and ignores {len(ignored)} others"


def _spoken(preset: Preset) -> str:
    if preset is None:
        return "the canonical labels (preset=None)"
    return f"preset {preset!r}" if isinstance(preset, str) else "the given mapping"


def fitting_presets(
    labels: LabelMap, *, values: Mapping[int, int] | None = None
) -> tuple[str, ...]:
    """Return the names of the presets under which a map, as stored, clearly makes anatomical sense.

    Parameters
    ----------
    labels : LabelMap
        Labels as stored in the file.
    values : mapping, optional
        As for `canonical_labels`.

    Returns
    -------
    tuple of str
        Names of `PRESETS` that define every value present, find both the LV wall and a cavity,
        pass the test of `check_anatomy`, and leave no doubt whether an RV is a scar.
    """
    sight = Sight.of(labels)
    return _fitting_names(sight, _stored(sight, values))


def _fitting_names(sight: Sight, stored: tuple[int, ...]) -> tuple[str, ...]:
    names: dict[Roles, str] = {}
    more = []
    for name, mapping in PRESETS.items():
        if not set(stored) <= set(mapping):
            continue
        roles = tuple(mapping[value] for value in stored)
        if not is_certain(sight, roles):
            continue
        if roles in names and "scar" in name:
            continue  # says the same as the plain one
        names.setdefault(roles, name)
        more.append(name)
    return tuple(more)


def check_anatomy(
    labels: LabelMap, preset: Preset = None, *, values: Mapping[int, int] | None = None
) -> None:
    """Check that a map can be a heart under a convention, to find a wrong preset.

    Only the middle half of each structure's slices counts: over these, at least 70 % of the outline
    of the LV cavity, and less than 60 % of that of the RV cavity, must touch the LV wall; the RV
    cavity must lie beside the LV, not touch its cavity and have at least 3 % of its volume; and a
    part of the wall, as a scar, must not lie beside the LV.

    Parameters
    ----------
    labels : LabelMap
        Labels as stored in the file.
    preset : str, mapping or None
        The convention they are taken to follow, as for `canonical_labels`.
    values : mapping, optional
        As for `canonical_labels`.

    Raises
    ------
    InvalidInputError
        If the anatomy contradicts the preset, or a named preset would ignore labels of a map that
        makes no sense without them and sense under another preset (WRONG_PRESET); if a single
        structure cannot be what it is said to be, or nobody said what it is (ONE_STRUCTURE); and
        what `canonical_labels` raises.

    Warns
    -----
    InputWarning
        If there is no LV wall or no cavity, so that nothing can be checked, or what is said to be
        the RV cavity might be a scar.
    """
    sight = Sight.of(labels)
    stored = _stored(sight, values)
    roles = _roles(sight, preset, stored)
    problem = contradiction(sight, roles)
    if problem is None and can_check(roles):
        if (found := doubt(sight, roles)) is not None:
            warn(f"labels: read with {_spoken(preset)}, {found}; make sure it is no scar or wall.")
        return
    fitting = _fitting_names(sight, stored)
    if problem is None and fitting and isinstance(preset, str) and 0 in roles:
        problem = "the LV wall or both cavities are missing"
    if problem is not None:
        raise _wrong_preset(preset, problem, fitting)
    if len({role for role in roles if role}) == 1:
        _check_one_structure(sight, roles, preset)
    found = ", ".join(STRUCTURES[role] for role in roles if role) or "no label"
    warn(
        f"labels: the map holds {found}; without both the LV wall and a cavity the preset cannot "
        "be checked against the anatomy, so make sure that it is the right one."
    )


def _wrong_preset(preset: Preset, problem: str, fitting: tuple[str, ...]) -> InvalidInputError:
    names = " or ".join(map(repr, fitting))
    advice = (
        f"try preset={names}"
        if fitting
        else "no preset fits clearly: check the segmentation, or pass a mapping {their label: canonical "
        "label}, in which a scar belongs to the LV wall"
    )
    return InvalidInputError(
        f"labels: read with {_spoken(preset)}, {problem}; {advice}.", code="WRONG_PRESET"
    )


def _check_one_structure(sight: Sight, roles: Roles, preset: Preset) -> None:
    """Refuse a map of one structure that its shape contradicts, or that nobody named."""
    (role,) = {role for role in roles if role}
    name = STRUCTURES[role]
    holes = holes_per_slice(sight.mask(roles, role))
    problem = None
    if role == LV_WALL and not 0.5 <= holes <= 1.25:
        problem = f"with {holes:.1f} holes per middle slice it is not the wall of the LV alone"
    if role != LV_WALL and holes >= 0.5:
        problem = f"with {holes:.1f} holes per middle slice it is a wall and not a cavity"
    if problem is None and not isinstance(preset, Mapping):
        problem = "it may as well be all of the myocardium, a whole heart or another structure"
    if problem is not None:
        raise InvalidInputError(
            f"labels: the map holds one structure only, read with {_spoken(preset)} as {name}; "
            f"{problem}. Needs the LV cavity and the LV wall as two labels at least; where this is one "
            "structure all the same, say which with a mapping {their label: canonical label}.",
            code="ONE_STRUCTURE",
        )


def check_canonical(labels: LabelMap, where: str) -> None:
    """Check that labels are canonical where they are taken to be, by values and anatomy.

    Parameters
    ----------
    labels : LabelMap
        Said to hold canonical labels.
    where : str
        What the messages begin with.

    Raises
    ------
    InvalidInputError
        If other values than 0 to 4 occur (UNEXPECTED_LABEL), or the anatomy contradicts the
        canonical labels and fits a preset (WRONG_PRESET).

    Warns
    -----
    InputWarning
        If the anatomy contradicts the canonical labels and fits no preset.
    """
    sight = Sight.of(labels)
    try:
        roles = _roles(sight, None, sight.numbers)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}", code=error.code) from None
    problem = contradiction(sight, roles)
    if problem is None:
        return
    if fitting := _fitting_names(sight, sight.numbers):
        raise InvalidInputError(
            f"{where}: needs canonical labels, but {problem}; translate them first, with "
            f"preset={' or '.join(map(repr, fitting))}.",
            code="WRONG_PRESET",
        )
    warn(f"{where}: taken as canonical labels, {problem}; check the segmentation.")


def explained(
    labels: LabelMap, *, values: Mapping[int, int] | None = None
) -> Iterable[tuple[str, str]]:
    """Return for every preset that defines the values of a map what the anatomical check found.

    Parameters
    ----------
    labels : LabelMap
        Labels as stored in the file.
    values : mapping, optional
        As for `canonical_labels`.

    Returns
    -------
    iterable of (str, str)
        Name of a preset, and "fits" or what speaks against it.
    """
    sight = Sight.of(labels)
    stored = _stored(sight, values)
    for name, mapping in PRESETS.items():
        if missing := [value for value in stored if value not in mapping]:
            more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
            yield name, f"does not know the values {missing[:6]}{more}"
            continue
        roles = tuple(mapping[value] for value in stored)
        problem = contradiction(sight, roles)
        if problem is None and not can_check(roles):
            problem = "finds no LV wall, or no cavity"
        if problem is None and (found := doubt(sight, roles)) is not None:
            problem = f"possible, but {found}"
        yield name, problem or "fits"
