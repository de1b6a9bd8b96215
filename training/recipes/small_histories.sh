#!/usr/bin/env bash
# Histories of stage 2 where the future is open: sprites pass by that no track moves. A student distilled on its own
# finished latents (Self-Rollout), on the exit step's predictions (collapse), and on the filmed clip (teacher forcing).
#
#   bash training/recipes/small_histories.sh cpu      # on one core or two: docs/results/histories.md
#   bash training/recipes/small_histories.sh debug    # a few steps of each, to see that it runs
#
# First a bidirectional teacher from the start of controls.sh (TABLES, default runs/tables), then a causal student from its
# weights by teacher forcing alone (Eq. 7: what no track moves weighs as much as what one does), at last at the levels of
# the few-step schedule; then the gate: a teacher that is no better than its student ends the recipe (not in debug), as
# there is nothing to distil. ARMS (rollout truth collapse), SEEDS (0 1 2), GRPO=yes adds stage 3 from each arm (a history that
# is one's own is what makes it a Markov process), CLIPS (of the benchmark, 24). TEACHER and STUDENT name trained pipelines,
# DATA their clips, GATE the metrics of the gate; RUNS is the folder of the runs (default runs/small_histories), REPORTS that
# of the pages (default docs/results, debug: RUNS). Running it again resumes: finished parts are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

size="${1:-cpu}"
runs="${RUNS:-runs/small_histories}"
tables="${TABLES:-runs/tables}"
world=small:passers_by=1
teacher="${TEACHER:-$runs/teacher/pipeline}"
student="${STUDENT:-$runs/student/pipeline}"
data="${DATA:-$runs/clips}"
gate="${GATE:-latent_distance path_error}"
late="late_passer_sharpness late_passer_off late_passer_coverage late_latent_distance"
case "$size" in
  debug) clips=8; longer="--steps 2 --batch_size 2 --save_every 2"; tune="$longer"; few="$longer"
         stage_2="$longer --critic_updates 2"
         grpo="--steps 1 --group_size 2 --gradient_accumulation_steps 1 --save_every 1"; seeds="${SEEDS:-0}"; steps=2
         bench="--num_clips 1 --members 2 --num_frames 9 --num_long_clips 0"; late=""; reports="${REPORTS:-$runs}"
         arms="${ARMS:-truth}" ;;
  cpu)   clips=2000; longer="--steps 5300"; tune=""; few="--steps 250 --save_every 250"; stage_2=""; grpo=""; steps=24
         seeds="${SEEDS:-0 1 2}"; arms="${ARMS:-rollout truth collapse}"
         bench="--num_clips ${CLIPS:-24}"; reports="${REPORTS:-docs/results}" ;;
  *) echo "size: '$size' is unknown; use debug or cpu" >&2; exit 2 ;;
esac
for arm in $arms; do
  case "$arm" in rollout|collapse|truth) ;; *) echo "ARMS: '$arm' is unknown; use rollout, collapse or truth" >&2; exit 2 ;; esac
done

say() { printf '\n== %s (%s)\n' "$*" "$(date +%H:%M:%S)"; }
stage() { say "$1 ${*: -1}"; python -m "training.$1" "${@:2}"; }
measure() { # systems
  say "measuring"
  python -m eval.benchmark.histories --suite "$world" $bench --vae "$student" --output_dir "$runs/eval" --systems "$@"
}
name_of() { case "$1" in rollout) echo "own history" ;; collapse) echo "collapsed history" ;; truth) echo "true history" ;; esac; }

mkdir -p "$runs"
[ -f "$data/state.json" ] || stage precompute training/configs/small/latents.yaml --world "$world" --control carried \
  --num_clips "$clips" --output_dir "$data"
[ -n "${TEACHER:-}" ] || stage finetune training/configs/small/control.yaml --init_from "$tables/start/pipeline" \
  --data "$data" --control carried --motion_emphasis 0 $longer --output_dir "$runs/teacher"
if [ -z "${STUDENT:-}" ]; then
  stage finetune training/configs/small/control.yaml --data "$data" --control carried --init_from "$teacher" \
    --causal true --motion_emphasis 0 $tune --output_dir "$runs/causal"
  stage finetune training/configs/small/start_forcing.yaml --data "$data" --init_from "$runs/causal/pipeline" \
    --motion_emphasis 0 $few --output_dir "$runs/student"
fi
measure "student=$student" "teacher=$teacher@$steps"
python -m eval.gate "$runs/eval/report.json" --system teacher --better_than student --metrics $gate || [ "$size" = debug ]
systems=()
for arm in $arms; do
  for seed in $seeds; do
    stage distill training/configs/small/distill.yaml --init_from "$student" --teacher "$teacher" --data "$data" \
      --cache_update "$arm" --seed "$seed" $stage_2 --output_dir "$runs/${arm}_$seed"
    systems+=("$(name_of "$arm"), seed $seed=$runs/${arm}_$seed/pipeline")
    [ "${GRPO:-}" = yes ] || continue
    stage grpo training/configs/small/grpo.yaml --init_from "$runs/${arm}_$seed/pipeline" --prompts "$world" \
      --seed "$seed" $grpo --output_dir "$runs/${arm}_grpo_$seed"
    systems+=("$(name_of "$arm") and GRPO, seed $seed=$runs/${arm}_grpo_$seed/pipeline")
  done
done
bounds=(truth)
[ "$size" = debug ] || bounds+=(still "VAE=vae:$student")
measure "${systems[@]}" "student=$student" "teacher=$teacher@$steps" "${bounds[@]}"
python -m eval.report.seeds "$runs/eval/report.json" --title "Histories of stage 2 where the future is open" \
  --metrics passer_sharpness passer_off passer_coverage latent_distance path_error $late --report "$reports/histories"
