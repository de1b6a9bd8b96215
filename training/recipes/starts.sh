#!/usr/bin/env bash
# Starts of stage 2 in small (64x64, seven latents): a few-step causal student by teacher forcing alone, by regression to
# the ODE of its causal start, and by consistency distillation, each for as much processor time, with three seeds.
#
#   bash training/recipes/starts.sh cpu      # docs/results/starts.md
#   bash training/recipes/starts.sh debug    # a few steps of one seed, to see that it runs
#
# The teacher and its clips are those of controls.sh (TABLES, default runs/tables; control `carried`, 900 steps). SEEDS names
# the seeds, RUNS the folder of the runs (default runs/starts), REPORTS that of the page (default docs/results, debug: RUNS).
# Running it again resumes: finished parts are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

size="${1:-cpu}"
runs="${RUNS:-runs/starts}"
tables="${TABLES:-runs/tables}"
teacher="$tables/carried/pipeline"
data=("$tables/clips_carried" "$tables/two_carried")
case "$size" in
  debug) seeds="${SEEDS:-0}"; causal=2; forcing=2; ode=2; consistency=2; bench="--num_clips 3 --num_frames 17"
         reports="${REPORTS:-$runs}" ;;
  cpu)   seeds="${SEEDS:-0 1 2}"; causal=300; bench="--num_clips 24 --num_frames 25"; reports="${REPORTS:-docs/results}"
         forcing=130; ode=32; consistency=84 ;; # 0.27, 1.09 and 0.42 s of a core for each update
  *) echo "size: '$size' is unknown; use debug or cpu" >&2; exit 2 ;;
esac

say() { printf '\n== %s (%s)\n' "$*" "$(date +%H:%M:%S)"; }
stage() { # stage, preset, what it begins from, folder, steps, more
  say "$4"
  python -m "training.$1" "training/configs/small/$2.yaml" --init_from "$3" --data "${data[@]}" --output_dir "$4" \
    --steps "$5" --save_every "$5" "${@:6}"
}

stage finetune control "$teacher" "$runs/causal" "$causal" --causal true --first_latent_given 1
start="$runs/causal/pipeline"
systems=()
for seed in $seeds; do
  stage finetune start_forcing "$start" "$runs/forcing_$seed" "$forcing" --seed "$seed"
  stage distill start_ode "$start" "$runs/ode_$seed" "$ode" --seed "$seed" --ode_steps "$ode" --teacher "$teacher"
  stage consistency start_consistency "$start" "$runs/consistency_$seed" "$consistency" --seed "$seed"
  systems+=("causal fine-tune, seed $seed=$runs/forcing_$seed/pipeline" "ODE regression, seed $seed=$runs/ode_$seed/pipeline"
    "consistency, seed $seed=$runs/consistency_$seed/pipeline")
done
[ -f "$runs/start_3/model_index.json" ] || python -m training.export --pipeline "$start" --num_inference_steps 3 \
  --output_dir "$runs/start_3"
say "side by side"
python -m eval.run --suite small --systems "${systems[@]}" "common start, 3 steps=$runs/start_3" \
  $bench --num_long_clips 0 --workers 1 --tracker patch --title "Starts of stage 2" \
  --output_dir "$runs/eval"
python -m eval.report.seeds "$runs/eval/report.json" --title "Starts of stage 2" --report "$reports/starts"
