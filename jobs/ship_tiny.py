"""Put finished weights of `tiny` into the package: `make ship-tiny`, after `make tiny` or with FROM=out/tiny.

Odd here: the package's folder is replaced as a whole, so weights that lack a network are refused.
"""

from __future__ import annotations

import sys
from pathlib import Path

import platformdirs

from m3face import presets
from m3face.checkpoints import verify
from m3face.config import COMPONENTS
from m3face.errors import M3FaceError
from m3face.training.run import publish_weights


def main(arguments: list[str]) -> None:
    source = Path(arguments[0]) if arguments else platformdirs.user_cache_path("m3face") / "weights" / "tiny"
    verify(source, parts=COMPONENTS)
    target = presets.weights_folder(presets.get("tiny").weights)
    publish_weights(source, target)
    print(f"{source} -> {target}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except M3FaceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
