//! Reads the `format` file of a tracepoint: where its fields lie in the record that a program gets. Fields come and go
//! with kernels (oom/mark_victim has had more than a pid only since 6.9), so no layout is taken for granted.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where tracefs may be mounted: its own place, or that of kernels before 4.1.
const TRACEFS_DIRS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// The largest text that is read. The longest of a kernel 6.18 has 5.5 KB, most of it names of flags.
pub const TEXT_MAX_BYTES: usize = 1024 * 1024;
/// So many fields may a tracepoint have. The most of a kernel 6.18 are 24, with the four common ones.
pub const FIELDS_MAX: usize = 256;

/// Why the layout of a tracepoint is not known.
#[derive(Error, Debug)]
pub enum FormatError {
    #[error("tracefs is not mounted at {} or {}", TRACEFS_DIRS[0], TRACEFS_DIRS[1])]
    NotMounted,
    #[error("{} may not be read", .path.display())]
    Forbidden { path: PathBuf },
    #[error("this kernel has no tracepoint {category}/{name}")]
    NoTracepoint { category: String, name: String },
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the format of a tracepoint has more than {TEXT_MAX_BYTES} bytes")]
    TooLarge,
    #[error("the format of a tracepoint is not UTF-8")]
    NotText,
    #[error("the format of a tracepoint has more than {FIELDS_MAX} fields")]
    TooManyFields,
    #[error("the format of a tracepoint has no fields")]
    NoFields,
    #[error("line {line} of the format of a tracepoint has no valid {what}: `{text}`")]
    Line { line: usize, what: &'static str, text: String },
}

impl FormatError {
    /// What to do about it.
    pub fn cure(&self) -> &'static str {
        match self {
            FormatError::NotMounted => {
                "run as root, or mount tracefs at /sys/kernel/tracing and add CAP_DAC_READ_SEARCH"
            }
            FormatError::Forbidden { .. } => {
                "run as root, or with CAP_DAC_READ_SEARCH as well, outside of kernel lockdown"
            }
            FormatError::NoTracepoint { .. } => "run a kernel that is built with it",
            FormatError::Read { .. }
            | FormatError::TooLarge
            | FormatError::NotText
            | FormatError::TooManyFields
            | FormatError::NoFields
            | FormatError::Line { .. } => "report this with the kernel's version",
        }
    }
}

/// Where a field lies in the record of a tracepoint.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// In bytes, from the beginning of the record with its common fields.
    pub offset: u32,
    /// In bytes.
    pub size: u32,
    /// The field holds a place, not the value: its lower 16 bits are the offset of the value from the beginning of the
    /// record, its upper 16 the length (`__data_loc`, include/trace/stages/stage1_struct_define.h).
    pub is_data_loc: bool,
}

/// The fields of one tracepoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Format {
    fields: Vec<(String, Field)>,
}

impl Format {
    /// The format that the running kernel shows.
    pub fn of_tracepoint(category: &str, name: &str) -> Result<Format, FormatError> {
        Format::below(&TRACEFS_DIRS.map(Path::new), category, name)
    }

    fn below(tracefs_dirs: &[&Path], category: &str, name: &str) -> Result<Format, FormatError> {
        let mut is_mounted = false;
        for dir in tracefs_dirs {
            let events = dir.join("events");
            if let Some(text) = read(&events.join(category).join(name).join("format"))? {
                return Format::parse(&text);
            }
            is_mounted |= events.is_dir();
        }
        if is_mounted {
            return Err(FormatError::NoTracepoint { category: category.to_owned(), name: name.to_owned() });
        }
        Err(FormatError::NotMounted)
    }

    /// Reads the lines that f_show of kernel/trace/trace_events.c writes.
    pub fn parse(text: &str) -> Result<Format, FormatError> {
        if text.len() > TEXT_MAX_BYTES {
            return Err(FormatError::TooLarge);
        }
        let mut fields = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            // Behind it comes C code, which may say anything.
            if text.starts_with("print fmt:") {
                break;
            }
            if let Some(description) = text.strip_prefix("field:") {
                let invalid = |what| FormatError::Line { line, what, text: text.to_owned() };
                fields.extend(field(description).map_err(invalid)?);
            }
            if fields.len() > FIELDS_MAX {
                return Err(FormatError::TooManyFields);
            }
        }
        if fields.is_empty() {
            return Err(FormatError::NoFields);
        }
        Ok(Format { fields })
    }

    /// None if this kernel's tracepoint has no such field.
    pub fn field(&self, name: &str) -> Option<Field> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, field)| *field)
    }
}

