"""``cavis info``: what a bug report needs to say."""

import typer


def info() -> None:
    """Show versions, device, codecs, presets and where models are kept; put this into a bug report."""
    import platform
    from importlib.metadata import version

    import av
    import torch

    from cavis import __version__
    from cavis.checkpoints.hub import BUNDLED, best_device, bundled_models
    from cavis.checkpoints.zoo import ZOO, cache_folder, is_cached
    from cavis.presets import PRESETS

    fetched = [entry.name for entry in ZOO.values() if is_cached(entry)]
    packages = ("torch", "transformers", "numpy", "scipy", "av", "gradio", "plotly")
    rows = {
        "cavis": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{name: version(name) for name in packages},
        "device": f"{best_device()}, {torch.get_num_threads()} threads",
        "decoders": ", ".join(name for name in ("h264", "hevc", "vp9", "av1") if name in av.codecs_available),
        "models": f"{', '.join(bundled_models()) or 'none'} in {BUNDLED}",
        "fetched": f"{', '.join(fetched) or 'none'} in {cache_folder()}",
        "presets": ", ".join(PRESETS),
    }
    for name, value in rows.items():
        typer.echo(f"{name:>12}  {value}")
