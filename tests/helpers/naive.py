"""Slow oracles written from the equations, in plain loops; they share no code with the library.

Transforms are given as a function from a world point (length 3) to a world point. Matrices are 4x4
and homogeneous. Arrays are indexed (i, j, k). All is float64; nothing here imports cardiacreg.
"""

import itertools
import math

import numpy as np


def move(matrix, point):
    """Apply a homogeneous matrix to one point."""
    return [
        sum(float(matrix[row][column]) * float(point[column]) for column in range(3))
        + float(matrix[row][3])
        for row in range(3)
    ]


# --------------------------------------------------------------------------------------- landmarks


def least_squares_affine(target_points, atlas_points):
    """The 3x4 map with the least sum of squared distances, by the normal equations."""
    rows = np.array([[*point, 1.0] for point in target_points])
    normal = np.zeros((4, 4))
    right = np.zeros((4, 3))
    for row, goal in zip(rows, atlas_points, strict=True):
        normal += np.outer(row, row)
        right += np.outer(row, goal)
    return np.linalg.solve(normal, right).T


# --------------------------------------------------------------------------------------- selection


def nearest_label(array, position):
    """The label of the voxel that holds a position (voxel indices); 0 outside."""
    index = [math.floor(p + 0.5) for p in position]
    if all(0 <= n < size for n, size in zip(index, array.shape, strict=True)):
        return int(array[tuple(index)])
    return 0


def joint_histogram(target, target_matrix, atlas, atlas_matrix, target_to_atlas, voxels=None):
    """Counts of (target label, nearest atlas label) over target voxels."""
    to_voxel = np.linalg.inv(atlas_matrix) @ target_to_atlas @ target_matrix
    counts = {}
    for index in np.ndindex(target.shape) if voxels is None else voxels:
        pair = (int(target[tuple(index)]), nearest_label(atlas, move(to_voxel, index)))
        counts[pair] = counts.get(pair, 0) + 1
    return counts


def normalized_mutual_information(counts):
    """(H(first) + H(second)) / H(both) of a dictionary of pair counts."""
    total = sum(counts.values())
    marginals = [{}, {}]
    for pair, count in counts.items():
        for side in (0, 1):
            marginals[side][pair[side]] = marginals[side].get(pair[side], 0) + count
    first, second, both = (
        -sum(n / total * math.log(n / total) for n in part.values())
        for part in (*marginals, counts)
    )
    return (first + second) / both if both > 0 else 1.0


def voxels_near_labels(array, spacing_mm, reach_mm):
    """Voxels of labelled slices with a labelled voxel of the same slice within a reach."""
    labelled = [index for index in np.ndindex(array.shape) if array[index]]
    return [
        (i, j, k)
        for i, j, k in np.ndindex(array.shape)
        if any(
            other == k
            and math.hypot((i - a) * spacing_mm[0], (j - b) * spacing_mm[1]) <= reach_mm + 1e-6
            for a, b, other in labelled
        )
    ]


def percentile(values, percent):
    """The value at a percentage of the way through the sorted values, linear between two of them."""
    ordered = sorted(float(v) for v in values)
    position = percent / 100 * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def even_levels(values, levels):
    """Which of equal parts of the span between the 1st and 99th percentile holds each value."""
    if not values:
        return []
    low, high = percentile(values, 1), percentile(values, 99)
    if high <= low:
        return [int(value > high) for value in values]
    found = []
    for value in values:
        part = math.floor((float(value) - low) / (high - low) * levels)
        found.append(min(max(part, 0), levels - 1))
    return found


