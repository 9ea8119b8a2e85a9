//! YAML as a tree that remembers where each key stands.
//!
//! Anchors, aliases and merge keys are resolved here, so that nobody above has to know of them; a file whose
//! aliases would unfold into a forest is refused. Scalars keep their text: what `8080` or `on` means depends
//! on the key, which only the reader knows.

pub(crate) mod emit;

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use indexmap::IndexMap;

use crate::error::ComposeError;
use crate::notice::Origin;

/// Most nodes in a file after aliases are unfolded; the longest real files have a few thousand.
const MOST_NODES: usize = 100_000;
/// Deepest nesting. The Compose specification needs eight levels.
const DEEPEST: usize = 64;

/// Keys in the order of the file.
pub(crate) type Map = IndexMap<String, Node>;

/// A value and where it stands; the value of a key stands where the key does.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Origin,
    pub(crate) mark: Option<Mark>,
}

/// What a tag of Compose says about merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// `!reset`: forget what earlier files said.
    Reset,
    /// `!override`: take this instead of merging.
    Override,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Value {
    #[default]
    Null,
    Scalar(Scalar),
    Seq(Vec<Node>),
    Map(Map),
}

/// The text of a scalar; `plain` if it stood without quotes and so may be a number or a truth value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) plain: bool,
}

impl Node {
    pub(crate) fn new(value: Value, at: &Origin) -> Self {
        Self {
            value,
            at: at.clone(),
            mark: None,
        }
    }

    pub(crate) fn text(text: impl Into<String>, at: &Origin) -> Self {
        let scalar = Scalar {
            text: text.into(),
            plain: false,
        };
        Self::new(Value::Scalar(scalar), at)
    }

    /// A number or truth value.
    pub(crate) fn plain(text: impl Into<String>, at: &Origin) -> Self {
        let scalar = Scalar {
            text: text.into(),
            plain: true,
        };
        Self::new(Value::Scalar(scalar), at)
    }

    pub(crate) fn map(map: Map, at: &Origin) -> Self {
        Self::new(Value::Map(map), at)
    }

    pub(crate) fn seq(items: Vec<Self>, at: &Origin) -> Self {
        Self::new(Value::Seq(items), at)
    }

    pub(crate) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn as_seq(&self) -> Option<&[Self]> {
        match &self.value {
            Value::Seq(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key)
    }

    /// What stands at a path of keys, without empty values.
    pub(crate) fn at_path(&self, path: &str) -> Option<&Self> {
        path.split('.')
            .try_fold(self, |node, key| node.get(key))
            .filter(|node| !node.is_null())
    }

    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Reads all documents of a file.
pub(crate) fn parse(text: &str, file: &Arc<str>) -> Result<Vec<Node>, ComposeError> {
    let mut builder = Builder {
        file,
        stack: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        documents: Vec::new(),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| ComposeError::Syntax {
            at: Origin {
                file: Arc::clone(file),
                line: error.marker().line(),
            },
            why: error.info(),
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.documents)
}

/// A collection that is not closed yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value.
    key: Option<(String, Origin)>,
    /// What `<<` brought, the nearest first.
    merged: Vec<Map>,
    depth: usize,
}

struct Builder<'a> {
    file: &'a Arc<str>,
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    documents: Vec<Node>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), ComposeError> {
        let at = Origin {
            file: Arc::clone(self.file),
            line: span.start.line(),
        };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.as_deref().and_then(Tag::core_suffix) == Some("str");
                let plain = style == ScalarStyle::Plain && !is_text;
                let value = if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Value::Null
                } else {
                    Value::Scalar(Scalar {
                        text: text.into_owned(),
                        plain,
                    })
                };
                let mut node = Node::new(value, &at);
                node.mark = mark(tag.as_deref());
                self.place(node, anchor, 0)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(Value::Seq(Vec::new()), anchor, tag.as_deref(), &at)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(Value::Map(Map::new()), anchor, tag.as_deref(), &at)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(mut open) => {
                    if let Value::Map(map) = &mut open.node.value {
                        // What stands in the map itself wins over what is merged into it.
                        for (key, node) in open.merged.into_iter().flatten() {
                            map.entry(key).or_insert(node);
                        }
                    }
                    self.place(open.node, open.anchor, open.depth)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, depth)) => {
                    self.nodes += count(&node);
                    self.place(node, 0, depth)
                }
                None => Err(self.refuse(&at, "an alias of something that contains it")),
            },
            _ => Ok(()),
        }
    }

    fn refuse(&self, at: &Origin, why: &str) -> ComposeError {
        ComposeError::Syntax {
            at: at.clone(),
            why: why.to_owned(),
        }
    }

    fn open(
        &mut self,
        value: Value,
        anchor: usize,
        tag: Option<&Tag>,
        at: &Origin,
    ) -> Result<(), ComposeError> {
        if self.stack.len() >= DEEPEST {
            return Err(self.refuse(at, "nested too deeply"));
        }
        let mut node = Node::new(value, at);
        node.mark = mark(tag);
        self.stack.push(Open {
            node,
            anchor,
            key: None,
            merged: Vec::new(),
            depth: 0,
        });
        Ok(())
    }

    fn place(&mut self, node: Node, anchor: usize, depth: usize) -> Result<(), ComposeError> {
        self.nodes += 1;
        if self.nodes > MOST_NODES || self.stack.len() + depth > DEEPEST {
            return Err(self.refuse(
                &node.at,
                "its aliases unfold into more than any Compose file needs",
            ));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), depth));
        }
        let Some(open) = self.stack.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        open.depth = open.depth.max(depth + 1);
        match &mut open.node.value {
            Value::Seq(items) => items.push(node),
            Value::Map(map) => match open.key.take() {
                None => match node.value {
                    Value::Scalar(scalar) => open.key = Some((scalar.text, node.at)),
                    Value::Null => open.key = Some((String::new(), node.at)),
                    _ => {
                        let at = node.at;
                        return Err(self.refuse(&at, "a key has to be a single value"));
                    }
                },
                Some((key, _)) if key == "<<" => {
                    let maps = match node.value {
                        Value::Map(map) => vec![map],
                        Value::Seq(items) => items
                            .into_iter()
                            .filter_map(|item| match item.value {
                                Value::Map(map) => Some(map),
                                _ => None,
                            })
                            .collect(),
                        Value::Null | Value::Scalar(_) => {
                            let at = node.at;
                            return Err(self.refuse(&at, "only maps can be merged with <<"));
                        }
                    };
                    open.merged.extend(maps);
                }
                Some((key, at)) => {
                    if map.contains_key(&key) {
                        let why = format!("the key {key} is there twice");
                        return Err(self.refuse(&at, &why));
                    }
                    map.insert(key, Node { at, ..node });
                }
            },
            Value::Null | Value::Scalar(_) => {}
        }
        Ok(())
    }
}

