#!/usr/bin/env bash
# Surprise: constructing Highs prints a banner to file descriptor 1, before any option can switch output off. It comes from
#   the constructor's last step, enableCallbacks(). A program whose standard output is JSON is no longer valid JSON.
# Library: highspy 1.16.0; 1.15.1 does not print. Seen 2026-11-30.
# Product: SilentHighs in planner/solvers/core/highs.py switches output off at the start of enableCallbacks().
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import importlib.metadata, subprocess, sys

PLAIN = "import highspy; highspy.Highs()"
SILENT = """
import highspy
class Silent(highspy.Highs):
    def enableCallbacks(self):
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()
Silent()
"""


def printed(code):
    return subprocess.run([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout


version, banner = importlib.metadata.version("highspy"), printed(PLAIN)
print(f"highspy {version}: the constructor writes {banner!r}")
if version == "1.16.0":
    redirected = printed("import contextlib, io, highspy\nwith contextlib.redirect_stdout(io.StringIO()): highspy.Highs()")
    print(f"with sys.stdout redirected: {redirected!r}")
    print(f"output switched off in enableCallbacks(): {printed(SILENT)!r}")
    assert banner and redirected == banner and not printed(SILENT), "changed"
else:
    assert not banner, "changed"
PYTHON

for version in 1.15.1 1.16.0; do
    "$folder/venv/bin/pip" install -qq --disable-pip-version-check "highspy==$version" numpy==2.2.6
    "$folder/venv/bin/python" -I "$folder/show.py"
done
echo "as described"
