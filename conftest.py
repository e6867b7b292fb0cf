"""What the tests and the notebook kernels see, and what nbval compares."""

import os
import pathlib
import sys

# Set before torch is imported, and inherited by the kernels. Stored outputs were made like this:
# one thread, so that sums are taken in one order; the CPU; no network. Messages in English.
os.environ.update(
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    CUDA_VISIBLE_DEVICES="",
    TOKENIZERS_PARALLELISM="false",
    PYTHONHASHSEED="0",
    MLMTUTOR_LANG="en",
)

# Neither the tests nor what they start, kernels among it, can reach another machine.
REFUSE_SOCKETS = str(pathlib.Path(__file__).parent / "tests" / "refuse_sockets")
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(
        None, dict.fromkeys([REFUSE_SOCKETS, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    )
)
sys.path.insert(0, REFUSE_SOCKETS)
sys.modules.pop("sitecustomize", None)  # that of the system, if there is one, has done its work
import sitecustomize  # noqa: E402, F401

sys.path.remove(REFUSE_SOCKETS)


def pytest_configure(config):
    """Give nbval the sanitizer by its absolute path, so that it is found from any folder."""
    config.option.nbval_sanitize_with = str(config.rootpath / "tests" / "nbval_sanitize.cfg")


def pytest_ignore_collect(collection_path):
    """Leave out what is generated, and the module that takes the network away when imported."""
    return collection_path.name in {"build", "refuse_sockets"} or None
