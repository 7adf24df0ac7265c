"""Weights on disk: a ``.safetensors`` file and a JSON card beside it that says what they are.

The card names network, box, data, licence, the command that made it and its figures, and holds the
sha256 of the weight file, which is checked before anything is loaded; that of the project's own weights
also stands in `shipped_weights`. Files are written under another name and renamed. Nothing is ever
downloaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors, save as save_tensors
from torch import Tensor, nn

from cardiacreg.errors import InvalidInputError
from cardiacreg_nn.inference.preprocessing import NetworkBox
from cardiacreg_nn.inference.shipped_weights import how_to_install, pinned_sha256
from cardiacreg_nn.networks.baseline_networks import build_network
from cardiacreg_nn.networks.sslln import NetworkConfig

CARD_FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A network with weights, ready to predict.

    Parameters
    ----------
    network : Module
        In evaluation mode.
    box : NetworkBox
        The lattice it works on.
    card : dict
        What is known about the weights; ``licence`` is named in every output.
    path : Path or None
    """

    network: nn.Module
    box: NetworkBox
    card: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @property
    def name(self) -> str:
        """Return a readable name."""
        return str(self.card.get("name", "network"))


def save_weights(
    path: Path | str,
    state: Mapping[str, Tensor],
    *,
    kind: str,
    network: NetworkConfig,
    box: NetworkBox,
    half: bool = True,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write weights and their card.

    Parameters
    ----------
    path : path-like
        Ends with ``.safetensors``; the card's name ends with ``.json`` instead.
    state : mapping of str to Tensor
        As from ``state_dict``.
    kind : str
        As for `build_network`.
    network : NetworkConfig
    box : NetworkBox
    half : bool
        Whether real numbers are stored as float16.
    about : mapping, optional
        Further entries of the card: name, data, licence, citation, command, metrics.

    Returns
    -------
    Path
        The weight file.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InvalidInputError(
            f"{path}: needs a name that ends with .safetensors.", code="BAD_FILE_NAME"
        )
    kept = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        kept[name] = tensor.half() if half and tensor.is_floating_point() else tensor
    payload = save_tensors(kept)
    card = {
        "format": CARD_FORMAT,
        "kind": kind,
        "network": network.to_dict(),
        "box": box.to_dict(),
        **(about or {}),
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    write_atomically(path, payload)
    write_atomically(path.with_suffix(".json"), (json.dumps(card, indent=1) + "\n").encode())
    return path


def write_atomically(path: Path, payload: bytes) -> None:
    """Write a file under another name, then rename it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(payload)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_weights(path: Path | str, *, device: torch.device | str = "cpu") -> Model:
    """Read weights and their card.

    Parameters
    ----------
    path : path-like
        A ``.safetensors`` file with its card beside it, or a checkpoint (``.pt``) of `train`, which is
        read with ``weights_only=True``.
    device : device or str

    Returns
    -------
    Model

    Raises
    ------
    InvalidInputError
        If a file is missing (NO_FILE), truncated or not what its card says (DAMAGED_WEIGHTS), one of the
        project's that is not what this version knows (UNKNOWN_WEIGHTS), the card is unreadable
        (BAD_CARD), or the tensors do not fit the network (WEIGHTS_MISMATCH).
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInputError(f"{path}: there is no such weight file.", code="NO_FILE")
    if path.suffix == ".pt":
        state, card = _read_checkpoint(path)
    else:
        card = read_card(path.with_suffix(".json"))
        state = _read_tensors(path, card)
    try:
        config = NetworkConfig(**card["network"])
        box = NetworkBox(**card["box"])
        network = build_network(card["kind"], config)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{path}: its card does not describe a network ({error}).", code="BAD_CARD"
        ) from error
    _fill(network, state, path)
    network.to(device).eval()
    if card["kind"] in ("sslln", "unet2d", "fcn2d"):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(network, box, card, path)


def read_card(path: Path) -> dict[str, Any]:
    """Read the JSON card of a weight file."""
    if path.exists() and not path.is_file():
        raise InvalidInputError(
            f"{path}: the card is no regular file; needs the JSON file that came with the weights.",
            code="BAD_CARD",
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"{path}: the card is missing; a weight file comes with a JSON file of its name.",
            code="BAD_CARD",
        ) from error
    except ValueError as error:
        raise InvalidInputError(f"{path}: not JSON ({error}).", code="BAD_CARD") from error
    if not isinstance(card, dict) or card.get("format") != CARD_FORMAT:
        raise InvalidInputError(f"{path}: not a card of format {CARD_FORMAT}.", code="BAD_CARD")
    return card


def _read_tensors(path: Path, card: Mapping[str, Any]) -> dict[str, Tensor]:
    payload = path.read_bytes()
    found = hashlib.sha256(payload).hexdigest()
    if found != card.get("sha256"):
        raise InvalidInputError(
            f"{path}: {len(payload)} bytes with sha256 {found[:12]}..., its card says "
            f"{str(card.get('sha256'))[:12]}...; truncated, or another card's: copy both again.",
            code="DAMAGED_WEIGHTS",
        )
    _check_pin(path, found)
    try:
        return load_tensors(payload)
    except SafetensorError as error:
        raise InvalidInputError(
            f"{path}: not safetensors ({error}).", code="DAMAGED_WEIGHTS"
        ) from error


def _check_pin(path: Path, found: str) -> None:
    """Refuse a file that lies where the project's weights lie and is another one."""
    pinned = pinned_sha256(path)
    if pinned is not None and found != pinned:
        raise InvalidInputError(
            f"{path}: sha256 {found[:12]}..., but this version of cardiacreg knows {path.stem} as "
            f"{pinned[:12]}...; needs the file of its own release: {how_to_install(path.stem)}.",
            code="UNKNOWN_WEIGHTS",
        )


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        config = held["config"]
        card = {
            "name": path.stem,
            "kind": config["training"]["kind"],
            "network": config["network"],
            "box": config["box"],
            "licence": "unknown",
        }
        return held["average"], card
    except Exception as error:
        raise InvalidInputError(
            f"{path}: not a checkpoint of cardiacreg_nn.training.train "
            f"({type(error).__name__}: {error}).",
            code="DAMAGED_WEIGHTS",
        ) from error


def _fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape) if name in state else 'missing'}, needs {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name not in state or state[name].shape != tensor.shape
    ]
    wrong += [f"{name} unexpected" for name in state if name not in own]
    if wrong:
        raise InvalidInputError(
            f"{path}: the weights do not fit the network of the card (number of slices, classes or "
            f"widths): {'; '.join(wrong[:3])}{' ...' if len(wrong) > 3 else ''}.",
            code="WEIGHTS_MISMATCH",
        )
    network.load_state_dict({name: state[name].to(own[name].dtype) for name in own})
