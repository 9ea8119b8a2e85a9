//! Parameters of calls: what they may be, and PVE's words when they are not.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::ApiError;

/// What a value may be.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Text,
    Int(i64, i64),
    Number(f64, f64),
    Flag,
    OneOf(&'static [&'static str]),
    Format(fn(&str) -> Result<(), String>),
    /// Several texts; a single one is a list of one.
    Words,
    /// A text; repeated keys are joined with commas.
    List,
}

/// One parameter of a call.
#[derive(Clone, Copy)]
pub(crate) struct Param {
    name: &'static str,
    kind: Kind,
    required: bool,
    max_len: usize,
    /// How many numbered ones there are (`net0`…), 0 for a plain name.
    family: u16,
}

/// An optional parameter.
pub(crate) const fn opt(name: &'static str, kind: Kind) -> Param {
    Param {
        name,
        kind,
        required: false,
        max_len: 0,
        family: 0,
    }
}

/// A required parameter.
pub(crate) const fn req(name: &'static str, kind: Kind) -> Param {
    Param {
        name,
        kind,
        required: true,
        max_len: 0,
        family: 0,
    }
}

/// A numbered family of optional parameters.
pub(crate) const fn family(name: &'static str, count: u16, kind: Kind) -> Param {
    Param {
        name,
        kind,
        required: false,
        max_len: 0,
        family: count,
    }
}

impl Param {
    pub(crate) const fn max_len(mut self, chars: usize) -> Self {
        self.max_len = chars;
        self
    }

    /// Its name, `net[n]` for a family.
    pub(crate) fn shown(&self) -> String {
        if self.family == 0 {
            self.name.to_owned()
        } else {
            format!("{}[n]", self.name)
        }
    }

    /// Whether `name` is this parameter or one of its family.
    pub(crate) fn is(&self, name: &str) -> bool {
        if self.family == 0 {
            return self.name == name;
        }
        let Some(number) = name.strip_prefix(self.name) else {
            return false;
        };
        let plain = number == "0" || !number.starts_with('0');
        plain
            && number.bytes().all(|b| b.is_ascii_digit())
            && number.parse::<u16>().is_ok_and(|n| n < self.family)
    }

    fn check(&self, value: &str) -> Result<(), String> {
        let type_error = |name: &str| Err(format!("type check ('{name}') failed - got '{value}'"));
        match self.kind {
            Kind::Flag if !matches!(value, "0" | "1") => return type_error("boolean"),
            Kind::Int(min, max) => match value.parse::<i64>() {
                Err(_) => return type_error("integer"),
                Ok(n) if n > max => return Err(format!("value must have a maximum value of {max}")),
                Ok(n) if n < min => return Err(format!("value must have a minimum value of {min}")),
                Ok(_) => {}
            },
            Kind::Number(min, max) => match value.parse::<f64>() {
                Ok(n) if n.is_finite() && n > max => {
                    return Err(format!("value must have a maximum value of {max}"));
                }
                Ok(n) if n.is_finite() && n < min => {
                    return Err(format!("value must have a minimum value of {min}"));
                }
                Ok(n) if n.is_finite() => {}
                _ => return type_error("number"),
            },
            Kind::Format(check) => check(value).map_err(|text| {
                if text.contains("regex pattern") {
                    text
                } else {
                    format!("invalid format - {text}")
                }
            })?,
            Kind::OneOf(names) if !names.contains(&value) => {
                return Err(format!(
                    "value '{value}' does not have a value in the enumeration '{}'",
                    names.join(", ")
                ));
            }
            Kind::OneOf(_) | Kind::Flag | Kind::Text | Kind::Words | Kind::List => {}
        }
        if self.max_len > 0 && value.chars().count() > self.max_len {
            return Err(format!("value may only be {} characters long", self.max_len));
        }
        Ok(())
    }
}

/// Values before they are checked, in the order they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw(pub(crate) Vec<(String, String)>);

impl Raw {
    /// Reads a form or query as PVE does: `;` separates too, a value ends at a second `=`, and an
    /// empty value is no value.
    pub(crate) fn form(text: &str) -> Self {
        let decode = |part: &str| {
            let part = part.replace('+', " ");
            percent_encoding::percent_decode_str(&part)
                .decode_utf8_lossy()
                .into_owned()
        };
        let pairs = text
            .split(['&', ';'])
            .filter(|pair| !pair.is_empty())
            .filter_map(|pair| {
                let mut parts = pair.split('=');
                let (name, value) = (parts.next()?, parts.next().unwrap_or_default());
                (!value.is_empty()).then(|| (decode(name), decode(value)))
            });
        Self(pairs.collect())
    }

    /// Reads a JSON body.
    pub(crate) fn json(body: &[u8]) -> Result<Self, ApiError> {
        let fields: serde_json::Map<String, Value> = serde_json::from_slice(body)
            .map_err(|e| ApiError::died(format!("malformed JSON string: {e}")))?;
        let mut pairs = Vec::new();
        for (name, value) in fields {
            match value {
                Value::Array(items) => pairs.extend(
                    items
                        .into_iter()
                        .filter_map(|item| Some((name.clone(), scalar(item)?))),
                ),
                other => pairs.extend(scalar(other).map(|text| (name, text))),
            }
        }
        Ok(Self(pairs))
    }
}

fn scalar(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        Value::Bool(flag) => Some(u8::from(flag).to_string()),
        other => Some(other.to_string()),
    }
}

