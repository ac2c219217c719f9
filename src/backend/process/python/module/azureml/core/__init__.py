"""`azureml.core` for scripts on estimatord: the run, and what of it can be known without a workspace."""
from azureml.core.run import Experiment, Run, Workspace

VERSION = "1.0.0+estimatord"

__all__ = ["Experiment", "Run", "VERSION", "Workspace"]
