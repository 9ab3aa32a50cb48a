"""Weights that timm publishes, from the Hugging Face hub: safetensors only, fetched when asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgessl.core.artifact import IMAGENET_MEAN, IMAGENET_STD
from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.core.registry import missing_extra

FILE = "model.safetensors"


def published_file(name: str) -> Path:
    """Return the file of a timm network's pretrained weights, from the hub's cache or fetched.

    Args:
        name: As timm spells it; without a tag its default weights are meant.

    Raises:
        MissingExtra: timm is not installed.
        UsageProblem: The weights are not on the hub, or expect other pixels than EdgeSSL makes.
        FileInvalid: They could not be fetched.
    """
    try:
        import timm
        from huggingface_hub import constants, hf_hub_download
    except ModuleNotFoundError as error:
        package = error.name or "timm"
        raise missing_extra(f"fetching the weights of {name}", package, "timm") from None
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    assert config is not None
    _check_pixels(name, config)
    repository = config.hf_hub_id
    if not repository:
        raise UsageProblem(
            f"the weights of {name} are not on the Hugging Face hub",
            hint=f"fetch {config.url or 'them'} yourself and give the file: --weights PATH",
        )
    constants.HF_HUB_DISABLE_TELEMETRY = True
    for local in (True, False):
        try:
            return Path(hf_hub_download(repository, FILE, local_files_only=local, token=False))
        except Exception as error:  # noqa: BLE001  (of several HTTP libraries)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    raise FileInvalid(
        f"the weights of {name} ({repository}) are not in the cache of the Hugging Face hub and "
        f"could not be fetched: {reason}",
        hint=f"bring {FILE} of https://huggingface.co/{repository} from a machine with a network "
        f"and give it: --weights PATH/{FILE}",
    )


def _check_pixels(name: str, config: Any) -> None:
    if (tuple(config.mean), tuple(config.std)) != (IMAGENET_MEAN, IMAGENET_STD):
        raise UsageProblem(
            f"the weights of {name} expect pixels of mean {_shown(config.mean)} and standard "
            f"deviation {_shown(config.std)}; EdgeSSL normalises by {_shown(IMAGENET_MEAN)} and "
            f"{_shown(IMAGENET_STD)}",
            hint="choose other weights by their tag, timm:NAME.TAG; all of a network's: "
            f"python -c \"import timm; print(timm.list_pretrained('{name.partition('.')[0]}.*'))\"",
        )


def _shown(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)
