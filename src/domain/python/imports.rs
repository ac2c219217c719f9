//! What a module imports and cannot do without.

use ruff_python_ast::{ExceptHandler, Expr, Stmt, StmtIf, StmtTry};

use super::Module;

/// The exceptions that a missing module raises, or that catch it among others.
const CAUGHT: &[&str] = &["ImportError", "ModuleNotFoundError", "Exception", "BaseException"];

/// An import of a module by its whole name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// The dotted name; for `from a import b` it is `a`.
    pub(crate) module: String,
    /// What is taken from it; empty for `import a`.
    pub(crate) names: Vec<String>,
    /// The line, from 1.
    pub(crate) line: usize,
}

/// Every import that nothing guards, in order, those of functions and classes included.
pub(super) fn of(module: &Module) -> Vec<Import> {
    let mut walk = Walk { module, found: Vec::new() };
    walk.block(&module.syntax.body);
    walk.found
}

struct Walk<'a> {
    module: &'a Module,
    found: Vec<Import>,
}

impl Walk<'_> {
    // Blocks nest as deep as lines are indented, which the scan has bounded.
    fn block(&mut self, block: &[Stmt]) {
        for statement in block {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::Import(import) => {
                for alias in &import.names {
                    self.add(alias.name.as_str(), Vec::new(), statement);
                }
            }
            Stmt::ImportFrom(import) if import.level == 0 => {
                let names = import.names.iter().map(|alias| alias.name.to_string()).collect();
                if let Some(module) = &import.module {
                    self.add(module.as_str(), names, statement);
                }
            }
            Stmt::Try(attempt) => self.attempt(attempt),
            Stmt::If(choice) => self.choice(choice),
            Stmt::FunctionDef(function) => self.block(&function.body),
            Stmt::ClassDef(class) => self.block(&class.body),
            Stmt::With(with) => self.block(&with.body),
            Stmt::For(repeat) => {
                self.block(&repeat.body);
                self.block(&repeat.orelse);
            }
            Stmt::While(repeat) => {
                self.block(&repeat.body);
                self.block(&repeat.orelse);
            }
            Stmt::Match(choice) => {
                for case in &choice.cases {
                    self.block(&case.body);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, module: &str, names: Vec<String>, statement: &Stmt) {
        let (line, _) = self.module.place(statement);
        self.found.push(Import { module: module.to_owned(), names, line });
    }

    /// What is tried with a way out for a missing module is no need, and the way out is no need either.
    fn attempt(&mut self, attempt: &StmtTry) {
        if !attempt.handlers.iter().any(catches_a_missing_module) {
            self.block(&attempt.body);
            for ExceptHandler::ExceptHandler(handler) in &attempt.handlers {
                self.block(&handler.body);
            }
        }
        self.block(&attempt.orelse);
        self.block(&attempt.finalbody);
    }

    fn choice(&mut self, choice: &StmtIf) {
        // Which branch is taken depends on the version of Python; the other one need not work.
        if self.asks_for_the_version(&choice.test) {
            return;
        }
        if !is_type_checking(&choice.test) {
            self.block(&choice.body);
        }
        for clause in &choice.elif_else_clauses {
            if !clause.test.as_ref().is_some_and(is_type_checking) {
                self.block(&clause.body);
            }
        }
    }

    fn asks_for_the_version(&self, test: &Expr) -> bool {
        let text = self.module.text(test);
        ["version_info", "PY2", "PY3", "sys.version"].iter().any(|word| text.contains(word))
    }
}

fn catches_a_missing_module(handler: &ExceptHandler) -> bool {
    let ExceptHandler::ExceptHandler(handler) = handler;
    match handler.type_.as_deref() {
        None => true,
        Some(Expr::Tuple(tuple)) => tuple.elts.iter().any(is_caught),
        Some(one) => is_caught(one),
    }
}

fn is_caught(exception: &Expr) -> bool {
    last_name(exception).is_some_and(|name| CAUGHT.contains(&name))
}

fn is_type_checking(test: &Expr) -> bool {
    last_name(test) == Some("TYPE_CHECKING")
}

/// `b` of `b` and of `a.b`.
fn last_name(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Name(name) => Some(name.id.as_str()),
        Expr::Attribute(attribute) => Some(attribute.attr.as_str()),
        _ => None,
    }
}
