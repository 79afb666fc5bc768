#!/usr/bin/env bash
# tests/run.sh PYTHON MARK: every folder of tests in a process of its own, then those beside them.
#
# Inference libraries, exporters, renderers and compilers in one process have crashed it (SIGSEGV when a signal came in, in
# two of four runs of everything at once; the cause is not known), which apart they have not. A process that dies of a
# signal all the same is run once more, and says so.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
run() {
    "$python" -m pytest -m "$mark" "$@"
    code=$?
    if [ "$code" -ge 128 ]; then
        echo "pytest $* died of signal $((code - 128)); running it once more"
        "$python" -m pytest -m "$mark" "$@"
        code=$?
    fi
    [ "$code" = 5 ] && code=0 # nothing with this mark there
    [ "$code" = 0 ] || failed=1
}
python=$1 mark=$2
for folder in tests/*/; do
    [ -z "$(find "$folder" -name 'test_*.py' -print -quit)" ] || run "$folder"
done
run tests/test_*.py
exit "$failed"
