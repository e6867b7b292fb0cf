"""What the tests and the notebook kernels see, and what nbval compares."""

import os

# Set before torch is imported, and inherited by the kernels. Stored outputs were made like this:
# one thread, so that sums are taken in one order; the CPU; no network.
os.environ.update(
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    CUDA_VISIBLE_DEVICES="",
    TOKENIZERS_PARALLELISM="false",
    PYTHONHASHSEED="0",
)


def pytest_configure(config):
    """Give nbval the sanitizer by its absolute path, so that it is found from any folder."""
    config.option.nbval_sanitize_with = str(config.rootpath / "tests" / "nbval_sanitize.cfg")


def pytest_ignore_collect(collection_path):
    """Leave out what is generated, and the module that takes the network away when imported."""
    return collection_path.name in {"build", "refuse_sockets"} or None
