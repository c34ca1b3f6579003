"""Which columns of a table are scores of detectors, and what do the others say of each image?"""

import warnings

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesdf.analysis.tree import IMAGE_COORDS
from bayesdf.errors import BayesdfError, BayesdfWarning

Array = NDArray[np.float64]

WIDE = 10
"""An array with more than this many columns for each row may be (detector, image) by mistake."""


def columns_of_images(scores: object, given: dict[str, ArrayLike | str | None]) -> tuple[dict[str, NDArray], set[str]]:
    """What is known of each image, by its name in a tree, and which columns of the table hold it."""
    table = scores if isinstance(scores, pd.DataFrame) else pd.DataFrame()
    if not table.columns.is_unique:
        repeated = table.columns[table.columns.duplicated()][0]
        raise BayesdfError(f"the table has two columns {str(repeated)!r}; give each a name of its own")
    taken = {name for name in IMAGE_COORDS if name in table}
    known = {name: _plain(table[name]) for name in IMAGE_COORDS if name in taken}
    for name, value in given.items():
        if isinstance(value, str):
            if value not in table:
                there = ", ".join(map(str, table.columns)) or "none, since the scores are no table"
                raise BayesdfError(f"{name}s={value!r} names no column of the table; the columns are {there}")
            taken.add(value)
            known[name] = _plain(table[value])
        elif value is not None:
            _refuse_another_order(f"{name}s", value, table)
            known[name] = _plain(value)
    return known, taken


def scores_of_array(scores: ArrayLike, names: list[str]) -> tuple[Array, list[str], NDArray]:
    """Scores (draw, image) or (draw, image, class), the names of the draws (or none), and those of the images."""
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise BayesdfError(
            "the scores are no array of numbers: some are text, rows differ in length, or it is a tensor, of which "
            "give tensor.numpy(force=True)"
        ) from None
    if values.ndim > 3:
        raise BayesdfError(
            f"scores have shape {values.shape}; give (image,), (image, detector) or (draw, image, class)"
        )
    values = values if values.ndim == 3 else np.atleast_2d(values.T)
    if names and len(names) != len(values):
        raise BayesdfError(f"{len(names)} names of detectors were given for {len(values)} columns of scores")
    return values, names, np.arange(values.shape[1])


def scores_of_table(
    table: pd.DataFrame, names: list[str], taken: set[str], kind: str
) -> tuple[Array, list[str], NDArray]:
    """Scores (draw, image), the names of their columns, and the names of the images."""
    there = ", ".join(map(str, table.columns)) or "none"
    by_name = {str(name): name for name in table.columns}
    lacking = [name for name in names if name not in by_name]
    if lacking:
        raise BayesdfError(f"detectors: the table has no column {lacking[0]!r}; the columns are {there}")
    chosen = names or [name for name in by_name if name not in taken]
    if not chosen:
        raise BayesdfError(f"the table has no column of scores; the columns are {there}")
    whole = []
    for name in chosen:
        column = table[by_name[name]]
        if not names and name.strip().lower() in IMAGE_COORDS:
            plain = name.strip().lower()
            raise BayesdfError(
                f"column {name!r} of the table differs from {plain!r} only in how it is written: rename it, as in "
                f"scores.rename(columns={{{name!r}: {plain!r}}}), or, if it holds scores, name the columns of scores "
                "in detectors=[...]"
            )
        if not names and len(column) > 2 and column.is_unique and not pd.api.types.is_float_dtype(column):
            others = [one for one in chosen if pd.api.types.is_float_dtype(table[by_name[one]])]
            if others or kind == "vote" or not pd.api.types.is_numeric_dtype(column):
                raise BayesdfError(
                    f"column {name!r} of the table holds another value for each image, as names and numbers of images "
                    f"do: make it the index, scores.set_index({name!r}), or drop it"
                )
        if not pd.api.types.is_numeric_dtype(column):
            raise BayesdfError(
                f"column {name!r} of the table holds no numbers but {column.dtype}, as {column.iloc[:1].tolist()}: "
                "name the columns of scores, as in detectors=['cnn', 'vit']"
            )
        if not pd.api.types.is_float_dtype(column):
            whole.append(name)
    if kind != "vote" and not names and 0 < len(whole) < len(chosen):
        raise BayesdfError(
            f"column {whole[0]!r} of the table holds whole numbers, as labels and counts do, and the others do not: "
            f"say labels={whole[0]!r}, drop it, or name the columns of scores, as in detectors="
            f"{[name for name in chosen if name not in whole]!r}"
        )
    values = np.stack([table[by_name[name]].to_numpy(dtype=np.float64, na_value=np.nan) for name in chosen])
    named = table.index.is_unique and table.index.nlevels == 1
    return values, chosen, _plain(table.index) if named else np.arange(len(table))


def _refuse_another_order(what: str, value: object, table: pd.DataFrame) -> None:
    """Refuse a Series that names the same images in another order: values are taken in the order given."""
    if not isinstance(value, pd.Series) or table.index.equals(value.index) or not table.index.is_unique:
        return
    if len(value) == len(table) and set(table.index) == set(value.index):
        raise BayesdfError(
            f"{what} list the images in another order than the scores do (by their index); give "
            f"{what}.loc[scores.index]"
        )


def _plain(values: object) -> NDArray:
    """Values as an array that a store can keep: numbers, or else strings with '' for a missing value."""
    array = np.asarray(values)
    if array.dtype.kind in "biufM":
        return array
    array = np.asarray(values, dtype=object)
    if pd.api.types.infer_dtype(array.ravel(), skipna=True) in (
        "integer",
        "floating",
        "mixed-integer-float",
        "boolean",
    ):
        return pd.to_numeric(pd.Series(array.ravel())).to_numpy(na_value=np.nan).reshape(array.shape)
    texts = ["" if value is None or value is pd.NA or value != value else str(value) for value in array.ravel()]
    return np.array(texts, dtype=np.str_).reshape(array.shape)


def warn_if_transposed(detectors: int, images: int) -> None:
    """Warn about an array that may be (detector, image) by mistake."""
    if detectors > WIDE * images:
        warnings.warn(
            f"scores have shape ({images}, {detectors}) and are taken for {detectors} detectors of {images} images, as "
            "arrays are (image, detector): if it is the other way round, give scores.T",
            BayesdfWarning,
            stacklevel=3,
        )
