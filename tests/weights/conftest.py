"""Small models with random weights, and the folders of the parity fixtures."""

from pathlib import Path

import pytest
import torch

from auricle.models.dasheng import Dasheng, DashengConfig

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.fixture(scope="session")
def zenodo_file() -> Path:
    """A checkpoint in the zenodo layout, with front-end buffers."""
    return FIXTURES / "dasheng" / "weights.pt"


@pytest.fixture(scope="session")
def lm_folder() -> Path:
    """A MiDashengLM in the official layout, with front-end buffers."""
    return FIXTURES / "midashenglm" / "model"


@pytest.fixture(scope="session")
def adapter_folder() -> Path:
    """A PEFT adapter of that MiDashengLM."""
    return FIXTURES / "midashenglm" / "lora"


@pytest.fixture
def tiny() -> Dasheng:
    """An encoder 256 wide (its heads are known by its width) with no two tensors alike."""
    torch.manual_seed(3)
    model = Dasheng(DashengConfig(embed_dim=256, depth=1, num_heads=4, target_length=40)).eval()
    for tensor in (*model.parameters(), model.init_bn.running_mean):
        tensor.data.normal_()
    model.init_bn.running_var.uniform_(1, 2)
    return model
