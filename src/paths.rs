//! Where the socket and the durable state live (design sections 5 and 9.8).
//!
//! root: `/run/defib` and `/var/lib/defib`. Anybody else: the XDG directories, and where those are missing
//! or cannot be written, a directory of the user's own under the temporary directory, mode 0700, whose owner
//! is checked before anything in it is trusted.

use std::env;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use thiserror::Error;

const SOCKET_NAME: &str = "defib.sock";
const MODE_PRIVATE: u32 = 0o700;
const MODE_OTHERS: u32 = 0o077;

/// Why a directory cannot be used.
#[derive(Debug, Error)]
pub enum PathError {
    #[error("make directory {}: {problem}; choose another one with {flag}", path.display())]
    Create { path: PathBuf, flag: &'static str, problem: io::Error },
    #[error("look at directory {}: {problem}", path.display())]
    Inspect { path: PathBuf, problem: io::Error },
    #[error("{} is not a directory of mode 0700 that belongs to user {uid}; remove it, or choose another place with {flag}", path.display())]
    NotPrivate { path: PathBuf, uid: u32, flag: &'static str },
}

/// The socket that the agent serves: `given` as it is, else the default, whose directory is made.
///
/// # Errors
/// When the default's directory cannot be made, or is somebody else's.
pub fn socket_to_serve(given: Option<&Path>) -> Result<PathBuf, PathError> {
    let place = match given {
        Some(path) => return Ok(path.to_owned()),
        None => socket_place(&User::current()),
    };
    make(&place, SOCKET_FLAG)?;
    Ok(place.dir().join(SOCKET_NAME))
}

/// The socket that a client calls: `given` as it is, else the default.
///
/// # Errors
/// When the default lies in a directory under the temporary directory that is not the user's own: whoever
/// made it could pretend to be the agent.
pub fn socket_to_call(given: Option<&Path>) -> Result<PathBuf, PathError> {
    let place = match given {
        Some(path) => return Ok(path.to_owned()),
        None => socket_place(&User::current()),
    };
    if let Place::Own { private, uid, .. } = &place
        && private.exists()
    {
        check_private(private, *uid, SOCKET_FLAG)?;
    }
    Ok(place.dir().join(SOCKET_NAME))
}

/// The directory of durable state: `given` as it is, for its lock to make; else the default, which is made.
///
/// # Errors
/// When it cannot be made, or when the one under the temporary directory is somebody else's.
pub fn state_dir(given: Option<&Path>) -> Result<PathBuf, PathError> {
    let user = User::current();
    let place = match given {
        Some(path) => return Ok(path.to_owned()),
        None => state_place(&user),
    };
    match make(&place, STATE_FLAG) {
        Ok(()) => Ok(place.dir().to_owned()),
        // A home that the user cannot write is as good as none.
        Err(PathError::Create { .. }) if user.uid != 0 => {
            let own = user.own("state");
            make(&own, STATE_FLAG)?;
            Ok(own.dir().to_owned())
        }
        Err(error) => Err(error),
    }
}

const SOCKET_FLAG: &str = "--socket";
const STATE_FLAG: &str = "--state-dir";

/// Who asks, and what the environment says of that user's directories.
struct User {
    uid: u32,
    runtime_dir: Option<PathBuf>,
    state_home: Option<PathBuf>,
    home: Option<PathBuf>,
    temp_dir: PathBuf,
}

/// A directory, and whether its parent must be checked.
#[derive(PartialEq, Eq, Debug)]
enum Place {
    Plain(PathBuf),
    /// `dir` is `private` or lies in it.
    Own {
        private: PathBuf,
        dir: PathBuf,
        uid: u32,
    },
}

impl Place {
    fn dir(&self) -> &Path {
        match self {
            Place::Plain(dir) | Place::Own { dir, .. } => dir,
        }
    }
}

impl User {
    fn current() -> User {
        // The XDG specification: a relative path in these is invalid and is ignored.
        let dir = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        User {
            uid: geteuid().as_raw(),
            runtime_dir: dir("XDG_RUNTIME_DIR"),
            state_home: dir("XDG_STATE_HOME"),
            home: dir("HOME"),
            temp_dir: env::temp_dir(),
        }
    }

    fn own(&self, below: &str) -> Place {
        let private = self.temp_dir.join(format!("defib-{}", self.uid));
        let dir = if below.is_empty() { private.clone() } else { private.join(below) };
        Place::Own { private, dir, uid: self.uid }
    }
}

fn socket_place(user: &User) -> Place {
    if user.uid == 0 {
        Place::Plain("/run/defib".into())
    } else if let Some(dir) = &user.runtime_dir {
        Place::Plain(dir.join("defib"))
    } else {
        user.own("")
    }
}

fn state_place(user: &User) -> Place {
    if user.uid == 0 {
        Place::Plain("/var/lib/defib".into())
    } else if let Some(dir) = &user.state_home {
        Place::Plain(dir.join("defib"))
    } else if let Some(dir) = &user.home {
        Place::Plain(dir.join(".local/state/defib"))
    } else {
        user.own("state")
    }
}

fn make(place: &Place, flag: &'static str) -> Result<(), PathError> {
    let create = |path: &Path| {
        let made = std::fs::DirBuilder::new().recursive(true).mode(MODE_PRIVATE).create(path);
        made.map_err(|problem| PathError::Create { path: path.to_owned(), flag, problem })
    };
    if let Place::Own { private, uid, .. } = place {
        create(private)?;
        check_private(private, *uid, flag)?;
    }
    create(place.dir())
}

/// The temporary directory is everybody's: a directory in it proves nothing until its owner is known.
fn check_private(path: &Path, uid: u32, flag: &'static str) -> Result<(), PathError> {
    let found = std::fs::symlink_metadata(path)
        .map_err(|problem| PathError::Inspect { path: path.to_owned(), problem })?;
    if found.is_dir() && found.uid() == uid && found.mode() & MODE_OTHERS == 0 {
        Ok(())
    } else {
        Err(PathError::NotPrivate { path: path.to_owned(), uid, flag })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn user(uid: u32, dirs: [Option<&str>; 3]) -> User {
        let [runtime_dir, state_home, home] = dirs.map(|dir| dir.map(PathBuf::from));
        User { uid, runtime_dir, state_home, home, temp_dir: "/tmp".into() }
    }

    #[test]
    fn places_by_user() {
        let own = |dir: &str| Place::Own { private: "/tmp/defib-7".into(), dir: dir.into(), uid: 7 };
        let plain = |dir: &str| Place::Plain(dir.into());
        let cases = [
            (user(0, [Some("/x"), Some("/y"), Some("/z")]), plain("/run/defib"), plain("/var/lib/defib")),
            (user(7, [Some("/x"), Some("/y"), Some("/z")]), plain("/x/defib"), plain("/y/defib")),
            (user(7, [None, None, Some("/z")]), own("/tmp/defib-7"), plain("/z/.local/state/defib")),
            (user(7, [None, None, None]), own("/tmp/defib-7"), own("/tmp/defib-7/state")),
        ];
        for (user, socket, state) in cases {
            assert_eq!(socket_place(&user), socket);
            assert_eq!(state_place(&user), state);
        }
    }

    #[test]
    fn a_directory_of_others_is_not_trusted() {
        let temp = tempfile::tempdir().unwrap();
        let uid = geteuid().as_raw();
        let own = User { temp_dir: temp.path().to_owned(), ..user(uid, [None, None, None]) }.own("state");
        make(&own, STATE_FLAG).unwrap();
        make(&own, STATE_FLAG).unwrap();
        let Place::Own { private, .. } = &own else { panic!("{own:?}") };
        let not_private = |path: &Path, uid| {
            matches!(check_private(path, uid, STATE_FLAG), Err(PathError::NotPrivate { .. }))
        };
        assert!(not_private(private, uid + 1));
        let link = temp.path().join("link");
        symlink(private, &link).unwrap();
        assert!(not_private(&link, uid));
        std::fs::set_permissions(private, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(not_private(private, uid));
    }
}
