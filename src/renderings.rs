//! Renderings meet the real world: Python reads their literals, and files are written for `scripts/check-renderings.sh`.
//!
//! It is a module of its own because the domain starts no process and writes no file, not even in its tests.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::domain::render::{
    Format, render,
    testing::{for_each, python_literal},
};

#[test]
fn python_reads_every_character_as_it_was() {
    let mut text: String = (0..=0x3000).filter_map(char::from_u32).collect();
    text.push_str("\\\\\\\"\"\"\"'''\\N{DASH}\\u0041\\x41\u{fffd}\u{feff}\u{10ffff}😀\\");
    let program = "import ast, sys\n\
        literal = sys.stdin.buffer.read().decode('ascii')\n\
        sys.stdout.buffer.write(ast.literal_eval(literal).encode('utf-8'))";
    let mut child = Command::new("python3")
        .args(["-I", "-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(python_literal(&text).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
}

/// Every case as every format, its plan beside it.
#[test]
#[ignore = "writes files for scripts/check-renderings.sh"]
fn write_renderings() {
    let directory = std::env::var_os("ESTIMATORD_RENDERINGS_DIR").expect("the directory to write to");
    for format in Format::ALL {
        let directory = Path::new(&directory).join(format.as_str());
        std::fs::create_dir_all(&directory).unwrap();
        for_each(|name, subject| {
            let rendering = render(format, subject);
            let (_, extension) = rendering.file_name.rsplit_once('.').expect("a file name with an extension");
            std::fs::write(directory.join(format!("{name}.{extension}")), &rendering.text).unwrap();
            let plan = serde_json::to_vec_pretty(subject.plan).unwrap();
            std::fs::write(directory.join(format!("{name}.plan.json")), plan).unwrap();
        });
    }
}
