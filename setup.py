"""The native convolutions, which may fail to build without failing the installation.

All else is in ``pyproject.toml``.
"""

from pathlib import Path

from setuptools import Extension, setup

SOURCE = Path("jaxood/nn/native/src")

setup(
    ext_modules=[
        Extension(
            "jaxood.nn.native._native",
            sources=sorted(str(file) for file in SOURCE.glob("*.cc")),
            depends=sorted(str(file) for file in SOURCE.glob("*.h")),
            extra_compile_args=[
                "-std=gnu++17",
                "-O3",
                "-ffp-contract=fast",
                "-fvisibility=hidden",
                "-g0",
            ],
            optional=True,
        )
    ]
)
