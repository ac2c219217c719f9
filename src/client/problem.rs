//! What the service says when it refuses something, and how a person gets to read it.

use serde_json::Value;

/// A `application/problem+json` answer, or what could be made of another one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Problem {
    pub(super) status: u16,
    pub(super) title: String,
    pub(super) detail: String,
    pub(super) instance: String,
    pub(super) findings: Vec<Value>,
}

impl Problem {
    pub(super) fn read(status: u16, reason: &str, body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |member: &str| value[member].as_str().unwrap_or_default().to_owned();
        let title = if text("title").is_empty() { reason.to_owned() } else { text("title") };
        // A proxy in between answers in its own words.
        let detail = match &value {
            Value::Object(_) => text("detail"),
            _ => String::from_utf8_lossy(body).trim().chars().take(300).collect(),
        };
        let findings = value["findings"].as_array().cloned().unwrap_or_default();
        Self { status, title, detail, instance: text("instance"), findings }
    }

    /// All of it, a line for each thing to know.
    pub(super) fn render(&self) -> String {
        let mut lines = vec![format!("refused with {} {}", self.status, self.title)];
        if !self.detail.is_empty() && self.detail != self.title {
            lines.push(format!("  {}", self.detail));
        }
        match self.status {
            401 | 403 => {
                lines.push("  Is the token right? Give it with --token or ESTIMATORD_TOKEN.".to_owned())
            }
            500.. if !self.instance.is_empty() => lines.push(format!("  request {}", self.instance)),
            _ => {}
        }
        lines.extend(self.findings.iter().map(finding));
        lines.join("\n")
    }
}

/// A finding with everything that helps to mend it.
pub(super) fn finding(finding: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![format!("{} [{}]", severity_and_place(finding), text(&finding["rule"]))];
    lines.push(format!("    {}", text(&finding["message"])));
    let fix = text(&finding["fix"]["description"]);
    if !fix.is_empty() {
        lines.push(format!("    fix: {fix}"));
    }
    if let Some(patch) = finding["fix"]["patch"].as_array().filter(|patch| !patch.is_empty()) {
        lines.push(format!("    patch: {}", Value::Array(patch.clone())));
    }
    let doc = text(&finding["doc"]["url"]);
    if !doc.is_empty() && finding["severity"] == "error" {
        lines.push(format!("    see {doc}"));
    }
    lines.join("\n")
}

/// A finding in one line.
pub(super) fn short_finding(finding: &Value) -> String {
    format!("{}: {}", severity_and_place(finding), finding["message"].as_str().unwrap_or_default())
}

/// A finding about the body as a whole has an empty pointer, and then no place to name.
fn severity_and_place(finding: &Value) -> String {
    let text = |member: &str| finding[member].as_str().unwrap_or_default();
    format!("{} {}", text("severity"), text("pointer")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn findings_say_where_what_and_how_to_mend_it() {
        let body = json!({"type": "/problems/x", "title": "Invalid definition", "status": 422, "detail": "1 finding.", "findings": [
            {"rule": "node-count-not-positive", "severity": "error", "pointer": "/estimator/node_count",
             "message": "node_count is 0; it must be at least 1.",
             "fix": {"description": "Write 1.", "patch": [{"op": "replace", "path": "/node_count", "value": 1}]},
             "doc": {"text": "…", "url": "https://example.org/doc"}, "parameters": ["node_count"]}]});
        let problem = Problem::read(422, "Unprocessable Content", body.to_string().as_bytes());
        assert_eq!(
            problem.render(),
            "refused with 422 Invalid definition\n  1 finding.\n\
             error /estimator/node_count [node-count-not-positive]\n    node_count is 0; it must be at least 1.\n    \
             fix: Write 1.\n    patch: [{\"op\":\"replace\",\"path\":\"/node_count\",\"value\":1}]\n    \
             see https://example.org/doc"
        );
        assert_eq!(
            short_finding(&problem.findings[0]),
            "error /estimator/node_count: node_count is 0; it must be at least 1."
        );
    }

    #[test]
    fn a_finding_about_the_whole_names_no_place() {
        let whole = json!({"rule": "estimator-deprecated", "severity": "info", "pointer": "",
            "message": "The class is deprecated."});
        assert_eq!(short_finding(&whole), "info: The class is deprecated.");
        assert_eq!(finding(&whole), "info [estimator-deprecated]\n    The class is deprecated.");
    }

    #[test]
    fn other_answers_are_shown_as_far_as_they_go() {
        let problem = Problem::read(502, "Bad Gateway", b"<html>upstream</html>");
        assert_eq!(problem.render(), "refused with 502 Bad Gateway\n  <html>upstream</html>");
        assert!(Problem::read(401, "Unauthorized", b"").render().contains("ESTIMATORD_TOKEN"));
    }
}
