//! Every finding says how to mend it, and nothing that is well is complained of.

use chrono::{DateTime, TimeDelta};

use super::*;
use crate::domain::schema::SchemaState;

fn server() -> DatabaseFacts {
    DatabaseFacts {
        version: 150_004,
        fsync: true,
        full_page_writes: true,
        synchronous_commit: "on".to_owned(),
        connections: 97,
        is_standby: false,
        now: DateTime::UNIX_EPOCH,
    }
}

fn there() -> DirectoryFacts {
    let path = "/srv/x".to_owned();
    DirectoryFacts::There { path, not_writable: None, is_ours: true, mode: 0o700, free: 100 << 30 }
}

/// The worst of some findings, and what each says must be done.
fn worst(findings: &[Finding]) -> Severity {
    for finding in findings {
        assert_eq!(finding.mend.is_none(), finding.severity == Severity::Ok, "{finding:?}");
    }
    findings.iter().map(|finding| finding.severity).max().expect("something was found out")
}

#[test]
fn a_server_is_judged_by_what_it_says() {
    let judged = |facts: &DatabaseFacts| worst(&database(facts, 16, DateTime::UNIX_EPOCH));
    assert_eq!(judged(&server()), Severity::Ok);
    let cases = [
        (DatabaseFacts { version: 120_020, ..server() }, Severity::Error),
        (DatabaseFacts { is_standby: true, ..server() }, Severity::Error),
        (DatabaseFacts { fsync: false, ..server() }, Severity::Error),
        (DatabaseFacts { full_page_writes: false, ..server() }, Severity::Error),
        (DatabaseFacts { synchronous_commit: "off".to_owned(), ..server() }, Severity::Error),
        (DatabaseFacts { synchronous_commit: "remote_apply".to_owned(), ..server() }, Severity::Ok),
        (DatabaseFacts { connections: 16, ..server() }, Severity::Error),
        (DatabaseFacts { connections: 20, ..server() }, Severity::Warning),
        (DatabaseFacts { now: server().now + TimeDelta::seconds(3), ..server() }, Severity::Warning),
        (DatabaseFacts { now: server().now - TimeDelta::minutes(6), ..server() }, Severity::Error),
        (DatabaseFacts { now: server().now - TimeDelta::seconds(1), ..server() }, Severity::Ok),
    ];
    for (facts, severity) in cases {
        assert_eq!(judged(&facts), severity, "{facts:?}");
    }
}

#[test]
fn directories_are_judged() {
    let DirectoryFacts::There { path, .. } = there() else { unreachable!() };
    let with = |not_writable: Option<&str>, is_ours, mode, gib: u64| DirectoryFacts::There {
        path: path.clone(),
        not_writable: not_writable.map(str::to_owned),
        is_ours,
        mode,
        free: gib << 30,
    };
    let cases = [
        (there(), Severity::Ok),
        (DirectoryFacts::Missing { path: path.clone() }, Severity::Warning),
        (DirectoryFacts::Unusable { path: path.clone(), why: "a file".to_owned() }, Severity::Error),
        (with(Some("read-only file system"), true, 0o700, 100), Severity::Error),
        (with(None, false, 0o700, 100), Severity::Warning),
        (with(None, true, 0o777, 100), Severity::Error),
        (with(None, true, 0o711, 100), Severity::Ok),
        (with(None, true, 0o700, 5), Severity::Warning),
        (with(None, true, 0o700, 0), Severity::Error),
    ];
    for (facts, severity) in cases {
        assert_eq!(worst(&data_directory(&facts)), severity, "{facts:?}");
    }
    assert_eq!(worst(&artifacts(&there(), false, true)), Severity::Warning);
    assert_eq!(worst(&artifacts(&there(), true, true)), Severity::Ok);
    assert_eq!(worst(&artifacts(&there(), false, false)), Severity::Ok);
}