def image_histogram(voxels, voxel_to_world, images, levels):
    """Counts of pairs of grey levels at target voxels, nearest in each image; None outside the atlas.

    `images` are the target's and the atlas's: (array, matrix, map of target world to its world).
    """
    columns = []
    for array, matrix, transform in images:
        to_voxel = np.linalg.inv(matrix) @ transform @ voxel_to_world
        values = []
        for voxel in voxels:
            index = [math.floor(p + 0.5) for p in move(to_voxel, voxel)]
            inside = all(0 <= n < size for n, size in zip(index, array.shape, strict=True))
            values.append(float(array[tuple(index)]) if inside else None)
        columns.append(values)
    pairs = [pair for pair in zip(*columns, strict=True) if pair[0] is not None]
    own = even_levels([pair[0] for pair in pairs], levels)
    inside = even_levels([pair[1] for pair in pairs if pair[1] is not None], levels)
    other = iter(inside)
    counts = {}
    for level, (_, value) in zip(own, pairs, strict=True):
        pair = (level, None if value is None else next(other))
        counts[pair] = counts.get(pair, 0) + 1
    return counts


def voxels_around_labels(array, spacing_mm, reach_mm):
    """Voxels of labelled slices in the box around all labels, longer by a reach in-plane."""
    where = [index for index in np.ndindex(array.shape) if array[index]]
    low, high = (
        [min(axis) for axis in zip(*where, strict=True)],
        [max(axis) for axis in zip(*where, strict=True)],
    )
    reach = [math.ceil(reach_mm / spacing_mm[axis] - 1e-6) for axis in range(2)]
    slices = {index[2] for index in where}
    return [
        (i, j, k)
        for i, j, k in np.ndindex(array.shape)
        if k in slices
        and low[0] - reach[0] <= i <= high[0] + reach[0]
        and low[1] - reach[1] <= j <= high[1] + reach[1]
    ]


# ---------------------------------------------------------------------------------------- B-spline


def cubic_spline(x, derivative=0):
    """The centred cubic B-spline, or its first or second derivative."""
    a = abs(x)
    if a >= 2:
        return 0.0
    if derivative == 0:
        return 2 / 3 - a * a + a**3 / 2 if a < 1 else (2 - a) ** 3 / 6
    if derivative == 1:
        slope = -2 * a + 1.5 * a * a if a < 1 else -((2 - a) ** 2) / 2
        return math.copysign(1.0, x) * slope
    return 3 * a - 2 if a < 1 else 2 - a


def spline_value(coefficients, position, derivatives=(0, 0, 0)):
    """The 64-term sum at a position in control-point indices; missing control points are zero."""
    base = [math.floor(p) for p in position]
    total = np.zeros(coefficients.shape[3])
    for a, b, c in itertools.product(range(-1, 3), repeat=3):
        index = (base[0] + a, base[1] + b, base[2] + c)
        if any(not 0 <= n < size for n, size in zip(index, coefficients.shape, strict=False)):
            continue
        weight = 1.0
        for axis in range(3):
            weight *= cubic_spline(position[axis] - index[axis], derivatives[axis])
        total += weight * coefficients[index]
    return total


def displacement(coefficients, lattice_to_world, point):
    """u(x) in mm at one world point."""
    return spline_value(coefficients, move(np.linalg.inv(lattice_to_world), point))


def deformation(affine, coefficients, lattice_to_world):
    """The function x -> A(x + u(x))."""

    def transform(point):
        return move(affine, np.asarray(point) + displacement(coefficients, lattice_to_world, point))

    return transform


def jacobian_determinant(transform, point, step=1e-4):
    """Determinant of a transform's derivative at one point by central differences."""
    columns = []
    for axis in range(3):
        offset = np.zeros(3)
        offset[axis] = step
        ahead, behind = transform(np.asarray(point) + offset), transform(np.asarray(point) - offset)
        columns.append((np.asarray(ahead) - np.asarray(behind)) / (2 * step))
    return float(np.linalg.det(np.column_stack(columns)))