/// None if there is no such file.
fn read(path: &Path) -> Result<Option<String>, FormatError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => FormatError::Forbidden { path: path.to_owned() },
        _ => FormatError::Read { path: path.to_owned(), source },
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(TEXT_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    // A text that was cut off may end within a character.
    if bytes.len() > TEXT_MAX_BYTES {
        return Err(FormatError::TooLarge);
    }
    String::from_utf8(bytes).map(Some).map_err(|_| FormatError::NotText)
}

/// `TYPE NAME; offset:N; size:N; signed:N;`. The error names what is missing. None for a kind of field that has no
/// reader here.
fn field(description: &str) -> Result<Option<(String, Field)>, &'static str> {
    let mut parts = description.split(';').map(str::trim);
    let declaration = parts.next().unwrap_or_default();
    let mut number = |label: &'static str| {
        let value = parts.next().and_then(|part| part.strip_prefix(label)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse::<u32>().ok()).ok_or(label)
    };
    let (offset, size) = (number("offset")?, number("size")?);
    offset.checked_add(size).ok_or("end")?;
    let (kind, name) = split_declaration(declaration).ok_or("name")?;
    // Such a field counts from its own end instead of the record's beginning. Taken for another it would mislead.
    if kind.starts_with("__rel_loc") {
        return Ok(None);
    }
    Ok(Some((name.to_owned(), Field { offset, size, is_data_loc: kind.starts_with("__data_loc") })))
}

