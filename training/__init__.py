"""The recipe: VAE, fine-tune, distillation and GRPO, one explicit loop per stage."""
