"""The web page: ``python app.py``, then open http://127.0.0.1:7860.

Upload a clip, press Track, and see every instance followed. Everything behind it is in :mod:`cavis.demo`.
"""

import argparse
import signal
import sys
from dataclasses import replace

from cavis.checkpoints.download import DownloadError
from cavis.checkpoints.files import CheckpointError
from cavis.demo.limits import DemoLimits
from cavis.demo.server import make_page, serve
from cavis.presets import DEFAULT_MODEL


def main() -> int:
    """Read the options and serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve the CAVIS demo page.")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="the model to begin with: lite, tiny, a published one, or a file"
    )
    parser.add_argument("--device", default="auto", help="auto (CUDA or MPS where there is one), cpu, cuda, mps")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets the network in")
    parser.add_argument(
        "--downloads",
        action=argparse.BooleanOptionalAction,
        help="whether visitors may fetch published models; default: on a page for this computer only",
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    options = parser.parse_args()
    limits = DemoLimits.for_host(options.host)
    if options.downloads is not None:
        limits = replace(limits, downloads=options.downloads)
    try:
        page = make_page(options.model, options.device, limits)
    except (CheckpointError, DownloadError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, CheckpointError) else 1
    # Services are stopped by SIGTERM, and what a script starts in the background begins with SIGINT ignored:
    # in all cases the visitors' files are to be deleted.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    serve(page, options.host, options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
