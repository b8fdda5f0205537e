#!/usr/bin/env bash
# Train the pair of configs/recipes/qwen25_coder_pair.yaml by plain OPD and by FiRe-OPD, and evaluate the student before and
# after on HumanEval (greedy, paired differences): bash scripts/run_pair.sh OUT
# The same command resumes after any interruption. Settings by environment: STUDENT and TEACHER (folders or hub names),
# STEPS (30), METHODS ("opd fire"), FIT and EVALUATE (further arguments of the two commands), LIMIT (HumanEval problems).
set -euo pipefail
out=${1:?usage: bash scripts/run_pair.sh OUT}
student=${STUDENT:-Qwen/Qwen2.5-Coder-0.5B-Instruct} teacher=${TEACHER:-Qwen/Qwen2.5-Coder-1.5B-Instruct}
read -ra fit <<<"${FIT:-}"
read -ra evaluate <<<"${EVALUATE:-}"
configs=$(dirname "$0")/../configs
mkdir -p "$out"

[[ -f $out/data/train.jsonl ]] || python "$(dirname "$0")/make_function_tasks.py" "$out/data"
models=("before=$student")
for method in ${METHODS:-opd fire}; do
  if [[ ! -d $out/$method/student ]]; then
    resume=()
    compgen -G "$out/$method/version_*/checkpoints/last.ckpt" >/dev/null && resume=(--ckpt_path last)
    fireopd fit --config "$configs/recipes/qwen25_coder_pair.yaml" --config "$configs/methods/$method.yaml" \
      --model.student "$student" --model.teachers.strong.path "$teacher" \
      --data.prompts.train "$out/data/train.jsonl" \
      --trainer.max_steps "${STEPS:-30}" --trainer.default_root_dir "$out/$method" "${fit[@]}" "${resume[@]}"
    last=$(find "$out/$method" -path '*/checkpoints/last.ckpt' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-)
    fireopd export "$last" "$out/$method/student"
  fi
  models+=("$method=$out/$method/student")
done
limit=()
[[ -z ${LIMIT:-} ]] || limit=(--limit "$LIMIT")
fireopd evaluate "${models[@]}" --benchmark humaneval --out "$out/humaneval" --temperature 0 --responses 1 \
  --max_response_length 384 --batch_size 4 "${limit[@]}" "${evaluate[@]}"
