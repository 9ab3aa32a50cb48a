"""Stock architectures at any width.

An entry's target is an :class:`edgessl.encoders.base.Architecture`; that of the family ``timm:``
makes one from the name of a network in timm.
"""

from edgessl.core.registry import Entry, Table

ENCODERS = Table(
    "encoder",
    {
        "mobilenet_v1": Entry(
            "edgessl.encoders.mobilenet_v1:MOBILENET_V1",
            "MobileNetV1, 27 layers, for 128 px and above",
            extra="train",
            facts={
                "features_1x": 1024,
                "macs_1x_224_m": 568.7,
                "source": "arXiv:1704.04861",
                "imagenet_weights": False,
            },
        ),
        "mobilenet_v1_short": Entry(
            "edgessl.encoders.mobilenet_v1:MOBILENET_V1_SHORT",
            "MobileNetV1 cut to 13 layers and a total stride of 8, for 8 to 64 px",
            extra="train",
            facts={
                "features_1x": 512,
                "macs_1x_224_m": 307.5,
                "source": "edgessl",
                "imagenet_weights": False,
            },
        ),
        "mobilenet_v2": Entry(
            "edgessl.encoders.mobilenet_v2:MOBILENET_V2",
            "MobileNetV2, loads strictly into torchvision's class",
            extra="train",
            facts={
                "features_1x": 1280,
                "macs_1x_224_m": 300.8,
                "source": "arXiv:1801.04381",
                "imagenet_weights": True,
            },
        ),
        "mobilenet_v3_large": Entry(
            "edgessl.encoders.mobilenet_v3:MOBILENET_V3_LARGE",
            "MobileNetV3-large, loads strictly into torchvision's class",
            extra="train",
            facts={
                "features_1x": 1280,
                "macs_1x_224_m": 216.6,
                "source": "arXiv:1905.02244",
                "imagenet_weights": True,
            },
        ),
        "mobilenet_v3_large_pooled": Entry(
            "edgessl.encoders.mobilenet_v3:MOBILENET_V3_LARGE_POOLED",
            "MobileNetV3-large without the hidden layer of its classifier: pooled features",
            extra="train",
            facts={
                "features_1x": 960,
                "macs_1x_224_m": 215.0,
                "source": "arXiv:1905.02244",
                "imagenet_weights": True,
            },
        ),
        "mobilenet_v3_small": Entry(
            "edgessl.encoders.mobilenet_v3:MOBILENET_V3_SMALL",
            "MobileNetV3-small, loads strictly into torchvision's class",
            extra="train",
            facts={
                "features_1x": 1024,
                "macs_1x_224_m": 56.5,
                "source": "arXiv:1905.02244",
                "imagenet_weights": True,
            },
        ),
        "mobilenet_v3_small_pooled": Entry(
            "edgessl.encoders.mobilenet_v3:MOBILENET_V3_SMALL_POOLED",
            "MobileNetV3-small without the hidden layer of its classifier: pooled features",
            extra="train",
            facts={
                "features_1x": 576,
                "macs_1x_224_m": 55.5,
                "source": "arXiv:1905.02244",
                "imagenet_weights": True,
            },
        ),
        "mobilenetv4_conv_small": Entry(
            "edgessl.encoders.mobilenet_v4:MOBILENET_V4_CONV_SMALL",
            "MobileNetV4-conv-small, loads strictly into timm's class at 1x",
            extra="train",
            facts={
                "features_1x": 1280,
                "macs_1x_224_m": 186.0,
                "source": "arXiv:2404.10518",
                "imagenet_weights": True,
            },
        ),
        "efficientnet_b0": Entry(
            "edgessl.encoders.efficientnet:EFFICIENTNET_B0",
            "EfficientNet-B0, loads strictly into torchvision's class at 1x",
            extra="train",
            facts={
                "features_1x": 1280,
                "macs_1x_224_m": 385.8,
                "source": "arXiv:1905.11946",
                "imagenet_weights": True,
            },
        ),
        "resnet20": Entry(
            "edgessl.encoders.resnet:RESNET20",
            "ResNet-20 of 16-32-64 channels, for 32 px",
            extra="train",
            facts={
                "features_1x": 64,
                "macs_1x_224_m": 1999.9,
                "source": "arXiv:1512.03385",
                "imagenet_weights": False,
            },
        ),
        "resnet18": Entry(
            "edgessl.encoders.resnet:RESNET18",
            "ResNet-18, loads strictly into torchvision's class at 1x",
            extra="train",
            facts={
                "features_1x": 512,
                "macs_1x_224_m": 1814.1,
                "source": "arXiv:1512.03385",
                "imagenet_weights": True,
            },
        ),
        "resnet34": Entry(
            "edgessl.encoders.resnet:RESNET34",
            "ResNet-34, loads strictly into torchvision's class at 1x",
            extra="train",
            facts={
                "features_1x": 512,
                "macs_1x_224_m": 3663.8,
                "source": "arXiv:1512.03385",
                "imagenet_weights": True,
            },
        ),
        "resnet50": Entry(
            "edgessl.encoders.resnet:RESNET50",
            "ResNet-50, loads strictly into torchvision's class at 1x",
            extra="train",
            facts={
                "features_1x": 2048,
                "macs_1x_224_m": 4089.2,
                "source": "arXiv:1512.03385",
                "imagenet_weights": True,
            },
        ),
        "resnet101": Entry(
            "edgessl.encoders.resnet:RESNET101",
            "ResNet-101, loads strictly into torchvision's class at 1x",
            extra="train",
            facts={
                "features_1x": 2048,
                "macs_1x_224_m": 7801.4,
                "source": "arXiv:1512.03385",
                "imagenet_weights": True,
            },
        ),
    },
    families={
        "timm:": Entry(
            "edgessl.encoders.timm_nets:timm_architecture",
            "a convolutional net of timm, for example timm:mobilenetv3_small_100; is timm's at 1x",
            extra="timm",
            facts={"source": "timm", "imagenet_weights": True},
        ),
    },
)