fn mark(tag: Option<&Tag>) -> Option<Mark> {
    match tag?.suffix() {
        "reset" => Some(Mark::Reset),
        "override" => Some(Mark::Override),
        _ => None,
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Scalar(_) => 0,
        Value::Seq(items) => items.iter().map(count).sum(),
        Value::Map(map) => map.values().map(count).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        parse(text, &"f".into()).unwrap().remove(0)
    }

    #[test]
    fn keys_remember_their_line() {
        let node = one("a: 1\nb:\n  - x\n  - y: \"2\"\n");
        assert_eq!(node.get("b").unwrap().at.line, 2);
        let items = node.get("b").unwrap().as_seq().unwrap();
        assert_eq!((items[0].at.line, items[1].get("y").unwrap().at.line), (3, 4));
        assert_eq!(
            items[1].get("y").unwrap().value,
            Value::Scalar(Scalar {
                text: "2".into(),
                plain: false
            })
        );
    }

    #[test]
    fn anchors_and_merge_keys() {
        let node = one(
            "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 0\nw: *x\nv: {<<: *y}\nn: &n\nm: *n\n",
        );
        let z = node.get("z").unwrap();
        let told: Vec<_> = z
            .as_map()
            .unwrap()
            .iter()
            .map(|(key, node)| (key.as_str(), node.as_str().unwrap()))
            .collect();
        assert_eq!(told, [("a", "0"), ("b", "2"), ("c", "4")]);
        assert_eq!(node.at_path("w.b").unwrap().as_str(), Some("2"));
        assert_eq!(node.at_path("v.c").unwrap().as_str(), Some("4"));
        assert!(node.get("m").unwrap().is_null() && node.at_path("m").is_none());
    }

    #[test]
    fn what_is_refused() {
        for (text, why) in [
            ("a: 1\na: 2\n", "twice"),
            ("<<: 1\n", "merged"),
            ("[a]: 1\n", "key"),
            ("a: [\n", ""),
            ("a: &a [*a]\n", "contains"),
        ] {
            let error = parse(text, &"f".into()).unwrap_err().to_string();
            assert!(error.starts_with("f:") && error.contains(why), "{text}: {error}");
        }
        // Nine anchors of nine aliases each: a billion of them, unfolded.
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}, ", level - 1).repeat(9);
            laughs.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(
            parse(&laughs, &"f".into())
                .unwrap_err()
                .to_string()
                .contains("unfold")
        );
        assert!(parse(&"[".repeat(100), &"f".into()).is_err());
    }

    #[test]
    fn marks_and_documents() {
        let node = one("a: !reset null\nb: !override [x]\nc: !!str 12\n");
        assert_eq!(node.get("a").unwrap().mark, Some(Mark::Reset));
        assert_eq!(node.get("b").unwrap().mark, Some(Mark::Override));
        assert_eq!(parse("a: 1\n---\nb: 2\n", &"f".into()).unwrap().len(), 2);
        assert!(parse("", &"f".into()).unwrap().is_empty());
    }
}
