"""`azureml.core` for scripts on estimatord: the run, and the names that scripts import next to it.

The directory above has no `__init__.py` on purpose: as a part of a namespace package it gives way to whatever of
`azureml` is installed, and adds to it what is not.
"""
from azureml.core.dataset import Dataset
from azureml.core.datastore import Datastore
from azureml.core.experiment import Experiment
from azureml.core.model import Model
from azureml.core.run import Run
from azureml.core.workspace import Workspace

VERSION = "1.0.0+estimatord"
__version__ = VERSION

__all__ = ["Dataset", "Datastore", "Experiment", "Model", "Run", "VERSION", "Workspace"]
