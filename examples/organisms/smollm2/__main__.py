"""`python -m smollm2`."""

import sys
from importlib.util import find_spec

if __name__ == "__main__":
    if find_spec("peft") is None:
        sys.exit("error: peft is missing: pip install -c constraints.txt peft gguf")
    from .cli import main

    sys.exit(main())
