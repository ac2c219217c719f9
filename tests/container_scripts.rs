//! The scripts that run in containers, run by the machine's own shell.

use std::{fs, path::Path, process::Command};

use estimatord::domain::container::{Script, launch_script, rank_script};

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn run(text: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("script.sh");
    fs::write(&path, text).unwrap();
    let output = Command::new("/bin/sh").arg(&path).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// Runs a command by the script that a container runs; the third is what stands in the log.
fn launch(
    directory: &Path,
    variables: &[(String, String)],
    command: &[&str],
) -> (Option<i32>, String, String) {
    let log = directory.join("the log");
    let script = Script {
        variables,
        in_front: &[("PATH", "/own env/bin".to_owned()), ("NEW_LIST", "/site".to_owned())],
        records: directory.to_str().unwrap(),
        log: log.to_str().unwrap(),
        command: &texts(command),
    };
    let (code, out) = run(&launch_script(&script), &[]);
    (code, out, fs::read_to_string(log).unwrap())
}

#[test]
fn the_command_gets_its_words_and_variables_and_its_end_is_written() {
    let records = tempfile::tempdir().unwrap();
    let variables = [("A", "it's $(id)\nb"), ("EMPTY", ""), ("TILDE", "~")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let print = "printf '%s|' \"$A\" \"$EMPTY\" \"$TILDE\" \"${PATH%%:*}\" \"$NEW_LIST\" \"$@\"; exit 7";
    let command = ["/bin/sh", "-c", print, "sh", "", "-x", "a b", "$HOME", "*", "=", "é\n"];
    let (code, out, log) = launch(records.path(), &variables, &command);
    assert_eq!((code, out.as_str()), (Some(7), ""));
    assert_eq!(log, "it's $(id)\nb||~|/own env/bin|/site||-x|a b|$HOME|*|=|é\n|");
    let read = |name: &str| fs::read_to_string(records.path().join(name)).unwrap();
    assert_eq!((read("started"), read("status")), (String::new(), "7\n".to_owned()));
    assert!(read("usage").lines().all(|line| line.split_once(' ').unwrap().1.parse::<u64>().is_ok()));
}

#[test]
fn a_program_whose_path_looks_like_an_assignment_is_started() {
    let directory = tempfile::tempdir().unwrap();
    let odd = directory.path().join("a=b");
    std::os::unix::fs::symlink("/bin/echo", &odd).unwrap();
    let (code, _, log) = launch(directory.path(), &[], &[odd.to_str().unwrap(), "done"]);
    assert_eq!((code, log.as_str()), (Some(0), "done\n"));
}

#[test]
fn a_rank_writes_its_own_log_and_gets_its_words_unguarded() {
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().to_str().unwrap();
    let print = "printf '%s|' \"$@\"";
    let words = [log, "1", "/bin/sh", "-c", print, "sh", "=:", "==x", "=", "=a b"];
    assert_eq!(run(rank_script(), &words), (Some(0), String::new()));
    assert_eq!(fs::read_to_string(logs.path().join("std_log.txt")).unwrap(), ":|=x||a b|");
    let told = format!("export PMI_RANK=3\n{}", rank_script());
    assert_eq!(run(&told, &[log, "4", "echo", "=hello"]).0, Some(0));
    assert_eq!(fs::read_to_string(logs.path().join("std_log_3.txt")).unwrap(), "hello\n");
    assert_eq!(run(rank_script(), &[log, "4", "echo"]).0, Some(127));
}
