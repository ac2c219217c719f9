//! What `/metrics` shows is what `docs/metrics.md` lists.

use std::collections::{BTreeMap, BTreeSet};

use estimatord::{
    clock::Clock as _,
    figures::{Outcome, Step},
    storage::MIGRATOR,
};
use sqlx::PgPool;

use crate::app::TestApp;

const PAGE: &str = include_str!("../../docs/metrics.md");

/// Name, kind and labels.
type Listed = BTreeMap<String, (String, BTreeSet<String>)>;

fn documented() -> Listed {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .map(|cells| {
            assert_eq!(cells.len(), 5, "{cells:?}");
            assert!(["process", "service"].contains(&cells[3]), "{cells:?}");
            let labels = cells[2].split(", ").map(|label| label.trim_matches('`').to_owned());
            let labels = labels.filter(|label| !label.is_empty()).collect();
            (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels))
        })
        .collect()
}

/// By the names that queries use: those of counters and infos have their suffix.
fn shown(text: &str) -> Listed {
    let mut all = Listed::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let before = all.insert(format!("{name}{suffix}"), (kind.to_owned(), BTreeSet::new()));
            assert!(before.is_none(), "{name} twice");
        } else if let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let ends = ["", "_bucket", "_sum", "_count"];
            let mut families = ends.iter().filter_map(|end| name.strip_suffix(end));
            let family = families.find(|family| all.contains_key(*family)).map(str::to_owned);
            let family = family.unwrap_or_else(|| panic!("of no family: {line}"));
            let (_, labels) = all.get_mut(&family).expect("it was found");
            let given = rest.split_once('}').expect("a closing brace").0;
            let names = given.split("\",").map(|label| label.split('=').next().unwrap_or_default());
            labels.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    all
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_figure_is_documented_and_every_documented_one_is_there(pool: PgPool) {
    let app = TestApp::new(pool);
    app.run("mnist").await;
    let now = app.clock.now();
    app.storage.record_process_health(true, "a worker", 4, now).await.expect("recorded");
    app.figures.dispatched("local", false, std::time::Duration::ZERO);
    app.figures.ended("local", false, "Completed", "");
    app.figures.step(Step::Submit, Outcome::Ok, std::time::Duration::ZERO);
    // The first question is in the second answer.
    app.get("/metrics").await;
    let text = app.get("/metrics").await.text();
    let (documented, shown) = (documented(), shown(&text));
    assert!(documented.len() > 35, "{documented:?}");
    for (name, what) in &shown {
        assert_eq!(Some(what), documented.get(name), "{name} as it is shown, and as docs/metrics.md has it");
    }
    for name in documented.keys() {
        assert!(shown.contains_key(name), "{name} is in docs/metrics.md and not in\n{text}");
    }
    assert!(text.contains("estimatord_target_run_limit{target=\"local\"} 4"), "{text}");
    assert!(text.contains("estimatord_target_reachable{target=\"local\"} 1"), "{text}");
    assert!(text.contains("\nestimatord_database_up 1\n"), "{text}");
}
