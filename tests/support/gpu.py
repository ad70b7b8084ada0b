"""Where the tests of a GPU run: on the first one, or on what MECH_TEST_DEVICE names."""

import os

import pytest
import torch

DEVICE = torch.device(os.environ.get("MECH_TEST_DEVICE", "cuda:0"))
KIND = "cpu" if DEVICE.type == "cpu" else "cuda"
"""As `training.device` has it."""
_absent = DEVICE.type == "cuda" and not torch.cuda.is_available()
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(_absent, reason="torch.cuda finds no GPU")]
