"""What posterior draws say: how unsure the detector is, why, how well calibrated, and who made the image.

Xarray in, xarray out, no torch. Each function takes the tree that `Posterior.predict` returns, or that `from_scores`
makes of other detectors' scores, and finds the group it needs.
"""

from bayesdf.analysis.calibration_difference import compare_calibration
from bayesdf.analysis.calibration_errors import classwise_calibration_error, smooth_calibration_error
from bayesdf.analysis.chain_diagnostics import convergence
from bayesdf.analysis.conveyance import conveyance
from bayesdf.analysis.curve_area import area_under
from bayesdf.analysis.detection import evaluate
from bayesdf.analysis.expected_calibration_error import (
    balanced_weights,
    expected_calibration_error,
    reliability,
    reliability_table,
)
from bayesdf.analysis.false_positives import false_positive_rate
from bayesdf.analysis.features import (
    FEATURES,
    beyond_mean_probability,
    combine,
    describe_feature,
    mean_probability,
    profile,
    scalars,
)
from bayesdf.analysis.image_means import mean_over_images
from bayesdf.analysis.intervals import Estimate, cluster_bootstrap, estimate, flatten, wilson
from bayesdf.analysis.localisation import localisation
from bayesdf.analysis.map_agreement import agreement
from bayesdf.analysis.map_features import average_map, map_features
from bayesdf.analysis.map_windows import windows
from bayesdf.analysis.mean_recalibration import cross_fit_recalibration, fit_recalibration, recalibrate
from bayesdf.analysis.open_set import ood_auroc
from bayesdf.analysis.people import count_people, design
from bayesdf.analysis.pixel_calibration import pixel_calibration, pixel_reliability, pixel_scores
from bayesdf.analysis.proportion import clustered_share
from bayesdf.analysis.recalibration import fit_scaling, rescale
from bayesdf.analysis.region_shares import region_shares
from bayesdf.analysis.rival_maps import centred_gaussian, random_order
from bayesdf.analysis.scores import from_scores
from bayesdf.analysis.selective_prediction import aurc, risk_coverage
from bayesdf.analysis.simultaneous import Simultaneous, simultaneous
from bayesdf.analysis.source_accuracy import compare, confusion, score, summarise
from bayesdf.analysis.source_attribution import attribute, from_probability
from bayesdf.analysis.sparsification import sparsification
from bayesdf.analysis.uncertainty import decompose

__all__ = [
    "FEATURES",
    "Estimate",
    "Simultaneous",
    "agreement",
    "area_under",
    "attribute",
    "aurc",
    "average_map",
    "balanced_weights",
    "beyond_mean_probability",
    "centred_gaussian",
    "classwise_calibration_error",
    "cluster_bootstrap",
    "clustered_share",
    "combine",
    "compare",
    "compare_calibration",
    "confusion",
    "convergence",
    "conveyance",
    "count_people",
    "cross_fit_recalibration",
    "decompose",
    "describe_feature",
    "design",
    "estimate",
    "evaluate",
    "expected_calibration_error",
    "false_positive_rate",
    "fit_recalibration",
    "fit_scaling",
    "flatten",
    "from_probability",
    "from_scores",
    "localisation",
    "map_features",
    "mean_over_images",
    "mean_probability",
    "ood_auroc",
    "pixel_calibration",
    "pixel_reliability",
    "pixel_scores",
    "profile",
    "random_order",
    "recalibrate",
    "region_shares",
    "reliability",
    "reliability_table",
    "rescale",
    "risk_coverage",
    "scalars",
    "score",
    "simultaneous",
    "smooth_calibration_error",
    "sparsification",
    "summarise",
    "wilson",
    "windows",
]
