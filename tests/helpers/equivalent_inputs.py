"""The same heart stored in other ways: the world stays, or is moved as a whole."""

import numpy as np
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation


def mirrored(grid, axis):
    matrix = np.array(grid.voxel_to_world)
    matrix[:3, 3] += matrix[:3, axis] * (grid.shape[axis] - 1)
    matrix[:3, axis] *= -1
    return type(grid)(np.flip(grid.array, axis), matrix)


def exchanged(grid, order):
    return type(grid)(grid.array.transpose(order), grid.voxel_to_world[:, [*order, 3]])


def padded(grid, count):
    matrix = np.array(grid.voxel_to_world)
    matrix[:3, 3] -= matrix[:3, :3] @ np.full(3, float(count))
    return type(grid)(np.pad(grid.array, count), matrix)


def cropped(grid):
    box = [np.flatnonzero(grid.array.any(axis=tuple({0, 1, 2} - {axis}))) for axis in (0, 1)]
    i, j = (slice(max(each[0] - 1, 0), each[-1] + 2) for each in box)
    matrix = np.array(grid.voxel_to_world)
    matrix[:3, 3] += matrix[:3, :3] @ [i.start, j.start, 0]
    return type(grid)(grid.array[i, j], matrix)


def moved(grid, matrix):
    return type(grid)(grid.array, matrix @ grid.voxel_to_world)


def translation():
    matrix = np.eye(4)
    matrix[:3, 3] = (131.0, -77.25, 1021.5)
    return matrix


@st.composite
def rotated_worlds(draw):
    """A world turned by any rotation and moved, and a matrix in double or single precision."""
    turn = Rotation.random(random_state=draw(st.integers(0, 2**31 - 1)))
    world = np.eye(4)
    world[:3, :3] = turn.as_matrix()
    world[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return world, draw(st.sampled_from([np.float64, np.float32]))
