//! YAML → a tree that knows its lines.
//!
//! What this version has no use for (anchors, tags) is kept as such, so that it hurts only where it is
//! read: a `serverless.yml` is full of what says nothing here.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Deeper than any settings, and far from where recursion ends.
const MAX_DEPTH: usize = 64;

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// As text. Nothing, `~` and `null` are [`Value::Null`] unless quoted.
    Scalar(String),
    Null,
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// An alias (`*name`), or something with a tag (`!Ref x`).
    Foreign,
}

/// A key of a mapping with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) node: Node,
}

/// What is wrong, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Problem {
    pub(super) fn new(line: usize, text: impl Into<String>) -> Self {
        Self { line, text: text.into() }
    }
}

/// Reads one document.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    let mut events = Events { parser: Parser::new_from_str(text), line: 1 };
    let mut document = None;
    loop {
        match events.next()? {
            Event::StreamEnd => return document.ok_or_else(|| Problem::new(1, "there is nothing in it")),
            Event::DocumentStart(_) if document.is_some() => {
                return Err(Problem::new(events.line, "a second document begins; there can be one"));
            }
            Event::DocumentStart(_) => {
                let first = events.next()?;
                document = Some(events.node(first, 0)?);
            }
            _ => {}
        }
    }
}

struct Events<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// Of the event that came last.
    line: usize,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Event<'a>, Problem> {
        match self.parser.next_event() {
            None => Ok(Event::StreamEnd),
            Some(Ok((event, Span { start, .. }))) => {
                self.line = start.line();
                Ok(event)
            }
            Some(Err(error)) => Err(Problem::new(error.marker().line(), error.info())),
        }
    }

    /// The node that begins with this event.
    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Node, Problem> {
        let line = self.line;
        if depth > MAX_DEPTH {
            return Err(Problem::new(line, format!("nested deeper than {MAX_DEPTH}")));
        }
        let (value, is_tagged) = match event {
            Event::Scalar(text, style, _, tag) => (scalar(&text, style), tag.is_some()),
            Event::SequenceStart(_, tag) => (self.list(depth)?, tag.is_some()),
            Event::MappingStart(_, tag) => (self.map(depth)?, tag.is_some()),
            _ => (Value::Foreign, false),
        };
        Ok(Node { line, value: if is_tagged { Value::Foreign } else { value } })
    }

    fn list(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Value::List(nodes)),
                event => nodes.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let name = match self.next()? {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(Problem::new(self.line, "a key is a word here")),
            };
            let line = self.line;
            if entries.iter().any(|entry| entry.name == name) {
                return Err(Problem::new(line, format!("`{}` stands here twice", name.escape_debug())));
            }
            let event = self.next()?;
            let node = self.node(event, depth + 1)?;
            entries.push(Entry { name, line, node });
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match text {
        "" | "~" | "null" if style == ScalarStyle::Plain => Value::Null,
        text => Value::Scalar(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> (usize, String) {
        let Problem { line, text } = parse(text).expect_err(text);
        (line, text)
    }

    #[test]
    fn lines_are_those_of_the_text() {
        let root = parse("# first\na: 1\nb:\n  - x\n  - c: 'null'\n    d:\n").unwrap();
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        let scalar = |text: &str, line| Node { line, value: Value::Scalar(text.into()) };
        assert_eq!((entries[0].line, &entries[0].node), (2, &scalar("1", 2)));
        let Value::List(list) = &entries[1].node.value else { panic!("{root:?}") };
        assert_eq!(list[0], scalar("x", 4));
        let Value::Map(inner) = &list[1].value else { panic!("{root:?}") };
        assert_eq!((inner[0].line, &inner[0].node), (5, &scalar("null", 5)));
        assert_eq!((inner[1].line, &inner[1].node.value), (6, &Value::Null));
    }

    #[test]
    fn what_has_no_meaning_here_is_told_or_kept_apart() {
        assert_eq!(problem("a: 1\nb: 2\na: 3\n"), (3, "`a` stands here twice".into()));
        assert_eq!(problem("a: 1\n---\nb: 1\n").0, 2);
        assert_eq!(problem("a: [1\nb: 2\n").0, 2);
        assert!(problem("").1.contains("nothing"));
        assert_eq!(problem(&format!("a: {}", "[".repeat(200))).0, 1);
        let root = parse("a: &x 1\nb: *x\nc: !Ref d\ne: !Sub [f]\n").unwrap();
        let Value::Map(entries) = root.value else { panic!() };
        let foreign = entries.iter().filter(|entry| entry.node.value == Value::Foreign);
        assert_eq!(foreign.map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["b", "c", "e"]);
    }
}
