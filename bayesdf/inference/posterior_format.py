"""The format of a posterior in a store: its network as a few arrays, and a digest that shows changes."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor


def pack(state: Mapping[str, Tensor]) -> xr.Dataset:
    """A network's state as one flat array for each dtype. One file for each tensor would take seconds to write."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    index = [(name, str(value.numpy().dtype), tuple(value.shape)) for name, value in tensors.items()]
    flat = {
        kind: np.concatenate([tensors[name].numpy().ravel() for name, dtype, _ in index if dtype == kind])
        for kind in dict.fromkeys(dtype for _, dtype, _ in index)
    }
    variables = {kind: (f"{kind}_number", values) for kind, values in flat.items()}
    return xr.Dataset(variables, attrs={"tensors": json.dumps(index)})


def unpack_state(dataset: xr.Dataset) -> dict[str, Tensor]:
    """The state that `pack` packed."""
    state, used = {}, dict.fromkeys(map(str, dataset.data_vars), 0)
    for name, kind, shape in json.loads(dataset.attrs["tensors"]):
        end = used[kind] + math.prod(shape)
        state[name] = torch.from_numpy(dataset[kind].values[used[kind] : end].reshape(shape).copy())
        used[kind] = end
    return state


def digest(attrs: Mapping[str, Any], groups: Mapping[str, xr.Dataset]) -> str:
    """SHA-256, in hexadecimal digits, of attributes and of all variables with their names, dimensions and types."""
    found = hashlib.sha256(_canonical(attrs))
    for group in sorted(groups):
        dataset = groups[group]
        found.update(_canonical({"group": group, "attrs": dataset.attrs}))
        for name in sorted(map(str, dataset.variables)):
            variable = dataset.variables[name]
            values = np.ascontiguousarray(variable.values)
            text = values.dtype.kind not in "biufc"
            head = [name, variable.dims, "text" if text else values.dtype.str, values.shape, variable.attrs]
            found.update(_canonical({"variable": head}))
            found.update(_canonical({"values": values.astype(str).tolist()}) if text else values.tobytes())
    return found.hexdigest()


def _canonical(value: Mapping[str, Any]) -> bytes:
    """As JSON, with sorted keys. Numbers of numpy are written as numbers."""
    return json.dumps(
        value, sort_keys=True, default=lambda one: one.tolist() if hasattr(one, "tolist") else str(one)
    ).encode()
