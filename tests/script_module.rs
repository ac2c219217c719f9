//! The Python module that scripts are given, tried by the machine's own Python.

use std::{path::Path, process::Command};

#[test]
fn scripts_can_log_with_azure_ml_s_own_words() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/test_module.py");
    let output = Command::new("python3").arg(tests).output().expect("python3 is needed to run the tests");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
