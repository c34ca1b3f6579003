"""Where does a result stand in the run's DataTree?"""

from collections.abc import Iterator

import xarray as xr


def fits(tree: xr.DataTree) -> Iterator[tuple[str, int, xr.DataTree]]:
    """Method, seed and DataTree of every fit of a run, as the study's `judge` made it."""
    for name, group in tree.children.items():
        for seed, one in group.children.items():
            yield str(name), int(str(seed)), one


def dataset_at(tree: xr.DataTree, path: str) -> xr.Dataset:
    """The variables of the group at a path, without those of the groups above it."""
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)
