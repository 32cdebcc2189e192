//! Name rules of Kubernetes with their texts (k8s.io/apimachinery `validation` and
//! `apimachinery/pkg/util/validation`).

const DNS1123_LABEL_MAX: usize = 63;
const DNS1123_SUBDOMAIN_MAX: usize = 253;
const PORT_NAME_MAX: usize = 15;

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
    must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
    or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const ENV_TEXT: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// What is wrong with a DNS-1123 label; empty when nothing is.
pub fn label(name: &str) -> Vec<String> {
    let mut wrong = too_long(name, DNS1123_LABEL_MAX);
    if !is_label(name) {
        wrong.push(LABEL_TEXT.into());
    }
    wrong
}

/// What is wrong with a DNS-1123 subdomain.
pub fn subdomain(name: &str) -> Vec<String> {
    let mut wrong = too_long(name, DNS1123_SUBDOMAIN_MAX);
    if !name.split('.').all(is_label) {
        wrong.push(SUBDOMAIN_TEXT.into());
    }
    wrong
}

/// What is wrong with the name of a port (IANA_SVC_NAME, RFC 6335 5.1).
pub fn port(name: &str) -> Vec<String> {
    let mut wrong = too_long(name, PORT_NAME_MAX);
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".into());
    }
    if name.contains("--") {
        wrong.push("must not contain consecutive hyphens".into());
    }
    if name.starts_with('-') || name.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".into());
    }
    wrong
}

/// What is wrong with the name of an environment variable (relaxed rule, on since 1.34).
pub fn env(name: &str) -> Vec<String> {
    let fine = name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    if fine { Vec::new() } else { vec![ENV_TEXT.into()] }
}

/// Is it `[-A-Za-z0-9]+`, as the name of an HTTP header must be?
pub fn is_header(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

fn too_long(name: &str, max: usize) -> Vec<String> {
    if name.len() > max { vec![format!("must be no more than {max} characters")] } else { Vec::new() }
}