def bending_energy(coefficients, spacing_mm, parts=4):
    """Mean squared second derivative over the lattice's complete part, by Simpson's rule."""
    nodes, weights = [], []
    for size in coefficients.shape[:3]:
        n = parts * (size - 3)
        nodes.append([1 + m / parts for m in range(n + 1)])
        weights.append([(1 if m in (0, n) else 4 if m % 2 else 2) / (3 * n) for m in range(n + 1)])
    orders = [o for o in itertools.product(range(3), repeat=3) if sum(o) == 2]
    total = 0.0
    for index in np.ndindex(*(len(n) for n in nodes)):
        position = [nodes[axis][index[axis]] for axis in range(3)]
        weight = math.prod(weights[axis][index[axis]] for axis in range(3))
        for order in orders:
            scale = math.prod(spacing_mm[axis] ** order[axis] for axis in range(3))
            value = spline_value(coefficients, position, order) / scale
            total += weight * (1 if 2 in order else 2) * float(value @ value)
    return total


# ------------------------------------------------------------------------------- label consistency


def corner_weights(position):
    """The eight voxels around a position and their trilinear weights."""
    base = [math.floor(p) for p in position]
    for corner in itertools.product((0, 1), repeat=3):
        weight = 1.0
        for axis in range(3):
            t = position[axis] - base[axis]
            weight *= t if corner[axis] else 1 - t
        yield tuple(base[axis] + corner[axis] for axis in range(3)), weight


def label_at(array, index):
    """The label of a voxel, 0 outside."""
    inside = all(0 <= n < size for n, size in zip(index, array.shape, strict=True))
    return int(array[index]) if inside else 0


def counted_voxels(array, reach, all_slices=False):
    """Voxels that count: per slice and row, from first to last label of the rows within reach,
    made longer by reach; slices without labels wholly or not at all (in the box of all labels).
    """
    where = [index for index in np.ndindex(array.shape) if array[index]]
    box = [
        (min(n[axis] for n in where) - reach[axis], max(n[axis] for n in where) + reach[axis])
        for axis in range(2)
    ]
    counted = []
    for i, j, k in np.ndindex(array.shape):
        if not (box[0][0] <= i <= box[0][1] and box[1][0] <= j <= box[1][1]):
            continue
        in_slice = [index for index in where if index[2] == k]
        near = [index[1] for index in in_slice if abs(index[0] - i) <= reach[0]]
        if near and min(near) - reach[1] <= j <= max(near) + reach[1]:
            counted.append((i, j, k))
        elif not in_slice and all_slices:
            counted.append((i, j, k))
    return counted


def plane_voxels(array, plane, reach):
    """In-plane voxels of a plane where structures have ended, in the box of all labels.

    It reaches around the structures' outline in the slice before it, as a slice does around its labels.
    """
    where = [index for index in np.ndindex(array.shape) if array[index]]
    box = [
        (min(n[axis] for n in where) - reach[axis], max(n[axis] for n in where) + reach[axis])
        for axis in range(2)
    ]
    outline = [n for n in where if n[2] == plane.slice_before and array[n] in plane.structures]
    counted = []
    for i, j in np.ndindex(array.shape[:2]):
        if not (box[0][0] <= i <= box[0][1] and box[1][0] <= j <= box[1][1]):
            continue
        near = [n[1] for n in outline if abs(n[0] - i) <= reach[0]]
        if near and min(near) - reach[1] <= j <= max(near) + reach[1]:
            counted.append((i, j))
    return counted


def plane_samples(array, matrix, planes, reach, shifts_mm):
    """(plane, world point) of every voxel of every plane; it moves with the slice before it."""
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    samples = []
    for plane in planes:
        shift = shifts_mm[plane.slice_before]
        for i, j in plane_voxels(array, plane, reach):
            moved = (i + shift[0] / spacing[0], j + shift[1] / spacing[1], plane.position)
            samples.append((plane, move(matrix, moved)))
    return samples


def consistency_with_planes(samples, planes, atlas, atlas_matrix, transform, matches=()):
    """Mean over samples and planes: of a plane, the weight of anything but what has ended there."""
    to_voxel = np.linalg.inv(atlas_matrix)
    value, total = 0.0, 0.0
    for label, point in samples:
        total += 1.0
        for index, share in corner_weights(move(to_voxel, transform(point))):
            found = label_at(atlas, index)
            value += share if found == label or (label, found) in matches else 0.0
    for plane, point in planes:
        total += plane.weight
        for index, share in corner_weights(move(to_voxel, transform(point))):
            value += plane.weight * share if label_at(atlas, index) not in plane.structures else 0.0
    return value / total


