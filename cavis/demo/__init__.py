"""The web page: upload a clip, see every instance tracked. The only place that knows gradio.

:mod:`limits` (what may be sent), :mod:`pace` (how long it will take), :mod:`jobs` (what is kept of a visitor),
:mod:`tracking` (the work), :mod:`exports` (files), :mod:`viewer` (pictures and tables), :mod:`examples` (shipped clips)
know nothing of gradio; :mod:`handlers` and :mod:`page` put them on a page, :mod:`server` serves it.
"""

import os

# Read by gradio whenever it wants to report: this page tells nobody anything.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
