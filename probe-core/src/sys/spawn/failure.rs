//! What went wrong in a child before it became the container, in the words that people know from runc.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::spec::{ChildSpec, Output};
use crate::model::runtime::Blame;

/// Bytes of a failure on the control socket.
const ENCODED_BYTES: usize = 8;

/// Steps of a child, in order.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    Description,
    Cgroup,
    Session,
    Signals,
    Stdin,
    Log,
    Namespace,
    Groups,
    Group,
    User,
    WorkingDir,
    /// A bare name that is in no folder of PATH.
    Lookup,
    /// The file is there, but what its first line names is not.
    Interpreter,
    Exec,
}

/// Errors that come of the command and its files alone, and come again wherever it is run. All others may be a shortage
/// of this host: EAGAIN, ENOMEM and ENFILE surely, EIO perhaps.
const OF_COMMAND: [i32; 11] = [
    libc::ENOENT,
    libc::ENOTDIR,
    libc::EACCES,
    libc::EPERM,
    libc::ENOEXEC,
    libc::EISDIR,
    libc::ELOOP,
    libc::ENAMETOOLONG,
    libc::E2BIG,
    libc::EINVAL,
    libc::ELIBBAD,
];

const STAGES: [Stage; 14] = [
    Stage::Description,
    Stage::Cgroup,
    Stage::Session,
    Stage::Signals,
    Stage::Stdin,
    Stage::Log,
    Stage::Namespace,
    Stage::Groups,
    Stage::Group,
    Stage::User,
    Stage::WorkingDir,
    Stage::Lookup,
    Stage::Interpreter,
    Stage::Exec,
];

/// The step that failed, and the errno of its system call.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct SpawnFailure {
    pub stage: Stage,
    pub errno: i32,
}

impl SpawnFailure {
    /// As the child writes it.
    pub fn encode(self) -> [u8; ENCODED_BYTES] {
        let mut bytes = [0; ENCODED_BYTES];
        bytes[0] = self.stage as u8;
        bytes[4..].copy_from_slice(&self.errno.to_ne_bytes());
        bytes
    }

    /// What the child wrote; None when it wrote nothing and so became the container.
    pub fn decode(bytes: &[u8]) -> Option<SpawnFailure> {
        let (head, _) = bytes.split_first_chunk::<ENCODED_BYTES>()?;
        let stage = STAGES.into_iter().find(|stage| *stage as u8 == head[0])?;
        let (_, errno) = head.split_last_chunk::<4>()?;
        Some(SpawnFailure { stage, errno: i32::from_ne_bytes(*errno) })
    }

    /// Whether the command is what is wrong: it was reached, and the kernel refused it for what it is.
    pub fn blame(self) -> Blame {
        let is_reached =
            matches!(self.stage, Stage::WorkingDir | Stage::Lookup | Stage::Interpreter | Stage::Exec);
        if is_reached && OF_COMMAND.contains(&self.errno) { Blame::Command } else { Blame::Elsewhere }
    }

    /// For the event `Failed` and the container's state.
    pub fn message(self, spec: &ChildSpec) -> String {
        let why = errno_text(self.errno);
        let show = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let program = show(&spec.program);
        let id = |id: Option<u32>| id.map_or_else(|| "(unchanged)".to_owned(), |id| id.to_string());
        let has_slash = spec.program.to_bytes().contains(&b'/');
        match self.stage {
            Stage::Description => format!("the process got no valid description: {why}"),
            Stage::Cgroup => format!("cannot enter the container's cgroup: {why}"),
            Stage::Session => format!("setsid: {why}"),
            Stage::Signals => format!("cannot reset signals: {why}"),
            Stage::Stdin => format!("open /dev/null: {why}"),
            Stage::Log => match &spec.output {
                Output::Log(path) => format!("open log {}: {why}", show(path)),
                Output::Passed => format!("cannot pass on the output: {why}"),
            },
            Stage::Namespace => format!("cannot join the container's mount namespace: {why}"),
            Stage::Groups => format!("setgroups: {why}"),
            Stage::Group => format!("setgid to {}: {why}", id(spec.identity.group)),
            Stage::User => format!("setuid to {}: {why}", id(spec.identity.user)),
            Stage::WorkingDir => {
                format!("chdir to cwd (\"{}\") failed: {why}", show(&spec.working_dir))
            }
            Stage::Lookup => format!("exec: \"{program}\": executable file not found in $PATH"),
            Stage::Interpreter => format!("exec {program}: {why} (the interpreter that it names is missing)"),
            Stage::Exec if self.errno == libc::ENOENT && has_slash => {
                format!("exec: \"{program}\": stat {program}: {why}")
            }
            Stage::Exec if self.errno == libc::EACCES => format!("exec: \"{program}\": {why}"),
            Stage::Exec => format!("exec {program}: {why}"),
        }
    }
}

