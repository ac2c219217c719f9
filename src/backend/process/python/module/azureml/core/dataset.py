"""`from azureml.core.dataset import Dataset`: the name only."""
from azureml.core._workspace_only import only_named

__all__ = ["Dataset"]

Dataset = only_named("Dataset")
