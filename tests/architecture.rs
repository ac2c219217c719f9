//! The arrows of the architecture: `main → { api, worker, client } → { storage, backend → artifacts } → domain`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Module, and the modules of this crate that it may use besides itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &[]),
    ("storage", &["domain"]),
    ("artifacts", &["domain"]),
    ("backend", &["domain", "clock", "artifacts", "vault"]),
    ("embedded_postgres", &[]),
    ("figures", &[]),
    ("http_server", &[]),
    ("together", &[]),
    ("vault", &["domain"]),
    ("datastores", &["domain"]),
    (
        "api",
        &["domain", "storage", "artifacts", "clock", "figures", "telemetry", "together", "traces", "vault"],
    ),
    (
        "worker",
        &[
            "domain",
            "storage",
            "artifacts",
            "backend",
            "clock",
            "datastores",
            "figures",
            "together",
            "traces",
            "vault",
        ],
    ),
    ("webhooks", &["domain", "clock", "figures", "storage", "traces", "vault"]),
    ("client", &["domain"]),
    ("config", &["backend", "domain", "client", "embedded_postgres"]),
    ("telemetry", &["config", "domain", "traces"]),
    ("traces", &["domain"]),
    ("installation", &["clock", "config", "embedded_postgres", "storage", "vault"]),
    (
        "operate",
        &[
            "artifacts",
            "clock",
            "config",
            "domain",
            "embedded_postgres",
            "installation",
            "lifecycle",
            "storage",
            "vault",
            "backend",
        ],
    ),
    (
        "lifecycle",
        &[
            "api",
            "artifacts",
            "backend",
            "clock",
            "config",
            "embedded_postgres",
            "figures",
            "http_server",
            "installation",
            "storage",
            "telemetry",
            "vault",
            "webhooks",
            "worker",
            "domain",
        ],
    ),
];

/// What the domain must not know of.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "tokio",
    "axum",
    "sqlx",
    "reqwest",
    "object_store",
    "nix::",
    "SystemTime",
    "Instant::now",
    "Utc::now",
    "tracing",
    "rand::",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The lines of code of a module with their places, comments left out.
fn lines_of(module: &str) -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    if src.join(module).is_dir() {
        sources(&src.join(module), &mut files);
    } else {
        files.push(src.join(format!("{module}.rs")));
    }
    assert!(!files.is_empty(), "{module} has no sources");
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a readable source");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            lines.push((format!("{}:{}", file.display(), number + 1), code.to_owned()));
        }
    }
    lines
}

/// Names of the crate's modules that a line mentions, also within `use crate::{a, b}` over several lines.
fn mentioned(lines: &[(String, String)]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut depth = 0_i32;
    let mut in_group = false;
    for (place, line) in lines {
        let mut rest = line.as_str();
        if in_group {
            collect_group(rest, place, &mut depth, &mut in_group, &mut found);
            continue;
        }
        while let Some(at) = rest.find("crate::") {
            rest = &rest[at + "crate::".len()..];
            if rest.starts_with('{') {
                depth = 0;
                in_group = true;
                collect_group(rest, place, &mut depth, &mut in_group, &mut found);
                break;
            }
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push((place.clone(), name));
        }
    }
    found
}

fn collect_group(
    text: &str,
    place: &str,
    depth: &mut i32,
    in_group: &mut bool,
    found: &mut Vec<(String, String)>,
) {
    let mut word = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        if *depth == 1 && !word.is_empty() {
            found.push((place.to_owned(), word.clone()));
        }
        word.clear();
        match c {
            '{' => *depth += 1,
            '}' => *depth -= 1,
            // What follows belongs to the module named before it.
            ':' if *depth == 1 => *depth += 100,
            ',' if *depth >= 100 && *depth == 101 => *depth = 1,
            _ => {}
        }
        if *depth == 100 {
            // The brace that closed the whole group closed a path as well.
            *depth = 0;
        }
        if *depth <= 0 {
            *in_group = false;
            return;
        }
    }
    if *depth == 1 && !word.is_empty() {
        found.push((place.to_owned(), word));
    }
}

#[test]
fn no_arrow_runs_the_other_way() {
    let known: Vec<&str> = MAY_USE.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for (module, may_use) in MAY_USE {
        for (place, name) in mentioned(&lines_of(module)) {
            if known.contains(&name.as_str()) && name != *module && !may_use.contains(&name.as_str()) {
                wrong.push(format!("{place}: {module} uses {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_domain_is_pure() {
    let mut wrong = Vec::new();
    for (place, line) in lines_of("domain") {
        for word in IMPURE {
            if line.contains(word) {
                wrong.push(format!("{place}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_is_in_the_table() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("lib.rs");
    for module in lib.lines().filter_map(|l| l.strip_prefix("pub mod ")).map(|l| l.trim_end_matches(';')) {
        assert!(MAY_USE.iter().any(|(name, _)| *name == module), "{module} is not in the table");
    }
}

#[test]
fn groups_of_imports_are_read() {
    let lines: Vec<(String, String)> = [
        "use crate::{",
        "    artifacts::{Artifacts, Limits},",
        "    clock, domain::run::Status,",
        "    storage::Storage,",
        "};",
        "fn f() { crate::worker::x(); }",
    ]
    .map(|l| (String::new(), l.to_owned()))
    .to_vec();
    let names: Vec<String> = mentioned(&lines).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["artifacts", "clock", "domain", "storage", "worker"]);
}
