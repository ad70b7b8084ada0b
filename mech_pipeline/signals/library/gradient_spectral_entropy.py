"""In how many directions do examples pull: entropy of the squared singular values of per-example gradients.

GradSentry looks at the singular values of one example's gradient matrix; here they are of the matrix of all examples'
gradients, each of norm 1: 0, all pull alike; 1, each for itself.
"""

import torch

from mech_pipeline.signals.moment import Moment
from mech_pipeline.signals.signal import Signal
from mech_pipeline.signals.spectrum import spectral_entropy


def entropy(at: Moment) -> float:
    """Of the eigenvalues of the matrix of cosines."""
    lengths = at.gram.diagonal().sqrt().clamp_min(1e-300)
    return spectral_entropy(torch.linalg.eigvalsh(at.gram / lengths / lengths[:, None]).clamp_min(0))


SIGNAL = Signal(entropy, "1", "spectral entropy of per-example gradients, 0 to 1", "after GradSentry, arXiv 2605.26574")
