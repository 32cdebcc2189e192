//! Pod YAML or JSON: parse, default, validate.