#[test]
fn schema_key_and_the_rest_are_judged() {
    let some = || [1].into_iter().collect();
    let older = SchemaState::Older { lacking: some() };
    let key = |under_others, locked: &[&str]| Kept::Key {
        rows: 3,
        under_others,
        locked: locked.iter().map(|text| (*text).to_owned()).collect(),
    };
    let program = |facts| program(Program::Uv, &facts);
    let url = || "http://127.0.0.1:8080".to_owned();
    let cases = [
        (schema(&SchemaState::Current, false), Severity::Ok),
        (schema(&older, true), Severity::Warning),
        (schema(&older, false), Severity::Error),
        (schema(&SchemaState::Missing, false), Severity::Error),
        (schema(&SchemaState::Newer { unknown: some() }, true), Severity::Error),
        (schema(&SchemaState::Apart { lacking: some(), unknown: some() }, true), Severity::Error),
        (secrets(&Kept::NoKey { rows: 0 }), Severity::Warning),
        (secrets(&Kept::NoKey { rows: 1 }), Severity::Error),
        (secrets(&Kept::Unusable { why: "it is no key".to_owned() }), Severity::Error),
        (secrets(&key(0, &[])), Severity::Ok),
        (secrets(&key(1, &[])), Severity::Warning),
        (secrets(&key(1, &["a webhook"])), Severity::Error),
        (notifications(true, true), Severity::Ok),
        (notifications(true, false), Severity::Ok),
        (notifications(false, false), Severity::Ok),
        (notifications(false, true), Severity::Error),
        (program(ProgramFacts::Missing), Severity::Warning),
        (program(ProgramFacts::Broken { why: "it crashed".to_owned() }), Severity::Warning),
        (program(ProgramFacts::Works { version: "uv 1".to_owned() }), Severity::Ok),
        (open_files(1024), Severity::Error),
        (open_files(20_000), Severity::Warning),
        (open_files(1 << 20), Severity::Ok),
        (runs_as_root(true), Severity::Ok),
        (runs_as_root(false), Severity::Ok),
        (service(&ServiceFacts::NotRunning), Severity::Warning),
        (service(&ServiceFacts::Unheard), Severity::Warning),
        (service(&ServiceFacts::Ready { url: url() }), Severity::Ok),
        (service(&ServiceFacts::NotReady { url: url(), why: "503".to_owned() }), Severity::Error),
        (service(&ServiceFacts::Taken { url: url() }), Severity::Error),
        (
            service(&ServiceFacts::Elsewhere { url: url(), listens: Vec::new(), is_taken: true }),
            Severity::Error,
        ),
        (schema_objects(&[]), Severity::Ok),
        (schema_objects(&["the table runs is not there".to_owned()]), Severity::Error),
    ];
    for (finding, severity) in cases {
        assert_eq!(worst(std::slice::from_ref(&finding)), severity, "{finding:?}");
    }
}

#[test]
fn a_report_counts_and_reads_well() {
    let report = Report::of(vec![
        Finding::ok("python", "Python 3.11"),
        Finding::error("durability", "fsync = off", "set it to on"),
    ]);
    assert_eq!((report.errors, report.warnings), (1, 0));
    assert_eq!(
        report.to_string(),
        "ok       python: Python 3.11\nerror    durability: fsync = off\n         -> set it to on\n1 error(s), 0 warning(s)."
    );
    assert_eq!(Report::of(Vec::new()).to_string(), "Nothing is wrong.");
}

#[test]
fn who_answers_is_told_apart_from_whom_it_should_be() {
    let address = |text: &str| text.parse().expect("an address");
    let asked = address("127.0.0.1:8080");
    let url = || "http://127.0.0.1:8080/readyz".to_owned();
    let why = || "503".to_owned();
    let nobody = || Asked::Nobody(why());
    let cases = [
        (None, nobody(), ServiceFacts::NotRunning),
        (None, Asked::Ready, ServiceFacts::Taken { url: url() }),
        (None, Asked::NotReady(why()), ServiceFacts::Taken { url: url() }),
        // It has not said where it listens.
        (Some(Vec::new()), Asked::Ready, ServiceFacts::Ready { url: url() }),
        (Some(Vec::new()), nobody(), ServiceFacts::NotReady { url: url(), why: why() }),
        (Some(vec![address("0.0.0.0:8080")]), Asked::Ready, ServiceFacts::Ready { url: url() }),
        (Some(vec![asked]), Asked::NotReady(why()), ServiceFacts::NotReady { url: url(), why: why() }),
    ];
    for (listens, answer, facts) in cases {
        assert_eq!(service_at(asked, listens.clone(), answer.clone()), facts, "{listens:?} {answer:?}");
    }
    for elsewhere in ["127.0.0.1:8081", "192.0.2.7:8080"] {
        let listens = vec![address(elsewhere)];
        for (answer, is_taken) in [(Asked::Ready, true), (nobody(), false)] {
            let facts = ServiceFacts::Elsewhere { url: url(), listens: listens.clone(), is_taken };
            assert_eq!(service_at(asked, Some(listens.clone()), answer), facts);
        }
    }
}
