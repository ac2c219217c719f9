"""`from azureml.core.workspace import Workspace`: the name only."""
from azureml.core._workspace_only import only_named

__all__ = ["Workspace"]

Workspace = only_named("Workspace")
