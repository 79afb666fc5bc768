"""Loading of a network's weights with transformers, without its messages and without the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mvde.backbones.hub import check_complete, quiet_transformers
from mvde.errors import CheckpointError, MvdeError

if TYPE_CHECKING:
    from mvde.contract import DepthKind
    from mvde.families.base import Family
    from mvde.families.checkpoint import ModelFolder


def load_network(folder: ModelFolder, family: Family, kind: DepthKind) -> nn.Module:
    """Load the weights of a model as float32, from its folder alone; no code of the model is run.

    Raises :class:`CheckpointError` if they are not those of the configuration.
    """
    from transformers import AutoConfig, AutoModelForDepthEstimation

    try:
        with quiet_transformers():
            config: Any = AutoConfig.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
            family.adjust_config(config, kind)
            network, loading_info = AutoModelForDepthEstimation.from_pretrained(
                folder.path,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except MvdeError:
        raise
    except Exception as error:  # transformers raises anything
        lines = str(error).strip().splitlines()
        raise CheckpointError(
            f"cannot load the depth model {folder.name!r} ({lines[0] if lines else error!r}); is it a depth model that "
            "this version of transformers has?"
        ) from error
    check_complete(folder.name, loading_info)
    if mismatched := loading_info.get("mismatched_keys"):
        raise CheckpointError(f"weights of {folder.name!r} do not fit its config.json: {next(iter(mismatched))}")
    loaded: nn.Module = network
    return loaded
