"""Azure ML's `Run` as training scripts know it: what is logged appears in the run's metrics, tags and outputs.

Without the service (no `ESTIMATORD_RECORDS` in the environment) the run is an offline one, which prints what is logged.
No `log…` raises: a value that cannot be recorded is a line on standard error, once for each name.
"""
import json
import os
import threading
import uuid
from collections.abc import Mapping

from azureml.core._files import Outputs
from azureml.core._recorder import Printer, Recorder
from azureml.core._values import plain, plain_text
from azureml.core._workspace_only import no_workspace, unavailable
from azureml.core.experiment import Experiment

__all__ = ["Run"]

# A run's failure is never too long to be recorded.
MAX_MESSAGE_LENGTH = 8192
MAX_CHILDREN_AT_ONCE = 100


class InputDatasets(Mapping):
    """Where the inputs of the run lie, by name: each has an environment variable of its name.

    Where `AZUREML_DATASET_ENVIRONMENT_VARS` (`name:mode,…`) lists them, these are all; else any variable is found by its
    name, and none is listed: the others are nobody's business.
    """

    def __init__(self):
        listed = os.environ.get("AZUREML_DATASET_ENVIRONMENT_VARS", "")
        self._names = [entry.split(":")[0] for entry in listed.split(",") if entry]

    def __getitem__(self, name):
        if name in os.environ and (not self._names or name in self._names):
            return os.environ[name]
        raise KeyError("the run has no input {!r}".format(name))

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)


