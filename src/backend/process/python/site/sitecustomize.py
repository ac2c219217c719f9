"""Python runs this at its start, because the directory of this file is first on PYTHONPATH.

It adds our `azureml` module behind everything else, so that an installed one wins, and then lets the `sitecustomize`
that it hides have its turn. PYTHONPATH itself stays: processes that the script starts need the same again.
"""
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _is_here(entry):
    return os.path.realpath(entry or os.curdir) == os.path.realpath(_HERE)


def _make_way():
    """Adds the module and takes this directory from the path; whether that could be done."""
    try:
        module = os.path.join(os.path.dirname(_HERE), "module")
        sys.path[:] = [entry for entry in sys.path if not _is_here(entry)]
        if module not in sys.path:
            sys.path.append(module)
        return True
    except Exception as error:  # A script must not break for our sake, whatever it was.
        if sys.stderr is not None:
            sys.stderr.write("azureml: scripts cannot log to estimatord here: {!r}\n".format(error))
        return False


if _make_way():
    # Imported once more under the same name, the next one is found. Where there is none, or where it fails, Python
    # does with that error what it would have done without us.
    sys.modules.pop("sitecustomize", None)
    import sitecustomize  # noqa: F401
