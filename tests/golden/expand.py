"""Prints how huggingface_hub expands paths: the table of src/hub/expand.rs (Python 3.11, posixpath)."""

import os

os.environ.clear()
os.environ.update({"HOME": "/home/ana/", "A": "/a", "TWICE": "$A", "EMPTY": "", "with space": "/s"})
PATHS = [
    "", "/x", "~", "~/", "~/x", "~//x", "x/~", " ~/x", "~root", "~no-such-user/x", "$A", "${A}", "$A/x", "${A}x", "$Ax", "$A-x",
    "$NONE/x", "${NONE}/x", "$TWICE", "${TWICE}/x", "$EMPTY/x", "$", "$$A", "${", "${A", "${}", "${}x$A", "x$", "$ñ", "~$A", "~/$A", "$HOME/x",
    "${with space}/x", "\\$A", "%A%", "$A$A", "a$A${A}b", "~\\x", "${A${A}}",
]
for path in PATHS:
    got = os.path.expandvars(os.path.expanduser(path))
    quoted = [part.replace("\\", "\\\\").replace('"', '\\"') for part in (path, got)]
    print('        ("{}", "{}"),'.format(*quoted))
