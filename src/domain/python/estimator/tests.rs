//! Sources as people write them, and sources that nobody should send.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const WORKSPACE: &str =
    "from azureml.core import *\nfrom azureml.train.dnn import Chainer, Mpi\nws = Workspace.from_config()\n";

fn reading(source: &str) -> Reading {
    read(source.as_bytes()).unwrap_or_else(|unreadable| panic!("{source}: {}", unreadable.finding.message))
}

fn one(source: &str) -> FoundEstimator {
    let mut items = reading(source).items;
    assert_eq!(items.len(), 1, "{source}");
    items.remove(0)
}

/// The definition of the one call that follows on the usual beginning.
fn of(source: &str) -> FoundEstimator {
    one(&format!("{WORKSPACE}{source}\n"))
}

fn text(found: &FoundEstimator) -> String {
    Value::Object(found.definition.clone()).to_string()
}

fn pointers(found: &FoundEstimator) -> Vec<&str> {
    found.findings.iter().map(|finding| finding.pointer.as_str()).collect()
}

#[test]
fn the_class_is_found_under_every_import() {
    for source in [
        "from azureml.train.dnn import Chainer\nest = Chainer(node_count=1)",
        "from azureml.train.dnn import Chainer as C\nest = C(node_count=1)",
        "import azureml.train.dnn\nest = azureml.train.dnn.Chainer(node_count=1)",
        "import azureml.train.dnn as d\nest = d.Chainer(node_count=1)",
        "from azureml.train import dnn\nest = dnn.Chainer(node_count=1)",
        "from azureml.train.dnn import *\nest: object = Chainer(node_count=1)",
        "est = Chainer(node_count=1)",
        "def main():\n    est = Chainer(node_count=1)\n\nif __name__ == '__main__':\n    main()",
        "%matplotlib inline\n!pip install azureml-sdk\nest = Chainer(node_count=1)\nest?",
        "\u{feff}# coding: utf-8\r\nest = Chainer(\r\n    node_count=1,\r\n)\r\n",
    ] {
        let found = one(source);
        assert_eq!(
            (found.assigned_to.as_deref(), text(&found).as_str()),
            (Some("est"), r#"{"node_count":1}"#),
            "{source}"
        );
        assert!(found.findings.is_empty());
    }
    let found = one("x = 1\nrun = exp.submit(Chainer(node_count=1))");
    assert_eq!((found.line, found.column, found.assigned_to), (2, 18, None));
    for source in [
        "from mine import Chainer\nChainer()",
        "class Chainer: pass\nChainer()",
        "a.Chainer()",
        "x = Chainer",
    ] {
        let unreadable = read(source.as_bytes()).unwrap_err();
        assert_eq!(unreadable.finding.rule, "estimator-call-not-found", "{source}");
    }
}

#[test]
fn a_whole_notebook() {
    let found = reading(
        r#"
from azureml.core import Workspace, Experiment, Datastore
from azureml.core.compute import ComputeTarget, AmlCompute
from azureml.core.compute_target import ComputeTargetException
from azureml.train.dnn import Chainer, Mpi

ws = Workspace.from_config()
cluster_name = "gpu-cluster"
try:
    compute_target = ComputeTarget(workspace=ws, name=cluster_name)
except ComputeTargetException:
    config = AmlCompute.provisioning_configuration(vm_size='STANDARD_NC6', max_nodes=4)
    compute_target = ComputeTarget.create(ws, cluster_name, config)
    compute_target.wait_for_completion(show_output=True)

project_folder = './chainer-mnist'
ds = ws.get_default_datastore()
ds.upload(src_dir='./data', target_path='mnist')
script_params = {
    '--epochs': 20,
    '--lr': 1e-3,
    '--data': ds.path('mnist').as_mount(),
}
script_params['--out'] = './outputs'
estimator = Chainer(source_directory=project_folder,
                    script_params=script_params,
                    compute_target=compute_target,
                    entry_script='chainer_mnist.py',
                    pip_packages=['numpy', 'pytest'],
                    distributed_training=Mpi(),
                    node_count=2,
                    use_gpu=True,
                    framework_version='5.1.0')
script_params['--later'] = 1
run = Experiment(ws, name='chainer-mnist').submit(estimator)
run.wait_for_completion()
"#,
    );
    assert_eq!(found.experiment_name.as_deref(), Some("chainer-mnist"));
    let found = &found.items[0];
    assert_eq!(
        text(found),
        concat!(
            r#"{"script_params":{"--epochs":20,"--lr":1e-3,"--data":{"type":"DataReference","datastore":"workspaceblobstore","#,
            r#""path_on_datastore":"mnist","mode":"mount"},"--out":"./outputs"},"compute_target":"gpu-cluster","#,
            r#""entry_script":"chainer_mnist.py","pip_packages":["numpy","pytest"],"distributed_training":{"type":"Mpi"},"#,
            r#""node_count":2,"use_gpu":true,"framework_version":"5.1.0"}"#
        )
    );
    assert_eq!(pointers(found), ["/source_directory", "/script_params/--data"]);
    assert_eq!(found.findings[1].rule, "default-datastore-assumed");
    assert!(found.findings[0].message.contains("\"./chainer-mnist\""));
    assert!(found.findings[0].fix.description.contains("estimatord submit --source DIR"));
}

#[test]
fn plain_values() {
    for (python, json) in [
        ("'a' 'b' + r'\\c' + '''d'''", r#""ab\\cd""#),
        ("f'a{{b}}'", r#""a{b}""#),
        ("b and f'{NAME}-{N}'", ""),
        ("f'{NAME}-{N}'", r#""digits-3""#),
        ("f'{NAME:>10}'", ""),
        ("[0.10, -1, +2, 1_000, 0x1F, 9223372036854775808]", "[0.10,-1,2,1000,31,9223372036854775808]"),
        ("(True, None, not True)", "[true,null,false]"),
        ("{'a': {'b': (1, 2)}, **{'c': 3}}", r#"{"a":{"b":[1,2]},"c":3}"#),
        ("dict(a=1, b=dict({'c': 2}))", r#"{"a":1,"b":{"c":2}}"#),
        ("60 * 60 * N", "10800"),
        ("2 ** 70", ""),
        ("7 / 2", ""),
        ("os.path.join('a', NAME, '/b', 'c')", r#""/b/c""#),
        ("os.path.join(root, 'a')", ""),
        ("str(N)", r#""3""#),
        ("[1] + [2, *[3]]", "[1,2,3]"),
        ("1e999", ""),
        ("3j", ""),
        ("'%d' % 3", ""),
        ("TWICE", ""),
        ("LOOPED", ""),
        ("ADDED", ""),
        ("SOMETIMES", ""),
        ("lambda: 1", ""),
        ("PAIR_A", "1"),
        ("CONFIG['size']", "5"),
    ] {
        let found = of(&format!(
            "import os\nNAME = 'digits'\nN = 3\nTWICE = 1\nTWICE = 2\nfor i in x:\n    LOOPED = 1\nADDED = 1\nADDED += 1\n\
             if x:\n    SOMETIMES = 1\nPAIR_A, PAIR_B = 1, 2\nCONFIG = {{'size': 5}}\nest = Chainer(x={python})"
        ));
        let value = found.definition.get("x").map(ToString::to_string).unwrap_or_default();
        assert_eq!(value, json, "{python}: {:?}", found.findings);
        assert_eq!(pointers(&found), if json.is_empty() { vec!["/x"] } else { vec![] }, "{python}");
    }
}

#[test]
fn objects_of_the_sdk() {
    let store = "ds = Datastore.get(ws, 'store')\n";
    for (python, json) in [
        ("Mpi(process_count_per_node=2)", r#"{"type":"Mpi","process_count_per_node":2}"#),
        ("MpiConfiguration()", r#"{"type":"MpiConfiguration"}"#),
        ("ParameterServer(worker_count=2)", r#"{"type":"ParameterServer","worker_count":2}"#),
        ("ds", r#""store""#),
        ("Datastore(ws, 'a')", r#""a""#),
        ("Datastore(workspace=ws, name='a')", r#""a""#),
        ("ws.datastores['a']", r#""a""#),
        (
            "[ds, ds.as_download()]",
            r#"["store",{"type":"DataReference","datastore":"store","mode":"download"}]"#,
        ),
        (
            "ds.path('x').as_upload()",
            r#"{"type":"DataReference","datastore":"store","path_on_datastore":"x","mode":"upload"}"#,
        ),
        (
            "ds.path(path='x', data_reference_name='y')",
            r#"{"type":"DataReference","datastore":"store","data_reference_name":"y","path_on_datastore":"x"}"#,
        ),
        (
            "DataReference(ds, 'n', path_on_datastore='p', mode='mount', overwrite=False)",
            r#"{"type":"DataReference","datastore":"store","data_reference_name":"n","path_on_datastore":"p","mode":"mount","overwrite":false}"#,
        ),
        (
            "DataPath(datastore=ds, path_on_datastore='m', name='n')",
            r#"{"type":"DataPath","datastore":"store","path_on_datastore":"m"}"#,
        ),
        (
            "Dataset.File.from_files(path=(ds, 'p')).as_named_input('x').as_mount()",
            r#"{"type":"DatasetConsumptionConfig","name":"x","dataset":{"datastore":"store","path":"p"},"mode":"mount"}"#,
        ),
        (
            "Dataset.File.from_files([DataPath(ds, 'p')]).as_named_input('x').as_download(path_on_compute='/d')",
            r#"{"type":"DatasetConsumptionConfig","name":"x","dataset":{"datastore":"store","path":"p"},"mode":"download","path_on_compute":"/d"}"#,
        ),
        (
            "DatasetConsumptionConfig('x', Dataset.File.from_files(ds.path('p')), mode='direct')",
            r#"{"type":"DatasetConsumptionConfig","name":"x","dataset":{"datastore":"store","path":"p"},"mode":"direct"}"#,
        ),
        ("ComputeTarget(workspace=ws, name='x')", r#""x""#),
        ("ComputeTarget(ws, 'x').name", r#""x""#),
        ("ws.compute_targets['x']", r#""x""#),
        ("AmlCompute(ws, 'x')", r#""x""#),
        ("'local'", r#""local""#),
        (
            "CondaDependencies.create(python_version='3.7', conda_packages=['scipy'], pip_packages=['a', 'b'])",
            r#"{"dependencies":["python=3.7","scipy",{"pip":["a","b"]}]}"#,
        ),
    ] {
        let found = of(&format!("{store}est = Chainer(x={python})"));
        let value = found.definition.get("x").map(ToString::to_string).unwrap_or_default();
        // What the SDK adds to conda packages by itself is told, not assumed.
        let told = if python.starts_with("CondaDependencies") { vec!["/x/dependencies"] } else { vec![] };
        assert_eq!((value.as_str(), pointers(&found)), (json, told), "{python}: {:?}", found.findings);
    }
    for python in [
        "Environment.from_pip_requirements('e', 'r.txt')",
        "Environment.get(ws, name='AzureML-Chainer-5.1.0-GPU')",
        "Dataset.get_by_name(ws, 'd').as_named_input('x').as_mount()",
        "Dataset.File.from_files((ds, 'p'))",
        "ds.path(args.path)",
        "args.nodes",
        "ds.upload('x')",
        "get_cluster()",
    ] {
        let found = of(&format!("{store}est = Chainer(x={python})"));
        assert!(!found.findings.is_empty(), "{python}");
        assert!(
            found.findings.iter().all(|finding| finding.rule == FILL_IN && finding.pointer.starts_with("/x"))
        );
    }
    let found = of(
        "est = Chainer(script_params={'--d': ws.datastores['a'], '--e': str(ws.datastores['a'].path('b'))})",
    );
    assert_eq!(found.definition["script_params"]["--d"], json!({"type": "DataReference", "datastore": "a"}));
    assert_eq!(found.definition["script_params"]["--e"]["path_on_datastore"], "b");
}

#[test]
fn environments_are_put_together() {
    let found = of(r#"
env = Environment(name='e')
env.python.user_managed_dependencies = False
env.docker.enabled = True
env.docker.base_image = 'own:1'
env.docker.base_image_registry.address = 'r.example'
env.docker.base_image_registry.username = 'u'
env.docker.base_image_registry.password = 's3cret'
env.environment_variables = {'A': '1'}
env.environment_variables['B'] = '2'
deps = CondaDependencies()
deps.add_conda_package('scipy')
deps.add_pip_package('tqdm')
deps.add_channel('conda-forge')
env.python.conda_dependencies = deps
env.python.conda_dependencies.add_pip_package('six')
env.register(ws)
mpi = Mpi()
mpi.process_count_per_node = 4
est = Chainer(environment_definition=env, distributed_training=mpi)"#);
    assert_eq!(
        found.definition["environment_definition"],
        json!({
            "name": "e",
            "python": {"user_managed_dependencies": false, "conda_dependencies": {
                "dependencies": ["scipy", {"pip": ["tqdm", "six"]}], "channels": ["conda-forge"]}},
            "docker": {"enabled": true, "base_image": "own:1",
                "base_image_registry": {"address": "r.example", "username": "u"}},
            "environment_variables": {"A": "1", "B": "2"},
        })
    );
    assert_eq!(found.definition["distributed_training"]["process_count_per_node"], 4);
    assert_eq!(pointers(&found), ["/environment_definition/docker/base_image_registry/password"]);
    let odd =
        of("env = Environment('e')\nenv.spark.packages = [1]\nest = Chainer(environment_definition=env)");
    assert_eq!((odd.definition.len(), pointers(&odd)), (0, vec!["/environment_definition"]));
}

#[test]
fn passwords_are_never_repeated() {
    for source in [
        "r = ContainerRegistry()\nr.address = 'a'\nr.username = 'u'\nr.password = 's3cret'\nest = Chainer(image_registry_details=r)",
        "est = Chainer(image_registry_details={'address': 'a', 'username': 'u', 'password': 's3cret'})",
        "r = ContainerRegistry()\nr.address = 'a'\nr.username = 'u'\nr.password = vault('s3cret')\nest = Chainer(image_registry_details=r)",
        "r = ContainerRegistry(address='a', username='u', password=f's3cret{x}')\nest = Chainer(image_registry_details=r)",
        "est = Chainer(image_registry_details=make('a', 's3cret'))",
        "est = Chainer(image_registry_details='s3cret')",
        "est = Chainer(image_registry_details=[{'password': 's3cret'}])",
        "est = Chainer(image_registry_details={'address': 'u:s3cret@host', 'pasword': 's3cret'})",
        "est = Chainer(registry_password='s3cret')",
        "x = Chainer(**{'image_registry_details': {'address': 'a', 'password': 's3cret'}, 'source_directory': '.'})",
        "x = Chainer(**{**{'image_registry_details': {'password': 's3cret'}}, **q, 'source_directory': '.'})",
        "x = Chainer(source_directory=foo(password='s3cret'))",
        "x = Chainer({'password': 's3cret'})",
        "x = Chainer(**f('s3cret'))",
        "x = Chainer(*['s3cret'])",
        "x = Chainer(inputs=f(\"\"\"a ' s3cret\"\"\", 'it\\'s s3cret', \"s3cret\"))",
        "x = Chainer(environment_definition=Environment.from_existing('s3cret'))",
        "est = Chainer(script_params={'--password': decode('s3cret')})",
        "est = Chainer(environment_variables={'X': login(password='s3cret')})",
        "est = Chainer(node_count=1)\nest.run_config.token = 's3cret'",
    ] {
        let found = of(source);
        assert!(!found.findings.is_empty(), "{source}");
        assert!(!format!("{found:?}").contains("s3cret"), "{source}: {found:?}");
    }
}

#[test]
fn what_is_unknown_is_said() {
    let found = of(
        "import argparse\nargs = argparse.ArgumentParser().parse_args()\nest = Chainer('./src', args.size, node_count=args.nodes, nodeCount=2,\n\
         inputs=['a', args.more, 'b'], **settings)",
    );
    assert_eq!(text(&found), r#"{"nodeCount":2,"inputs":["a","b"]}"#);
    assert_eq!(pointers(&found), ["/source_directory", "", "/node_count", "/inputs/1", ""]);
    assert_eq!(
        found.findings[2].message,
        "Line 6, column 46: `args.nodes` cannot be read off the source; the member was left out."
    );
    let long = of(&format!("est = Chainer(x=f({}))", "a, ".repeat(100)));
    assert!(long.findings[0].message.chars().count() < 200);
    let known = of(
        "common = dict(node_count=2, source_directory='x')\nest = Chainer(**common)\nest.run_config.framework = 'Python'",
    );
    assert_eq!(text(&known), r#"{"node_count":2}"#);
    assert_eq!(
        (pointers(&known), known.findings[1].rule.as_str()),
        (vec!["/source_directory", ""], "setting-not-read")
    );
    let snapshot = SnapshotId::from_digest([7; 32]).to_string();
    let kept = of(&format!("est = Chainer(source_directory='{snapshot}')"));
    assert_eq!(
        (kept.definition["source_directory"].as_str(), kept.findings.len()),
        (Some(snapshot.as_str()), 0)
    );
    // What is done to a value under a condition, or in a way that is not followed, makes it unknown.
    for source in [
        "p = {'a': 1}\nif x:\n    p['b'] = 2\nest = Chainer(x=p)",
        "p = {'a': 1}\ndel p['a']\nest = Chainer(x=p)",
        "p = {'a': 1}\np.pop('a')\nest = Chainer(x=p)",
        "p = {'a': {}}\np['a']['b'] = 1\nest = Chainer(x=p)",
        "def f(p):\n    est = Chainer(x=p)\n",
        "p = 1\ndef f():\n    global p\n    p = 2\nest = Chainer(x=p)",
        "p = p\nest = Chainer(x=p)",
    ] {
        let found = of(source);
        assert_eq!((found.definition.len(), pointers(&found)), (0, vec!["/x"]), "{source}");
    }
    let grown =
        of("p = [1]\np.append(2)\np.extend([3])\nq = {}\nq.update({'a': 1}, b=2)\nest = Chainer(x=p, y=q)");
    assert_eq!(text(&grown), r#"{"x":[1,2,3],"y":{"a":1,"b":2}}"#);
}

#[test]
fn sources_without_a_call_say_what_they_do_call() {
    let unreadable =
        read(b"from azureml.train.dnn import TensorFlow\nx = TensorFlow('.')\ny = ScriptRunConfig('.')\n")
            .unwrap_err();
    assert_eq!((unreadable.finding.pointer.as_str(), unreadable.place), ("", None));
    let message = &unreadable.finding.message;
    assert!(message.contains("`TensorFlow(…)` in line 2, `ScriptRunConfig(…)` in line 3"), "{message}");
    let unreadable = read(b"x = 1\nprint 'a'\n").unwrap_err();
    assert_eq!(
        (unreadable.finding.rule.as_str(), unreadable.place.map(|place| place.0)),
        ("script-syntax-error", Some(2))
    );
    assert_eq!(reading("Experiment(ws, 'a')\nExperiment(ws, 'b')\nChainer()").experiment_name, None);
    assert_eq!(reading("Experiment(ws, name)\nChainer()").experiment_name, None);
}

#[test]
fn hostile_sources_end_soon() {
    let many = 100_000;
    let deep = 580;
    let mut doubling = "a0 = ['x', 'y']\n".to_owned();
    let mut longer = "b0 = 'xxxxxxxx'\n".to_owned();
    for step in 1..60 {
        doubling += &format!("a{step} = [a{}, a{}]\n", step - 1, step - 1);
        longer += &format!("b{step} = b{} + b{}\n", step - 1, step - 1);
    }
    for source in [
        format!("Chainer(x={}1)", "-".repeat(deep)),
        format!("Chainer(x=a{})", ".b".repeat(deep)),
        format!("Chainer(x={}1{})", "[".repeat(190), "]".repeat(190)),
        format!("x = {}Chainer(){}", "f(".repeat(190), ")".repeat(190)),
        format!("x = {}Chainer()", "lambda: ".repeat(deep / 2)),
        format!("{doubling}Chainer(x=a59)"),
        format!("{longer}Chainer(x=b59)"),
        "a = b\nb = a\nChainer(x=a)".to_owned(),
        format!("Chainer(x=[{}])", "f(),".repeat(many)),
        "Chainer(x=y)\n".repeat(1_000),
        format!("a = 1\n{}Chainer(x=a)", "a.b = 1\n".repeat(20_000)),
        format!("é = '{}'; {}", "é".repeat(many), "Chainer(x=y);".repeat(1_000)),
    ] {
        let reading = read(source.as_bytes()).unwrap_or_else(|e| panic!("{:?}", e.finding.message));
        assert!(reading.items.iter().all(|item| item.findings.len() <= 201));
    }
    let many = read("Chainer()\n".repeat(many).as_bytes()).unwrap_err();
    assert_eq!(many.finding.rule, "too-many-calls");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(source in "\\PC*") {
        let _ = read(source.as_bytes()).is_ok();
    }

    #[test]
    fn any_pieces_of_python_are_read_or_refused(pieces in proptest::collection::vec(
        proptest::sample::select(vec![
            "Chainer(", ")", "(", "[", "]", "{", "}", "f'", "'", "\"", "'''", "x=", "a", "\n", "    ", ",", ":", ".", "=", "if ",
            "lambda", "def f():", "\\", "#", "1", "**", "%", "!", "?", "é", "\r", "import a", "class A:", "{a!r:>{b}}", "\\N{", ";",
        ]), 0..60)) {
        let source = pieces.concat();
        if let Ok(reading) = read(source.as_bytes()) {
            prop_assert!(!reading.items.is_empty());
        }
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = Module::parse(&bytes) {
            prop_assert!(error.line >= 1 && error.column >= 1);
        }
    }
}

#[test]
fn a_class_of_somebody_else_is_not_the_sdks() {
    let source = b"from mine.dnn import Chainer\nest = Chainer(entry_script='x.py')\n";
    assert_eq!(read(source).unwrap_err().finding.rule, "estimator-call-not-found");
    let source = b"%%writefile train.py\nprint 'x'\n";
    assert_eq!(read(source).unwrap_err().finding.rule, "estimator-call-not-found");
}

#[test]
fn nothing_is_dropped_without_a_word() {
    let said = |source: &str| {
        let reading = read(source.as_bytes()).unwrap();
        reading.items[0].findings.iter().map(|f| format!("{}@{}", f.rule, f.pointer)).collect::<Vec<_>>()
    };
    let late = said("e = Chainer(entry_script='a')\ne.conda_dependencies.add_pip_package('six')\n");
    assert!(late.contains(&"setting-not-read@".to_owned()), "{late:?}");
    let set =
        said("r = ContainerRegistry()\nsetattr(r, 'address', 'a')\ne = Chainer(image_registry_details=r)\n");
    assert!(set.contains(&"value-to-fill-in@/image_registry_details".to_owned()), "{set:?}");
    let twice = said("e = Chainer(entry_script='a', **{'entry_script': 'b'})\n");
    assert!(twice.contains(&"value-to-fill-in@/entry_script".to_owned()), "{twice:?}");
}

#[test]
fn the_file_of_a_notebook_is_told_from_its_cells() {
    let found = read(br#"{"cells": [{"source": ["Chainer()"]}], "nbformat": 4}"#).unwrap_err().finding;
    assert!(found.message.contains("notebook") && found.fix.description.contains("cell"), "{found:?}");
}
