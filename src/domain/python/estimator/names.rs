//! One walk over a module: which names stand for what, and which calls there are.

use std::collections::HashMap;

use ruff_python_ast::{
    Arguments, Expr, ExprCall, ExprContext, Pattern, Stmt,
    visitor::{self, Visitor},
};
use ruff_text_size::{Ranged as _, TextSize};

/// One value that a name is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assigned<'a> {
    /// None where what it is cannot be read off the source: a parameter, a loop, an unpacked value.
    pub(super) value: Option<&'a Expr>,
    /// Whether it may not happen, or happen often.
    pub(super) conditional: bool,
}

/// What is done to what a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Action<'a> {
    /// `name.a.b = value`
    Set(&'a Expr),
    /// `name.a.b[key] = value`
    Item(&'a Expr, &'a Expr),
    /// `name.a.b.method(…)`
    Call(&'a str, &'a Arguments),
    /// `del`, `+=` and the like.
    Unknown,
}

/// A change to what a name stands for.
#[derive(Clone, Debug)]
pub(super) struct Change<'a> {
    /// The attributes that lead to what is changed.
    pub(super) path: Vec<&'a str>,
    pub(super) action: Action<'a>,
    pub(super) at: TextSize,
    /// The whole statement.
    pub(super) statement: &'a Stmt,
    pub(super) conditional: bool,
}

/// Everything about a name in one scope.
#[derive(Debug, Default)]
pub(super) struct Name<'a> {
    pub(super) assigned: Vec<Assigned<'a>>,
    pub(super) changes: Vec<Change<'a>>,
    /// The dotted name that an import binds it to.
    pub(super) import: Option<String>,
}

#[derive(Debug, Default)]
struct Scope<'a> {
    parent: Option<usize>,
    is_class: bool,
    names: HashMap<&'a str, Name<'a>>,
}

/// A call, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) call: &'a ExprCall,
    pub(super) scope: usize,
    /// The name that the result is assigned to.
    pub(super) assigned_to: Option<&'a str>,
}

/// What a module holds.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    scopes: Vec<Scope<'a>>,
    /// Every call, in order.
    pub(super) calls: Vec<Call<'a>>,
    scope: usize,
    /// How many conditions, loops and attempts are around.
    conditions: usize,
    assigned_to: Option<(&'a ExprCall, &'a str)>,
}

impl<'a> Names<'a> {
    pub(super) fn of(body: &'a [Stmt]) -> Self {
        let mut names = Self { scopes: vec![Scope::default()], ..Self::default() };
        names.visit_body(body);
        names
    }

    /// What a name stands for, and in which scope.
    pub(super) fn find(&self, name: &str, scope: usize) -> Option<(&Name<'a>, usize)> {
        let mut at = Some(scope);
        while let Some(scope) = at {
            let here = self.scopes.get(scope)?;
            if let Some(found) = here.names.get(name) {
                return Some((found, scope));
            }
            at = here.parent;
        }
        None
    }

    /// `a.b.c` as it is called where it was imported from; nothing for anything but names and attributes.
    pub(super) fn dotted(&self, expression: &Expr, scope: usize) -> Option<String> {
        let mut parts = Vec::new();
        let mut expression = expression;
        let base = loop {
            match expression {
                Expr::Attribute(attribute) => {
                    parts.push(attribute.attr.as_str());
                    expression = &attribute.value;
                }
                Expr::Name(name) => break name.id.as_str(),
                _ => return None,
            }
        };
        let found = self.find(base, scope).map(|(name, _)| name);
        let base = match found {
            // Something of the script's own is nothing of the SDK's, whatever it is called.
            Some(name) if !name.assigned.is_empty() && parts.is_empty() => return None,
            Some(name) => name.import.clone().unwrap_or_else(|| base.to_owned()),
            None => base.to_owned(),
        };
        parts.push(&base);
        parts.reverse();
        Some(parts.join("."))
    }

