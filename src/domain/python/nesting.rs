//! A scan that comes before the parser: brackets, strings and how deep expressions may nest, without recursion.
//!
//! The tree that the parser builds is walked and given back by recursion, so a short hostile text could exhaust the stack. This
//! scan follows Python 3.11's lexer far enough to bound the depth of any tree: it counts open brackets and, in each of them,
//! everything that may put one expression into another. What it cannot follow to the end is a syntax error in Python too.

/// How deep expressions may nest.
pub(super) const MAX_DEPTH: usize = 600;

/// How many brackets may be open at once; Python's own limit.
const MAX_BRACKETS: usize = 200;

/// How many levels of indentation there may be; Python's own limit.
const MAX_INDENTATION: usize = 100;

/// Words that put what follows them one level deeper.
const DEEPENING: &[&[u8]] =
    &[b"not", b"if", b"else", b"await", b"yield", b"from", b"and", b"or", b"in", b"is", b"for", b"async"];

/// What the scan stumbled over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stumble {
    /// The byte that it is about.
    pub(super) offset: usize,
    /// The begin of the statement that it stands in: everything before is in order.
    pub(super) safe: usize,
    /// What is wrong.
    pub(super) message: String,
}

/// What the scan is inside of.
#[derive(Clone, Copy, Debug)]
enum Frame {
    /// The module itself.
    Module,
    /// A bracket: the character that closes it.
    Bracket { close: u8, at: usize },
    /// The text of an f-string.
    Text { quote: u8, triple: bool, raw: bool, at: usize },
    /// A replacement field of an f-string.
    Field { at: usize },
    /// The format after the colon of a replacement field.
    Format,
}

struct Level {
    frame: Frame,
    /// What deepens the present item: operators, dots, calls. A comma begins the next item.
    chain: usize,
    /// Lambdas: the commas between their parameters end nothing.
    lambdas: usize,
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    safe: usize,
    levels: Vec<Level>,
    depth: usize,
    brackets: usize,
}

/// Scans a source.
///
/// # Errors
/// The first thing that Python's lexer would refuse, or that nests too deeply.
pub(super) fn scan(source: &str) -> Result<(), Stumble> {
    check_indentation(source)?;
    let mut scan =
        Scan { bytes: source.as_bytes(), at: 0, safe: 0, levels: Vec::new(), depth: 0, brackets: 0 };
    scan.push(Frame::Module)?;
    while scan.at < scan.bytes.len() {
        match scan.top() {
            Frame::Text { quote, triple, raw, at } => scan.text(quote, triple, raw, at)?,
            Frame::Format => scan.format()?,
            Frame::Module | Frame::Bracket { .. } | Frame::Field { .. } => scan.code()?,
        }
    }
    match scan.top() {
        Frame::Module => Ok(()),
        Frame::Bracket { at, .. } => {
            let open = char::from(scan.bytes[at]);
            Err(scan.stumble(at, format!("`{open}` was never closed")))
        }
        Frame::Field { at } => Err(scan.stumble(at, "a replacement field of an f-string is not closed")),
        Frame::Text { at, .. } => Err(scan.stumble(at, "a string is not closed")),
        Frame::Format => Err(scan.stumble(scan.bytes.len(), "an f-string is not closed")),
    }
}

/// Every line is looked at, those inside of brackets as well: after an unclosed one the parser reads on line by line.
fn check_indentation(source: &str) -> Result<(), Stumble> {
    let mut levels: Vec<usize> = Vec::new();
    let mut offset = 0;
    for line in source.split_inclusive(['\n', '\r']) {
        let blank = line.len() - line.trim_start_matches([' ', '\t', '\u{c}']).len();
        let rest = &line[blank..];
        if !rest.trim_end().is_empty() && !rest.starts_with('#') {
            while levels.last().is_some_and(|level| *level >= blank) {
                levels.pop();
            }
            if blank > 0 {
                levels.push(blank);
            }
            if levels.len() > MAX_INDENTATION {
                // The line may stand in a string, so nothing before it is known to be in order.
                let message = "there are too many levels of indentation".to_owned();
                return Err(Stumble { offset: offset + blank, safe: 0, message });
            }
        }
        offset += line.len();
    }
    Ok(())
}

