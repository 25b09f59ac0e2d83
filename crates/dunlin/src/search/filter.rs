//! Which documents a search may find, by their metadata.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::SearchError;

/// Filters inside each other, at most.
const MAX_DEPTH: usize = 32;

/// A condition on the metadata of a document.
///
/// Values are compared as JSON has them: numbers by their size (`1` equals `1.0`), texts letter by letter, and nothing equals a
/// value of another type. Where a document has a list, one element that passes is enough. A key that a document lacks passes
/// no comparison.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// The value of a key is this.
    Equal {
        /// The key.
        key: String,
        /// The value.
        value: Value,
    },
    /// The value of a key is one of these.
    In {
        /// The key.
        key: String,
        /// The values.
        values: Vec<Value>,
    },
    /// The value of a key lies between two bounds, numbers by their size and texts by the order of their characters' code
    /// points; a bound that is absent does not bound.
    Range {
        /// The key.
        key: String,
        /// The lower bound.
        min: Option<Bound>,
        /// The upper bound.
        max: Option<Bound>,
    },
    /// The document has the key, with whatever value (`null` counts as one).
    Exists {
        /// The key.
        key: String,
    },
    /// All pass; none is true.
    And(Vec<Filter>),
    /// One at least passes; none is false.
    Or(Vec<Filter>),
    /// It does not pass.
    Not(Box<Filter>),
}

/// An end of a range.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// A number or a text.
    pub value: Value,
    /// Whether the value itself lies within.
    pub inclusive: bool,
}

impl Filter {
    /// A key has this value.
    #[must_use]
    pub fn equal(key: impl Into<String>, value: impl Into<Value>) -> Self {
        Filter::Equal {
            key: key.into(),
            value: value.into(),
        }
    }

    /// A key has one of these values.
    #[must_use]
    pub fn one_of(
        key: impl Into<String>,
        values: impl IntoIterator<Item = impl Into<Value>>,
    ) -> Self {
        Filter::In {
            key: key.into(),
            values: values.into_iter().map(Into::into).collect(),
        }
    }

    /// A key has a value of at least `min` and at most `max`.
    #[must_use]
    pub fn between(key: impl Into<String>, min: impl Into<Value>, max: impl Into<Value>) -> Self {
        let inclusive = |value| {
            Some(Bound {
                value,
                inclusive: true,
            })
        };
        Filter::Range {
            key: key.into(),
            min: inclusive(min.into()),
            max: inclusive(max.into()),
        }
    }

    /// A document has this key.
    #[must_use]
    pub fn exists(key: impl Into<String>) -> Self {
        Filter::Exists { key: key.into() }
    }

    /// Both pass.
    #[must_use]
    pub fn and(self, other: Filter) -> Self {
        Filter::And(vec![self, other])
    }

    /// One of both passes.
    #[must_use]
    pub fn or(self, other: Filter) -> Self {
        Filter::Or(vec![self, other])
    }

    /// This one does not pass.
    #[must_use]
    pub fn negated(self) -> Self {
        Filter::Not(Box::new(self))
    }

    /// Whether a document with these metadata passes.
    #[must_use]
    pub fn passes(&self, metadata: &Map<String, Value>) -> bool {
        let any = |key: &str, test: &dyn Fn(&Value) -> bool| match metadata.get(key) {
            Some(Value::Array(elements)) => elements.iter().any(test),
            Some(value) => test(value),
            None => false,
        };
        match self {
            Filter::Equal { key, value } => {
                // A list can be asked for as a whole, too.
                any(key, &|found| equal(found, value))
                    || metadata.get(key).is_some_and(|found| equal(found, value))
            }
            Filter::In { key, values } => {
                any(key, &|found| values.iter().any(|value| equal(found, value)))
            }
            Filter::Range { key, min, max } => any(key, &|found| {
                within(found, min.as_ref(), Ordering::Greater)
                    && within(found, max.as_ref(), Ordering::Less)
            }),
            Filter::Exists { key } => metadata.contains_key(key),
            Filter::And(filters) => filters.iter().all(|filter| filter.passes(metadata)),
            Filter::Or(filters) => filters.iter().any(|filter| filter.passes(metadata)),
            Filter::Not(filter) => !filter.passes(metadata),
        }
    }

