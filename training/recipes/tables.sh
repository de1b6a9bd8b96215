#!/usr/bin/env bash
# Every table and ablation of the small world (64x64, seven latents), from nothing to the pages in docs/results.
#
#   bash training/recipes/tables.sh cpu      # hours on two cores, the histories on one of them
#   bash training/recipes/tables.sh debug    # a few steps of everything, to see that it runs
#
# First controls.sh (Table 1), whose start, clips and models the others begin from; then table2.sh, starts.sh and
# small_grpo.sh one after the other, beside them small_histories.sh, which ends at its gate where the teacher is no good.
# Each of them runs alone as well. RUNS is the folder of all runs (default runs), REPORTS that of the pages (default
# docs/results, debug: beside the runs). Running it again resumes: finished parts are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

size="${1:-cpu}"
runs="${RUNS:-runs}"
export TABLES="$runs/tables" TABLE2="$runs/table2" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
part() { # recipe, its folder
  RUNS="$runs/$2" bash "training/recipes/$1.sh" "$size"
}

part controls tables
(part table2 table2; part starts starts; part small_grpo small_grpo) & stages=$!
part small_histories small_histories & histories=$!
failed=0
wait "$stages" || failed=1
wait "$histories" || failed=1
exit "$failed"