    fn name(&mut self, name: &'a str) -> &mut Name<'a> {
        self.scopes[self.scope].names.entry(name).or_default()
    }

    fn assign(&mut self, name: &'a str, value: Option<&'a Expr>) {
        let conditional = self.conditions > 0;
        self.name(name).assigned.push(Assigned { value, conditional });
    }

    fn change(&mut self, target: &'a Expr, action: Action<'a>, statement: &'a Stmt) {
        let mut path = Vec::new();
        let mut expression = target;
        let base = loop {
            match expression {
                Expr::Attribute(attribute) => {
                    path.push(attribute.attr.as_str());
                    expression = &attribute.value;
                }
                Expr::Subscript(subscript) => {
                    // What lies behind an index is not followed; the whole of it has changed.
                    return self.change(&subscript.value, Action::Unknown, statement);
                }
                Expr::Name(name) => break name.id.as_str(),
                _ => return,
            }
        };
        path.reverse();
        let conditional = self.conditions > 0;
        let change = Change { path, action, at: statement.start(), statement, conditional };
        // A change reaches the name where it was given its value.
        let scope = self.find(base, self.scope).map_or(self.scope, |(_, scope)| scope);
        let conditional_here = change.conditional || scope != self.scope;
        let name = self.scopes[scope].names.entry(base).or_default();
        name.changes.push(Change { conditional: conditional_here, ..change });
    }

    fn target(&mut self, target: &'a Expr, value: Option<&'a Expr>, statement: &'a Stmt) {
        match target {
            Expr::Name(name) => self.assign(name.id.as_str(), value),
            Expr::Attribute(_) => {
                let action = value.map_or(Action::Unknown, Action::Set);
                self.change(target, action, statement);
            }
            Expr::Subscript(subscript) => {
                let action = value.map_or(Action::Unknown, |value| Action::Item(&subscript.slice, value));
                self.change(&subscript.value, action, statement);
            }
            Expr::Tuple(tuple) => self.targets(&tuple.elts, value, statement),
            Expr::List(list) => self.targets(&list.elts, value, statement),
            Expr::Starred(starred) => self.target(&starred.value, None, statement),
            _ => {}
        }
    }

    fn targets(&mut self, targets: &'a [Expr], value: Option<&'a Expr>, statement: &'a Stmt) {
        let values: Option<&'a [Expr]> = match value {
            Some(Expr::Tuple(tuple)) => Some(&tuple.elts),
            Some(Expr::List(list)) => Some(&list.elts),
            _ => None,
        };
        let paired = values.filter(|values| {
            values.len() == targets.len()
                && !values.iter().chain(targets).any(|item| matches!(item, Expr::Starred(_)))
        });
        for (index, target) in targets.iter().enumerate() {
            self.target(target, paired.and_then(|values| values.get(index)), statement);
        }
    }

    fn inside(&mut self, is_class: bool, visit: impl FnOnce(&mut Self)) {
        let outer = self.scope;
        // Methods do not see the names of their class.
        let parent = if self.scopes[outer].is_class { self.scopes[outer].parent } else { Some(outer) };
        self.scopes.push(Scope { parent, is_class, ..Scope::default() });
        self.scope = self.scopes.len() - 1;
        let conditions = std::mem::take(&mut self.conditions);
        visit(self);
        self.conditions = conditions;
        self.scope = outer;
    }

    fn under_a_condition(&mut self, visit: impl FnOnce(&mut Self)) {
        self.conditions += 1;
        visit(self);
        self.conditions -= 1;
    }

    fn method(&mut self, expression: &'a Expr, statement: &'a Stmt) {
        if let Expr::Call(call) = expression
            && let Expr::Attribute(attribute) = call.func.as_ref()
        {
            let action = Action::Call(attribute.attr.as_str(), &call.arguments);
            self.change(&attribute.value, action, statement);
        }
        // `setattr(name, …)` changes what it names in a way that is not followed.
        if let Expr::Call(call) = expression
            && let (Expr::Name(function), Some(changed)) = (call.func.as_ref(), call.arguments.args.first())
            && matches!(function.id.as_str(), "setattr" | "delattr")
        {
            self.change(changed, Action::Unknown, statement);
        }
    }

    fn import(&mut self, bound: &'a str, dotted: String) {
        self.name(bound).import = Some(dotted);
    }
}

/// `if __name__ == "__main__":` holds whenever the script is run.
fn is_main(test: &Expr) -> bool {
    let Expr::Compare(compare) = test else { return false };
    matches!(compare.left.as_ref(), Expr::Name(name) if name.id.as_str() == "__name__")
}

