#!/usr/bin/env bash
# Table 2 in small: what each part of the training is worth, every row by the clips, steps and seed of the others.
#
#   bash training/recipes/table2.sh cpu      # docs/results/table2.md
#   bash training/recipes/table2.sh debug    # a few steps of each row, to see that it runs
#
# It begins from the models and clips of controls.sh (TABLES, default runs/tables): "initial model" is its start, which
# never saw a track; the teacher goes on from its bidirectional model, the student from its causal one, at the levels of the
# few-step schedule. Stage 2 is the same for three rows but for what becomes history; Self-Forcing makes three latents at
# a time. CLIPS is the number of clips that are made (default 48), RUNS the folder of the runs (default runs/table2), REPORTS
# that of the page (default docs/results, debug: RUNS). Running it again resumes: finished parts are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

size="${1:-cpu}"
runs="${RUNS:-runs/table2}"
tables="${TABLES:-runs/tables}"
case "$size" in
  debug) tune="--steps 2 --batch_size 2 --save_every 2"; few="$tune"; stage_2="$tune --critic_updates 2"; steps=2
         stage_3="--steps 1 --group_size 2 --gradient_accumulation_steps 1 --save_every 1"
         bench="--num_clips 3 --num_frames 17"; reports="${REPORTS:-$runs}" ;;
  cpu)   tune=""; few="--steps 250 --save_every 250"; stage_2=""; steps=24; stage_3=""
         bench="--num_clips ${CLIPS:-48} --num_frames 25"; reports="${REPORTS:-docs/results}" ;;
  *) echo "size: '$size' is unknown; use debug or cpu" >&2; exit 2 ;;
esac

stage() { # stage, preset, what it begins from, row, more
  printf '\n== %s (%s)\n' "$4" "$(date +%H:%M:%S)"
  python -m "training.$1" "training/configs/small/$2.yaml" --init_from "$3/pipeline" --output_dir "$runs/$4" "${@:5}"
}
distil() { # row, history, latents at a time
  stage distill distill "$runs/student" "$1" --data "${data[@]}" --teacher "$runs/teacher/pipeline" \
    --cache_update "$2" --chunk_frames "$3" $stage_2
}

data=("$tables/clips_carried" "$tables/two_carried")
stage finetune control "$tables/carried" teacher --data "${data[@]}" --control carried $tune
stage finetune start_forcing "$tables/causal_carried" student --data "${data[@]}" $few
distil wo_rl rollout 1
distil wo_self_rollout collapse 1
distil self_forcing collapse 3
stage grpo grpo "$runs/wo_rl" ardrag $stage_3
python -m eval.run --suite small --systems "AR-Drag=$runs/ardrag/pipeline" "w/o RL=$runs/wo_rl/pipeline" \
  "w/o Self-Rollout=$runs/wo_self_rollout/pipeline" "Self-Forcing=$runs/self_forcing/pipeline" \
  "before stage 2=$runs/student/pipeline" "initial model=$tables/start/pipeline@$steps" \
  "teacher model=$runs/teacher/pipeline@$steps" still "VAE=vae:$runs/student/pipeline" $bench --num_long_clips 0 \
  --workers 1 --tracker patch --output_dir "$runs/eval"
python -m eval.report.seeds "$runs/eval/report.json" --title "Table 2 in small" \
  --metrics path_error identity background_psnr truth_psnr flicker consistency_template --report "$reports/table2"
