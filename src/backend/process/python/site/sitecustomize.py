"""Python runs this at its start, because the directory of this file is first on PYTHONPATH.

It adds our `azureml` module behind everything else, so that an installed one wins, and then lets the `sitecustomize`
that it hides have its turn.
"""
import importlib.machinery
import importlib.util
import os
import sys


def _is_here(entry):
    try:
        return os.path.realpath(entry or os.curdir) == os.path.dirname(os.path.realpath(__file__))
    except (OSError, ValueError):
        return False


def _add_module():
    module = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "module")
    sys.path[:] = [entry for entry in sys.path if not _is_here(entry)]
    if module not in sys.path:
        sys.path.append(module)


def _run_next():
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        # As if there were none: the next one who asks is told the same.
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


_add_module()
_run_next()
