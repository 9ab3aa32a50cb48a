"""Self-supervised methods: one file each.

An entry's target is a class that follows :class:`edgessl.methods.base.Method`; its ``Options``
sit beside it. Cost counts encoder passes per image: S a slim (or only) encoder, H the host; a
pass with gradient is 3 units, one without is 1. ``host_units`` are paid once, ``slim_units`` for
every slim net; ``dense_units`` where the host is the only net. A method without ``host_units``
trains one width only.
"""

from edgessl.core.registry import Entry, Table

METHODS = Table(
    "method",
    {
        "sacl-xd": Entry(
            "edgessl.methods.sacl_xd:SaclXd",
            "slimmed asymmetrical contrastive learning + cross distillation",
            extra="train",
            facts={
                "cost": "4 H + 4 S (6 S at 1x)",
                "host_units": 4,
                "slim_units": 4,
                "dense_units": 6,
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
                "cost": "3 H + 3 S (6 S at 1x)",
                "host_units": 3,
                "slim_units": 3,
                "dense_units": 6,
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
                "cost": "6 S",
                "dense_units": 6,
                "teacher": False,
                "source": "Meng et al., NeurIPS 2023",
                "status": "built from the paper's talk and equations; no reference code exists",
            },
        ),
        "barlow": Entry(
            "edgessl.methods.barlow:Barlow",
            "Barlow Twins: one network, cross-correlation to the identity",
            extra="train",
            facts={
                "cost": "6 S",
                "dense_units": 6,
                "teacher": False,
                "source": "arXiv:2103.03230",
                "status": "faithful",
            },
        ),
    },
)