def label_consistency(samples, atlas, atlas_matrix, transform, class_weights=None, matches=()):
    """Weighted mean over (label, world point) samples of the matching labels' trilinear weight.

    `matches` lists (target label, atlas label) pairs that count as the same besides equal labels.
    """
    to_voxel = np.linalg.inv(atlas_matrix)
    value, total = 0.0, 0.0
    for label, point in samples:
        weight = (class_weights or {}).get(label, 1.0)
        total += weight
        for index, share in corner_weights(move(to_voxel, transform(point))):
            found = label_at(atlas, index)
            if found == label or (label, found) in matches:
                value += weight * share
    return value / total


def slice_samples(array, matrix, voxels, shifts_mm):
    """(label, world point) of voxels moved by their slice's shift."""
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    samples = []
    for i, j, k in voxels:
        moved = (i + shifts_mm[k][0] / spacing[0], j + shifts_mm[k][1] / spacing[1], k)
        samples.append((int(array[i, j, k]), move(matrix, moved)))
    return samples


# ------------------------------------------------------------------------------------------ warping


def label_votes(array, position, labels):
    """Trilinear weight of each label at a position; what lies outside the array is label 0."""
    votes = dict.fromkeys(labels, 0.0)
    for index, weight in corner_weights(position):
        votes[label_at(array, index)] += weight
    return votes


def warped_votes(atlas, atlas_matrix, transform, shape, matrix, n_labels):
    """Trilinear label weights of an atlas at every voxel, shape (i, j, k, n_labels)."""
    to_voxel = np.linalg.inv(atlas_matrix)
    out = np.zeros((*shape, n_labels))
    for index in np.ndindex(*shape):
        position = move(to_voxel, transform(move(matrix, index)))
        votes = label_votes(atlas, position, range(256))
        out[index] = [votes[label] for label in range(n_labels)]
    return out


def warp_nearest(atlas, atlas_matrix, transform, shape, matrix):
    """Nearest atlas label at every voxel of a lattice."""
    to_voxel = np.linalg.inv(atlas_matrix)
    out = np.zeros(shape, dtype=np.uint8)
    for index in np.ndindex(*shape):
        out[index] = nearest_label(atlas, move(to_voxel, transform(move(matrix, index))))
    return out


def warp_intensity(atlas, atlas_matrix, transform, shape, matrix):
    """Trilinear intensity at every voxel of a lattice, coordinates clamped to the atlas."""
    to_voxel = np.linalg.inv(atlas_matrix)
    out = np.zeros(shape)
    for index in np.ndindex(*shape):
        position = move(to_voxel, transform(move(matrix, index)))
        position = [min(max(p, 0.0), n - 1.0) for p, n in zip(position, atlas.shape, strict=True)]
        for corner, weight in corner_weights(position):
            if weight > 0:
                out[index] += weight * float(atlas[corner])
    return out


# ------------------------------------------------------------------------------------------- fusion


def grey_levels(image, heart):
    """Intensities scaled to 0..255 between the 1st and 99th percentile inside the heart, rounded."""
    low, high = np.percentile(image[heart].astype(np.float64), (1, 99))
    return np.rint(np.clip((image.astype(np.float64) - low) / max(high - low, 1e-6) * 255, 0, 255))


def dilated(mask, steps):
    """Voxels within a number of face-to-face steps of a mask."""
    out = np.zeros_like(mask)
    where = [index for index in np.ndindex(mask.shape) if mask[index]]
    for index in np.ndindex(mask.shape):
        out[index] = any(
            sum(abs(a - b) for a, b in zip(index, other, strict=True)) <= steps for other in where
        )
    return out


