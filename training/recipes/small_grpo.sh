#!/usr/bin/env bash
# Stage 3 where there is something to learn: a student whose training tracks were a detector's, smoothly off and late,
# asked by exact ones. True advantages beside shuffled ones, every step stochastic, the motion reward alone, and a
# student of exact labels.
#
#   bash training/recipes/small_grpo.sh cpu      # on one core or two: docs/results/grpo.md and its companions
#   bash training/recipes/small_grpo.sh debug    # a few steps of two arms, to see that it runs
#
# The student goes on from the start of controls.sh (TABLES, default runs/tables), which never saw a track; at last it
# stands on its own histories, as else it dissolves what it moves. The one of exact labels is that of table2.sh after stage
# 2 (TABLE2, default runs/table2). ARMS (true shuffled sde motion exact), SEEDS (0 1 2), CLIPS (of the benchmark, 96); RUNS is
# the folder of the runs (default runs/small_grpo), REPORTS that of the pages (default docs/results, debug: RUNS). Running
# it again resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."

size="${1:-cpu}"
runs="${RUNS:-runs/small_grpo}"
tables="${TABLES:-runs/tables}"
exact="${TABLE2:-runs/table2}/wo_rl/pipeline"
case "$size" in
  debug) clips=16; tune="--steps 2 --batch_size 2 --save_every 2"; own="$tune"; reports="${REPORTS:-$runs}"
         grpo="--steps 2 --group_size 2 --gradient_accumulation_steps 1 --save_every 2"
         arms="${ARMS:-true exact}"; seeds="${SEEDS:-0}"; bench="--num_clips 3 --num_frames 17" ;;
  cpu)   clips=2000; tune="--steps 2700"; own="--steps 300 --save_every 300"; grpo=""; reports="${REPORTS:-docs/results}"
         arms="${ARMS:-true shuffled sde motion exact}"; seeds="${SEEDS:-0 1 2}"
         bench="--num_clips ${CLIPS:-96} --num_frames 25" ;;
  *) echo "size: '$size' is unknown; use debug or cpu" >&2; exit 2 ;;
esac

stage() { python -m "training.$1" "${@:2}"; }
reinforce() { # run, student, more
  stage grpo training/configs/small/grpo.yaml --init_from "$2" --output_dir "$runs/$1" $grpo "${@:3}"
}

mkdir -p "$runs"
[ -f "$runs/clips/state.json" ] || stage precompute training/configs/small/latents.yaml \
  --world small:label_noise=6,late_start=8 --control carried --num_clips "$clips" --output_dir "$runs/clips"
stage finetune training/configs/small/control.yaml --init_from "$tables/start/pipeline" --causal true \
  --control carried --data "$runs/clips" --output_dir "$runs/causal" $tune
stage finetune training/configs/small/start_forcing.yaml --init_from "$runs/causal/pipeline" --data "$runs/clips" \
  --motion_emphasis 3.0 --own_history 0.7 --output_dir "$runs/student" $own
noisy="$runs/student/pipeline"
systems=()
logs=()
for arm in $arms; do
  for seed in $seeds; do
    run="${arm}_$seed"
    case "$arm" in
      true) reinforce "$run" "$noisy" --seed "$seed" ;;
      shuffled) reinforce "$run" "$noisy" --seed "$seed" --shuffle_advantages true ;;
      sde) reinforce "$run" "$noisy" --seed "$seed" --mode sde --share_initial_noise false ;;
      motion) reinforce "$run" "$noisy" --seed "$seed" --rewards motion=1.0 ;;
      exact) reinforce "$run" "$exact" --seed "$seed" ;;
      *) echo "ARMS: '$arm' is unknown; use true, shuffled, sde, motion or exact" >&2; exit 2 ;;
    esac
    systems+=("$arm, seed $seed=$runs/$run/pipeline"); logs+=("$arm, seed $seed=$runs/$run")
  done
done
systems+=("before=$noisy")
case " $arms " in *" exact "*) systems+=("before, exact labels=$exact") ;; esac
title="Stage 3 in a world of noisy labels"
python -m eval.rl_runs --runs "${logs[@]}" --title "$title: the runs" --report "$reports/grpo_runs"
python -m eval.run --suite small --systems "${systems[@]}" still "VAE=vae:$noisy" $bench --num_long_clips 0 \
  --workers 1 --tracker patch --title "$title" --output_dir "$runs/eval" --report "$reports/grpo"
python -m eval.report.seeds "$reports/grpo.json" --title "$title, over seeds" \
  --metrics path_error identity background_psnr truth_psnr consistency_template --report "$reports/grpo_seeds"
