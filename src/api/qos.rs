//! `status.qosClass` from requests and limits (kubernetes `qos.ComputePodQOS`).

use serde_json::{Map, Value};

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// The class of a pod with this `spec`. A limit without a request is its own request.
pub fn class_of(spec: &Map<String, Value>) -> &'static str {
    let containers =
        ["initContainers", "containers"].iter().filter_map(|key| spec.get(*key)?.as_array()).flatten();
    let mut anything = false;
    let mut everything = true;
    for container in containers {
        for name in COMPUTE {
            let quantity =
                |list: &str| container.pointer(&format!("/resources/{list}/{name}")).filter(|q| !is_zero(q));
            let (request, limit) = (quantity("requests"), quantity("limits"));
            anything |= request.is_some() || limit.is_some();
            everything &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (anything, everything) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn is_zero(quantity: &Value) -> bool {
    match quantity {
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => !text.chars().any(|c| ('1'..='9').contains(&c)),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let equal = json!({"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": 1, "memory": "1Gi"}});
        let less = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
        let cases = [
            (vec![json!({})], "BestEffort"),
            (vec![json!({"limits": {"cpu": "0"}})], "BestEffort"),
            (vec![full.clone()], "Guaranteed"),
            (vec![full.clone(), equal], "Guaranteed"),
            (vec![full.clone(), json!({})], "Burstable"),
            (vec![less], "Burstable"),
            (vec![json!({"requests": {"memory": "1Mi"}})], "Burstable"),
        ];
        for (resources, class) in cases {
            let containers: Vec<_> = resources.iter().map(|r| json!({"name": "c", "resources": r})).collect();
            let spec = json!({"containers": containers});
            assert_eq!(class_of(spec.as_object().unwrap()), class, "{spec}");
        }
    }
}
