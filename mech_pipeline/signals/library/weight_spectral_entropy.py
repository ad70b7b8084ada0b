"""In how many directions the weight matrices work: spectral entropy of σ², mean over all matrices. It falls where a simpler
solution replaces a remembered one."""

import math

import torch

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal
from mech_pipeline.signals.spectrum import spectral_entropy


def mean_over_matrices(at: Moment) -> float:
    """From the weights alone; NaN of a model without matrices that are not 0."""
    matrices = [weights.double() for weights in at.flat.named(at.theta).values() if weights.ndim == 2]
    found = [spectral_entropy(torch.linalg.svdvals(matrix) ** 2) for matrix in matrices]
    defined = [entropy for entropy in found if not math.isnan(entropy)]
    return sum(defined) / len(defined) if defined else math.nan


SIGNAL = Signal(
    mean_over_matrices,
    "share of the largest entropy",
    "spectral entropy of the squared singular values of a weight matrix, mean over matrices",
    "effective rank: Roy & Vetterli 2007; its fall in grokking: Yunis et al. 2024, arXiv 2408.11804",
)
