"""Self-supervised methods: one file each.

An entry's target is a class that follows :class:`edgessl.methods.base.Method`; its ``Options``
sit beside it.
"""

from edgessl.core.registry import Entry, Table


def passes(
    *, dense: int, host: int = 0, slim: int = 0, teacher: int = 0
) -> dict[str, str | float | bool]:
    """Return the facts about what a step costs, in units per image.

    One forward pass of one encoder is 1 unit without gradient, 3 with it; a teacher's count too.

    Args:
        dense: Where the host is the only net.
        host: Paid once where there are slim nets; left out by a method that trains one width only.
        slim: Paid for every slim net.
        teacher: Paid for the teacher, on top.
    """
    facts: dict[str, str | float | bool] = {"dense_units": dense}
    text = f"{dense} S"
    if host:
        text = f"{host} H + {slim} S ({dense} S at 1x)"
        facts |= {"host_units": host, "slim_units": slim}
    if teacher:
        text += f" + {teacher} T"
        facts |= {"teacher_units": teacher}
    return {"cost": text, **facts}


METHODS = Table(
    "method",
    {
        "sacl-xd": Entry(
            "edgessl.methods.sacl_xd:SaclXd",
            "slimmed asymmetrical contrastive learning + cross distillation",
            extra="train",
            facts={
                **passes(dense=6, host=4, slim=4),
                "teacher": False,
                "source": "Meng et al., NeurIPS 2023",
                "status": "built from the paper's talk and equations; no reference code exists",
            },
        ),
        "sacl": Entry(
            "edgessl.methods.sacl:Sacl",
            "slimmed asymmetrical contrastive learning alone",
            extra="train",
            facts={
                **passes(dense=6, host=3, slim=3),
                "teacher": False,
                "source": "Meng et al., NeurIPS 2023",
                "status": "built from the paper's talk and equations; no reference code exists",
            },
        ),
        "xd": Entry(
            "edgessl.methods.xd:Xd",
            "cross distillation on one net: Barlow Twins and decorrelation of each view",
            extra="train",
            facts={
                **passes(dense=6),
                "teacher": False,
                "source": "Meng et al., NeurIPS 2023",
                "status": "built from the paper's talk and equations; no reference code exists",
            },
        ),
        "simclr": Entry(
            "edgessl.methods.simclr:SimClr",
            "SimCLR: find the other view among all views of the batch",
            extra="train",
            facts={
                **passes(dense=6),
                "teacher": False,
                "source": "arXiv:2002.05709",
                "status": "faithful",
            },
        ),
        "moco-v2": Entry(
            "edgessl.methods.moco_v2:MoCoV2",
            "MoCo-v2: find the own key of a momentum encoder among those of a queue",
            extra="train",
            facts={
                **passes(dense=4),
                "teacher": False,
                "source": "arXiv:2003.04297",
                "status": "faithful; keys are shuffled into groups instead of across GPUs",
            },
        ),
        "barlow": Entry(
            "edgessl.methods.barlow:Barlow",
            "Barlow Twins: one network, cross-correlation to the identity",
            extra="train",
            facts={
                **passes(dense=6),
                "teacher": False,
                "source": "arXiv:2103.03230",
                "status": "faithful",
            },
        ),
    },
)
