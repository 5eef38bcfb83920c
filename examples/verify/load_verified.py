"""Load a steered checkpoint only if it is what mars-export wrote.

    python examples/verify/load_verified.py DIR_OR_REPO [PUBLIC_KEY.pem]

Nothing of the checkpoint is executed before all checks have passed, and what is loaded from the Hub
is the commit that was checked.
"""

import sys

from transformers import AutoModelForImageTextToText

from mars_export import verify

target, *key = sys.argv[1:]
found = verify(target, public_key=key[0] if key else None)
for check in found.checks:
    print(f"{check.status:8} {check.name}: {check.detail}")
if not found.passed:
    sys.exit(f"{target} is not loaded")

model = AutoModelForImageTextToText.from_pretrained(
    target, revision=found.commit or "main", trust_remote_code=True
)
print("loaded", type(model).__name__, "with steering", "on" if model.steering.enabled else "off")