/// Checked values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params {
    values: BTreeMap<String, String>,
    lists: BTreeMap<String, Vec<String>>,
}

impl Params {
    /// Checks everything that came against the tables of a call.
    pub(crate) fn check(raw: Raw, tables: &[&[Param]]) -> Result<Self, ApiError> {
        let mut found = Self::default();
        let mut errors = BTreeMap::new();
        let table = || tables.iter().flat_map(|table| table.iter());
        for (name, value) in raw.0 {
            let Some(param) = table().find(|param| param.is(&name)) else {
                let text =
                    "property is not defined in schema and the schema does not allow additional properties";
                errors.insert(name, text.to_owned());
                continue;
            };
            if let Err(text) = param.check(&value) {
                errors.entry(name).or_insert(text);
                continue;
            }
            match (param.kind, found.values.get_mut(&name)) {
                (Kind::Words, _) => found.lists.entry(name).or_default().push(value),
                (Kind::List, Some(list)) => {
                    list.push(',');
                    list.push_str(&value);
                }
                (_, Some(_)) => {
                    errors.insert(name, "type check ('string') failed - got ARRAY".to_owned());
                }
                (_, None) => {
                    found.values.insert(name, value);
                }
            }
        }
        for param in table().filter(|param| param.required) {
            if !found.has(param.name) && !errors.contains_key(param.name) {
                errors.insert(
                    param.name.to_owned(),
                    "property is missing and it is not optional".to_owned(),
                );
            }
        }
        if errors.is_empty() {
            Ok(found)
        } else {
            Err(ApiError::parameters(errors))
        }
    }

    /// Adds the values of a path, which win.
    pub(crate) fn with_path(mut self, path: Self) -> Self {
        self.values.extend(path.values);
        self
    }

    fn has(&self, name: &str) -> bool {
        self.values.contains_key(name) || self.lists.contains_key(name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }

    pub(crate) fn words(&self, name: &str) -> &[String] {
        self.lists.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// What is left of the values.
    pub(crate) fn into_values(self) -> BTreeMap<String, String> {
        self.values
    }

    /// All values and lists, for the record.
    pub(crate) fn to_json(&self) -> Value {
        let mut all: serde_json::Map<String, Value> = self
            .values
            .iter()
            .map(|(k, v)| (k.clone(), Value::from(v.clone())))
            .collect();
        all.extend(
            self.lists
                .iter()
                .map(|(k, v)| (k.clone(), Value::from(v.clone()))),
        );
        Value::Object(all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &[Param] = &[
        req("newid", Kind::Int(100, 999)),
        opt("full", Kind::Flag),
        opt("name", Kind::Format(crate::formats::dns_name)).max_len(10),
        family("net", 2, Kind::Text),
        opt("command", Kind::Words),
        opt("delete", Kind::List),
    ];

    fn errors(form: &str) -> BTreeMap<String, String> {
        Params::check(Raw::form(form), &[TABLE])
            .err()
            .map(|e| e.errors)
            .unwrap_or_default()
    }

    #[test]
    fn every_bad_parameter_is_named_at_once() {
        let errors = errors("newid=x&full=yes&name=a_b&net2=x&colour=red");
        assert_eq!(
            errors.keys().collect::<Vec<_>>(),
            ["colour", "full", "name", "net2", "newid"]
        );
        assert_eq!(errors["newid"], "type check ('integer') failed - got 'x'");
        assert_eq!(errors["full"], "type check ('boolean') failed - got 'yes'");
    }

    #[test]
    fn limits() {
        assert_eq!(
            errors("newid=99")["newid"],
            "value must have a minimum value of 100"
        );
        assert_eq!(
            errors("newid=1000")["newid"],
            "value must have a maximum value of 999"
        );
        assert_eq!(
            errors("full=1")["newid"],
            "property is missing and it is not optional"
        );
        assert_eq!(
            errors("newid=100&name=abcdefghijk")["name"],
            "value may only be 10 characters long"
        );
        assert!(errors("newid=100&net0=a&net1=b&full=0").is_empty());
    }

    #[test]
    fn forms_split_as_pve_splits_them() {
        let raw = Raw::form("tags=a;b=2&net0=virtio,bridge=vmbr0&empty=&x=a+b%2Bc");
        let pairs: Vec<(&str, &str)> = raw.0.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("tags", "a"),
                ("b", "2"),
                ("net0", "virtio,bridge"),
                ("x", "a b+c")
            ]
        );
    }

    #[test]
    fn repeated_keys() {
        let params = Params::check(
            Raw::form("newid=100&command=sh&command=-c&delete=a&delete=b"),
            &[TABLE],
        )
        .unwrap();
        assert_eq!(params.words("command"), ["sh", "-c"]);
        assert_eq!(params.get("delete"), Some("a,b"));
        assert!(errors("newid=100&newid=101").contains_key("newid"));
    }

    #[test]
    fn json_bodies() {
        let raw = Raw::json(br#"{"newid": 100, "full": true, "command": ["a", "b"], "name": null}"#).unwrap();
        let params = Params::check(raw, &[TABLE]).unwrap();
        assert_eq!(
            (
                params.get("newid"),
                params.flag("full"),
                params.words("command").len()
            ),
            (Some("100"), true, 2)
        );
    }

    proptest! {
        #[test]
        fn any_form_is_read_or_refused(text in ".*") {
            let _ = Params::check(Raw::form(&text), &[TABLE]);
        }
    }
}