    /// Reads a filter from JSON, in the form that vector databases share:
    ///
    /// ```
    /// use dunlin::search::Filter;
    ///
    /// let filter = Filter::from_json(&serde_json::json!({
    ///     "language": "en",
    ///     "year": {"$gte": 2020, "$lt": 2024},
    ///     "$or": [{"tag": {"$in": ["git", "shell"]}}, {"$not": {"draft": {"$exists": true}}}],
    /// }))?;
    /// # Ok::<(), dunlin::search::SearchError>(())
    /// ```
    ///
    /// An object has keys with a value, or with an object of `$eq`, `$ne`, `$in`, `$nin`, `$gt`, `$gte`, `$lt`, `$lte` and
    /// `$exists`; all must pass. `$and` and `$or` take a list of filters, `$not` takes one.
    ///
    /// # Errors
    /// [`SearchError::Filter`] for anything else.
    pub fn from_json(value: &Value) -> Result<Self, SearchError> {
        read(value, MAX_DEPTH)
    }

    /// Reads a condition as a command line has it: `key=value`, `key!=value`, `key>=value`, `key>value`, `key<=value`,
    /// `key<value`, or `key` alone, which the document must have. A value that reads as a number, `true`, `false` or `null`
    /// stands for that, and with `=` and `!=` also for the text.
    ///
    /// # Errors
    /// [`SearchError::Filter`] for a condition without a key.
    pub fn from_condition(text: &str) -> Result<Self, SearchError> {
        let at = text.find(['=', '!', '<', '>']).unwrap_or(text.len());
        let (key, rest) = text.split_at(at);
        let key = key.trim();
        if key.is_empty() {
            return Err(wrong(format!("{text:?} has no key before its sign")));
        }
        const SIGNS: [&str; 6] = ["!=", ">=", "<=", "=", ">", "<"];
        let found = SIGNS.iter().find_map(|sign| {
            let value = rest.strip_prefix(sign)?;
            Some((*sign, value.trim()))
        });
        let (sign, text) = match found {
            None if rest.is_empty() => return Ok(Filter::exists(key)),
            None => {
                let reason = format!("{text:?} has none of the signs {}", SIGNS.join(" "));
                return Err(wrong(reason));
            }
            Some(found) => found,
        };
        let scalar = serde_json::from_str(text).ok().filter(|value: &Value| {
            !matches!(value, Value::Array(_) | Value::Object(_) | Value::String(_))
        });
        let equals = match &scalar {
            Some(scalar) => Filter::one_of(key, [scalar.clone(), text.into()]),
            None => Filter::equal(key, text),
        };
        let bound = |inclusive| Bound {
            value: scalar.unwrap_or_else(|| text.into()),
            inclusive,
        };
        Ok(match sign {
            "=" => equals,
            "!=" => equals.negated(),
            ">=" => at_least(key, bound(true)),
            ">" => at_least(key, bound(false)),
            "<=" => at_most(key, bound(true)),
            _ => at_most(key, bound(false)),
        })
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => compare(a, b) == Some(Ordering::Equal),
        _ => a == b,
    }
}

/// The order of two numbers or two texts; `None` for anything else.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i128(), b.as_i128()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        _ => None,
    }
}

/// Whether a value stands on the `wanted` side of a bound.
fn within(found: &Value, bound: Option<&Bound>, wanted: Ordering) -> bool {
    let Some(bound) = bound else { return true };
    match compare(found, &bound.value) {
        Some(Ordering::Equal) => bound.inclusive,
        order => order == Some(wanted),
    }
}

fn at_least(key: &str, bound: Bound) -> Filter {
    Filter::Range {
        key: key.to_owned(),
        min: Some(bound),
        max: None,
    }
}

fn at_most(key: &str, bound: Bound) -> Filter {
    Filter::Range {
        key: key.to_owned(),
        min: None,
        max: Some(bound),
    }
}