def patch_pairs(target, atlas, centre, offset, patch):
    """Grey levels of target and atlas over the part of a patch that lies inside both images."""
    pairs = []
    for step in itertools.product(*(range(-(p // 2), p // 2 + 1) for p in patch)):
        here = tuple(c + s for c, s in zip(centre, step, strict=True))
        there = tuple(h + o for h, o in zip(here, offset, strict=True))
        if all(
            0 <= n < size for n, size in zip((*here, *there), (*target.shape,) * 2, strict=True)
        ):
            pairs.append((float(target[here]), float(atlas[there])))
    return pairs


def patch_distance(target, atlas, centre, offset, patch, distance):
    """Mean or sum of squared differences, or one minus the correlation (1 for a constant patch)."""
    pairs = patch_pairs(target, atlas, centre, offset, patch)
    squares = [(own - other) ** 2 for own, other in pairs]
    if distance == "mean":
        return sum(squares) / len(squares)
    if distance == "sum":
        return sum(squares)
    means = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)]
    both = sum((own - means[0]) * (other - means[1]) for own, other in pairs)
    spreads = [sum((pair[n] - means[n]) ** 2 for pair in pairs) for n in (0, 1)]
    if min(spreads) < 1e-9:
        return 1.0
    return max(1 - both / math.sqrt(spreads[0] * spreads[1]), 0.0)


def window_offsets(search):
    """All displacements of a search window: shortest first, equal lengths in (i, j, k) order."""
    every = itertools.product(*(range(-(s // 2), s // 2 + 1) for s in search))
    return sorted(every, key=lambda offset: (sum(n * n for n in offset), offset))


def matches(target, grey, centre, search, patch, distance):
    """(displacement, distance) of every match inside the lattice."""
    found = []
    for offset in window_offsets(search):
        there = tuple(c + o for c, o in zip(centre, offset, strict=True))
        if all(0 <= n < size for n, size in zip(there, target.shape, strict=True)):
            found.append((offset, patch_distance(target, grey, centre, offset, patch, distance)))
    return found


def nonlocal_weights(target, atlases, centre, search, patch, bandwidth, distance):
    """{(atlas, displacement): exp(-d / h)}, scaled so that the largest is 1."""
    terms = {
        (n, offset): value
        for n, (grey, _) in enumerate(atlases)
        for offset, value in matches(target, grey, centre, search, patch, distance)
    }
    smallest = min(terms.values())
    return {key: math.exp((smallest - value) / bandwidth) for key, value in terms.items()}


def nonlocal_votes(target, atlases, search, patch, bandwidth, distance="mean", centres=None):
    """Eq. (5) literally: {label: votes} at every voxel or at some; atlases are (grey, labels) pairs."""
    votes = {}
    for centre in np.ndindex(target.shape) if centres is None else centres:
        weights = nonlocal_weights(target, atlases, centre, search, patch, bandwidth, distance)
        votes[centre] = {}
        for (n, offset), weight in weights.items():
            label = int(atlases[n][1][tuple(c + o for c, o in zip(centre, offset, strict=True))])
            votes[centre][label] = votes[centre].get(label, 0.0) + weight
    return votes


def majority(label_arrays):
    """Most frequent label per voxel (ties: lowest) and its share."""
    labels = np.zeros(label_arrays[0].shape, dtype=np.uint8)
    share = np.zeros(label_arrays[0].shape)
    for index in np.ndindex(labels.shape):
        found = [int(array[index]) for array in label_arrays]
        labels[index] = min(set(found), key=lambda label: (-found.count(label), label))
        share[index] = found.count(labels[index]) / len(found)
    return labels, share


def dice(first, second):
    """Overlap of two masks; 1 when both are empty."""
    both = own = other = 0
    for a, b in zip(np.ravel(first).tolist(), np.ravel(second).tolist(), strict=True):
        both, own, other = both + (a and b), own + bool(a), other + bool(b)
    return 2 * both / (own + other) if own + other else 1.0