/// Whether the file itself exists, so that ENOENT of execve means its interpreter.
pub(super) fn exists(path: &[u8]) -> bool {
    Path::new(std::ffi::OsStr::from_bytes(path)).exists()
}

/// The text of an errno as Go prints it: in small letters, without the number.
fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::spec::Identity;
    use super::*;

    #[test]
    fn the_command_is_blamed_for_its_own_errors_only() {
        for (stage, errno, blame) in [
            (Stage::Lookup, libc::ENOENT, Blame::Command),
            (Stage::Exec, libc::ENOENT, Blame::Command),
            (Stage::Exec, libc::EACCES, Blame::Command),
            (Stage::Exec, libc::ENOEXEC, Blame::Command),
            (Stage::Interpreter, libc::ENOENT, Blame::Command),
            (Stage::WorkingDir, libc::ENOENT, Blame::Command),
            (Stage::Exec, libc::EAGAIN, Blame::Elsewhere),
            (Stage::Exec, libc::ENOMEM, Blame::Elsewhere),
            (Stage::Exec, libc::ENFILE, Blame::Elsewhere),
            (Stage::Exec, libc::EIO, Blame::Elsewhere),
            (Stage::WorkingDir, libc::ENOMEM, Blame::Elsewhere),
            (Stage::User, libc::EAGAIN, Blame::Elsewhere),
            (Stage::Cgroup, libc::ENOENT, Blame::Elsewhere),
            (Stage::Namespace, libc::ENOENT, Blame::Elsewhere),
            (Stage::Description, libc::EINVAL, Blame::Elsewhere),
        ] {
            assert_eq!(SpawnFailure { stage, errno }.blame(), blame, "{stage:?} {errno}");
        }
    }

    fn check(program: &str, stage: Stage, errno: i32, expected: &str) {
        let spec = ChildSpec {
            program: std::ffi::CString::new(program).unwrap(),
            argv: Vec::new(),
            env: Vec::new(),
            working_dir: c"/nowhere".into(),
            output: Output::Log(c"/log/0.log".into()),
            v1_tasks: Vec::new(),
            identity: Identity { user: Some(7), group: None },
            bind: None,
        };
        let failure = SpawnFailure { stage, errno };
        assert_eq!(SpawnFailure::decode(&failure.encode()), Some(failure));
        assert_eq!(failure.message(&spec), expected);
    }

    #[test]
    fn words_are_those_of_runc() {
        use libc::{EACCES, ENOENT, ENOEXEC, EPERM};
        check("x", Stage::Lookup, ENOENT, "exec: \"x\": executable file not found in $PATH");
        check("/x", Stage::Exec, ENOENT, "exec: \"/x\": stat /x: no such file or directory");
        check("/x", Stage::Exec, EACCES, "exec: \"/x\": permission denied");
        check("/x", Stage::Exec, ENOEXEC, "exec /x: exec format error");
        check(
            "/x",
            Stage::WorkingDir,
            ENOENT,
            "chdir to cwd (\"/nowhere\") failed: no such file or directory",
        );
        check("/x", Stage::User, EPERM, "setuid to 7: operation not permitted");
        check("/x", Stage::Log, EACCES, "open log /log/0.log: permission denied");
    }

    #[test]
    fn silence_is_success() {
        assert_eq!(SpawnFailure::decode(b""), None);
        assert_eq!(SpawnFailure::decode(&[200; ENCODED_BYTES]), None);
    }
}
