//! The table, and the page that it is kept on.

use std::{fmt::Write as _, fs, path::Path};

use crate::figure::Figure;

const BEGIN: &str = "<!-- kept: begin -->";
const END: &str = "<!-- kept: end -->";

/// A row that could be measured, or why it could not.
pub type Row = (&'static str, anyhow::Result<Vec<Figure>>);

/// As Markdown.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut table =
        String::from("| what | ours | limit or peer in the same run | outcome |\n|---|---|---|---|\n");
    for (name, measured) in rows {
        match measured {
            Ok(figures) => {
                for Figure { what, ours, peer, outcomes } in figures {
                    let outcomes: Vec<String> = outcomes.iter().map(ToString::to_string).collect();
                    table += &line(&[what, ours, peer, &outcomes.join("; ")]);
                }
            }
            Err(error) => {
                table += &line(&[&format!("`{name}`"), "**not measured**", "", &format!("{error:#}")])
            }
        }
    }
    table
}

fn line(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Writes the page anew, but for what somebody wrote between the two marks.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, machine: &[(&str, String)], rows: &[Row]) -> anyhow::Result<()> {
    let before = fs::read_to_string(path).unwrap_or_default();
    let kept =
        before.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map_or("\n", |(kept, _)| kept);
    let mut facts = String::new();
    for (name, fact) in machine {
        write!(facts, "{}", line(&[name, fact]))?;
    }
    let table = table(rows);
    let page = format!(
        "# How fast it is

Written by `make bench`; what is between the marks below is written by hand and kept. Everything ran on one machine: the service, its database, the peers and what
drives them share its cores. Each figure stands beside its limit or peer **of the same run**, measured in turn; medians of the rounds. Seconds differ from machine to
machine, ratios much less.

## The machine

| | |
|---|---|
{facts}
## The commands

```sh
cargo build --release --locked
cargo bench --locked --bench service -- --write
```

One row alone: `cargo bench --locked --bench service -- create_run`; in seconds, for regressions: `make check-bench`.

## The table

Rates are those of connections that send the next request when they have the answer to the last. Where a row says so, requests are due at moments chosen before, at
random around a rate, and their times count from when they were due: a service that falls behind cannot hide it.

{table}
{BEGIN}{kept}{END}
"
    );
    Ok(fs::write(path, page)?)
}
