"""What a stage trains on: conditions, prompts, self-rollouts, groups and their rewards."""
