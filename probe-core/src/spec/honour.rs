//! Fields that are valid and have no effect here. Each is named once at load, so that nobody relies on what
//! is not done; `--strict` refuses them. Fields without meaning for a local process (an image, a label, a
//! DNS policy) are not named.

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec};

/// Paths and reasons, in manifest order.
pub type Named = Vec<(String, &'static str)>;

const NO_VOLUMES: &str = "no volumes: the process sees the host's files";
const NO_CLUSTER: &str = "there is no scheduler and no cluster here";
const HOST_NETWORK: &str = "pods share the host's network";
const NOT_YET: &str = "not honoured by the process runtime";
const NO_REQUESTS: &str = "no scheduler here: only limits have an effect";
const NO_TERMINAL: &str = "standard input is /dev/null and there is no terminal";

/// What the pod asks for and does not get.
pub fn not_honoured(pod: &Pod) -> Named {
    let mut named = Named::new();
    let Some(spec) = &pod.spec else { return named };
    for (at, one) in spec.init_containers.iter().flatten().enumerate() {
        container(&format!("spec.initContainers[{at}]"), one, &mut named);
    }
    for (at, one) in spec.containers.iter().enumerate() {
        container(&format!("spec.containers[{at}]"), one, &mut named);
    }
    pod_spec(spec, &mut named);
    named
}

fn pod_spec(spec: &PodSpec, named: &mut Named) {
    let fields = [
        ("activeDeadlineSeconds", spec.active_deadline_seconds.is_some(), NOT_YET),
        ("affinity", spec.affinity.is_some(), NO_CLUSTER),
        ("dnsConfig", spec.dns_config.is_some(), HOST_NETWORK),
        ("ephemeralContainers", spec.ephemeral_containers.is_some(), NOT_YET),
        ("hostAliases", spec.host_aliases.is_some(), HOST_NETWORK),
        ("hostNetwork", spec.host_network == Some(false), HOST_NETWORK),
        ("nodeName", spec.node_name.is_some(), NO_CLUSTER),
        ("nodeSelector", spec.node_selector.is_some(), NO_CLUSTER),
        ("resources", spec.resources.is_some(), NOT_YET),
        ("runtimeClassName", spec.runtime_class_name.is_some(), NOT_YET),
        ("serviceAccountName", spec.service_account_name.is_some(), NO_CLUSTER),
        ("shareProcessNamespace", spec.share_process_namespace == Some(true), NOT_YET),
        ("tolerations", spec.tolerations.is_some(), NO_CLUSTER),
        ("topologySpreadConstraints", spec.topology_spread_constraints.is_some(), NO_CLUSTER),
        ("volumes", spec.volumes.is_some(), NO_VOLUMES),
    ];
    add("spec", fields, named);
    if let Some(context) = &spec.security_context {
        let fields = [
            ("appArmorProfile", context.app_armor_profile.is_some(), NOT_YET),
            ("fsGroup", context.fs_group.is_some(), NO_VOLUMES),
            ("runAsNonRoot", context.run_as_non_root.is_some(), NOT_YET),
            ("seLinuxOptions", context.se_linux_options.is_some(), NOT_YET),
            ("seccompProfile", context.seccomp_profile.is_some(), NOT_YET),
            ("supplementalGroups", context.supplemental_groups.is_some(), NOT_YET),
            ("sysctls", context.sysctls.is_some(), NOT_YET),
        ];
        add("spec.securityContext", fields, named);
    }
}

fn container(path: &str, one: &Container, named: &mut Named) {
    let fields = [
        ("envFrom", one.env_from.is_some(), NOT_YET),
        ("resizePolicy", one.resize_policy.is_some(), NOT_YET),
        ("restartPolicyRules", one.restart_policy_rules.is_some(), NOT_YET),
        ("stdin", one.stdin == Some(true), NO_TERMINAL),
        ("tty", one.tty == Some(true), NO_TERMINAL),
        ("volumeDevices", one.volume_devices.is_some(), NO_VOLUMES),
        ("volumeMounts", one.volume_mounts.is_some(), NO_VOLUMES),
    ];
    add(path, fields, named);
    for (at, var) in one.env.iter().flatten().enumerate() {
        if !is_honoured_env(var) {
            named.push((
                format!("{path}.env[{at}].valueFrom"),
                "the variable is left out: this source is not known",
            ));
        }
    }
    if let Some(lifecycle) = &one.lifecycle {
        for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            let Some(hook) = hook else { continue };
            let fields = [("tcpSocket", hook.tcp_socket.is_some(), NOT_YET)];
            add(&format!("{path}.lifecycle.{field}"), fields, named);
        }
    }
    resources(path, one, named);
    security(path, one, named);
}

fn resources(path: &str, one: &Container, named: &mut Named) {
    let Some(resources) = &one.resources else { return };
    let fields = [
        ("claims", resources.claims.is_some(), NOT_YET),
        ("requests", resources.requests.is_some(), NO_REQUESTS),
    ];
    add(&format!("{path}.resources"), fields, named);
    for name in resources.limits.iter().flat_map(|limits| limits.keys()) {
        if !["cpu", "memory"].contains(&name.as_str()) {
            named.push((format!("{path}.resources.limits[{name}]"), NOT_YET));
        }
    }
}

fn security(path: &str, one: &Container, named: &mut Named) {
    let Some(context) = &one.security_context else { return };
    let fields = [
        ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some(), NOT_YET),
        ("appArmorProfile", context.app_armor_profile.is_some(), NOT_YET),
        ("capabilities", context.capabilities.is_some(), NOT_YET),
        ("privileged", context.privileged.is_some(), NOT_YET),
        ("procMount", context.proc_mount.is_some(), NOT_YET),
        ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some(), NOT_YET),
        ("runAsNonRoot", context.run_as_non_root.is_some(), NOT_YET),
        ("seLinuxOptions", context.se_linux_options.is_some(), NOT_YET),
        ("seccompProfile", context.seccomp_profile.is_some(), NOT_YET),
    ];
    add(&format!("{path}.securityContext"), fields, named);
}

fn add<const N: usize>(path: &str, fields: [(&str, bool, &'static str); N], named: &mut Named) {
    named.extend(
        fields.into_iter().filter(|(_, set, _)| *set).map(|(field, _, why)| (format!("{path}.{field}"), why)),
    );
}

/// A value, or a field of the pod that is known here.
fn is_honoured_env(var: &EnvVar) -> bool {
    let Some(from) = &var.value_from else { return true };
    from.field_ref.as_ref().is_some_and(|field| super::convert::env_field(&field.field_path).is_some())
}
