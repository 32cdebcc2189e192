//! What a child becomes, and how that crosses its control socket.

use std::ffi::{CStr, CString};

use thiserror::Error;

use crate::model::limits::SPAWN_SPEC_MAX_BYTES;

/// Everything that the child does between birth and execve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildSpec {
    /// A path, or a bare name that is looked up in the PATH of `env`.
    pub program: CString,
    pub argv: Vec<CString>,
    /// `NAME=value`, complete.
    pub env: Vec<CString>,
    /// Absolute.
    pub working_dir: CString,
    pub output: Output,
    /// `tasks` files of v1 controllers.
    pub v1_tasks: Vec<CString>,
    pub identity: Identity,
    /// A file of the container's own under a path of its choice, in a mount namespace of its own. Left out
    /// without a word when the host forbids it.
    pub bind: Option<BindFile>,
}

/// Where stdout and stderr go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// To the end of this file, made when missing and given to the container's user.
    Log(CString),
    /// To the descriptors that came with the request.
    Passed,
}

/// Who the process is. None keeps what the agent is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub user: Option<u32>,
    pub group: Option<u32>,
}

/// A file that is mounted over another in the child's own mount namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BindFile {
    pub source: CString,
    /// Made as an empty file when missing, since a mount needs a place.
    pub target: CString,
}

/// A description that cannot be sent, or that the child cannot read.
#[derive(Error, PartialEq, Eq, Debug)]
pub enum SpecError {
    #[error("arguments and environment take {bytes} bytes, more than {SPAWN_SPEC_MAX_BYTES}")]
    TooLarge { bytes: usize },
    #[error("the description of the process is malformed")]
    Malformed,
}

impl ChildSpec {
    /// As it goes over the control socket: length, then fields in order. Strings end with NUL, as they hold none.
    pub fn encode(&self) -> Result<Vec<u8>, SpecError> {
        let mut out = Writer { bytes: vec![0; 4] };
        out.string(&self.program);
        out.strings(&self.argv);
        out.strings(&self.env);
        out.string(&self.working_dir);
        out.strings(match &self.output {
            Output::Log(path) => std::slice::from_ref(path),
            Output::Passed => &[],
        });
        out.strings(&self.v1_tasks);
        out.id(self.identity.user);
        out.id(self.identity.group);
        match &self.bind {
            Some(bind) => out.strings(&[bind.source.clone(), bind.target.clone()]),
            None => out.strings(&[]),
        }
        let bytes = out.bytes.len() - 4;
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= SPAWN_SPEC_MAX_BYTES);
        let length = length.ok_or(SpecError::TooLarge { bytes })?;
        out.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        Ok(out.bytes)
    }

    /// The body, after the length.
    pub fn decode(bytes: &[u8]) -> Result<ChildSpec, SpecError> {
        let mut input = Reader { rest: bytes };
        let program = input.string()?;
        let argv = input.strings()?;
        let env = input.strings()?;
        let working_dir = input.string()?;
        let output = match input.strings()?.pop() {
            Some(path) => Output::Log(path),
            None => Output::Passed,
        };
        let v1_tasks = input.strings()?;
        let identity = Identity { user: input.id()?, group: input.id()? };
        let bind = match <[CString; 2]>::try_from(input.strings()?) {
            Ok([source, target]) => Some(BindFile { source, target }),
            Err(none) if none.is_empty() => None,
            Err(_) => return Err(SpecError::Malformed),
        };
        if !input.rest.is_empty() {
            return Err(SpecError::Malformed);
        }
        Ok(ChildSpec { program, argv, env, working_dir, output, v1_tasks, identity, bind })
    }

    /// Value of a variable of the child's environment.
    pub fn variable(&self, name: &str) -> Option<&[u8]> {
        self.env.iter().find_map(|entry| {
            entry.to_bytes().strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
        })
    }
}

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn number(&mut self, value: u32) {
        self.bytes.extend(value.to_ne_bytes());
    }

    fn id(&mut self, value: Option<u32>) {
        self.bytes.push(u8::from(value.is_some()));
        self.number(value.unwrap_or(0));
    }

    fn string(&mut self, value: &CStr) {
        self.bytes.extend(value.to_bytes_with_nul());
    }

    fn strings(&mut self, values: &[CString]) {
        // A list too long for the count is too large as a whole, which `encode` refuses.
        self.number(u32::try_from(values.len()).unwrap_or(u32::MAX));
        values.iter().for_each(|value| self.string(value));
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn number(&mut self) -> Result<u32, SpecError> {
        let (value, rest) = self.rest.split_first_chunk::<4>().ok_or(SpecError::Malformed)?;
        self.rest = rest;
        Ok(u32::from_ne_bytes(*value))
    }

    fn id(&mut self) -> Result<Option<u32>, SpecError> {
        let (&present, rest) = self.rest.split_first().ok_or(SpecError::Malformed)?;
        self.rest = rest;
        let value = self.number()?;
        Ok((present != 0).then_some(value))
    }

    fn string(&mut self) -> Result<CString, SpecError> {
        let text = CStr::from_bytes_until_nul(self.rest).map_err(|_| SpecError::Malformed)?;
        self.rest = &self.rest[text.to_bytes_with_nul().len()..];
        Ok(text.to_owned())
    }

    fn strings(&mut self) -> Result<Vec<CString>, SpecError> {
        (0..self.number()?).map(|_| self.string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = CString> {
        proptest::collection::vec(1u8.., 0..40).prop_map(|bytes| CString::new(bytes).unwrap())
    }

    fn spec() -> impl Strategy<Value = ChildSpec> {
        let texts = || proptest::collection::vec(text(), 0..5);
        let output = prop_oneof![text().prop_map(Output::Log), Just(Output::Passed)];
        let bind =
            proptest::option::of((text(), text()).prop_map(|(source, target)| BindFile { source, target }));
        let identity = (any::<Option<u32>>(), any::<Option<u32>>());
        (text(), texts(), texts(), text(), output, texts(), identity, bind).prop_map(
            |(program, argv, env, working_dir, output, v1_tasks, (user, group), bind)| ChildSpec {
                program,
                argv,
                env,
                working_dir,
                output,
                v1_tasks,
                identity: Identity { user, group },
                bind,
            },
        )
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(spec in spec()) {
            let bytes = spec.encode().unwrap();
            let length = u32::from_ne_bytes(bytes[..4].try_into().unwrap());
            prop_assert_eq!(length as usize, bytes.len() - 4);
            prop_assert_eq!(ChildSpec::decode(&bytes[4..]), Ok(spec));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _decoded = ChildSpec::decode(&bytes);
        }
    }
}
