//! The statements that the service sends, taken from the server's log: a copy of them in the benchmark would be another one some day.

use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::{database::Database, http::Call, service::Service};

/// How long the server's processes have to hear of a setting.
const SETTLES: Duration = Duration::from_millis(300);

/// How often it is tried until nothing else came in between.
const TRIES: usize = 5;

/// A statement with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// With `$1` and so on.
    pub text: String,
    /// As texts; none for null.
    pub parameters: Vec<Option<String>>,
}

/// What the service sends for one request, in order.
///
/// # Errors
/// When it is not the same twice, or cannot be read.
pub fn statements(database: &Database, service: &Service, call: &Call) -> anyhow::Result<Vec<Statement>> {
    let said = logging(database, || {
        let mut last = Vec::new();
        for _ in 0..TRIES {
            let before = database.log()?.len();
            service.ask(call)?;
            let said = statements_in(&database.log()?[before..])?;
            let texts = |all: &[Statement]| all.iter().map(|one| one.text.clone()).collect::<Vec<_>>();
            if !said.is_empty() && texts(&said) == texts(&last) {
                return Ok(said);
            }
            last = said;
        }
        bail!("the service sends something else each time")
    })?;
    Ok(said)
}

/// Has every statement logged meanwhile.
fn logging<T>(database: &Database, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let set = |value: &str| {
        let statement = format!("ALTER SYSTEM SET log_statement = {value}");
        database.execute(database.user(), &statement)?;
        database.execute(database.user(), "SELECT pg_reload_conf()")?;
        std::thread::sleep(SETTLES);
        anyhow::Ok(())
    };
    set("'all'")?;
    let done = work();
    set("DEFAULT")?;
    done
}

/// Lines that belong to the one before begin with a tab.
fn statements_in(log: &str) -> anyhow::Result<Vec<Statement>> {
    let mut entries: Vec<String> = Vec::new();
    for line in log.lines() {
        match (line.strip_prefix('\t'), entries.last_mut()) {
            (Some(rest), Some(entry)) => {
                entry.push('\n');
                entry.push_str(rest);
            }
            _ => entries.push(line.to_owned()),
        }
    }
    let mut statements: Vec<Statement> = Vec::new();
    for entry in &entries {
        let Some((_, said)) = entry.split_once("] ") else { continue };
        if let Some(executed) = said.strip_prefix("LOG:  execute ") {
            let (_, text) = executed.split_once(": ").context("an executed statement has a name")?;
            statements.push(Statement { text: text.to_owned(), parameters: Vec::new() });
        } else if let Some(detail) = said.strip_prefix("DETAIL:  ")
            && let Some((_, parameters)) = detail.split_once("arameters: ")
            && let Some(statement) = statements.last_mut()
        {
            statement.parameters = read_parameters(parameters)?;
        }
    }
    Ok(statements)
}

/// `$1 = 'it''s', $2 = NULL`
fn read_parameters(text: &str) -> anyhow::Result<Vec<Option<String>>> {
    let mut parameters = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (_, value) = rest.split_once(" = ").context("a parameter has a value")?;
        if let Some(after) = value.strip_prefix("NULL") {
            parameters.push(None);
            rest = after.strip_prefix(", ").unwrap_or(after);
            continue;
        }
        let quoted = value.strip_prefix('\'').context("a value is quoted")?;
        let mut content = String::new();
        let mut characters = quoted.char_indices().peekable();
        let end = loop {
            match characters.next().context("a value ends")? {
                (_, '\'') if characters.next_if(|(_, next)| *next == '\'').is_some() => content.push('\''),
                (at, '\'') => break at,
                (_, other) => content.push(other),
            }
        };
        parameters.push(Some(content));
        let after = &quoted[end + 1..];
        rest = after.strip_prefix(", ").unwrap_or(after);
    }
    Ok(parameters)
}

/// The same for `pgbench`: parameters are variables, whose names and values come second. `instead` answers an expression to be used
/// in the place of a value.
///
/// # Errors
/// When a statement names a parameter that it has not.
pub fn script(
    statements: &[Statement],
    instead: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<(String, Vec<(String, String)>)> {
    let (mut script, mut variables) = (String::new(), Vec::new());
    for (number, statement) in statements.iter().enumerate() {
        let mut rest = statement.text.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            script.push_str(before);
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let parameter: usize = after[..digits].parse().context("a parameter has a number")?;
            rest = &after[digits..];
            let value =
                statement.parameters.get(parameter.wrapping_sub(1)).context("it has that parameter")?;
            match value {
                None => script.push_str("NULL"),
                // Which no variable of `pgbench` can be.
                Some(value) if value.is_empty() => script.push_str("''"),
                Some(value) => match instead(value) {
                    Some(expression) => script.push_str(&expression),
                    None => {
                        let variable = format!("s{number}p{parameter}");
                        script.push(':');
                        script.push_str(&variable);
                        if !variables.iter().any(|(known, _)| *known == variable) {
                            variables.push((variable, value.clone()));
                        }
                    }
                },
            }
        }
        script.push_str(rest);
        script.push_str(";\n");
    }
    Ok((script, variables))
}
