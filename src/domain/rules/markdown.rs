//! The rules as a page: `docs/rules.md` is this text, and a test holds it to it.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{DISAGREEMENTS, RULE_SET_VERSION, Rule, RuleExamples, all, examples};

/// The page.
#[must_use]
pub fn page() -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut page);
    page
}

fn write(page: &mut String) -> std::fmt::Result {
    writeln!(page, "# The rules\n")?;
    writeln!(
        page,
        "Every definition is judged by these rules, wherever it comes in: validate, create, an inline run, an overridden run, a \
         rendering. They are version {RULE_SET_VERSION} of the rules; an estimator says under which version it was accepted. \
         `GET /v1/rules` serves the same. This page is generated (`make docs`).\n"
    )?;
    writeln!(
        page,
        "An **error** refuses the definition. A **warning** and an **info** come with the accepted one. All findings come at \
         once, in the order of the parameters in the signature, one for each rule and place.\n"
    )?;
    writeln!(page, "The examples are judged in this world, besides the target `local`:\n")?;
    let world = examples::world();
    for (id, files) in &world.snapshots {
        let short: String = id.chars().take(16).collect();
        writeln!(page, "- snapshot `{short}…`: `{}`", files.join("`, `"))?;
    }
    for target in &world.compute_targets {
        let (containers, conda) = (target.containers.as_str(), target.conda.as_str());
        writeln!(
            page,
            "- target `{}`: type {}, backend {}, {} nodes, containers `{containers}`, conda `{conda}`",
            target.name,
            target.kind,
            target.backend.engine.kind(),
            target.max_nodes
        )?;
    }
    writeln!(page, "- targets for one run are made on the cluster of `{}`", world.one_off_target)?;
    writeln!(page, "- datastore `{}`\n", world.datastores.join("`, `"))?;
    writeln!(
        page,
        "`examples/digits/train.py`, packed alone, is the first snapshot that most of them name; `examples/rules` is the other.\n"
    )?;
    writeln!(page, "| rule | severity | what it says |\n|---|---|---|")?;
    for rule in all() {
        writeln!(page, "| [`{0}`](#{0}) | {1} | {2} |", rule.slug, rule.severity.as_str(), rule.summary)?;
    }
    for rule in all() {
        section(page, rule)?;
    }
    writeln!(page, "\n## Where documentation and SDK disagree\n")?;
    writeln!(page, "| about | documentation | SDK | here |\n|---|---|---|---|")?;
    for entry in DISAGREEMENTS {
        writeln!(page, "| {} | {} | {} | {} |", entry.about, entry.documentation, entry.sdk, entry.here)?;
    }
    Ok(())
}

fn section(page: &mut String, rule: &Rule) -> std::fmt::Result {
    let view = rule.view();
    writeln!(page, "\n## {}\n", rule.slug)?;
    write!(page, "**{}.** {}", rule.severity.as_str(), rule.summary)?;
    if !rule.parameters.is_empty() {
        write!(page, " It looks at `{}`.", rule.parameters.join("`, `"))?;
    }
    writeln!(page, "\n\nRests on: {} ([reference]({}))\n", rule.doc, rule.url)?;
    let RuleExamples { refused, accepted } = view.examples;
    writeln!(page, "It speaks about\n\n```json\n{}\n```", shown(&refused))?;
    if let Some(accepted) = accepted {
        writeln!(page, "\nand not about\n\n```json\n{}\n```", shown(&accepted))?;
    }
    Ok(())
}

/// One member a line.
fn shown(definition: &Map<String, Value>) -> String {
    let members = definition.iter().map(|(name, value)| format!("  {}: {value}", Value::from(name.as_str())));
    format!("{{\n{}\n}}", members.collect::<Vec<_>>().join(",\n"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_the_one_in_docs() {
        let kept = include_str!("../../../docs/rules.md");
        assert!(super::page() == kept, "docs/rules.md is out of date: run `make docs`");
    }
}