impl Scan<'_> {
    fn stumble(&self, offset: usize, message: impl Into<String>) -> Stumble {
        Stumble { offset, safe: self.safe, message: message.into() }
    }

    fn top(&self) -> Frame {
        self.levels.last().map_or(Frame::Module, |level| level.frame)
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn push(&mut self, frame: Frame) -> Result<(), Stumble> {
        self.levels.push(Level { frame, chain: 0, lambdas: 0 });
        self.deeper(1)
    }

    /// Leaves the innermost level. What follows may call or index what it was.
    fn pop(&mut self) -> Result<(), Stumble> {
        if let Some(level) = self.levels.pop() {
            self.depth -= 1 + level.chain + level.lambdas;
        }
        self.link()
    }

    fn deeper(&mut self, by: usize) -> Result<(), Stumble> {
        self.depth += by;
        if self.depth > MAX_DEPTH {
            return Err(self.stumble(self.at, "expressions are nested too deeply"));
        }
        Ok(())
    }

    fn link(&mut self) -> Result<(), Stumble> {
        if let Some(level) = self.levels.last_mut() {
            level.chain += 1;
        }
        self.deeper(1)
    }

    /// The next item of the innermost level begins.
    fn next_item(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            self.depth -= level.chain;
            level.chain = 0;
        }
    }

    /// The next statement begins.
    fn next_statement(&mut self) {
        self.next_item();
        if let Some(level) = self.levels.last_mut() {
            self.depth -= level.lambdas;
            level.lambdas = 0;
        }
    }

    fn code(&mut self) -> Result<(), Stumble> {
        let byte = self.peek(0);
        match byte {
            b'\n' | b'\r' => {
                self.at += 1;
                match self.top() {
                    Frame::Module => {
                        self.next_statement();
                        self.safe = self.at;
                    }
                    Frame::Field { at } if self.in_one_line() => {
                        return Err(self.stumble(at, "a replacement field of an f-string is not closed"));
                    }
                    _ => {}
                }
            }
            b' ' | b'\t' | b'\x0c' => self.at += 1,
            0 => return Err(self.stumble(self.at, "the source holds a NUL character")),
            b'#' => self.comment()?,
            b'\\' => self.continuation()?,
            b'\'' | b'"' => self.string(self.at, false, false)?,
            b',' => {
                self.at += 1;
                self.next_item();
            }
            b';' if matches!(self.top(), Frame::Module) => {
                self.at += 1;
                self.next_statement();
            }
            b'(' | b'[' | b'{' => self.open(byte)?,
            b')' | b']' | b'}' => self.close(byte)?,
            b':' if matches!(self.top(), Frame::Field { .. }) => {
                self.at += 1;
                self.push(Frame::Format)?;
            }
            b'0'..=b'9' => self.number(),
            _ if is_name(byte) => self.word()?,
            _ => {
                self.at += 1;
                self.link()?;
            }
        }
        Ok(())
    }

    /// Whether an f-string around ends with its line.
    fn in_one_line(&self) -> bool {
        self.texts().any(|(_, triple)| !triple)
    }

    /// Quote and kind of every f-string around, innermost first.
    fn texts(&self) -> impl Iterator<Item = (u8, bool)> {
        self.levels.iter().rev().filter_map(|level| match level.frame {
            Frame::Text { quote, triple, .. } => Some((quote, triple)),
            _ => None,
        })
    }

    fn comment(&mut self) -> Result<(), Stumble> {
        if self.texts().next().is_some() {
            return Err(self.stumble(self.at, "an f-string expression cannot hold `#`"));
        }
        while self.at < self.bytes.len() && !matches!(self.peek(0), b'\n' | b'\r') {
            self.at += 1;
        }
        Ok(())
    }

    fn continuation(&mut self) -> Result<(), Stumble> {
        if self.texts().next().is_some() {
            return Err(self.stumble(self.at, "an f-string expression cannot hold a backslash"));
        }
        self.at += match (self.peek(1), self.peek(2)) {
            (b'\r', b'\n') => 3,
            (b'\n' | b'\r', _) => 2,
            _ => return Err(self.stumble(self.at, "something follows a backslash that continues a line")),
        };
        Ok(())
    }

    fn open(&mut self, byte: u8) -> Result<(), Stumble> {
        self.brackets += 1;
        if self.brackets > MAX_BRACKETS {
            return Err(self.stumble(self.at, "too many brackets are nested"));
        }
        let close = match byte {
            b'(' => b')',
            b'[' => b']',
            _ => b'}',
        };
        let at = self.at;
        self.at += 1;
        self.push(Frame::Bracket { close, at })
    }

    fn close(&mut self, byte: u8) -> Result<(), Stumble> {
        let found = char::from(byte);
        match self.top() {
            Frame::Bracket { close, .. } if close == byte => {
                self.brackets -= 1;
                self.at += 1;
                self.pop()
            }
            Frame::Bracket { close, .. } => {
                let wanted = char::from(close);
                Err(self.stumble(self.at, format!("`{found}` stands where `{wanted}` has to come first")))
            }
            Frame::Field { .. } if byte == b'}' => {
                self.at += 1;
                self.pop()
            }
            _ => Err(self.stumble(self.at, format!("`{found}` closes nothing"))),
        }
    }

    /// A number with its letters. Its point and its sign deepen nothing.
    fn number(&mut self) {
        while is_name(self.peek(0)) || self.peek(0) == b'.' {
            let exponent = matches!(self.peek(0), b'e' | b'E') && matches!(self.peek(1), b'+' | b'-');
            self.at += if exponent && self.peek(2).is_ascii_digit() { 2 } else { 1 };
        }
    }

    fn word(&mut self) -> Result<(), Stumble> {
        let start = self.at;
        while is_name(self.peek(0)) {
            self.at += 1;
        }
        let word = &self.bytes[start..self.at];
        if matches!(self.peek(0), b'\'' | b'"') {
            let prefix = word.to_ascii_lowercase();
            let known: &[&[u8]] = &[b"r", b"u", b"b", b"f", b"br", b"rb", b"fr", b"rf", b"t", b"tr", b"rt"];
            if known.contains(&prefix.as_slice()) {
                let fields = prefix.contains(&b'f') || prefix.contains(&b't');
                return self.string(start, fields, prefix.contains(&b'r'));
            }
        }
        if word == b"lambda" {
            if let Some(level) = self.levels.last_mut() {
                level.lambdas += 1;
            }
            return self.deeper(1);
        }
        if DEEPENING.contains(&word) { self.link() } else { Ok(()) }
    }

    /// A string, from its quote on.
    fn string(&mut self, start: usize, fields: bool, raw: bool) -> Result<(), Stumble> {
        let quote = self.peek(0);
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        if self.texts().any(|(outer, outer_triple)| outer == quote && (triple || !outer_triple)) {
            return Err(self.stumble(start, "an f-string expression cannot hold the quote of its f-string"));
        }
        self.at += if triple { 3 } else { 1 };
        if fields {
            return self.push(Frame::Text { quote, triple, raw, at: start });
        }
        while self.at < self.bytes.len() {
            let byte = self.peek(0);
            if byte == b'\\' {
                self.at += if (self.peek(1), self.peek(2)) == (b'\r', b'\n') { 3 } else { 2 };
                continue;
            }
            if byte == quote && self.closes(quote, triple) {
                self.at += if triple { 3 } else { 1 };
                return Ok(());
            }
            if matches!(byte, b'\n' | b'\r') && (!triple || self.in_one_line()) {
                break;
            }
            self.at += 1;
        }
        Err(self.stumble(start, "a string is not closed"))
    }

    fn closes(&self, quote: u8, triple: bool) -> bool {
        !triple || (self.peek(1) == quote && self.peek(2) == quote)
    }

    /// One step in the text of an f-string.
    fn text(&mut self, quote: u8, triple: bool, raw: bool, start: usize) -> Result<(), Stumble> {
        match self.peek(0) {
            b'\\' if matches!(self.peek(1), b'{' | b'}') => self.at += 1,
            b'\\' if !raw && self.peek(1) == b'N' && self.peek(2) == b'{' => {
                self.at += 3;
                while self.at < self.bytes.len() && !matches!(self.peek(0), b'}' | b'{' | b'\n' | b'\r') {
                    if self.peek(0) == quote {
                        return Err(self.stumble(self.at, "the name of a character is not closed"));
                    }
                    self.at += 1;
                }
                if self.peek(0) != b'}' {
                    return Err(self.stumble(self.at, "the name of a character is not closed"));
                }
                self.at += 1;
            }
            b'\\' => self.at += if (self.peek(1), self.peek(2)) == (b'\r', b'\n') { 3 } else { 2 },
            b'{' if self.peek(1) == b'{' => self.at += 2,
            b'}' if self.peek(1) == b'}' => self.at += 2,
            b'{' => return self.field(),
            b'}' => return Err(self.stumble(self.at, "`}` closes nothing in an f-string")),
            b'\n' | b'\r' if !triple => return Err(self.stumble(start, "a string is not closed")),
            byte if byte == quote && self.closes(quote, triple) => {
                self.at += if triple { 3 } else { 1 };
                return self.pop();
            }
            _ => self.at += 1,
        }
        Ok(())
    }

    fn field(&mut self) -> Result<(), Stumble> {
        let at = self.at;
        self.at += 1;
        self.push(Frame::Field { at })
    }

    /// One step in a format: text with replacement fields of its own, up to the bracket that closes its field.
    fn format(&mut self) -> Result<(), Stumble> {
        let quotes = self.texts().next();
        let byte = self.peek(0);
        match (byte, quotes) {
            (b'{', _) => self.field(),
            (b'}', _) => {
                self.at += 1;
                self.pop()?;
                self.pop()
            }
            (b'\n' | b'\r', Some((_, false))) => Err(self.stumble(self.at, "an f-string is not closed")),
            (_, Some((quote, triple))) if byte == quote && self.closes(quote, triple) => {
                Err(self.stumble(self.at, "a replacement field of an f-string is not closed"))
            }
            (b'\\', _) => Err(self.stumble(self.at, "the format of an f-string cannot hold a backslash")),
            _ => {
                self.at += 1;
                Ok(())
            }
        }
    }
}

/// Whether a byte may be part of a name. What is outside of ASCII is left to the parser.
const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}
