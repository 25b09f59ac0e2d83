//! Keywords that only annotate, and keywords that cannot be kept.

/// Say something about a value and nothing about which values are valid.
pub(super) const ANNOTATIONS: [&str; 9] = [
    "$comment",
    "$anchor",
    "title",
    "description",
    "default",
    "examples",
    "readOnly",
    "writeOnly",
    "deprecated",
];

/// Why a keyword is refused.
pub(super) const UNSUPPORTED: [(&str, &str); 29] = [
    (
        "not",
        "what a value must not be cannot be kept while it is written; say what it may be",
    ),
    ("if", CONDITION),
    ("then", CONDITION),
    ("else", CONDITION),
    ("dependentSchemas", DEPENDENCE),
    ("dependentRequired", DEPENDENCE),
    ("dependencies", DEPENDENCE),
    (
        "propertyNames",
        "write it as `patternProperties` with `additionalProperties` false",
    ),
    (
        "unevaluatedProperties",
        "write it as `additionalProperties`",
    ),
    (
        "unevaluatedItems",
        "write it as `items` behind `prefixItems`",
    ),
    ("contains", CONTAINS),
    ("minContains", CONTAINS),
    ("maxContains", CONTAINS),
    (
        "uniqueItems",
        "that items differ cannot be kept while they are written; check it afterwards, or use properties",
    ),
    ("contentEncoding", CONTENT),
    ("contentMediaType", CONTENT),
    ("contentSchema", CONTENT),
    ("$id", ADDRESS),
    ("id", ADDRESS),
    ("$dynamicRef", DYNAMIC),
    ("$dynamicAnchor", DYNAMIC),
    ("$recursiveRef", DYNAMIC),
    ("$recursiveAnchor", DYNAMIC),
    (
        "$vocabulary",
        "vocabularies of one's own are not known here",
    ),
    (
        "nullable",
        "it is OpenAPI's; write the type as an array with \"null\"",
    ),
    (
        "discriminator",
        "it is OpenAPI's; give each variant a property with a `const`",
    ),
    ("example", "it is OpenAPI's; write `examples`"),
    ("xml", "it is OpenAPI's; leave it out"),
    (
        "x-guidance",
        "settings of the grammar engine are not taken from a schema",
    ),
];

const CONDITION: &str = "conditions cannot be kept; write the cases as `anyOf`";
const DEPENDENCE: &str =
    "properties that depend on others cannot be kept; write the cases as `anyOf`";
const CONTAINS: &str =
    "that some item is of a kind cannot be kept; name its place with `prefixItems`";
const CONTENT: &str = "what is encoded in a text cannot be checked while it is written; leave it out, or write a `pattern`";
const ADDRESS: &str =
    "an address within a schema changes what references mean; only the whole schema may have one";
const DYNAMIC: &str =
    "references that depend on where they are reached from are not known here; write `$ref`";

/// The values of `$schema`, and whether the draft is older than 2020-12.
pub(super) const DIALECTS: [(&str, bool); 5] = [
    ("https://json-schema.org/draft/2020-12/schema", false),
    ("https://json-schema.org/draft/2019-09/schema", true),
    ("http://json-schema.org/draft-07/schema", true),
    ("http://json-schema.org/draft-06/schema", true),
    ("http://json-schema.org/draft-04/schema", true),
];
