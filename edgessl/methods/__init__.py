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
        "light-moco": Entry(
            "edgessl.methods.light_moco:LightMoCo",
            "light-MoCo: MoCo-v2 for small nets, part of the target on the hardest keys (SoftNCE)",
            extra="train",
            facts={
                **passes(dense=4),
                "teacher": False,
                "source": "arXiv:2212.07158",
                "status": "faithful; keys are shuffled into groups instead of across GPUs",
            },
        ),
        "ssl-small": Entry(
            "edgessl.methods.ssl_small:SslSmall",
            "SSL-Small: MoCo-v2 with a recipe for small nets, maybe after a few epochs of SEED",
            extra="train",
            facts={
                **passes(dense=4),
                "teacher": False,
                "source": "arXiv:2107.14762",
                "status": "faithful; the warm start with SEED is asked for by init: seed",
            },
        ),
        "byol": Entry(
            "edgessl.methods.byol:Byol",
            "BYOL: predict what a momentum copy makes of the other view",
            extra="train",
            facts={
                **passes(dense=8),
                "teacher": False,
                "source": "arXiv:2006.07733",
                "status": "faithful",
            },
        ),
        "rekd-style": Entry(
            "edgessl.methods.rekd_style:RekdStyle",
            "ReKD style, a reconstruction: an online teacher's groups of images are positives",
            extra="train",
            facts={
                **passes(dense=4, teacher=4),
                "teacher": True,
                "source": "arXiv:2112.04174",
                "status": "reconstruction: the structure is the paper's, the formulas are ours",
            },
        ),
        "oss-style": Entry(
            "edgessl.methods.oss_style:OssStyle",
            "OSS style, a reconstruction: imitate the clusters of an online teacher",
            extra="train",
            facts={
                **passes(dense=6, teacher=6),
                "teacher": True,
                "source": "Choi et al., NeurIPS 2021",
                "status": "reconstruction from the abstract: the formulas are ours",
            },
        ),
        "seed": Entry(
            "edgessl.methods.seed:Seed",
            "SEED: see images as alike as a trained teacher does",
            extra="train",
            facts={
                **passes(dense=3, teacher=1),
                "teacher": True,
                "source": "arXiv:2101.04731",
                "status": "faithful; without the small crops of its SwAV variant",
            },
        ),
        "disco": Entry(
            "edgessl.methods.disco:DisCo",
            "DisCo: MoCo-v2 on a student that also matches the embeddings of a trained teacher",
            extra="train",
            facts={
                **passes(dense=7, teacher=2),
                "teacher": True,
                "source": "arXiv:2104.09124",
                "status": "faithful; how the distillation is summed is an option",
            },
        ),
        "supervised": Entry(
            "edgessl.methods.supervised:Supervised",
            "training with all labels: an upper reference, no rival",
            extra="train",
            facts={
                **passes(dense=3),
                "teacher": False,
                "source": "cross-entropy with labels",
                "status": "what pretraining without labels is held against",
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
