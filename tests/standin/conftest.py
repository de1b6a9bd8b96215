"""`accelerator`: the stand-in device, or a skip where it cannot be built."""

import pytest
import torch

from tests.standin.device import install


@pytest.fixture(scope="session")
def accelerator() -> torch.device:
    try:
        return install()
    except (OSError, RuntimeError, ImportError) as error:
        pytest.skip(f"the stand-in device cannot be built: {error}")