fn wrong(reason: String) -> SearchError {
    SearchError::Filter { reason }
}

fn read(value: &Value, depth: usize) -> Result<Filter, SearchError> {
    let Some(depth) = depth.checked_sub(1) else {
        let reason = format!("more than {MAX_DEPTH} filters stand inside each other");
        return Err(wrong(reason));
    };
    let Value::Object(object) = value else {
        return Err(wrong(format!("{value} is no object")));
    };
    let list = |key: &str, value: &Value| match value {
        Value::Array(filters) => filters.iter().map(|filter| read(filter, depth)).collect(),
        other => Err(wrong(format!("{key} takes a list of filters, not {other}"))),
    };
    let mut all = Vec::new();
    for (key, value) in object {
        match (key.as_str(), value) {
            ("$and", value) => all.push(Filter::And(list(key, value)?)),
            ("$or", value) => all.push(Filter::Or(list(key, value)?)),
            ("$not", value) => all.push(read(value, depth)?.negated()),
            (key, _) if key.starts_with('$') => {
                let reason = format!("{key} is none of $and, $or, $not; a key cannot begin with $");
                return Err(wrong(reason));
            }
            (key, Value::Object(tests)) => {
                if tests.is_empty() {
                    return Err(wrong(format!("{key:?} has an object without any test")));
                }
                for (test, value) in tests {
                    all.push(read_test(key, test, value)?);
                }
            }
            (key, value) => all.push(Filter::equal(key, value.clone())),
        }
    }
    // One test needs no list around it.
    match <[Filter; 1]>::try_from(all) {
        Ok([one]) => Ok(one),
        Err(all) => Ok(Filter::And(all)),
    }
}

