"""The `azureml` module that scripts are given, used by real interpreters as scripts use it."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.join(os.path.dirname(__file__), "..", "..", "src", "backend", "process", "python")
START = "from azureml.core import Run\nrun = Run.get_context()\n"


class Module(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root)
        for name in ("records", "work/outputs", "own"):
            os.makedirs(os.path.join(self.root, name))
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.path.join(os.path.abspath(SOURCE), "site"),
            "AZUREML_RUN_ID": "the-run",
            "AZUREML_ARM_PROJECT_NAME": "digits",
            "ESTIMATORD_RECORDS": os.path.join(self.root, "records"),
            "ESTIMATORD_OUTPUTS": os.path.join(self.root, "work/outputs"),
            "ESTIMATORD_TAGS": '{"team": "vision"}',
        }

    def start(self, script, **environment):
        return subprocess.Popen(
            [sys.executable, "-c", script], cwd=os.path.join(self.root, "work"), universal_newlines=True,
            env=dict(self.environment, **environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run_script(self, script, code=0, **environment):
        process = self.start(script, **environment)
        out, err = process.communicate()
        self.assertEqual(process.returncode, code, err)
        return out, err

    def records(self):
        """The records of every file, by file name."""
        found = {}
        for name in sorted(os.listdir(self.environment["ESTIMATORD_RECORDS"])):
            with open(os.path.join(self.environment["ESTIMATORD_RECORDS"], name)) as file:
                found[name] = [json.loads(line) for line in file]
        return found

    def lines(self):
        """The records of the one file that there is."""
        (lines,) = self.records().values()
        return lines

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def outputs(self):
        root, found = self.environment["ESTIMATORD_OUTPUTS"], {}
        for directory, _, files in os.walk(root):
            for name in files:
                path = os.path.join(directory, name)
                with open(path) as file:
                    found[os.path.relpath(path, root)] = file.read()
        return found

    def test_a_script_of_the_documentation_logs(self):
        out, err = self.run_script(
            "from azureml.core.run import Run\nrun = Run.get_context()\nrun.log('accuracy', 0.97)\nrun.log('n', 3, step=7)\n"
            "print(run.id, run.experiment.name, run.parent, run.get_tags(), Run.get_context() is run)")
        self.assertEqual((out, err), ("the-run digits None {'team': 'vision'} True\n", ""))
        first, second = self.lines()
        self.assertEqual((first["type"], first["kind"], first["name"], first["value"]), ("metric", "scalar", "accuracy", 0.97))
        self.assertEqual((second["value"], second["step"], second["sequence"]), (3, 7, 1))
        self.assertNotIn("step", first)

    def test_every_kind_of_metric(self):
        self.run_script(START + (
            "run.log_list('l', [1, 2.5, 'x'], description='d')\nrun.log_row('r', x=1, y=float('nan'))\n"
            "run.log_table('t', {'x': [1, 2], 'y': 3})\nrun.log_confusion_matrix('c', {'schema_type': 'm', 'data': {}})\n"
            "run.log_residuals('e', '{\"data\": 1}')\nrun.log('inf', float('-inf'))\nrun.log('big', 10**30)\nrun.log('b', True)"))
        seen = [(line["kind"], line["value"]) for line in self.lines()]
        self.assertEqual(seen, [
            ("list", [1, 2.5, "x"]), ("row", {"x": 1, "y": "NaN"}), ("table", {"x": [1, 2], "y": 3}),
            ("confusion_matrix", {"schema_type": "m", "data": {}}), ("residuals", {"data": 1}),
            ("scalar", "-Infinity"), ("scalar", 10 ** 30), ("scalar", True)])
        self.assertEqual(self.lines()[0]["description"], "d")

    def test_numbers_of_other_libraries_are_taken(self):
        self.run_script(START + (
            "class Scalar:\n    def item(self): return 0.5\n"
            "class Array:\n    def tolist(self): return [1, 2]\n"
            "class Variable:\n    array = Array()\n"
            "run.log('s', Scalar()); run.log_list('a', Array()); run.log_list('v', Variable())"))
        self.assertEqual([line["value"] for line in self.lines()], [0.5, [1, 2], [1, 2]])

    def test_a_metric_never_ends_the_script(self):
        out, err = self.run_script(START + (
            "run.log('o', object())\nrun.log('l', [1, 2])\nrun.log('', 1)\nrun.log('x' * 256, 1)\nrun.log(3, 1)\n"
            "run.log('long', 'x' * 2**20)\nrun.log('o', object())\nrun.log('fine', 1)\nprint('done')"))
        self.assertEqual(out, "done\n")
        self.assertEqual([line["name"] for line in self.lines()], ["fine"])
        self.assertEqual(err.count("`o` was not recorded: a value of type object cannot be recorded"), 1, "said once")
        self.assertIn("`long` was not recorded: it has 10", err)
        self.assertIn("log_list() takes lists", err)

    def test_a_directory_that_is_gone_never_ends_the_script(self):
        out, err = self.run_script(START + "run.log('a', 1)\nprint('done')", ESTIMATORD_RECORDS="/gone/for/good")
        self.assertEqual(out, "done\n")
        self.assertIn("`a` was not recorded", err)

    def test_what_was_logged_survives_a_kill_right_after(self):
        process = self.start(START + "import os, signal\nrun.log('a', 1)\nos.kill(os.getpid(), signal.SIGKILL)")
        process.communicate()
        self.assertEqual(process.returncode, -signal.SIGKILL)
        self.assertEqual([line["name"] for line in self.lines()], ["a"])

    def test_each_process_has_a_file_and_each_file_its_rank(self):
        self.run_script(START + (
            "import os\nrun.log('parent', 1)\nchild = os.fork()\nrun.log('child' if child == 0 else 'after', 1)\n"
            "if child: os.waitpid(child, 0)\n"), PMI_RANK="4")
        found = {tuple(line["name"] for line in lines) for lines in self.records().values()}
        self.assertEqual(found, {("parent", "after"), ("child",)})
        self.assertTrue(all(name.startswith("4-") for name in self.records()))

    def test_threads_do_not_mix_their_lines(self):
        self.run_script(START + (
            "import threading\n"
            "def work(n):\n    for i in range(200): run.log('t%d' % n, 'x' * 1000, step=i)\n"
            "threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]\n"
            "[t.start() for t in threads]; [t.join() for t in threads]"))
        lines = self.lines()
        self.assertEqual([line["sequence"] for line in lines], list(range(1600)))
        for n in range(8):
            self.assertEqual([l["step"] for l in lines if l["name"] == "t%d" % n], list(range(200)))

    def test_tags_properties_and_ends(self):
        out, _ = self.run_script(START + (
            "run.tag('a', 1); run.tag('b'); run.set_tags({'c': 'x'}); run.remove_tags(['team'])\n"
            "run.add_properties({'p': 2})\nprint(sorted(run.get_tags()), run.get_properties())\nrun.complete()\n"
            "run.fail('diverged', 3)"))
        self.assertEqual(out, "['a', 'b', 'c'] {'p': '2'}\n")
        seen = [(line["type"], line.get("name"), line.get("value"), line.get("status")) for line in self.lines()]
        self.assertEqual(seen, [
            ("tag", "a", "1", None), ("tag", "b", None, None), ("tag", "c", "x", None), ("tag_removed", "team", None, None),
            ("property", "p", "2", None), ("status", None, None, "completed"), ("status", None, None, "failed")])
        self.assertEqual((self.lines()[-1]["message"], self.lines()[-1]["code"]), ("diverged", "3"))

    def test_an_error_within_the_run_is_its_failure(self):
        self.run_script(START + "with run:\n    raise ValueError('no data')", code=1)
        self.assertEqual([(l["status"], l["message"]) for l in self.lines()], [("failed", "ValueError: no data")])

    def test_children_log_under_the_run_and_their_end_is_not_its_end(self):
        out, _ = self.run_script(START + (
            "with run.child_run() as child: child.log('a', 1)\nprint(child.id, child.parent is run)"))
        child, same = out.split()
        self.assertRegex(child, "^the-run_1_[0-9a-f]{8}$")
        self.assertEqual([(line["name"], line["child"], same) for line in self.lines()], [("a", child, "True")])

    def test_uploads_are_outputs(self):
        self.write("work/model.txt", "weights")
        self.write("work/plots/deep/a.txt", "plot")
        self.write("work/outputs/there.txt", "own")
        self.run_script(START + (
            "import io\nrun.upload_file('outputs/m/model.txt', 'model.txt')\nrun.upload_file('bytes', io.BytesIO(b'b'))\n"
            "run.upload_folder('plots', 'plots')\nrun.upload_file('outputs/there.txt', 'outputs/there.txt')\n"
            "run.log_image('a picture', path='model.txt')"))
        found = self.outputs()
        (image,) = [name for name in found if name.startswith("images/a_picture_")]
        self.assertEqual(found.pop(image), "weights")
        self.assertEqual(found, {"m/model.txt": "weights", "bytes": "b", "plots/deep/a.txt": "plot", "there.txt": "own"})
        self.assertEqual(self.lines()[0]["value"], {"path": image})

    def test_uploads_that_cannot_be_say_why(self):
        self.write("work/model.txt", "weights")
        for call, error in [
            ("run.upload_file('../x', 'model.txt')", "no name for an output"),
            ("run.upload_file('/x', 'model.txt')", "no name for an output"),
            ("run.upload_file('x', 'missing')", "there is no file 'missing'"),
            ("run.upload_folder('x', 'missing')", "there is no folder 'missing'"),
            ("run.upload_file('x', 'model.txt'); run.upload_file('x', 'model.txt')", "an output 'x' already"),
            ("run.upload_files(['a'], [])", "1 names for 0 paths"),
        ]:
            _, err = self.run_script(START + call, code=1)
            self.assertIn(error, err)
        self.assertEqual(list(self.outputs()), ["x"])

    def test_an_installed_module_wins(self):
        self.write("own/azureml/__init__.py", "__path__ = __import__('pkgutil').extend_path(__path__, __name__)")
        self.write("own/azureml/core/__init__.py", "REAL = True")
        self.append_to_path()
        out, _ = self.run_script("import azureml.core; print(azureml.core.REAL)")
        self.assertEqual(out, "True\n")

    def test_an_installed_part_and_ours_are_both_found(self):
        for installed in (True, False):
            self.write("own/azureml/telemetry/__init__.py", "REAL = True")
            if installed:
                self.write("own/azureml/__init__.py", "__path__ = __import__('pkgutil').extend_path(__path__, __name__)")
            self.append_to_path()
            out, _ = self.run_script(
                "import azureml.telemetry; from azureml.core import Run; print(azureml.telemetry.REAL, Run.get_context().id)")
            self.assertEqual(out, "True the-run\n")
            shutil.rmtree(os.path.join(self.root, "own"))

    def append_to_path(self):
        site = os.path.join(os.path.abspath(SOURCE), "site")
        self.environment["PYTHONPATH"] = os.pathsep.join([site, os.path.join(self.root, "own")])

    def test_a_sitecustomize_of_ones_own_has_its_turn(self):
        self.write("own/sitecustomize.py", "import os; os.environ['SEEN'] = __name__")
        self.append_to_path()
        out, _ = self.run_script(
            "import os, sys, sitecustomize; print(os.environ['SEEN'], os.path.dirname(sitecustomize.__file__), flush=True)\n"
            "import subprocess; subprocess.check_call([sys.executable, '-c', 'import azureml.core, os; print(os.environ[\"SEEN\"])'])")
        self.assertEqual(out.split(), ["sitecustomize", os.path.join(self.root, "own"), "sitecustomize"])

    def test_without_the_service_it_prints(self):
        bare = {"ESTIMATORD_RECORDS": "", "ESTIMATORD_OUTPUTS": "", "ESTIMATORD_TAGS": ""}
        out, err = self.run_script(START + "run.log('a', 1)\nprint(run.get_metrics())", **bare)
        self.assertIn("offline run: metric 'a' kind='scalar' value=1\n", out)
        self.assertIn("{'a': 1}", out)
        _, err = self.run_script("from azureml.core import Run; Run.get_context(allow_offline=False)", code=1, **bare)
        self.assertIn("was not started by estimatord", err)

    def test_what_needs_a_workspace_says_so(self):
        for call in ["run.experiment.workspace", "run.get_environment()", "from azureml.core import Workspace; Workspace.from_config()"]:
            _, err = self.run_script(START + call, code=1)
            self.assertIn("without an Azure ML workspace", err)

    # Text, numbers and limits.

    def test_text_that_no_reader_takes_is_mended(self):
        self.run_script(START + (
            "run.log('half \\udcff', 'x\\ud800y')\nrun.log_row('pair', x='\\ud83d\\ude00')\nrun.tag('t', '\\udcff')\n"
            "run.child_run(run_id='c\\udcff').log('a', 1)\nrun.fail('\\udcff')"))
        (name,) = os.listdir(self.environment["ESTIMATORD_RECORDS"])
        with open(os.path.join(self.environment["ESTIMATORD_RECORDS"], name), "rb") as file:
            content = file.read()
        self.assertTrue(all(byte < 128 for byte in content), "ASCII")
        self.assertNotIn(b"\\udcff", content)
        half, pair, tag, child, fail = self.lines()
        self.assertEqual((half["name"], half["value"]), ("half \ufffd", "x\ufffdy"))
        self.assertEqual(pair["value"], {"x": "\U0001f600"})
        self.assertEqual((tag["value"], child["child"], fail["message"]), ("\ufffd", "c\ufffd", "\ufffd"))

    def test_values_that_raise_or_never_end_do_not_end_the_script(self):
        out, err = self.run_script(START + (
            "class Bad:\n    def tolist(self): raise RuntimeError('device lost')\n"
            "deep = []\nfor _ in range(200): deep = [deep]\n"
            "loop = []; loop.append(loop)\n"
            "run.log('bad', Bad()); run.log_list('bad2', Bad()); run.log_list('deep', deep); run.log_list('loop', loop)\n"
            "run.log_residuals('doc', '{no json'); run.log_table('table', 'text'); run.log_list(['n'], [1]); run.log([1], 1, step='x')\n"
            "run.log('none', None); run.log('one', [1]); run.log_image('i', path='missing.png'); run.log_image('both'); run.log_image(3, plot=3)\n"
            "import uuid; run.log('uuid', uuid.uuid4())\nprint('done')"))
        self.assertEqual(out, "done\n")
        self.assertEqual(self.records(), {})
        for said in ["`bad` was not recorded: device lost", "`bad2` was", "`deep` was not recorded: it is nested more than 64",
                     "`loop` was", "`doc` was not recorded: it is no JSON", "a table is made of a dict", "['n'] was not recorded",
                     "`none` was", "`one` was", "no file 'missing.png'", "either `path` or `plot`", "type UUID cannot"]:
            self.assertIn(said, err)

    def test_a_step_that_is_none_loses_no_value(self):
        _, err = self.run_script(START + (
            "class Tensor:\n    def tolist(self): return 5\n"
            "for step in (1.0, 1.5, 'x', 2**63, -2**63, Tensor()): run.log('a', 1, step=step)\nrun.log('b', 1, step=None)"))
        self.assertEqual([line.get("step") for line in self.lines()], [1, None, None, None, -2 ** 63, 5, None])
        self.assertEqual(err.count("`a` is recorded without its step: 1.5"), 1)

    def test_the_longest_line_is_taken_and_the_next_longer_one_not(self):
        _, err = self.run_script(START + (
            "run.log('a', '')\nimport os, glob\nfile = glob.glob(os.environ['ESTIMATORD_RECORDS'] + '/*')[0]\n"
            "import azureml.core._recorder as r; r.time.time = lambda: 1.5\nrun.log('a', '')\n"
            "one = len(open(file, 'rb').readlines()[1])\nrun.log('a', 'x' * (2**20 - one)); run.log('a', 'x' * (2**20 - one + 1))"))
        with open(os.path.join(self.environment["ESTIMATORD_RECORDS"], list(self.records())[0]), "rb") as file:
            self.assertEqual([len(line) for line in file.readlines()[2:]], [2 ** 20])
        self.assertIn("it has 1048577 bytes as JSON, and 1048576 are taken at once", err)

    def test_a_failure_is_never_too_long(self):
        self.run_script(START + "run.fail('x' * 2**21, 'y' * 2**21)")
        self.assertEqual([len(self.lines()[0][member]) for member in ("message", "code")], [8192, 8192])

    # Files of records.

    def test_a_full_disk_leaves_no_part_of_a_line(self):
        _, err = self.run_script(START + (
            "import resource\nrun.log('a', 1)\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
            "run.log('b', 'x' * 2000); run.log('c', 'x' * 3000)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\nrun.log('d', 1)"))
        self.assertEqual([(line["name"], line["sequence"]) for line in self.lines()], [("a", 0), ("d", 1)])
        self.assertEqual(err.count("azureml:"), 1, err)

    def test_a_script_that_closes_what_it_does_not_know_goes_on_logging(self):
        self.run_script(START + (
            "import os\nrun.log('a', 1)\nos.closerange(3, 100)\nfiles = [open('own%d' % n, 'w') for n in range(9)]\n"
            "run.log('b', 1)"))
        self.assertEqual(sorted(line["name"] for lines in self.records().values() for line in lines), ["a", "b"])
        for n in range(9):
            self.assertEqual(os.path.getsize(os.path.join(self.root, "work", "own%d" % n)), 0)

    def test_a_directory_that_goes_later_is_said(self):
        _, err = self.run_script(START + (
            "import os, shutil\nrun.log('a', 1)\nshutil.rmtree(os.environ['ESTIMATORD_RECORDS'])\nrun.log('b', 1)"))
        self.assertIn("`b` was not recorded", err)

    def test_the_service_can_read_it_whatever_the_umask(self):
        self.run_script("import os; os.umask(0o077)\n" + START + "run.log('a', 1); run.upload_file('x', __import__('io').BytesIO(b''))")
        for path in [os.path.join("records", list(self.records())[0]), "work/outputs/x"]:
            self.assertEqual(os.stat(os.path.join(self.root, path)).st_mode & 0o777, 0o644)

    def test_a_fork_while_a_thread_holds_the_lock_does_not_hang(self):
        self.run_script(START + (
            "import os, signal, threading\nrun.log('a', 1)\nfile = run._recorder._file()\nheld, go = threading.Event(), threading.Event()\n"
            "def hold():\n    with file._lock: held.set(); go.wait()\n"
            "thread = threading.Thread(target=hold); thread.start(); held.wait()\nchild = os.fork()\n"
            "if child == 0:\n    signal.alarm(20); Run.get_context().log('child', 1); os._exit(0)\n"
            "status = os.waitpid(child, 0)[1]; go.set(); thread.join(); assert status == 0, status"))
        self.assertEqual(sorted(line["name"] for lines in self.records().values() for line in lines), ["a", "child"])

    def test_processes_of_multiprocessing_log(self):
        for method in ("fork", "spawn", "forkserver"):
            self.write("work/several.py", (
                "import multiprocessing, sys\nfrom azureml.core import Run\n"
                "def work(n): Run.get_context().log(sys.argv[1], n)\n"
                "if __name__ == '__main__':\n    multiprocessing.set_start_method(sys.argv[1])\n"
                "    with multiprocessing.Pool(2) as pool: pool.map(work, range(4), 1)\n"))
            self.run_script("import subprocess, sys; sys.exit(subprocess.call([sys.executable, 'several.py', %r]))" % method)
            values = [line["value"] for lines in self.records().values() for line in lines if line["name"] == method]
            self.assertEqual(sorted(values), [0, 1, 2, 3])

    def test_ranks(self):
        for variables, rank in [({"OMPI_COMM_WORLD_RANK": "x", "PMIX_RANK": "2", "SLURM_PROCID": "3"}, "2"), ({"SLURM_PROCID": "3"}, "3"), ({}, "0")]:
            self.run_script(START + "run.log('r%s', 1)" % rank, **variables)
        self.assertEqual(sorted((n.split("-")[0], l[0]["name"]) for n, l in self.records().items()), [("0", "r0"), ("2", "r2"), ("3", "r3")])

    # Children, inputs, ends.

    def test_what_children_do_is_not_taken_for_the_run_s(self):
        self.write("work/model", "weights")
        out, err = self.run_script(START + (
            "children = run.create_children(tag_key='k', tag_values=['x', 'y'])\n"
            "for child in children: child.upload_file('model', 'model'); child.log_image('i', path='model'); child.add_properties({'p': 1})\n"
            "children[0].fail('diverged'); children[1].complete()\nrun.upload_file('model', 'model')\n"
            "print([c.get_tags() for c in children], run.get_tags(), list(run.get_children()) == children, len(run.create_children(3)))"))
        self.assertEqual(out, "[{'k': 'x'}, {'k': 'y'}] {'team': 'vision'} True 3\n")
        self.assertEqual({line["type"] for line in self.lines()}, {"metric"})
        self.assertIn("failed: diverged", err)
        found = self.outputs()
        self.assertEqual(sorted(found)[-1], "model")
        self.assertEqual(len([name for name in found if name.startswith("children/the-run_") and name.endswith("/model")]), 2)
        for line in self.lines():
            self.assertIn(line["value"]["path"], found)

    def test_inputs_are_found_by_name_and_nothing_else_is_shown(self):
        script = START + (
            "d = run.input_datasets\nprint(d['train'], 'missing' in d, list(d), d.get('other'))\n"
            "try: d['missing']\nexcept KeyError as error: print(error)")
        out, _ = self.run_script(script, train="/data/train", other="o")
        self.assertEqual(out, "/data/train False [] o\n\"the run has no input 'missing'\"\n")
        out, _ = self.run_script(script, train="/data/train", other="o", AZUREML_DATASET_ENVIRONMENT_VARS="train:mount,gone:download")
        self.assertTrue(out.startswith("/data/train False ['train', 'gone'] None\n"), out)

    def test_how_a_with_block_ends(self):
        for script, code, end in [
            ("pass", 0, ("completed", None)), ("import sys; sys.exit()", 0, ("completed", None)),
            ("import sys; sys.exit(3)", 3, ("failed", "SystemExit: 3")), ("raise KeyError", 1, ("failed", "KeyError")),
        ]:
            self.run_script(START + "with run: " + script, code=code)
            self.assertEqual([(l["status"], l.get("message")) for l in self.lines()], [end])
            shutil.rmtree(self.environment["ESTIMATORD_RECORDS"])
            os.makedirs(self.environment["ESTIMATORD_RECORDS"])

    def test_get_metrics_is_what_was_logged(self):
        out, _ = self.run_script(START + (
            "run.log('a', 1); run.log('a', 2); run.log('b', 3); run.log_row('r', x=1)\n"
            "m = run.get_metrics(); print(m['a'], m['b'], m['r'], run.get_metrics(name='b'))"))
        self.assertEqual(out, "[1, 2] 3 {'x': 1} {'b': 3}\n")

    # Uploads.

    def test_a_copy_that_fails_leaves_nothing(self):
        self.run_script(START + (
            "class Broken:\n    def read(self, *_): raise OSError('gone')\n"
            "try: run.upload_file('x', Broken())\nexcept OSError: pass\n"
            "try: run.upload_file('.estimatord-x', 'x')\nexcept ValueError as error: pass"))
        self.assertEqual(self.outputs(), {})

    def test_a_plot_is_saved(self):
        self.run_script(START + (
            "class Plot:\n    def savefig(self, file, **_): open(file, 'w').write('drawn')\n"
            "run.log_image('loss/\\xfc' + 'x' * 200, plot=Plot()); run.log_image('loss', plot=Plot()); run.log_image('loss', plot=Plot())\n"
            "class Broken:\n    def savefig(self, *_, **__): raise RuntimeError('no display')\nrun.log_image('broken', plot=Broken())"))
        found = self.outputs()
        self.assertEqual(sorted(found), sorted(line["value"]["path"] for line in self.lines()))
        self.assertEqual(list(found.values()), ["drawn"] * 3)
        self.assertRegex(self.lines()[0]["value"]["path"], "^images/loss__x{94}_[0-9]+[.]png$")

    def test_a_script_uploads_the_folder_that_holds_its_outputs(self):
        self.write("work/a", "1")
        self.run_script(START + "import pathlib; run.upload_folder('all', pathlib.Path('.')); run.upload_files(['m', 'n'], ['a', pathlib.Path('a')])")
        self.assertEqual(self.outputs(), {"all/a": "1", "m": "1", "n": "1"})

    # Offline.

    def test_an_offline_run_keeps_nothing(self):
        self.write("work/a", "1")
        bare = {"ESTIMATORD_RECORDS": "", "ESTIMATORD_OUTPUTS": "", "ESTIMATORD_TAGS": "", "AZUREML_RUN_ID": ""}
        out, err = self.run_script((
            "from azureml.core.run import Run, _OfflineRun\nrun = Run.get_context()\n"
            "print(type(run) == _OfflineRun, run.id.startswith('OfflineRun_'), Run.get_context() is run)\n"
            "run.upload_file('x', 'a'); run.upload_files(['y'], ['a']); run.upload_folder('z', '.'); run.log_image('i', path='a')\n"
            "run.log_row('r', x=1); run.tag('t'); run.child_run().log('c', 1); run.complete(); run.flush(); run.log('o', object())"), **bare)
        self.assertTrue(out.startswith("True True True\noffline run: file 'x' from 'a'\noffline run: file 'y' from 'a'\n"), out)
        self.assertIn("offline run: metric 'r' kind='row' value={'x': 1}\n", out)
        self.assertIn("`o` was not recorded", err)
        self.assertEqual(self.outputs(), {})
        self.assertFalse(os.path.exists(os.path.join(self.root, "work/all")))
        out, _ = self.run_script("from azureml.core.run import Run, _OfflineRun; print(type(Run.get_context()) == _OfflineRun)")
        self.assertEqual(out, "False\n")

    # What is installed comes first.

    def virtual_environment(self):
        """A virtual environment; its interpreter and its site-packages."""
        root = os.path.join(self.root, "venv")
        if os.path.exists(root):
            shutil.rmtree(root)
        subprocess.check_call([sys.executable, "-m", "venv", "--without-pip", root])
        python = os.path.join(root, "bin", "python")
        found = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"])
        return python, os.path.relpath(found.decode().strip(), self.root)

    def run_with(self, python, script):
        out = subprocess.check_output([python, "-c", script], cwd=os.path.join(self.root, "work"), env=self.environment)
        return out.decode()

    def test_an_installed_core_wins_in_every_kind_of_package(self):
        regular = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)"
        for init in (regular, "", None):
            python, packages = self.virtual_environment()
            if init is not None:
                self.write(packages + "/azureml/__init__.py", init)
            self.write(packages + "/azureml/core/__init__.py", "REAL = True")
            self.assertEqual(self.run_with(python, "import azureml.core as c; print(c.REAL)"), "True\n")

    def test_other_installed_parts_are_found_next_to_our_core(self):
        regular = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)"
        for init in (regular, None):
            python, packages = self.virtual_environment()
            if init is not None:
                self.write(packages + "/azureml/__init__.py", init)
            self.write(packages + "/azureml/telemetry/__init__.py", "REAL = True")
            for order in ("import azureml.telemetry as t; from azureml.core import Run", "from azureml.core import Run; import azureml.telemetry as t"):
                self.assertEqual(self.run_with(python, order + "; print(t.REAL, Run.get_context().id)"), "True the-run\n")

    # sitecustomize.

    def test_no_other_sitecustomize_is_as_if_there_were_none(self):
        python, _ = self.virtual_environment()
        # Some interpreters bring one of their own: compared with what they do without us.
        script = "import sys; print('sitecustomize' in sys.modules)"
        with_us = self.run_with(python, script)
        self.environment.pop("PYTHONPATH")
        self.assertEqual(with_us, self.run_with(python, script))

    def test_a_sitecustomize_that_fails_does_as_without_us(self):
        for text in ("raise ValueError('mine')", "import no_such_module", "raise SystemExit(4)"):
            self.write("own/sitecustomize.py", text)
            seen = []
            for path in (os.path.join(os.path.abspath(SOURCE), "site"), None):
                self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [path, os.path.join(self.root, "own")]))
                process = self.start("print('ran')")
                seen.append(process.communicate() + (process.returncode,))
            if "SystemExit" not in text:
                self.assertEqual(seen[0], seen[1])
            self.assertEqual(seen[0][::2], seen[1][::2])

    def test_two_of_ours_are_chained(self):
        other = os.path.join(self.root, "other")
        shutil.copytree(os.path.abspath(SOURCE), other)
        self.write("own/sitecustomize.py", "import os; os.environ['SEEN'] = 'yes'")
        self.append_to_path()
        self.environment["PYTHONPATH"] = os.path.join(other, "site") + os.pathsep + self.environment["PYTHONPATH"]
        out, _ = self.run_script("import os, sys, azureml.core; print(os.environ['SEEN'], [p for p in sys.path if p.endswith('site')])")
        self.assertEqual(out, "yes []\n")

    def test_our_own_failure_is_one_line(self):
        # Found first, it spoils what ours needs, and then runs ours.
        site = os.path.join(os.path.abspath(SOURCE), "site", "sitecustomize.py")
        self.write("own/sitecustomize.py", (
            "import os\nreal = os.path.realpath\ndef fail(*_, **__): raise OSError('no path')\nos.path.realpath = fail\n"
            "exec(compile(open({0!r}).read(), {0!r}, 'exec'), dict(__file__={0!r}, __name__='sitecustomize'))\n"
            "os.path.realpath = real\n").format(site))
        self.environment["PYTHONPATH"] = os.path.join(self.root, "own")
        out, err = self.run_script("print('ran')")
        self.assertEqual((out, err), ("ran\n", "azureml: scripts cannot log to estimatord here: OSError('no path'" + err[err.index("path'") + 5:]))
        self.assertEqual(err.count("\n"), 1)

    def test_what_is_only_named_can_be_imported_and_says_so_when_used(self):
        self.run_script((
            "import azureml.core\nfrom azureml.core import Dataset, Datastore, Experiment, Model, Run, VERSION, Workspace\n"
            "from azureml.core.dataset import Dataset as d\nfrom azureml.core.model import Model as m\n"
            "from azureml.core.workspace import Workspace as w\nfrom azureml.core.experiment import Experiment as e\n"
            "assert (d, m, w, e) == (Dataset, Model, Workspace, Experiment) and azureml.core.VERSION == VERSION\n"
            "assert not isinstance(3, Dataset)"))
        for use in ["Dataset.get_by_name(None, 'x')", "Dataset.Tabular", "Model('x')", "Model.get_model_path('x')",
                    "Run.get_context().register_model('x')", "Run.get(None, 'x')", "Run.get_context().output_datasets"]:
            _, err = self.run_script("from azureml.core import Dataset, Model, Run; " + use, code=1)
            self.assertIn("without an Azure ML workspace", err)


if __name__ == "__main__":
    unittest.main()
