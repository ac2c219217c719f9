"""What exists in an Azure ML workspace only: it can be imported, and using it says that there is none."""

NO_WORKSPACE = "estimatord runs this script without an Azure ML workspace: {} is not available"


def no_workspace(what):
    """The error to raise."""
    return RuntimeError(NO_WORKSPACE.format(what))


def unavailable(what):
    """A method that only says so."""
    def method(*_, **__):
        raise no_workspace(what + "()")
    method.__name__ = what
    method.__doc__ = "Not available: it needs a workspace."
    return method


class _Named(type):
    def __call__(cls, *_, **__):
        raise no_workspace(cls.__name__)

    def __getattr__(cls, name):
        # Python itself asks for names like these, and takes this error for "no".
        if name.startswith("__"):
            raise AttributeError(name)
        raise no_workspace("{}.{}".format(cls.__name__, name))


def only_named(name):
    """A class that scripts can import, annotate with and ask `isinstance` about, and no more."""
    return _Named(name, (object,), {"__doc__": "Not available: it needs a workspace.", "__module__": "azureml.core"})
