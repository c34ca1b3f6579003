"""Could a detector tell the sources by how the files were written, rather than by what they show?"""

import pandas as pd
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sklearn.tree import DecisionTreeClassifier

from bayesdf.data.manifest import REAL

LIMIT = 0.75
"""Balanced accuracy of real against fake from one property of the files above which a finding is worth a warning."""

_PROPERTIES = {
    "format": ["format"],
    "colour mode": ["mode"],
    "size": ["width", "height"],
    "JPEG quality": ["jpeg_quality"],
}


def jpeg_quality(image: Image.Image) -> float:
    """The quality setting that a JPEG's luminance table stands for; 0 for other formats.

    Inverts the scaling of the standard table by the Independent JPEG Group (jcparam.c): 100 - scale / 2 below a scale
    of 100 %, else 5000 / scale, the scale being the ratio of the sums of the two tables.
    """
    tables = getattr(image, "quantization", None)
    if image.format != "JPEG" or not tables:
        return 0.0
    standard = (
        3685.0  # sum of the standard luminance table, ITU-T T.81, annex K; holds down to about 25, where entries clip
    )
    scale = 100.0 * sum(tables[min(tables)]) / standard
    return round(100.0 - scale / 2.0 if scale <= 100.0 else 5000.0 / scale, 1)


def audit(manifest: pd.DataFrame) -> list[str]:
    """Say which property of the files separates real from fake, or one source from the others.

    For each property a small decision tree is grown on it alone; a balanced accuracy over `LIMIT` (0.5 is chance) is
    a finding.

    Parameters
    ----------
    manifest
        With the columns `format`, `mode`, `width`, `height`, `jpeg_quality` and `source`.

    Returns
    -------
    Sentences for the user, none where nothing separates.
    """
    findings = []
    fake = manifest["source"] != REAL
    questions = {"real from fake": fake} if fake.nunique() == 2 else {}
    generators = manifest["source"][fake].unique()
    if len(generators) > 1:
        questions |= {f"{name!r} from the other fakes": manifest["source"][fake] == name for name in generators}
    for question, answer in questions.items():
        for name, columns in _PROPERTIES.items():
            score = _separation(manifest.loc[answer.index, columns], answer)
            if score > LIMIT:
                findings.append(
                    f"the files' {name} tells {question} (balanced accuracy {score:.2f}, chance 0.50): the common "
                    "crop, resize and JPEG step removes the plain difference but not every trace of it; better "
                    "collect or re-encode all sources the same way"
                )
    return findings


def _separation(properties: pd.DataFrame, answer: pd.Series) -> float:
    features = pd.get_dummies(properties).to_numpy(float)
    tree = DecisionTreeClassifier(max_depth=3, class_weight="balanced", random_state=0).fit(features, answer)
    return float(balanced_accuracy_score(answer, tree.predict(features)))
