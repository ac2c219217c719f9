//! Notebook cells pasted as they are: lines that IPython reads and Python does not.

/// Magics of a whole cell under which the cell is Python all the same.
const PYTHON_CELLS: &[&str] = &["time", "timeit", "capture", "prun"];

/// The source with those lines blanked out, every other byte in its place; nothing when there are none.
pub(super) fn blanked(source: &str) -> Option<String> {
    let mut found = false;
    // What follows `%%writefile` and the like is another file, or another language.
    let mut foreign = false;
    let mut blanked = String::with_capacity(source.len());
    for line in source.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let text = content.trim();
        let name = text.trim_end_matches('?');
        let is_help = name.len() < text.len()
            && !name.is_empty()
            && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
        if let Some(magic) = text.strip_prefix("%%") {
            foreign = !PYTHON_CELLS.contains(&magic.split_whitespace().next().unwrap_or_default());
        }
        if let Some(start) = assigned_magic(content).filter(|_| !foreign) {
            // What a magic answers cannot be read; a name that stands for nothing keeps the place.
            found = true;
            blanked.push_str(&content[..start]);
            blanked.push('_');
            blanked.push_str(&" ".repeat(content.len() - start - 1));
            blanked.push_str(&line[content.len()..]);
            continue;
        }
        if !(foreign || text.starts_with(['%', '!', '?']) || is_help) {
            blanked.push_str(line);
            continue;
        }
        found = true;
        let indentation = content.len() - content.trim_start().len();
        blanked.push_str(&content[..indentation]);
        let left = content.len() - indentation;
        // A block whose only line it is must not become empty.
        if left >= "pass".len() {
            blanked.push_str("pass");
            blanked.push_str(&" ".repeat(left - "pass".len()));
        } else {
            blanked.push_str(&" ".repeat(left));
        }
        blanked.push_str(&line[content.len()..]);
    }
    found.then_some(blanked)
}

/// Where the magic of `name = !command` or `name = %magic` begins.
fn assigned_magic(line: &str) -> Option<usize> {
    let (name, value) = line.split_once('=')?;
    let is_name = !name.trim().is_empty() && name.trim().chars().all(|c| c.is_alphanumeric() || c == '_');
    (is_name && value.trim_start().starts_with(['!', '%'])).then(|| line.len() - value.trim_start().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ipython_are_blanked_in_place() {
        let source = "%matplotlib inline\nif a:\n    !pip install é\r\nx?\nnp.sum??\nb = a % c\n";
        let blank = blanked(source).unwrap();
        assert_eq!(blank.len(), source.len());
        let lines: Vec<&str> = blank.lines().map(str::trim_end).collect();
        assert_eq!(lines, ["pass", "if a:", "    pass", "", "pass", "b = a % c"]);
        assert_eq!(blanked("a = 1\n"), None);
        assert_eq!(blanked("files = !ls -l\nx = a != b\n").unwrap(), "files = _     \nx = a != b\n");
        let cell = blanked("%%writefile train.py\nprint 'x'\n").unwrap();
        assert!(!cell.contains("print"), "{cell}");
        assert!(blanked("%%time\nb = 1\n").unwrap().contains("b = 1"));
    }
}
