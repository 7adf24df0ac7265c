"""Workspaces of cvi42, in the form in which public readers find them."""

from __future__ import annotations

import numpy as np

SPACE = "http://www.circlecvi.com/cvi42/Workspace/"
BOX = np.array([[2, 2], [7, 2], [7, 7], [2, 7]])


def contour(name, points, resolution=4):
    items = "".join(
        f"<List:item><Point:x>{x * resolution}</Point:x><Point:y>{y * resolution}</Point:y></List:item>"
        for x, y in points
    )
    return (
        f'<Hash:item Hash:key="{name}"><Hash:item Hash:key="Points" List:count="{len(points)}">{items}'
        f'</Hash:item><Hash:item Hash:key="SubpixelResolution">{resolution}</Hash:item></Hash:item>'
    )


def workspace(path, images):
    """The form in which public readers of these files find it."""
    states = "".join(
        f'<Hash:item Hash:key="{uid}"><Hash:item Hash:key="Contours" Hash:count="{len(own)}">'
        + "".join(own) + "</Hash:item></Hash:item>"
        for uid, own in images.items()
    )  # fmt: skip
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?><Hash:hash xmlns:Hash="{SPACE}Hash/" '
        f'xmlns:List="{SPACE}List/" xmlns:Point="{SPACE}Point/" xmlns:Workspace="{SPACE}">'
        f'<Hash:item Hash:key="StudyMapStates"><List:item><Hash:item Hash:key="ImageStates">{states}'
        "</Hash:item></List:item></Hash:item></Hash:hash>",
        encoding="utf-8",
    )
    return path
