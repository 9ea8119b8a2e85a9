//! Values out of a tree, with the key in every complaint.

use std::str::FromStr;
use std::time::Duration;

use crate::error::ComposeError;
use crate::measure;
use crate::model::Texts;
use crate::notice::Origin;
use crate::yaml::{Node, Value};

/// A map that is read key by key.
pub(super) struct Reader<'a> {
    node: &'a Node,
    key: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(node: &'a Node, key: &'a str) -> Self {
        Self { node, key }
    }

    /// The key of the map itself.
    pub(super) fn key(&self) -> &'a str {
        self.key
    }

    /// What stands at a path, unless it is empty.
    pub(super) fn node(&self, path: &str) -> Option<&'a Node> {
        self.node.at_path(path)
    }

    pub(super) fn wrong(&self, at: &Origin, path: &str, why: impl Into<String>) -> ComposeError {
        ComposeError::invalid(at, format!("{}.{path}", self.key), why)
    }

    pub(super) fn text(&self, path: &str) -> Result<Option<String>, ComposeError> {
        match self.node(path) {
            None => Ok(None),
            Some(node) => match node.as_str() {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(self.wrong(&node.at, path, format!("expected a text, found {}", node.kind()))),
            },
        }
    }

    /// A text that says something.
    pub(super) fn filled(&self, path: &str) -> Result<Option<String>, ComposeError> {
        Ok(self.text(path)?.filter(|text| !text.is_empty()))
    }

    fn parsed<T>(
        &self,
        path: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ComposeError> {
        let Some(text) = self.filled(path)? else {
            return Ok(None);
        };
        match (parse(&text), self.node(path)) {
            (Some(value), _) => Ok(Some(value)),
            (None, Some(node)) => {
                Err(self.wrong(&node.at, path, format!("expected {expected}, found `{text}`")))
            }
            (None, None) => Ok(None),
        }
    }

    pub(super) fn flag(&self, path: &str) -> Result<bool, ComposeError> {
        let flag = self.parsed(path, "true or false", |text| {
            match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "y" | "1" => Some(true),
                "false" | "no" | "off" | "n" | "0" => Some(false),
                _ => None,
            }
        });
        Ok(flag?.unwrap_or_default())
    }

    pub(super) fn number<T: FromStr>(&self, path: &str) -> Result<Option<T>, ComposeError> {
        self.parsed(path, "a number", |text| text.parse().ok())
    }

    pub(super) fn bytes(&self, path: &str) -> Result<Option<u64>, ComposeError> {
        self.parsed(path, "a size such as 512m", measure::bytes)
    }

    pub(super) fn duration(&self, path: &str) -> Result<Option<Duration>, ComposeError> {
        self.parsed(path, "a time such as 30s or 1m30s", measure::duration)
    }

    /// A list of texts, or one of them.
    pub(super) fn strings(&self, path: &str) -> Result<Vec<String>, ComposeError> {
        let Some(node) = self.node(path) else {
            return Ok(Vec::new());
        };
        let expected = || self.wrong(&node.at, path, "expected a list of texts");
        match &node.value {
            Value::Scalar(scalar) => Ok(vec![scalar.text.clone()]),
            Value::Seq(items) => items
                .iter()
                .filter(|item| !item.is_null())
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(expected))
                .collect(),
            _ => Err(expected()),
        }
    }

    /// A command: words, or a line that is split into them.
    pub(super) fn words(&self, path: &str) -> Result<Option<Vec<String>>, ComposeError> {
        let Some(node) = self.node(path) else {
            return Ok(None);
        };
        let words = match &node.value {
            Value::Scalar(scalar) => {
                measure::words(&scalar.text).map_err(|why| self.wrong(&node.at, path, why))?
            }
            _ => self.strings(path)?,
        };
        if words.is_empty() {
            return Err(self.wrong(
                &node.at,
                path,
                "is empty; leave the key out to take what the image says, or write a command",
            ));
        }
        Ok(Some(words))
    }

    /// Texts by name; what has no value is left out.
    pub(super) fn texts(&self, path: &str) -> Result<Texts, ComposeError> {
        let mut texts = Texts::new();
        let Some(node) = self.node(path) else {
            return Ok(texts);
        };
        let Some(map) = node.as_map() else {
            return Err(self.wrong(&node.at, path, format!("expected a map, found {}", node.kind())));
        };
        for (key, value) in map {
            match &value.value {
                Value::Null => {
                    texts.insert(key.clone(), String::new());
                }
                Value::Scalar(scalar) => {
                    texts.insert(key.clone(), scalar.text.clone());
                }
                _ => {
                    return Err(self.wrong(&value.at, &format!("{path}.{key}"), "expected a text"));
                }
            }
        }
        Ok(texts)
    }
}