/// Type and name. An array's length stands behind the name and may be an expression with spaces; that of a
/// `__data_loc` belongs to the type.
fn split_declaration(declaration: &str) -> Option<(&str, &str)> {
    let without_length = match declaration.split_once('[') {
        Some((before, _)) if declaration.ends_with(']') => before.trim_end(),
        Some(_) | None => declaration,
    };
    let (kind, name) = without_length.rsplit_once(char::is_whitespace)?;
    let name = name.trim_start_matches('*');
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some((kind.trim(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Folders in the shape of tracefs.
    const NEW: &str = "tests/data/tracefs-6.18";
    const OLD: &str = "tests/data/tracefs-before-6.9";

    fn place(offset: u32, size: u32) -> Option<Field> {
        Some(Field { offset, size, is_data_loc: false })
    }

    fn check(dir: &str, name: &str, cases: &[(&str, Option<Field>)]) {
        let category = if name.starts_with("sched") { "sched" } else { "oom" };
        let format =
            Format::below(&[Path::new("tests/data/missing"), Path::new(dir)], category, name).unwrap();
        for (field, expected) in cases {
            assert_eq!(format.field(field), *expected, "{name} {field}");
        }
    }

    #[test]
    fn captured_formats_are_read() {
        let comm = Some(Field { offset: 12, size: 4, is_data_loc: true });
        let cases = [
            ("common_type", place(0, 2)),
            ("common_pid", place(4, 4)),
            ("pid", place(8, 4)),
            ("comm", comm),
            ("total_vm", place(16, 8)),
            ("anon_rss", place(24, 8)),
            ("file_rss", place(32, 8)),
            ("shmem_rss", place(40, 8)),
            ("uid", place(48, 4)),
            ("pgtables", place(56, 8)),
            ("oom_score_adj", place(64, 2)),
            ("rss", None),
            ("", None),
        ];
        check(NEW, "mark_victim", &cases);
        check(OLD, "mark_victim", &[("pid", place(8, 4)), ("comm", None), ("total_vm", None), ("uid", None)]);
        let exit = [("comm", place(8, 16)), ("pid", place(24, 4)), ("group_dead", place(32, 1))];
        check(NEW, "sched_process_exit", &exit);
    }

    #[test]
    fn declarations_are_split() {
        let check = |declaration: &str, name: &str, is_data_loc: bool| {
            let text = format!(
                "\tfield:{declaration};\toffset:8;\tsize:4;\tsigned:0;\n\nprint fmt: \"field:int a;\""
            );
            let field = Format::parse(&text).unwrap().field(name);
            assert_eq!(field, Some(Field { offset: 8, size: 4, is_data_loc }), "{declaration}");
        };
        check("int pid", "pid", false);
        check("const char * text", "text", false);
        check("const char *text", "text", false);
        check("unsigned long args[6]", "args", false);
        check("char comm[TASK_COMM_LEN + 1]", "comm", false);
        check("u8 matrix[2][3]", "matrix", false);
        check("u8 spaced [2]", "spaced", false);
        check("__data_loc char[] comm", "comm", true);
        check("__data_loc unsigned long[] list", "list", true);
    }

    #[test]
    fn a_relative_place_is_not_offered() {
        let text = "field:__rel_loc char name[];\toffset:8;\tsize:4;\nfield:int pid;\toffset:12;\tsize:4;";
        let format = Format::parse(text).unwrap();
        assert_eq!((format.field("name"), format.field("pid")), (None, place(12, 4)));
    }

    #[test]
    fn malformed_formats_are_refused_with_the_line() {
        let check = |text: &str, part: &str| {
            let error = Format::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "`{error}` does not contain `{part}`");
        };
        check("", "no fields");
        check("name: x\nprint fmt: \"field:int a; offset:8; size:4;\"", "no fields");
        check("print fmt:\n\tfield:int a; offset:8; size:4;", "no fields");
        check("field:", "line 1 of the format of a tracepoint has no valid offset: `field:`");
        check(
            "\n\tfield:int a;\tsize:4;\toffset:8;",
            "line 2 of the format of a tracepoint has no valid offset",
        );
        check("field:int a;\toffset:8;", "valid size");
        check("field:int a;\toffset:-8;\tsize:4;", "valid offset");
        check("field:int a;\toffset:4294967296;\tsize:4;", "valid offset");
        check("field:int a;\toffset:4294967295;\tsize:4;", "valid end");
        check("field:a;\toffset:8;\tsize:4;", "valid name");
        check("field:int [4];\toffset:8;\tsize:4;", "valid name");
        check("field:int a-b;\toffset:8;\tsize:4;", "valid name");
        check(&"field:int a;\toffset:8;\tsize:4;\n".repeat(FIELDS_MAX + 1), "more than 256 fields");
        check(&" ".repeat(TEXT_MAX_BYTES + 1), "bytes");
    }

    #[test]
    fn damage_is_refused_or_harmless() {
        let text = std::fs::read(format!("{NEW}/events/oom/mark_victim/format")).unwrap();
        for at in 0..text.len() {
            let cut = Format::parse(&String::from_utf8_lossy(&text[..at]));
            drop(cut.map(|format| format.field("pid")));
            for mask in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
                let mut flipped = text.clone();
                flipped[at] ^= mask;
                let format = Format::parse(&String::from_utf8_lossy(&flipped));
                drop(format.map(|format| format.field("pid")));
            }
        }
    }

    #[test]
    fn what_cannot_be_found_is_named_with_the_cure() {
        let error = |dir: &str, name: &str| {
            let dirs = [Path::new(dir), Path::new("tests/data/missing")];
            Format::below(&dirs, "oom", name).unwrap_err()
        };
        let not_mounted = error("tests/data/missing", "mark_victim");
        assert!(not_mounted.to_string().contains("tracefs is not mounted"), "{not_mounted}");
        assert!(not_mounted.cure().contains("mount"), "{}", not_mounted.cure());
        let novel = error(NEW, "novel").to_string();
        assert!(novel.contains("no tracepoint oom/novel"), "{novel}");
        let forbidden = FormatError::Forbidden { path: PathBuf::from("/x") }.to_string();
        assert!(forbidden.contains("/x may not be read"), "{forbidden}");
    }

    /// Needs no mount and no root: whatever the machine allows, the answer says what it is.
    #[test]
    fn the_running_kernel_is_asked() {
        match Format::of_tracepoint("oom", "mark_victim") {
            Ok(format) => assert_eq!(format.field("pid"), place(8, 4)),
            Err(FormatError::NotMounted | FormatError::Forbidden { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
