"""`from azureml.core.workspace import Workspace`."""
from azureml.core.run import Workspace

__all__ = ["Workspace"]