class Run(object):
    """The run that this process is part of: `Run.get_context()`."""

    _context = None
    _context_lock = threading.Lock()

    def __init__(self, experiment=None, run_id=None, **_):
        if experiment is not None or run_id is not None:
            raise no_workspace("another run than Run.get_context()")
        self._id = os.environ.get("AZUREML_RUN_ID") or "OfflineRun_{}".format(uuid.uuid4())
        self._experiment = Experiment(name=os.environ.get("AZUREML_ARM_PROJECT_NAME"))
        self._parent = None
        self._recorder = self._make_recorder()
        self._outputs = Outputs(os.path.abspath(os.environ.get("ESTIMATORD_OUTPUTS") or "outputs"))
        self._tags = _given_tags()
        self._begin()

    def _begin(self, name=None):
        self.display_name = name or self._id
        self.description = None
        self._properties = {}
        self._metrics = {}
        self._status = "Running"
        self._children = []

    @staticmethod
    def _make_recorder():
        directory = os.environ.get("ESTIMATORD_RECORDS")
        return Recorder(directory) if directory else Printer()

    @classmethod
    def get_context(cls, allow_offline=True, used_for_context_manager=False, **_):
        """The run of this process; every call gives the same one."""
        if not allow_offline and not os.environ.get("ESTIMATORD_RECORDS"):
            raise RuntimeError("this script was not started by estimatord, and allow_offline is false")
        # Without the lock where it can be: a process that was forked may find it held for ever.
        if Run._context is None:
            with Run._context_lock:
                if Run._context is None:
                    Run._context = Run() if os.environ.get("ESTIMATORD_RECORDS") else _OfflineRun()
        return Run._context

    # What it is.

    @property
    def id(self):
        """The run's id; of a child run, the parent's with something added."""
        return self._id

    @property
    def number(self):
        """Runs have no numbers here: 1."""
        return 1

    @property
    def name(self):
        """The run's name: its id, where it was given none."""
        return self.display_name

    @property
    def experiment(self):
        """The experiment: its name."""
        return self._experiment

    @property
    def parent(self):
        """The run that made this one with `child_run`; none for the run itself."""
        return self._parent

    @property
    def type(self):
        """What kind of run it is."""
        return "azureml.scriptrun"

    @property
    def status(self):
        """The status as this process knows it."""
        return self._status

    @property
    def tags(self):
        """The tags as this process knows them."""
        return dict(self._tags)

    @property
    def properties(self):
        """What this process added."""
        return dict(self._properties)

    @property
    def input_datasets(self):
        """Where the inputs lie, by name."""
        return InputDatasets()

    def get_status(self):
        """The status as this process knows it."""
        return self._status

    def get_details(self):
        """What of the run is known to this process."""
        return {"runId": self._id, "status": self._status, "properties": self.properties, "tags": self.tags}

    def __repr__(self):
        return "Run(Experiment: {}, Id: {}, Status: {})".format(self._experiment.name, self._id, self._status)

    # Metrics.

    def log(self, name, value, description="", step=None):
        """Logs a number, a text or a boolean, or an array of just one."""
        is_list = isinstance(value, (list, tuple, range))
        value = self._plain(name, value)
        while not is_list and isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is None or isinstance(value, (list, dict)):
            message = "it is no number, text or boolean; log_list() takes lists, log_row() and log_table() named values"
            return self._refuse(name, message)
        return self._log("scalar", name, value, description, step)

    def log_list(self, name, value, description=""):
        """Logs a list of values."""
        self._log_as("list", name, value, description, list)

    def log_row(self, name, description=None, **kwargs):
        """Logs a row of named values."""
        self._log_as("row", name, kwargs, description, dict)

    def log_table(self, name, value, description=""):
        """Logs a table: columns by name, each a value or a list."""
        self._log_as("table", name, value, description, dict)

    def log_accuracy_table(self, name, value, description=""):
        """Logs an accuracy table, an object or its JSON, as it is given."""
        self._log_document("accuracy_table", name, value, description)

    def log_confusion_matrix(self, name, value, description=""):
        """Logs a confusion matrix, an object or its JSON, as it is given."""
        self._log_document("confusion_matrix", name, value, description)

    def log_predictions(self, name, value, description=""):
        """Logs predictions, an object or its JSON, as they are given."""
        self._log_document("predictions", name, value, description)

    def log_residuals(self, name, value, description=""):
        """Logs residuals, an object or its JSON, as they are given."""
        self._log_document("residuals", name, value, description)

    def log_image(self, name, path=None, plot=None, description=""):
        """Keeps an image, from a file or a plot of matplotlib, among the outputs."""
        if (path is None) == (plot is None):
            return self._refuse(name, "log_image() takes either `path` or `plot`")
        if not self._recorder.is_name(name):
            return None
        try:
            kept = self._keep_image(name, path, plot)
        except Exception as error:  # Whatever the plot or the disk made of it.
            return self._refuse(name, error)
        return self._log("image", name, {"path": kept.replace(os.sep, "/")}, description)

    def get_metrics(self, name=None, **_):
        """What this process logged, by name: a value, or the list of them where there are several."""
        found = {key: values[0] if len(values) == 1 else list(values) for key, values in list(self._metrics.items())}
        return found if name is None else {key: value for key, value in found.items() if key == name}

    def _keep_image(self, name, path, plot):
        return self._outputs.put_image(name, path, plot)

    def _log_document(self, kind, name, value, description):
        if isinstance(value, (str, bytes)):
            try:
                value = json.loads(value if isinstance(value, str) else value.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                return self._refuse(name, "it is no JSON: {}".format(error))
        return self._log_as(kind, name, value, description, dict)

    def _log_as(self, kind, name, value, description, expected):
        value = self._plain(name, value)
        if value is None or not isinstance(value, expected):
            return self._refuse(name, "a {} is made of a {}".format(kind, expected.__name__))
        return self._log(kind, name, value, description)

    def _plain(self, name, value):
        """The value as JSON has it; none where it has nothing like it, which is said."""
        try:
            return plain(value)
        except Exception as error:  # An array may raise anything when it is asked for its numbers.
            return self._refuse(name, error)

    def _step(self, name, step):
        if step is None:
            return None
        try:
            number = plain(step)
            if number == int(number) and -2 ** 63 <= number < 2 ** 63:
                return int(number)
        except Exception:  # As above; what follows says it.
            pass
        message = "`{}` is recorded without its step: {!r} is no 64-bit integer"
        return self._recorder.warn(("step", name), message.format(plain_text(name), step))

    def _refuse(self, name, why):
        # A name that nothing can have is said as such.
        if self._recorder.is_name(name):
            self._recorder.warn(name, "`{}` was not recorded: {}".format(plain_text(name), why))

    def _log(self, kind, name, value, description, step=None):
        if not self._recorder.is_name(name):
            return
        members = {"kind": kind, "value": value}
        step = self._step(name, step)
        if step is not None:
            members["step"] = step
        if description:
            members["description"] = str(description)
        if self._parent is not None:
            members["child"] = self._id
        if self._recorder.record("metric", name, **members):
            self._metrics.setdefault(name, []).append(value)

    # Tags and properties. A child's are known to this process only: the service has none but the run's.

    def _record(self, record_type, name, **members):
        return self._parent is not None or self._recorder.record(record_type, name, **members)

    def tag(self, key, value=None):
        """Sets a tag of the run."""
        value = None if value is None else str(value)
        if self._record("tag", key, value=value):
            self._tags[key] = value

    def set_tags(self, tags):
        """Sets tags of the run."""
        for key, value in tags.items():
            self.tag(key, value)

    def get_tags(self):
        """The tags as this process knows them."""
        return self.tags

    def remove_tags(self, tags):
        """Removes tags of the run."""
        for key in [tags] if isinstance(tags, str) else list(tags):
            if self._record("tag_removed", key):
                self._tags.pop(key, None)
        return self.tags

    def add_properties(self, properties):
        """Adds properties to the run."""
        for key, value in (properties or {}).items():
            if self._record("property", key, value=str(value)):
                self._properties[key] = str(value)

    def get_properties(self):
        """What this process added."""
        return self.properties

    # Files.

    def upload_file(self, name, path_or_stream, **_):
        """Keeps a file among the outputs of the run, at once."""
        return self._outputs.put(name, path_or_stream)

    def upload_files(self, names, paths, **_):
        """Keeps several files among the outputs of the run."""
        names, paths = list(names), list(paths)
        if len(names) != len(paths):
            raise TypeError("{} names for {} paths".format(len(names), len(paths)))
        return [self.upload_file(name, path) for name, path in zip(names, paths)]

    def upload_folder(self, name, path, **_):
        """Keeps the files of a folder among the outputs of the run."""
        return self._outputs.put_folder(name, path)

    # Its life.

    def start(self):
        """Nothing to do: it runs."""

    def flush(self, timeout_seconds=300):
        """Nothing to do: what is logged is written at once."""

    def complete(self, _set_status=True):
        """Says that the work is done. How the run ends is decided by how its script ends."""
        self._status = "Completed"
        if self._parent is None:
            self._recorder.record("status", status="completed")

    def fail(self, error_details=None, error_code=None, _set_status=True):
        """Says that the run has failed. It ends `Failed`, also when the script ends without an error."""
        self._status = "Failed"
        message = "" if error_details is None else str(error_details)[:MAX_MESSAGE_LENGTH]
        if self._parent is not None:
            # A child's end is not the run's.
            return self._recorder.warn(self._id, "the child run {} failed: {}".format(self._id, message))
        members = {} if error_code is None else {"code": str(error_code)[:MAX_MESSAGE_LENGTH]}
        self._recorder.record("status", status="failed", message=message, **members)

    def cancel(self):
        """Not available from within: the service is asked for it."""
        raise RuntimeError("a script cannot cancel its own run: end it, or ask estimatord to cancel the run")

    def wait_for_completion(self, *_, **__):
        """Not available from within: it would wait for itself."""
        raise RuntimeError("a script cannot wait for its own run")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if kind is None or issubclass(kind, SystemExit) and not error.code:
            self.complete()
        else:
            self.fail(": ".join(part for part in (kind.__name__, str(error)) if part))
        return False

    # Children: they log under the run itself, marked with their id.

    def child_run(self, name=None, run_id=None, outputs=None, **_):
        """A part of this run: its metrics carry its id, its files lie in `outputs/children/<id>`."""
        child = object.__new__(type(self))
        child.__dict__.update(self.__dict__)
        number = len(self._children) + 1
        # Each process makes children, so that a number alone would name several.
        child._id = str(run_id or "{}_{}_{}".format(self._id, name or number, uuid.uuid4().hex[:8]))
        child._parent = self
        child._outputs = self._outputs.of_child(child._id)
        child._tags = {}
        child._begin(name)
        self._children.append(child)
        return child

    def create_children(self, count=None, tag_key=None, tag_values=None):
        """Several parts of this run: so many, or one for each value that a tag is to have."""
        if (count is None) == (tag_key is None) or (tag_key is None) != (tag_values is None):
            raise ValueError("create_children() takes either `count` or `tag_key` and `tag_values`")
        values = range(count) if tag_values is None else list(tag_values)
        if len(values) > MAX_CHILDREN_AT_ONCE:
            raise ValueError("create_children() makes at most {} children".format(MAX_CHILDREN_AT_ONCE))
        children = [self.child_run() for _ in values]
        for child, value in zip(children, values):
            if tag_key is not None:
                child.tag(tag_key, value)
        return children

    def get_children(self, *_, **__):
        """The children that this process made."""
        return iter(list(self._children))

    # What needs a workspace.

    get = unavailable("Run.get")
    list = unavailable("Run.list")
    download_file = unavailable("Run.download_file")
    download_files = unavailable("Run.download_files")
    get_environment = unavailable("Run.get_environment")
    get_file_names = unavailable("Run.get_file_names")
    get_secret = unavailable("Run.get_secret")
    get_secrets = unavailable("Run.get_secrets")
    get_submitted_run = unavailable("Run.get_submitted_run")
    register_model = unavailable("Run.register_model")
    submit_child = unavailable("Run.submit_child")
    take_snapshot = unavailable("Run.take_snapshot")

    @property
    def output_datasets(self):
        """Not available."""
        raise no_workspace("Run.output_datasets")


class _OfflineRun(Run):
    """The run of a script that estimatord did not start. Scripts know it by this name."""

    def _keep_image(self, name, path, plot):
        return str(path or "a plot")

    def upload_file(self, name, path_or_stream, **_):
        """Says what would be kept."""
        print("offline run: file {!r} from {!r}".format(name, path_or_stream))

    def upload_folder(self, name, path, **_):
        """Says what would be kept."""
        print("offline run: folder {!r} from {!r}".format(name, path))


def _given_tags():
    try:
        return dict(json.loads(os.environ.get("ESTIMATORD_TAGS") or "{}"))
    except (TypeError, ValueError):
        return {}
