//! A tree as YAML text: block style, two spaces, quotes only where they are needed.

use super::{Map, Node, Value};
use crate::notice::Origin;

/// A value of JSON as YAML text, for people.
pub fn json_as_yaml(value: &serde_json::Value) -> String {
    emit(&from_json(value))
}

fn from_json(value: &serde_json::Value) -> Node {
    let at = Origin::default();
    match value {
        serde_json::Value::Null => Node::new(Value::Null, &at),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) => Node::plain(value.to_string(), &at),
        serde_json::Value::String(text) => Node::text(text, &at),
        serde_json::Value::Array(items) => Node::seq(items.iter().map(from_json).collect(), &at),
        serde_json::Value::Object(map) => {
            let map: Map = map
                .iter()
                .map(|(key, value)| (key.clone(), from_json(value)))
                .collect();
            Node::map(map, &at)
        }
    }
}

/// Writes a tree.
pub(crate) fn emit(node: &Node) -> String {
    let mut out = String::new();
    match &node.value {
        Value::Map(map) if !map.is_empty() => write(node, 0, &mut out),
        Value::Seq(items) if !items.is_empty() => write(node, 0, &mut out),
        _ => {
            inline(node, &mut out);
            out.push('\n');
        }
    }
    out
}

fn write(node: &Node, indent: usize, out: &mut String) {
    match &node.value {
        Value::Map(map) => {
            for (index, (key, value)) in map.iter().enumerate() {
                // The first key of a map in a list stands behind the dash.
                if index > 0 || !out.ends_with("- ") {
                    out.push_str(&" ".repeat(indent));
                }
                scalar(key, true, out);
                out.push(':');
                below(value, indent, out);
            }
        }
        Value::Seq(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 || !out.ends_with("- ") {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str("- ");
                if is_long(item) {
                    write(item, indent + 2, out);
                } else {
                    inline(item, out);
                    out.push('\n');
                }
            }
        }
        Value::Null | Value::Scalar(_) => {
            inline(node, out);
            out.push('\n');
        }
    }
}

fn below(value: &Node, indent: usize, out: &mut String) {
    if is_long(value) {
        out.push('\n');
        write(value, indent + 2, out);
    } else {
        out.push(' ');
        inline(value, out);
        out.push('\n');
    }
}

fn is_long(node: &Node) -> bool {
    match &node.value {
        Value::Map(map) => !map.is_empty(),
        Value::Seq(items) => !items.is_empty(),
        Value::Null | Value::Scalar(_) => false,
    }
}

fn inline(node: &Node, out: &mut String) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Scalar(value) => scalar(&value.text, value.plain, out),
        Value::Seq(_) => out.push_str("[]"),
        Value::Map(_) => out.push_str("{}"),
    }
}

fn scalar(text: &str, may_be_plain: bool, out: &mut String) {
    if is_plain(text) && (may_be_plain || !means_something(text)) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Also what YAML would take for the end of a line or for a byte order mark.
            _ if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                out.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
}

/// Whether a text can stand without quotes. Narrower than YAML allows, so that no reader disagrees.
fn is_plain(text: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "_./-+@=,()$^".contains(letter);
    let starts = |letter: char| letter.is_ascii_alphanumeric() || "_./$^".contains(letter);
    text.chars().next().is_some_and(starts)
        && text
            .chars()
            .all(|letter| fits(letter) || letter == ' ' || letter == ':')
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !text.contains("  ")
}

/// Whether some YAML reader takes the text for a number, a truth value, nothing or a date.
fn means_something(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    matches!(
        lower.as_str(),
        "" | "~"
            | "null"
            | "true"
            | "false"
            | "yes"
            | "no"
            | "on"
            | "off"
            | "y"
            | "n"
            | ".nan"
            | ".inf"
            | "="
    ) || text
        .chars()
        .next()
        .is_some_and(|first| first.is_ascii_digit() || ".+-".contains(first))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse;
    use super::*;

    fn strip(node: &Node) -> Node {
        let value = match &node.value {
            Value::Seq(items) => Value::Seq(items.iter().map(strip).collect()),
            Value::Map(map) => Value::Map(
                map.iter()
                    .map(|(key, value)| (key.clone(), strip(value)))
                    .collect(),
            ),
            Value::Scalar(scalar) => Value::Scalar(super::super::Scalar {
                text: scalar.text.clone(),
                plain: false,
            }),
            Value::Null => Value::Null,
        };
        Node::new(value, &Origin::default())
    }

    #[test]
    fn it_reads_as_people_write_it() {
        let text = "name: web\nservices:\n  web:\n    image: nginx:1.29\n    ports:\n      - target: 80\n        \
                    published: \"8080\"\n    command: []\n    environment:\n      A: \"yes\"\n      B: a b\n      C: \"x: y\"\n";
        let node = parse(text, &"f".into()).unwrap().remove(0);
        assert_eq!(emit(&node), text);
    }

    fn trees() -> impl Strategy<Value = Node> {
        let at = Origin::default;
        let leaf = prop_oneof![
            Just(Node::new(Value::Null, &at())),
            any::<String>().prop_map(move |text| Node::text(text, &at())),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(move |items| Node::seq(items, &at())),
                prop::collection::vec(("[^<].{0,12}|", inner), 0..4).prop_map(move |pairs| {
                    let map: Map = pairs.into_iter().collect();
                    Node::map(map, &at())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(tree in trees()) {
            let text = emit(&tree);
            let again = parse(&text, &"f".into()).unwrap().remove(0);
            prop_assert_eq!(strip(&again), strip(&tree), "{}", text);
        }

        #[test]
        fn no_text_brings_the_reader_down(text in any::<String>()) {
            let _ = parse(&text, &"f".into());
        }
    }
}