impl<'a> Visitor<'a> for Names<'a> {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        match statement {
            Stmt::Assign(assign) => {
                if let ([Expr::Name(name)], Expr::Call(call)) =
                    (assign.targets.as_slice(), assign.value.as_ref())
                {
                    self.assigned_to = Some((call, name.id.as_str()));
                }
                for target in &assign.targets {
                    self.target(target, Some(&assign.value), statement);
                }
                self.visit_expr(&assign.value);
            }
            Stmt::AnnAssign(assign) => {
                if let Some(value) = &assign.value {
                    if let (Expr::Name(name), Expr::Call(call)) = (assign.target.as_ref(), value.as_ref()) {
                        self.assigned_to = Some((call, name.id.as_str()));
                    }
                    self.target(&assign.target, Some(value), statement);
                    self.visit_expr(value);
                }
            }
            Stmt::AugAssign(assign) => {
                match assign.target.as_ref() {
                    Expr::Name(name) => self.assign(name.id.as_str(), None),
                    other => self.target(other, None, statement),
                }
                self.visit_expr(&assign.value);
            }
            Stmt::Delete(delete) => {
                for target in &delete.targets {
                    self.target(target, None, statement);
                }
            }
            Stmt::Expr(expression) => {
                self.method(&expression.value, statement);
                self.visit_expr(&expression.value);
            }
            Stmt::Import(import) => {
                for alias in &import.names {
                    let dotted = alias.name.as_str();
                    match &alias.asname {
                        Some(name) => self.import(name.as_str(), dotted.to_owned()),
                        None => {
                            let top = dotted.split('.').next().unwrap_or(dotted);
                            self.import(top, top.to_owned());
                        }
                    }
                }
            }
            Stmt::ImportFrom(import) => {
                let module = import.module.as_ref().map_or("", |module| module.as_str());
                for alias in &import.names {
                    let bound = alias.asname.as_ref().unwrap_or(&alias.name).as_str();
                    // A relative import is something of the script's own.
                    let dots = ".".repeat(import.level as usize);
                    self.import(bound, format!("{dots}{module}.{}", alias.name));
                }
            }
            Stmt::FunctionDef(function) => {
                self.assign(function.name.as_str(), None);
                for decorator in &function.decorator_list {
                    self.visit_expr(&decorator.expression);
                }
                self.inside(false, |names| {
                    for parameter in function.parameters.iter() {
                        names.assign(parameter.name().as_str(), None);
                    }
                    names.visit_body(&function.body);
                });
            }
            Stmt::ClassDef(class) => {
                self.assign(class.name.as_str(), None);
                self.inside(true, |names| names.visit_body(&class.body));
            }
            Stmt::If(choice) if is_main(&choice.test) => {
                self.visit_body(&choice.body);
                self.under_a_condition(|names| {
                    for clause in &choice.elif_else_clauses {
                        names.visit_body(&clause.body);
                    }
                });
            }
            Stmt::If(_) | Stmt::For(_) | Stmt::While(_) | Stmt::Try(_) | Stmt::Match(_) => {
                self.under_a_condition(|names| visitor::walk_stmt(names, statement));
            }
            Stmt::Global(global) => {
                for name in &global.names {
                    let outer = std::mem::replace(&mut self.scope, 0);
                    self.assign(name.as_str(), None);
                    self.scope = outer;
                    self.assign(name.as_str(), None);
                }
            }
            Stmt::Nonlocal(nonlocal) => {
                for name in &nonlocal.names {
                    if let Some((_, scope)) = self.find(name.as_str(), self.scope) {
                        let outer = std::mem::replace(&mut self.scope, scope);
                        self.assign(name.as_str(), None);
                        self.scope = outer;
                    }
                    self.assign(name.as_str(), None);
                }
            }
            _ => visitor::walk_stmt(self, statement),
        }
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Name(name) if !matches!(name.ctx, ExprContext::Load) => self.assign(name.id.as_str(), None),
            Expr::Call(call) => {
                let assigned_to =
                    self.assigned_to.filter(|(of, _)| std::ptr::eq(*of, call)).map(|(_, name)| name);
                self.calls.push(Call { call, scope: self.scope, assigned_to });
                visitor::walk_expr(self, expression);
            }
            Expr::Lambda(lambda) => self.inside(false, |names| {
                for parameter in lambda.parameters.iter().flat_map(|parameters| parameters.iter()) {
                    names.assign(parameter.name().as_str(), None);
                }
                names.visit_expr(&lambda.body);
            }),
            _ => visitor::walk_expr(self, expression),
        }
    }

    fn visit_except_handler(&mut self, handler: &'a ruff_python_ast::ExceptHandler) {
        let ruff_python_ast::ExceptHandler::ExceptHandler(inner) = handler;
        if let Some(name) = &inner.name {
            self.assign(name.as_str(), None);
        }
        visitor::walk_except_handler(self, handler);
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        let name = match pattern {
            Pattern::MatchAs(pattern) => pattern.name.as_ref(),
            Pattern::MatchStar(pattern) => pattern.name.as_ref(),
            Pattern::MatchMapping(pattern) => pattern.rest.as_ref(),
            _ => None,
        };
        if let Some(name) = name {
            self.assign(name.as_str(), None);
        }
        visitor::walk_pattern(self, pattern);
    }
}
