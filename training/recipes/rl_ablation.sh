#!/usr/bin/env bash
# Stage 3 beside its controls at equal rollouts: advantages that go to random members, every step stochastic instead of
# one (each member its own noise, histories included), and actions that are paid everywhere (the paper's credit).
#
#   bash training/recipes/rl_ablation.sh checkpoints/ardrag-tiny 40       # pipeline of the student, rollouts
#   bash training/recipes/rl_ablation.sh checkpoints/ardrag-tiny 40 sde   # one of them alone: one, shuffled, sde, paper
#
# Pages: docs/results/rl_ablation.md (rewards, variance of the return) and rl_controls.md (both judges). RUNS is the folder
# of the runs (default runs/rl_ablation), CLIPS the number of benchmark clips (default 40). Running it again resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."

student="${1:?the pipeline of the student, e.g. checkpoints/ardrag-tiny}"
rollouts="${2:-40}"
runs="${RUNS:-runs/rl_ablation}"
declare -A changes=(
  [one]=""
  [shuffled]="--shuffle_advantages true"
  [sde]="--mode sde --share_initial_noise false --share_history false"
  [paper]="--share_history false --credit_radius 0 --credit_smoothing 0 --spread_floor 0.0001"
)
declare -A names=([one]="one stochastic step" [shuffled]="shuffled advantages" [sde]="all steps" [paper]="paid everywhere")

logs=(); systems=("w/o RL=$student")
for run in ${3:-one shuffled sde paper}; do
  python -m training.grpo training/configs/grpo_tiny.yaml --init_from "$student" --output_dir "$runs/$run" \
    --steps "$rollouts" --save_every "$rollouts" --validate false ${changes[$run]}
  logs+=("${names[$run]}=$runs/$run"); systems+=("${names[$run]}=$runs/$run/pipeline")
done
python -m eval.rl_runs --runs "${logs[@]}" --report docs/results/rl_ablation
python -m eval.run --systems "${systems[@]}" --title "Stage 3 and its controls" --num_clips "${CLIPS:-40}" \
  --tracker patch --output_dir "$runs/eval" --report docs/results/rl_controls
