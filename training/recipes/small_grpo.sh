#!/usr/bin/env bash
# Stage 3 where there is something to learn: a student whose training tracks were a detector's, smoothly off and late,
# asked by exact ones. True advantages beside shuffled ones, every step stochastic, and a student of exact labels.
#
#   bash training/recipes/small_grpo.sh cpu      # on one core or two: docs/results/grpo.md
#   bash training/recipes/small_grpo.sh debug    # a few steps of each, to see that it runs
#
# ARMS (true shuffled sde exact), SEEDS (0 1 2), CLIPS (of the benchmark, 48); RUNS is the folder of the runs (default
# runs/small_grpo), REPORTS that of the pages (default docs/results, debug: RUNS). Running it again resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."

size="${1:-cpu}"
runs="${RUNS:-runs/small_grpo}"
arms="${ARMS:-true shuffled sde exact}"
seeds="${SEEDS:-0 1 2}"
case "$size" in
  debug) clips=16; tune="--steps 2 --batch_size 2 --save_every 2"; asked=3; reports="${REPORTS:-$runs}"
         grpo="--steps 2 --group_size 2 --gradient_accumulation_steps 1 --save_every 2"; seeds="${SEEDS:-0}" ;;
  cpu)   clips=2000; tune="--steps 1500 --batch_size 8"; asked="${CLIPS:-48}"; reports="${REPORTS:-docs/results}"
         grpo="" ;;
  *) echo "size: '$size' is unknown; use debug or cpu" >&2; exit 2 ;;
esac

stage() { python -m "training.$1" "${@:2}"; }
student() { # folder, world
  [ -f "$runs/clips_$1/state.json" ] || stage precompute training/configs/small/latents.yaml --world "$2" \
    --control carried --num_clips "$clips" --output_dir "$runs/clips_$1"
  stage finetune training/configs/small/finetune_causal.yaml --data "$runs/clips_$1" --control carried \
    --output_dir "$runs/student_$1" $tune
}
reinforce() { # run, student, more
  stage grpo training/configs/small/grpo.yaml --init_from "$runs/student_$2/pipeline" --output_dir "$runs/$1" \
    $grpo "${@:3}"
}

mkdir -p "$runs"
student noisy small:label_noise=6,late_start=8
systems=("before=$runs/student_noisy/pipeline")
logs=()
for seed in $seeds; do
  for arm in $arms; do
    run="${arm}_$seed"
    case "$arm" in
      true) reinforce "$run" noisy --seed "$seed" ;;
      shuffled) reinforce "$run" noisy --seed "$seed" --shuffle_advantages true ;;
      sde) reinforce "$run" noisy --seed "$seed" --mode sde --share_initial_noise false ;;
      exact) student exact small; reinforce "$run" exact --seed "$seed" ;;
      *) echo "ARMS: '$arm' is unknown; use true, shuffled, sde or exact" >&2; exit 2 ;;
    esac
    systems+=("$arm, seed $seed=$runs/$run/pipeline"); logs+=("$arm, seed $seed=$runs/$run")
  done
done
case " $arms " in *" exact "*) systems+=("before, exact labels=$runs/student_exact/pipeline") ;; esac
python -m eval.rl_runs --runs "${logs[@]}" --title "Stage 3 in a world of noisy labels: the runs" \
  --report "$reports/grpo_runs"
python -m eval.run --suite small --systems "${systems[@]}" still "VAE=vae:$runs/student_noisy/pipeline" \
  --num_clips "$asked" --num_frames 25 --num_long_clips 0 --workers 1 --tracker patch \
  --title "Stage 3 in a world of noisy labels" --output_dir "$runs/eval" --report "$reports/grpo"
