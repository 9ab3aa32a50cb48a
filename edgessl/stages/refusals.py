"""What pretraining would refuse, found out before anything is written."""

from __future__ import annotations

from edgessl.core.recipe import Recipe
from edgessl.encoders import ENCODERS
from edgessl.methods import METHODS
from edgessl.methods.base import one_width_only
from edgessl.slimming.plan import plan_for
from edgessl.stages.cost_nets import meta_network
from edgessl.stages.teacher_names import named_teacher


def refuse_pretraining(recipe: Recipe) -> None:
    """Look at the method, its teacher and the widths of a recipe without building them.

    Raises:
        RecipeInvalid: The method trains one width, or its teacher is missing, unknown or not
            wanted.
        InvalidInput: The encoder cannot be sliced to these widths.
        FileInvalid: The teacher's folder holds no net.
    """
    method = recipe.pretrain.method
    host, *slims = recipe.widths
    if slims != [host] and "host_units" not in METHODS[method].facts:
        raise one_width_only(method)
    named_teacher(recipe)
    refuse_slices(recipe)


def refuse_slices(recipe: Recipe) -> None:
    """Compare the widths of a recipe's encoder on networks without memory.

    Raises:
        InvalidInput: They are no slices of one net.
    """
    section, architecture = recipe.encoder, ENCODERS.load(recipe.encoder.name)
    host, *slims = recipe.widths
    nets = {
        width: meta_network(section.name, width, classes=None, stem=section.stem)
        for width in recipe.widths
    }
    for width in slims:
        plan_for(architecture, nets[host], nets[width], widths=(host, width))
