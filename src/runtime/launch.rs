//! A container's spec as what a process needs: program, arguments, environment, folder, user.

use std::ffi::{CString, OsStr};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use probe_core::decide::expand;
use probe_core::model::pod::{ContainerSpec, EnvField, PodSpec};
use probe_core::sys::host;
use probe_core::sys::spawn::{ChildSpec, Identity, Output};
use thiserror::Error;

use super::RuntimeConfig;
use super::host::Host;

/// Pods share the host's network; this is their address in the process runtime.
const POD_IP: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Why a container cannot be started here as it is configured (`CreateContainerConfigError`).
#[derive(Error, PartialEq, Eq, Debug)]
pub enum LaunchError {
    #[error("{what} holds a NUL byte")]
    Nul { what: &'static str },
    #[error("runAs{what} {wanted}: only root may run a container as somebody else; this agent runs as {own}")]
    OtherUser { what: &'static str, wanted: u32, own: u32 },
    #[error("working directory {}: {reason}", .path.display())]
    WorkingDir { path: PathBuf, reason: String },
}

/// What every process of a container shares: the main one and exec runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Launch {
    program: CString,
    argv: Vec<CString>,
    pub env: Vec<CString>,
    pub working_dir: PathBuf,
    pub identity: Identity,
}

impl Launch {
    /// Expands, resolves against the manifest's folder, and checks what can be checked without running.
    pub fn new(
        config: &RuntimeConfig,
        host: &Host,
        pod: &PodSpec,
        container: &ContainerSpec,
    ) -> Result<Launch, LaunchError> {
        let field = |field: EnvField| match field {
            EnvField::PodName => pod.name.to_string(),
            EnvField::PodNamespace => pod.namespace.to_string(),
            EnvField::PodUid => pod.uid.to_string(),
            EnvField::PodIp | EnvField::HostIp => POD_IP.to_string(),
            EnvField::NodeName => config.node_name.to_string(),
        };
        let own = expand::environment(container, field);
        let defib = config.self_exe.to_string_lossy();
        let argv = expand::argv(container, &own, &[("DEFIB", &defib)]);
        let program = argv.first().map(String::as_str).unwrap_or_default();
        let base_dir = absolute(&pod.base_dir);
        let program = if program.contains('/') { base_dir.join(program) } else { program.into() };
        let working_dir = match container.working_dir.as_deref() {
            Some(dir) => base_dir.join(dir),
            None => base_dir,
        };
        Ok(Launch {
            program: c_string("the command", program.as_os_str())?,
            argv: argv
                .iter()
                .map(|arg| c_string("the command", OsStr::new(arg)))
                .collect::<Result<_, _>>()?,
            env: environment(config, pod, &own)?,
            working_dir,
            identity: identity(host, container)?,
        })
    }

    /// The folder must be there before the container counts as created.
    pub fn check_working_dir(&self) -> Result<(), LaunchError> {
        let refuse = |reason| LaunchError::WorkingDir { path: self.working_dir.clone(), reason };
        match self.working_dir.metadata() {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(refuse("not a directory".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(refuse("no such directory".to_owned()))
            }
            // The container's user may be allowed what the agent's is not; the child will tell.
            Err(_) => Ok(()),
        }
    }

    /// The main process. `v1_tasks` and the bind are the caller's to fill in.
    pub fn main(&self, log: &Path) -> Result<ChildSpec, LaunchError> {
        self.child(
            self.program.clone(),
            self.argv.clone(),
            Output::Log(c_string("the log", log.as_os_str())?),
        )
    }

    /// A command beside it. A bare name is looked up in the container's PATH, a relative path in its folder.
    pub fn exec(&self, argv: &[Box<str>]) -> Result<ChildSpec, LaunchError> {
        let argv: Vec<CString> =
            argv.iter().map(|arg| c_string("the command", OsStr::new(&**arg))).collect::<Result<_, _>>()?;
        self.child(argv.first().cloned().unwrap_or_default(), argv, Output::Passed)
    }

    /// The environment as the kernel keeps it.
    pub fn environ_block(&self) -> Vec<u8> {
        self.env.iter().flat_map(|entry| entry.to_bytes_with_nul()).copied().collect()
    }

    fn child(&self, program: CString, argv: Vec<CString>, output: Output) -> Result<ChildSpec, LaunchError> {
        Ok(ChildSpec {
            program,
            argv,
            env: self.env.clone(),
            working_dir: c_string("the working directory", self.working_dir.as_os_str())?,
            output,
            v1_tasks: Vec::new(),
            identity: self.identity,
            bind: None,
        })
    }
}

/// A path or text for the kernel.
pub fn c_string(what: &'static str, text: &OsStr) -> Result<CString, LaunchError> {
    CString::new(text.as_bytes()).map_err(|_| LaunchError::Nul { what })
}

/// The helper that makes the process may stand in another folder than the agent.
fn absolute(dir: &Path) -> PathBuf {
    if dir.is_absolute() { dir.to_owned() } else { std::env::current_dir().unwrap_or_default().join(dir) }
}

/// PATH of the agent, HOSTNAME, and what the spec says; the spec wins.
fn environment(
    config: &RuntimeConfig,
    pod: &PodSpec,
    own: &[(Box<str>, String)],
) -> Result<Vec<CString>, LaunchError> {
    let given = |name: &str| own.iter().any(|(known, _)| &**known == name);
    let entry = |name: &str, value: &[u8]| {
        let bytes = [name.as_bytes(), b"=", value].concat();
        CString::new(bytes).map_err(|_| LaunchError::Nul { what: "the environment" })
    };
    let mut env = Vec::with_capacity(own.len() + 2);
    if !given("PATH") {
        env.push(entry("PATH", config.path.as_bytes())?);
    }
    if !given("HOSTNAME") {
        env.push(entry("HOSTNAME", pod.hostname.as_bytes())?);
    }
    for (name, value) in own {
        env.push(entry(name, value.as_bytes())?);
    }
    Ok(env)
}

/// Root may be anybody; without `runAsGroup` the group is the user's own in /etc/passwd, else the one with the
/// user's number. Never root's by default.
fn identity(host: &Host, container: &ContainerSpec) -> Result<Identity, LaunchError> {
    let (user, group) = (container.run_as_user, container.run_as_group);
    if host.is_root {
        let group = group.or_else(|| user.map(|user| host::primary_group(user).unwrap_or(user)));
        return Ok(Identity { user, group });
    }
    let own_user = rustix::process::geteuid().as_raw();
    let own_group = rustix::process::getegid().as_raw();
    for (what, wanted, own) in [("User", user, own_user), ("Group", group, own_group)] {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != own) {
            return Err(LaunchError::OtherUser { what, wanted, own });
        }
    }
    Ok(Identity { user: None, group: None })
}
