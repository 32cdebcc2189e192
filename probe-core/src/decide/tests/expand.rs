//! `$(NAME)` references, with PRB-09 and PRB-10.

use super::world::container;
use crate::decide::expand::{argv, environment, expand, probe_argv};
use crate::model::pod::{ContainerSpec, EnvField, EnvValue, EnvVar, Role};

fn literal(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: EnvValue::Literal(value.into()) }
}

fn with_env(env: Vec<EnvVar>) -> ContainerSpec {
    ContainerSpec { env, ..container("c", Role::Regular) }
}

#[test]
fn references() {
    let cases = [
        ("$(A)", "a"),
        ("$(B)", "$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$a"),
        ("$$$$(A)", "$$(A)"),
        ("x-$(A)-$(A)-y", "x-a-a-y"),
        ("$A", "$A"),
        ("$", "$"),
        ("$$", "$"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("$(E)", ""),
        ("a$(A)$(", "aa$("),
        ("$(A)$", "a$"),
        ("$(B)$(A)", "$(B)a"),
        ("ä$(A)ö", "äaö"),
    ];
    for (text, expected) in cases {
        let lookup = |name: &str| match name {
            "A" => Some("a"),
            "E" => Some(""),
            _ => None,
        };
        assert_eq!(expand(text, lookup), expected, "{text}");
    }
}

#[test]
fn an_environment_sees_what_stands_before() {
    let pod_ip = EnvVar { name: "IP".into(), value: EnvValue::Field(EnvField::PodIp) };
    let spec = with_env(vec![
        literal("A", "$(B)"),
        literal("B", "b"),
        pod_ip,
        literal("C", "$(B):$(IP):$$(B)"),
        literal("B", "again-$(B)"),
    ]);
    let env = environment(&spec, |field| {
        assert_eq!(field, EnvField::PodIp);
        "127.0.0.1".to_owned()
    });
    let expected = [("A", "$(B)"), ("B", "again-b"), ("IP", "127.0.0.1"), ("C", "b:127.0.0.1:$(B)")];
    assert_eq!(env, expected.map(|(name, value)| (name.into(), value.to_owned())));
    let spec = ContainerSpec { command: vec!["$(DEFIB)".into()], args: vec!["$(C)".into()], ..spec };
    assert_eq!(argv(&spec, &env, &[("DEFIB", "/bin/defib")]), ["/bin/defib", "b:127.0.0.1:$(B)"]);
}

#[test]
fn exec_probes() {
    let pod_ip = EnvVar { name: "IP".into(), value: EnvValue::Field(EnvField::PodIp) };
    let command = |script: &str| ["/bin/bash", "-c", script].map(Box::from).to_vec();
    let cases = [
        ("PRB-09", vec![], "some script", "some script"),
        ("PRB-10", vec![literal("A", "script")], "some $(A) $(B)", "some script $(B)"),
        ("6: valueFrom is empty", vec![pod_ip], "[$(IP)]", "[]"),
        ("6: values are not expanded", vec![literal("A", "$(B)"), literal("B", "b")], "$(A)", "$(B)"),
    ];
    for (id, env, script, expected) in cases {
        assert_eq!(probe_argv(&command(script), &with_env(env)), command(expected), "{id}");
    }
}
