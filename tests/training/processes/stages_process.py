"""What one of several processes does for `test_stages`: run stages from their configurations, one after the other.

python -m torch.distributed.run --nproc_per_node N tests/training/processes/stages_process.py grpo=FILE.yaml ...
"""

import importlib
import sys

from tests.training.test_grpo import Brightness
from training import grpo
from training.run.config import parse_config
from training.run.runtime import leave, run_stage


CONFIGS = {"finetune": "Finetune", "consistency": "Consistency", "distill": "Distill", "grpo": "Grpo"}


def run(stage, file):
    module = importlib.import_module(f"training.{stage}")
    grpo.build_rewards = lambda *_: ({"motion": Brightness()}, {"motion": 1.0})
    run_stage(module.main, parse_config(getattr(module, f"{CONFIGS[stage]}Config"), [file]))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        run(*argument.split("="))
    leave()
