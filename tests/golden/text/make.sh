#!/bin/sh
# Makes pairs.tsv.zst, a file of the reference implementation of zstd for the tests of src/data/zstd.rs: two frames,
# with checksums, of the levels 19 and 1.
set -e
cd "$(dirname "$0")"
pairs() { awk -v from="$1" -v to="$2" 'BEGIN { for (k = from; k < to; k++) printf "el círculo %d está junto al %d\tcircle %d is beside %d\n", k, k * k % 9973, k, k * k % 9973 }'; }
pairs 0 3000 | zstd -q -19 --check > pairs.tsv.zst
pairs 3000 5000 | zstd -q -1 --check >> pairs.tsv.zst