fn read_test(key: &str, test: &str, value: &Value) -> Result<Filter, SearchError> {
    let values = || match value {
        Value::Array(values) => Ok(values.clone()),
        other => Err(wrong(format!("{test} takes a list of values, not {other}"))),
    };
    let bound = |inclusive| match value {
        Value::Number(_) | Value::String(_) => Ok(Bound {
            value: value.clone(),
            inclusive,
        }),
        other => Err(wrong(format!(
            "{test} takes a number or a text, not {other}"
        ))),
    };
    Ok(match test {
        "$eq" => Filter::equal(key, value.clone()),
        "$ne" => Filter::equal(key, value.clone()).negated(),
        "$in" => Filter::one_of(key, values()?),
        "$nin" => Filter::one_of(key, values()?).negated(),
        "$gt" => at_least(key, bound(false)?),
        "$gte" => at_least(key, bound(true)?),
        "$lt" => at_most(key, bound(false)?),
        "$lte" => at_most(key, bound(true)?),
        "$exists" => match value {
            Value::Bool(true) => Filter::exists(key),
            Value::Bool(false) => Filter::exists(key).negated(),
            other => return Err(wrong(format!("$exists takes true or false, not {other}"))),
        },
        other => {
            let reason = format!(
                "{other:?} at {key:?} is none of $eq, $ne, $in, $nin, $gt, $gte, $lt, $lte, $exists"
            );
            return Err(wrong(reason));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn passes(filter: Value, metadata: Value) -> bool {
        let metadata = metadata.as_object().unwrap().clone();
        Filter::from_json(&filter).unwrap().passes(&metadata)
    }

    #[test]
    fn values_are_compared_by_type_and_size() {
        for (filter, metadata, wanted) in [
            (json!({"a": 1}), json!({"a": 1.0}), true),
            (json!({"a": 1}), json!({"a": "1"}), false),
            (json!({"a": true}), json!({"a": 1}), false),
            (json!({"a": null}), json!({"a": null}), true),
            (json!({"a": null}), json!({}), false),
            (json!({"a": {"$ne": 1}}), json!({}), true),
            (json!({"a": {"$in": ["x", 2]}}), json!({"a": 2}), true),
            (json!({"a": {"$nin": ["x", 2]}}), json!({"a": 2}), false),
            (json!({"a": {"$gte": 2, "$lt": 3}}), json!({"a": 2}), true),
            (json!({"a": {"$gte": 2, "$lt": 3}}), json!({"a": 3}), false),
            (json!({"a": {"$gt": "b"}}), json!({"a": "c"}), true),
            (json!({"a": {"$gt": 1}}), json!({"a": "c"}), false),
            (json!({"a": {"$exists": true}}), json!({"a": null}), true),
            (json!({"a": {"$exists": false}}), json!({"b": 1}), true),
            // Numbers that a double cannot tell apart.
            (
                json!({"a": {"$lt": 9_007_199_254_740_993_u64}}),
                json!({"a": 9_007_199_254_740_992_u64}),
                true,
            ),
        ] {
            assert_eq!(passes(filter.clone(), metadata), wanted, "{filter}");
        }
    }

    #[test]
    fn one_element_of_a_list_is_enough() {
        let tags = json!({"tags": ["git", "shell"], "pages": [1, 20]});
        assert!(passes(json!({"tags": "git"}), tags.clone()));
        assert!(passes(json!({"tags": {"$in": ["shell"]}}), tags.clone()));
        assert!(passes(json!({"pages": {"$gt": 10}}), tags.clone()));
        assert!(!passes(
            json!({"pages": {"$gt": 2, "$lt": 10}}),
            json!({"pages": [11]})
        ));
        assert!(passes(json!({"tags": ["git", "shell"]}), tags));
    }

    #[test]
    fn filters_combine() {
        let filter = json!({"a": 1, "$or": [{"b": 2}, {"$not": {"c": 3}}]});
        for (metadata, wanted) in [
            (json!({"a": 1, "b": 2, "c": 3}), true),
            (json!({"a": 1, "b": 0, "c": 4}), true),
            (json!({"a": 1, "b": 0, "c": 3}), false),
            (json!({"a": 0, "b": 2}), false),
        ] {
            assert_eq!(
                passes(filter.clone(), metadata.clone()),
                wanted,
                "{metadata}"
            );
        }
        assert!(passes(json!({}), json!({"a": 1})));
        assert!(passes(json!({"$and": []}), json!({})));
        assert!(!passes(json!({"$or": []}), json!({})));
    }

    #[test]
    fn what_is_no_filter_says_why() {
        for (filter, wanted) in [
            (json!([]), "no object"),
            (json!({"$xor": []}), "$xor"),
            (json!({"$and": {}}), "list of filters"),
            (json!({"a": {"$regex": "x"}}), "$regex"),
            (json!({"a": {}}), "without any test"),
            (json!({"a": {"$in": 3}}), "list of values"),
            (json!({"a": {"$gt": null}}), "number or a text"),
            (json!({"a": {"$exists": 1}}), "true or false"),
        ] {
            let error = Filter::from_json(&filter).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let nested = (0..100).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
        let error = Filter::from_json(&nested).unwrap_err().to_string();
        assert!(error.contains("32"), "{error}");
    }

    #[test]
    fn a_condition_of_the_command_line_is_read() {
        let condition = |text: &str, metadata: Value| {
            let metadata = metadata.as_object().unwrap().clone();
            Filter::from_condition(text).unwrap().passes(&metadata)
        };
        assert!(condition("path=a/b.md", json!({"path": "a/b.md"})));
        assert!(condition("year=2020", json!({"year": 2020})));
        assert!(condition("year=2020", json!({"year": "2020"})));
        assert!(!condition("year!=2020", json!({"year": 2020})));
        assert!(condition("year >= 2020", json!({"year": 2020})));
        assert!(!condition("year>2020", json!({"year": 2020})));
        assert!(condition("name<b", json!({"name": "a"})));
        assert!(condition("text=a=b", json!({"text": "a=b"})));
        assert!(condition("draft", json!({"draft": false})));
        assert!(!condition("draft", json!({})));
        for text in ["", "=x", "a!b"] {
            assert!(Filter::from_condition(text).is_err(), "{text}");
        }
    }
}
