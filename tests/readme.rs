//! The README says what the program says.

use clap::CommandFactory as _;
use estimatord::config::Cli;

fn readme() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).expect("a README")
}

/// The cells of the configuration table: option, variable, default.
fn table() -> Vec<[String; 3]> {
    readme()
        .lines()
        .filter(|line| line.starts_with("| `--"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            [cells[0], cells[1], cells[2]].map(|cell| cell.trim_matches('`').to_owned())
        })
        .collect()
}

#[test]
fn the_configuration_table_is_what_serve_takes() {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").expect("there is one");
    let table = table();
    let mut options = Vec::new();
    for option in serve.get_arguments().filter(|option| option.get_id() != "help") {
        let name = format!("--{}", option.get_long().expect("a long name"));
        let variable = option.get_env().expect("a variable").to_str().expect("UTF-8");
        let row =
            table.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{name} is not in the README"));
        assert_eq!(row[1], variable, "{name}");
        if let [default] = option.get_default_values() {
            assert_eq!(row[2], default.to_str().expect("UTF-8"), "{name}");
        }
        options.push(name);
    }
    for row in &table {
        assert!(options.contains(&row[0]), "`serve` takes no {}", row[0]);
    }
}

#[test]
fn every_command_and_file_that_the_readme_names_is_there() {
    let text = readme();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(root.join(target).exists(), "{target}");
    }
    let cli = Cli::command();
    for word in ["submit", "migrate", "serve"] {
        assert!(text.contains(&format!("estimatord {word}")), "{word}");
        assert!(cli.find_subcommand(word).is_some(), "{word}");
    }
    for word in ["validate", "render", "runs", "run", "logs", "outputs", "cancel", "targets"] {
        assert!(text.contains(&format!("`{word}`")), "{word}");
        assert!(cli.find_subcommand(word).is_some(), "{word}");
    }
}
