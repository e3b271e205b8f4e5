//! What is printed as JSON, described: the trait, and the macros that hold it against the types.

use serde_json::{Map, Value, json};

/// What a field looks like in JSON.
pub(super) trait Shape {
    /// The type of a field that looks like this.
    type Of;
    fn shape() -> Value;
}

/// The fields of a type. What is said of each is checked against its type.
macro_rules! object {
    ($type:ident { $($name:literal: $shape:ty = $($field:ident).+,)* }) => {
        impl Shape for $type {
            type Of = Self;

            fn shape() -> Value {
                fn _checked(it: &$type) {
                    $(let _: &<$shape as Shape>::Of = &it.$($field).+;)*
                }
                object_of(&[$(($name, <$shape as Shape>::shape())),*])
            }
        }
    };
}
pub(super) use object;

/// A document that a verb, or a type, puts together. A name that ends with `?` may be missing.
macro_rules! document {
    ($type:ident { $($name:literal: $shape:ty,)* }) => {
        pub(in crate::cli::schema) struct $type;

        impl Shape for $type {
            type Of = Self;

            fn shape() -> Value {
                object_of(&[$(($name, <$shape as Shape>::shape())),*])
            }
        }
    };
}
pub(super) use document;

pub(super) fn object_of(fields: &[(&str, Value)]) -> Value {
    let plain = |name: &str| name.trim_end_matches('?').to_owned();
    let properties: Map<String, Value> =
        fields.iter().map(|(name, shape)| (plain(name), shape.clone())).collect();
    let required: Vec<&str> =
        fields.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('?')).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

/// The same, or null.
pub(super) fn or_null(mut shape: Value) -> Value {
    if let Some(kind) = shape.get("type").and_then(Value::as_str) {
        shape["type"] = json!([kind, "null"]);
    }
    if let Some(words) = shape.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
    if let Some(forms) = shape.get_mut("anyOf").and_then(Value::as_array_mut) {
        forms.push(json!({"type": "null"}));
    }
    shape
}

/// With the format that each object document has, and each element of an array.
fn with_format(mut shape: Value) -> Value {
    if let Some(forms) = shape.get_mut("anyOf").and_then(Value::as_array_mut) {
        for form in forms {
            *form = with_format(form.take());
        }
    }
    if let Some(elements) = shape.get_mut("items") {
        *elements = with_format(elements.take());
    }
    if let Some(fields) = shape.get_mut("properties").and_then(Value::as_object_mut) {
        fields.shift_insert(0, "format".to_owned(), json!({"const": 1}));
    }
    if let Some(required) = shape.get_mut("required").and_then(Value::as_array_mut) {
        required.insert(0, "format".into());
    }
    shape
}

/// One file: which verbs print it, and what.
pub(super) struct Document {
    pub(super) name: &'static str,
    says: &'static str,
    shape: Value,
}

impl Document {
    pub(super) fn of<S: Shape>(name: &'static str, says: &'static str) -> Self {
        Self { name, says, shape: S::shape() }
    }

    pub(super) fn text(&self) -> String {
        let mut schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.name,
            "description": self.says,
        });
        if let (Value::Object(schema), Value::Object(shape)) =
            (&mut schema, with_format(self.shape.clone()))
        {
            schema.extend(shape);
        }
        format!("{schema:#}\n")
    }
}
